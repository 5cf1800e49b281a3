/*-------------------------------------------------------------------------
 *
 * store_handler.c
 *	  The repository's part about handlers: who subscribes to what, and what
 *	  they failed on.  See store.c.
 *
 * Memory: results are allocated in the caller's context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "store_private.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

static void set_subscription_keys(ScanKey keys, const char *type,
								  const char *handler);
static void read_subscription(AllocSubscription *subscription);
static text *reader_name(int64 subscription_id);
static void tell_everybody(void);
static void set_delivery(const AllocDelivery *delivery);
static void read_delivery(AllocDelivery *delivery);
static size_t delete_deliveries(int64 subscription_id);

/*
 * alloc_store_subscribe
 *		Records a subscription, whose id is set; an asynchronous one begins
 *		with what commits from now on.  False: there is one.
 */
bool
alloc_store_subscribe(AllocSubscription *subscription)
{
	AllocTable *table = &alloc_tables[SUBSCRIPTION];
	TupleTableSlot *row;
	ScanKeyData keys[2];
	int64		consumer_id;

	set_subscription_keys(keys, subscription->event_type,
						  subscription->handler);
	if (alloc_store_settle_key(table, SUBSCRIPTION_HANDLER, keys, 2))
		return false;
	subscription->id = alloc_table_nextval(table);
	row = alloc_table_row(table);
	alloc_row_set(row, SUBSCRIPTION_C_ID, Int64GetDatum(subscription->id));
	alloc_row_set(row, SUBSCRIPTION_C_ROLE, ObjectIdGetDatum(subscription->role));
	alloc_row_set_text(row, SUBSCRIPTION_C_TYPE,
					   cstring_to_text(subscription->event_type));
	alloc_row_set_text(row, SUBSCRIPTION_C_HANDLER,
					   cstring_to_text(subscription->handler));
	alloc_row_set_text(row, SUBSCRIPTION_C_MODE,
					   cstring_to_text(subscription->sync ? "sync" : "async"));
	alloc_row_set_text(row, SUBSCRIPTION_C_PATH,
					   cstring_to_text(subscription->search_path));
	if (!alloc_table_insert_new(table, SUBSCRIPTION_HANDLER))
		return false;
	if (!subscription->sync)
		(void) alloc_store_create_reader(ALLOC_READER_HANDLER,
										 reader_name(subscription->id), true,
										 &consumer_id);
	tell_everybody();
	return true;
}

/*
 * alloc_store_unsubscribe
 *		False: there is no such subscription.
 */
bool
alloc_store_unsubscribe(const char *type, const char *handler)
{
	AllocTable *table = &alloc_tables[SUBSCRIPTION];
	AllocSubscription subscription;
	ScanKeyData keys[2];
	ItemPointerData tid;

	set_subscription_keys(keys, type, handler);
	do
	{
		if (!alloc_table_find(table, SUBSCRIPTION_HANDLER, keys, 2))
			return false;
		read_subscription(&subscription);
		tid = table->found->tts_tid;
		if (alloc_store_is_unchanged(alloc_table_delete(table, &tid)))
			break;
		alloc_store_look();
	} while (true);
	if (!subscription.sync)
		(void) alloc_store_drop_reader(ALLOC_READER_HANDLER,
									   reader_name(subscription.id));
	(void) delete_deliveries(subscription.id);
	tell_everybody();
	return true;
}

/*
 * alloc_store_subscriptions_version
 *		A number that is the same for as long as the subscriptions are; 0: they
 *		may have changed.
 */
uint32
alloc_store_subscriptions_version(void)
{
	return alloc_table_version(&alloc_tables[SUBSCRIPTION]);
}

/*
 * alloc_store_subscriptions
 *		All there are now, whatever the transaction's snapshot says.
 */
List *
alloc_store_subscriptions(void)
{
	AllocTable *table = &alloc_tables[SUBSCRIPTION];
	List	   *subscriptions = NIL;
	TableScanDesc scan;

	/* Locks the table, and so hears of changes before the snapshot is taken. */
	alloc_table_open(table);
	PushActiveSnapshot(GetLatestSnapshot());
	scan = alloc_table_scan_all(table, NULL, 0);
	while (alloc_table_next_of_all(table, scan))
	{
		AllocSubscription *subscription = palloc(sizeof(*subscription));

		read_subscription(subscription);
		subscriptions = lappend(subscriptions, subscription);
	}
	table_endscan(scan);
	PopActiveSnapshot();
	return subscriptions;
}

