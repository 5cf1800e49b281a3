/*-------------------------------------------------------------------------
 *
 * event.c
 *	  Facts: their record in the log, and their notification.
 *
 * A command appends an event when its locks are held, so that ids grow in
 * the order of causes.  With alloc.notify = relay the record says that the
 * relay is to send it, and that is all.  With alloc.notify = commit the event
 * is also queued for NOTIFY in the caller's transaction: PostgreSQL sends it at
 * commit, and forgets it with a transaction or savepoint that is rolled back.
 * The doorbell on channel alloc_events is rung once, just before the commit,
 * with the highest id among the events that were not rolled back.
 *
 * Memory: the stack of highest ids, one for each subtransaction that appended
 * an event, is in TopTransactionContext.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "event.h"
#include "handler.h"
#include "relay.h"
#include "shared.h"
#include "stat.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

int			alloc_notify = ALLOC_NOTIFY_AUTO;
char	   *alloc_traceparent;

/* The highest id that a (sub)transaction has queued for NOTIFY. */
typedef struct Doorbell
{
	int			nest_level;
	int64		event_id;
	struct Doorbell *outer;
} Doorbell;

static Doorbell *doorbell;

static const NullableDatum no_value = {0, true};

static void append_event(AllocEventRow *event);
static AllocNotify effective_notify(void);
static const text *current_traceparent(void);
static void note_for_doorbell(int64 event_id);
static void ring_doorbell(XactEvent event, void *arg);
static void merge_doorbell(SubXactEvent event, SubTransactionId my_subid,
						   SubTransactionId parent_subid, void *arg);
static AllocEventRow new_event(const char *type, const text *sku);
static AllocEventRow new_line_event(const char *type, const AllocLine *line,
									const text *batchref);
static NullableDatum eta_of(const AllocPlanBatch *plan);
static NullableDatum some_value(Datum value);

/*
 * alloc_event_init
 *		Once per backend, when the library is loaded.
 */
void
alloc_event_init(void)
{
	RegisterXactCallback(ring_doorbell, NULL);
	RegisterSubXactCallback(merge_doorbell, NULL);
}

/*
 * alloc_event_batch_created, alloc_event_quantity_changed
 *		A batch was bought; its purchased quantity became qty.
 */
void
alloc_event_batch_created(const AllocBatchRow *batch)
{
	AllocEventRow event = new_event("batch_created", batch->sku);

	event.batchref = batch->ref;
	event.qty = some_value(Int64GetDatum(batch->purchased));
	event.eta = eta_of(&batch->plan);
	append_event(&event);
}

void
alloc_event_quantity_changed(const AllocBatchRow *batch, int64 qty)
{
	AllocEventRow event = new_event("batch_quantity_changed", batch->sku);

	event.batchref = batch->ref;
	event.qty = some_value(Int64GetDatum(qty));
	event.old_qty = some_value(Int64GetDatum(batch->purchased));
	append_event(&event);
}

/*
 * alloc_event_allocated, alloc_event_deallocated, alloc_event_out_of_stock
 *		A batch, with its lines before, serves a line, whose row has the event's
 *		id already, or holds it; no longer serves it, or holds it; no batch
 *		can.
 */
void
alloc_event_allocated(int64 event_id, const AllocLine *line,
					  const text *batchref, const AllocChain *before)
{
	const char *type = line->expires_at == 0 ? "allocated" : "held";
	AllocEventRow event = new_line_event(type, line, batchref);

	event.event_id = event_id;
	event.expires_at = line->expires_at;
	event.before = *before;
	append_event(&event);
	alloc_stat_count(line->expires_at == 0 ? ALLOC_STAT_LINES_ALLOCATED :
					 ALLOC_STAT_LINES_HELD);
}

void
alloc_event_deallocated(const AllocLine *line, const text *batchref)
{
	const char *type = line->expires_at == 0 ? "deallocated" : "hold_released";
	AllocEventRow event = new_line_event(type, line, batchref);

	event.expires_at = line->expires_at;
	append_event(&event);
	alloc_stat_count(batchref == NULL ? ALLOC_STAT_BACKORDERS_CANCELED :
					 line->expires_at == 0 ? ALLOC_STAT_LINES_DEALLOCATED :
					 ALLOC_STAT_HOLDS_RELEASED);
}