/*
 * alloc_store_find_subscription
 */
bool
alloc_store_find_subscription(int64 subscription_id,
							  AllocSubscription *subscription)
{
	ScanKeyData key;

	alloc_key_int8(&key, 1, subscription_id);
	if (!alloc_table_find(&alloc_tables[SUBSCRIPTION], SUBSCRIPTION_PKEY, &key, 1))
		return false;
	read_subscription(subscription);
	return true;
}

/*
 * alloc_store_lock_handler
 *		The reader of an asynchronous subscription, locked.  False: it is gone.
 */
bool
alloc_store_lock_handler(int64 subscription_id, AllocReader *reader)
{
	int64		consumer_id;

	return alloc_store_find_reader(ALLOC_READER_HANDLER,
								   reader_name(subscription_id), &consumer_id) &&
		alloc_store_lock_reader(consumer_id, reader);
}

/*
 * alloc_store_next_delivery
 *		The one of a subscription that is due first.  False: nothing is to be
 *		tried again.
 */
bool
alloc_store_next_delivery(int64 subscription_id, AllocDelivery *delivery)
{
	ScanKeyData key;

	alloc_key_int8(&key, 1, subscription_id);
	if (!alloc_table_find(&alloc_tables[DELIVERY], DELIVERY_DUE, &key, 1))
		return false;
	read_delivery(delivery);
	return true;
}

/*
 * alloc_store_find_delivery
 */
bool
alloc_store_find_delivery(int64 subscription_id, int64 event_id,
						  AllocDelivery *delivery)
{
	ScanKeyData keys[2];

	alloc_key_int8(&keys[0], 1, subscription_id);
	alloc_key_int8(&keys[1], 2, event_id);
	if (!alloc_table_find(&alloc_tables[DELIVERY], DELIVERY_EVENT, keys, 2))
		return false;
	read_delivery(delivery);
	return true;
}

/*
 * alloc_store_insert_delivery, alloc_store_update_delivery,
 * alloc_store_delete_delivery
 *		A failure, one more, and none any more.
 */
void
alloc_store_insert_delivery(AllocDelivery *delivery)
{
	AllocTable *table = &alloc_tables[DELIVERY];

	delivery->id = alloc_table_nextval(table);
	set_delivery(delivery);
	alloc_table_insert(table);
}

bool
alloc_store_update_delivery(AllocDelivery *delivery)
{
	set_delivery(delivery);
	return alloc_store_is_unchanged(alloc_table_update(&alloc_tables[DELIVERY],
													   &delivery->tid));
}

bool
alloc_store_delete_delivery(AllocDelivery *delivery)
{
	return alloc_store_is_unchanged(alloc_table_delete(&alloc_tables[DELIVERY],
													   &delivery->tid));
}

/*
 * alloc_store_retry_dead
 *		Makes all dead letters due now, as if they had not been tried; returns
 *		how many.
 */
int64
alloc_store_retry_dead(TimestampTz now)
{
	AllocTable *table = &alloc_tables[DELIVERY];
	TableScanDesc scan = alloc_table_scan_all(table, NULL, 0);
	List	   *dead = NIL;
	ListCell   *cell;
	int64		retried = 0;

	while (alloc_table_next_of_all(table, scan))
	{
		AllocDelivery *delivery = palloc(sizeof(AllocDelivery));

		read_delivery(delivery);
		if (delivery->next_at == 0)
			dead = lappend(dead, delivery);
		else
			pfree(delivery);
	}
	table_endscan(scan);
	foreach(cell, dead)
	{
		AllocDelivery *delivery = lfirst(cell);
		AllocSubscription subscription;

		if (!alloc_store_find_subscription(delivery->subscription_id,
										   &subscription))
			continue;
		delivery->next_at = now;
		delivery->attempts = 0;
		retried += alloc_store_update_delivery(delivery);
	}
	return retried;
}

/*
 * alloc_store_find_event
 *		What it points to lasts until the store is used again.
 */
bool
alloc_store_find_event(int64 event_id, AllocEventRow *event)
{
	ScanKeyData key;

	alloc_key_int8(&key, 1, event_id);
	if (!alloc_table_find(&alloc_tables[EVENT], EVENT_PKEY, &key, 1))
		return false;
	alloc_store_read_event(event);
	return true;
}