/*
 * alloc_event_extended, alloc_event_confirmed, alloc_event_hold_expired
 *		A line that is held is held until another moment; it is allocated for
 *		good; its hold is over.  The first two name the event that allocated
 *		the line, as previous; the first tells as old_qty what it held before.
 */
void
alloc_event_extended(const AllocLineRow *row, const text *batchref)
{
	AllocEventRow event = new_line_event("held", &row->line, batchref);

	event.old_qty = event.qty;
	event.expires_at = row->line.expires_at;
	event.before.newest = row->event_id;
	append_event(&event);
}

void
alloc_event_confirmed(const AllocLineRow *row, const text *batchref)
{
	AllocEventRow event = new_line_event("confirmed", &row->line, batchref);

	event.before.newest = row->event_id;
	append_event(&event);
	alloc_stat_count(ALLOC_STAT_HOLDS_CONFIRMED);
}

void
alloc_event_hold_expired(const AllocLine *line, const text *batchref)
{
	AllocEventRow event = new_line_event("hold_expired", line, batchref);

	event.expires_at = line->expires_at;
	append_event(&event);
	alloc_stat_count(ALLOC_STAT_HOLDS_EXPIRED);
}

void
alloc_event_out_of_stock(const AllocLine *line)
{
	AllocEventRow event = new_line_event("out_of_stock", line, NULL);

	append_event(&event);
	alloc_stat_count(ALLOC_STAT_OUT_OF_STOCK);
}

/*
 * alloc_event_backordered
 *		A line waits for stock; its place in the queue has the event's id
 *		already.
 */
void
alloc_event_backordered(int64 event_id, const AllocLine *line)
{
	AllocEventRow event = new_line_event("backordered", line, NULL);

	event.event_id = event_id;
	append_event(&event);
	alloc_stat_count(ALLOC_STAT_LINES_BACKORDERED);
}

/*
 * alloc_event_eta_changed, alloc_event_promise_changed
 *		The day of arrival of a batch became that of now, and so did the day
 *		promised to a line that it serves.
 */
void
alloc_event_eta_changed(const AllocBatchRow *batch, const AllocPlanBatch *now)
{
	AllocEventRow event = new_event("batch_eta_changed", batch->sku);

	event.batchref = batch->ref;
	event.eta = eta_of(now);
	event.old_eta = eta_of(&batch->plan);
	append_event(&event);
}

void
alloc_event_promise_changed(const AllocLine *line, const AllocBatchRow *batch,
							const AllocPlanBatch *now)
{
	AllocEventRow event = new_line_event("promise_changed", line, batch->ref);

	event.eta = eta_of(now);
	event.old_eta = eta_of(&batch->plan);
	append_event(&event);
	alloc_stat_count(ALLOC_STAT_PROMISES_CHANGED);
}

/*
 * alloc_event_shipped
 *		A line has left; its row has the event's id already.
 */
void
alloc_event_shipped(int64 event_id, const AllocLine *line,
					const text *batchref)
{
	AllocEventRow event = new_line_event("shipped", line, batchref);

	event.event_id = event_id;
	append_event(&event);
	alloc_stat_count(ALLOC_STAT_LINES_SHIPPED);
}

/*
 * alloc_event_repaired
 *		Rows were made equal to the log again: those of the line of an order,
 *		those of a batch, or a product; qty and old_qty, bigint, were its units
 *		then and before.
 */
void
alloc_event_repaired(const text *sku, const text *batchref,
					 const text *orderid, NullableDatum qty,
					 NullableDatum old_qty)
{
	AllocEventRow event = new_event("repaired", sku);

	event.batchref = batchref;
	event.orderid = orderid;
	event.qty = qty;
	event.old_qty = old_qty;
	append_event(&event);
}

/*
 * alloc_event_send
 *		Queues an event for NOTIFY, on its type's channel, and the doorbell.
 */
void
alloc_event_send(const AllocEventRow *event)
{
	StringInfoData json;
	char		channel[NAMEDATALEN];

	snprintf(channel, sizeof(channel), "alloc_%s", event->type);
	initStringInfo(&json);
	alloc_event_json(&json, event);
	Async_Notify(channel, json.data);
	pfree(json.data);
	note_for_doorbell(event->event_id);
}

/*
 * Gives the event its moment and, if it has none, its id, records it, and
 * queues its NOTIFY.
 */
static void
append_event(AllocEventRow *event)
{
	AllocNotify notify = effective_notify();

	if (event->event_id == 0)
		event->event_id = alloc_store_next_event_id();
	event->at = GetCurrentStatementStartTimestamp();
	event->relay = notify == ALLOC_NOTIFY_RELAY;
	event->traceparent = current_traceparent();
	alloc_store_insert_event(event);
	alloc_handler_note_event(event);
	if (notify == ALLOC_NOTIFY_COMMIT)
		alloc_event_send(event);
	else if (notify == ALLOC_NOTIFY_RELAY)
		alloc_relay_note_work();
}

/*
 * What alloc.notify = auto means here.
 */
static AllocNotify
effective_notify(void)
{
	if (alloc_notify != ALLOC_NOTIFY_AUTO)
		return alloc_notify;
	return alloc_shared_available() ? ALLOC_NOTIFY_RELAY : ALLOC_NOTIFY_COMMIT;
}

/*
 * The setting alloc.traceparent, NULL if it is empty; valid for the command.
 */
static const text *
current_traceparent(void)
{
	if (alloc_traceparent == NULL || alloc_traceparent[0] == '\0')
		return NULL;
	return cstring_to_text(alloc_traceparent);
}

static void
note_for_doorbell(int64 event_id)
{
	int			level = GetCurrentTransactionNestLevel();

	if (doorbell == NULL || doorbell->nest_level < level)
	{
		Doorbell   *inner = MemoryContextAlloc(TopTransactionContext,
											   sizeof(Doorbell));

		inner->nest_level = level;
		inner->event_id = 0;
		inner->outer = doorbell;
		doorbell = inner;
	}
	doorbell->event_id = Max(doorbell->event_id, event_id);
}

/*
 * Before a commit, while notifications can still be queued.
 */
static void
ring_doorbell(XactEvent event, void *arg)
{
	char		payload[MAXINT8LEN + 1];

	if (doorbell == NULL)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		pg_lltoa(doorbell->event_id, payload);
		Async_Notify("alloc_events", payload);
	}
	if (event != XACT_EVENT_PRE_PREPARE)
		doorbell = NULL;
}

/*
 * The end of a subtransaction: its events become the outer one's, or are
 * forgotten.
 */
static void
merge_doorbell(SubXactEvent event, SubTransactionId my_subid,
			   SubTransactionId parent_subid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	Doorbell   *ended = doorbell;

	if (doorbell == NULL || doorbell->nest_level < level)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		doorbell = ended->outer;
		pfree(ended);
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		if (ended->outer && ended->outer->nest_level == level - 1)
		{
			doorbell = ended->outer;
			doorbell->event_id = Max(doorbell->event_id, ended->event_id);
			pfree(ended);
		}
		else
			doorbell->nest_level = level - 1;
	}
}

static AllocEventRow
new_event(const char *type, const text *sku)
{
	AllocEventRow event = {
		.type = type,.sku = sku,
		.qty = no_value,.old_qty = no_value,
		.eta = no_value,.old_eta = no_value
	};

	return event;
}

static AllocEventRow
new_line_event(const char *type, const AllocLine *line, const text *batchref)
{
	AllocEventRow event = new_event(type, line->sku);

	event.orderid = line->orderid;
	event.qty = some_value(Int64GetDatum(line->qty));
	event.batchref = batchref;
	return event;
}

static NullableDatum
eta_of(const AllocPlanBatch *plan)
{
	return plan->in_stock ? no_value : some_value(DateADTGetDatum(plan->eta));
}

static NullableDatum
some_value(Datum value)
{
	NullableDatum result = {value, false};

	return result;
}