static void
set_subscription_keys(ScanKey keys, const char *type, const char *handler)
{
	alloc_key_text(&keys[0], 1, cstring_to_text(type));
	alloc_key_text(&keys[1], 2, cstring_to_text(handler));
}

static void
read_subscription(AllocSubscription *subscription)
{
	const AllocTable *table = &alloc_tables[SUBSCRIPTION];

	subscription->id = DatumGetInt64(alloc_row_get(table, SUBSCRIPTION_C_ID));
	subscription->role = DatumGetObjectId(alloc_row_get(table, SUBSCRIPTION_C_ROLE));
	subscription->event_type = TextDatumGetCString(alloc_row_get(table, SUBSCRIPTION_C_TYPE));
	subscription->handler = TextDatumGetCString(alloc_row_get(table, SUBSCRIPTION_C_HANDLER));
	subscription->sync = strcmp(TextDatumGetCString(alloc_row_get(table, SUBSCRIPTION_C_MODE)),
								"sync") == 0;
	subscription->search_path = TextDatumGetCString(alloc_row_get(table, SUBSCRIPTION_C_PATH));
}

static text *
reader_name(int64 subscription_id)
{
	return cstring_to_text(psprintf(INT64_FORMAT, subscription_id));
}

/*
 * What each backend keeps of the subscriptions is stale when we commit.
 */
static void
tell_everybody(void)
{
	CacheInvalidateRelcache(alloc_tables[SUBSCRIPTION].rel);
}

static void
set_delivery(const AllocDelivery *delivery)
{
	TupleTableSlot *row = alloc_table_row(&alloc_tables[DELIVERY]);

	alloc_row_set(row, DELIVERY_C_ID, Int64GetDatum(delivery->id));
	alloc_row_set(row, DELIVERY_C_SUBSCRIPTION, Int64GetDatum(delivery->subscription_id));
	alloc_row_set(row, DELIVERY_C_EVENT, Int64GetDatum(delivery->event_id));
	alloc_row_set(row, DELIVERY_C_AT, TimestampTzGetDatum(delivery->at));
	if (delivery->next_at == 0)
		alloc_row_set_null(row, DELIVERY_C_NEXT);
	else
		alloc_row_set(row, DELIVERY_C_NEXT, TimestampTzGetDatum(delivery->next_at));
	alloc_row_set(row, DELIVERY_C_ATTEMPTS, Int64GetDatum(delivery->attempts));
	alloc_row_set_text(row, DELIVERY_C_HANDLER, cstring_to_text(delivery->handler));
	alloc_row_set_text(row, DELIVERY_C_ERROR, cstring_to_text(delivery->last_error));
}

static void
read_delivery(AllocDelivery *delivery)
{
	const AllocTable *table = &alloc_tables[DELIVERY];

	delivery->tid = table->found->tts_tid;
	delivery->id = DatumGetInt64(alloc_row_get(table, DELIVERY_C_ID));
	delivery->subscription_id = DatumGetInt64(alloc_row_get(table, DELIVERY_C_SUBSCRIPTION));
	delivery->event_id = DatumGetInt64(alloc_row_get(table, DELIVERY_C_EVENT));
	delivery->at = DatumGetTimestampTz(alloc_row_get(table, DELIVERY_C_AT));
	delivery->next_at = table->found->tts_isnull[DELIVERY_C_NEXT] ? 0 :
		DatumGetTimestampTz(alloc_row_get(table, DELIVERY_C_NEXT));
	delivery->attempts = DatumGetInt64(alloc_row_get(table, DELIVERY_C_ATTEMPTS));
	delivery->handler = TextDatumGetCString(alloc_row_get(table, DELIVERY_C_HANDLER));
	delivery->last_error = TextDatumGetCString(alloc_row_get(table, DELIVERY_C_ERROR));
}

/*
 * Those of a subscription that were to be tried again.
 */
static size_t
delete_deliveries(int64 subscription_id)
{
	AllocDelivery delivery;
	size_t		n = 0;

	while (alloc_store_next_delivery(subscription_id, &delivery))
	{
		n += alloc_store_delete_delivery(&delivery);
		alloc_store_look();
	}
	return n;
}
