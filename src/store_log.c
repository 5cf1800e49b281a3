/*-------------------------------------------------------------------------
 *
 * store_log.c
 *	  The repository's part about the log of events.  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "position.h"
#include "store_private.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* What alloc_store_era() said when table era was opened last. */
static int64 era;

static int64 current_xact(void);

/*
 * alloc_store_next_event_id
 *		To be drawn when the locks are held, so that the order of ids is the
 *		order of causes.
 */
int64
alloc_store_next_event_id(void)
{
	/* Marks rely on it: the transaction has its id before its first event. */
	(void) GetTopTransactionId();
	return alloc_table_nextval(&alloc_tables[EVENT]);
}

/*
 * alloc_store_last_event_id
 *		The last id that anybody has drawn.
 */
int64
alloc_store_last_event_id(void)
{
	return alloc_table_lastval(&alloc_tables[EVENT]);
}

/*
 * alloc_store_era
 *		The era, as the upper part of a transaction in the log.
 */
int64
alloc_store_era(void)
{
	AllocTable *table = &alloc_tables[ERA];
	TableScanDesc scan;
	int64		n = 0;

	/* Who waited for rebuild() has an older snapshot. */
	PushActiveSnapshot(GetLatestSnapshot());
	scan = alloc_table_scan_all(table, NULL, 0);
	while (alloc_table_next_of_all(table, scan))
		n++;
	table_endscan(scan);
	PopActiveSnapshot();
	if (n >= INT64CONST(1) << (63 - ALLOC_ERA_SHIFT))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("table \"alloc.%s\" has too many rows", table->name)));
	era = n << ALLOC_ERA_SHIFT;
	return era;
}

/*
 * alloc_store_begin_era
 *		Makes the era greater than above, the number of one.  What backends
 *		have cached of the table ends with it.
 */
void
alloc_store_begin_era(int64 above)
{
	AllocTable *table = &alloc_tables[ERA];

	for (int64 n = alloc_store_era() >> ALLOC_ERA_SHIFT; n <= above; n++)
	{
		alloc_row_set(alloc_table_row(table), ERA_C_BEGAN_AT,
					  TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
		alloc_table_insert(table);
	}
	CacheInvalidateRelcacheByRelid(table->relid);
}

/*
 * Our transaction, as the log knows it.
 */
static int64
current_xact(void)
{
	/* No era ends while its table is the same. */
	if (alloc_table_version(&alloc_tables[ERA]) == 0)
		(void) alloc_store_era();
	return era | (int64) U64FromFullTransactionId(GetTopFullTransactionId());
}

/*
 * alloc_store_insert_event
 */
void
alloc_store_insert_event(const AllocEventRow *event)
{
	TupleTableSlot *row = alloc_table_row(&alloc_tables[EVENT]);
	text	   *type = cstring_to_text(event->type);

	alloc_row_set(row, EVENT_C_ID, Int64GetDatum(event->event_id));
	alloc_row_set(row, EVENT_C_AT, TimestampTzGetDatum(event->at));
	alloc_row_set(row, EVENT_C_XACT, Int64GetDatum(current_xact()));
	alloc_row_set_nullable(row, EVENT_C_QTY, event->qty);
	alloc_row_set_nullable(row, EVENT_C_OLD_QTY, event->old_qty);
	alloc_row_set_nullable(row, EVENT_C_ETA, event->eta);
	alloc_row_set_nullable(row, EVENT_C_OLD_ETA, event->old_eta);
	alloc_row_set_time(row, EVENT_C_EXPIRES, event->expires_at);
	alloc_row_set(row, EVENT_C_RELAY, BoolGetDatum(event->relay));
	alloc_row_set_text(row, EVENT_C_TYPE, type);
	alloc_row_set_text(row, EVENT_C_SKU, event->sku);
	alloc_row_set_text(row, EVENT_C_ORDERID, event->orderid);
	alloc_row_set_text(row, EVENT_C_BATCHREF, event->batchref);
	alloc_row_set_text(row, EVENT_C_TRACEPARENT, event->traceparent);
	alloc_row_set_chain(row, EVENT_C_PREVIOUS, EVENT_C_MERGED, &event->before);
	if (alloc_tables[EVENT].buffer != NULL)
		(void) alloc_table_buffer_row(&alloc_tables[EVENT]);
	else
		alloc_table_insert(&alloc_tables[EVENT]);
	pfree(type);
}

/*
 * alloc_store_begin_bulk
 *		From now on lines, by alloc_store_add_line(), and events are written
 *		many at a time.
 */
void
alloc_store_begin_bulk(void)
{
	alloc_table_begin_buffer(&alloc_tables[ALLOCATION], ALLOCATION_LINE);
	alloc_table_begin_buffer(&alloc_tables[EVENT], -1);
}

/*
 * alloc_store_end_bulk
 *		Writes what is left.  False: as alloc_store_add_line().
 */
bool
alloc_store_end_bulk(void)
{
	if (!alloc_table_end_buffer(&alloc_tables[ALLOCATION]))
		return false;
	(void) alloc_table_end_buffer(&alloc_tables[EVENT]);
	return true;
}

/*
 * alloc_store_read_event
 *		The event that a scan found.  What it points to is the scan's, or in
 *		the current memory context.
 */
void
alloc_store_read_event(AllocEventRow *event)
{
	const AllocTable *table = &alloc_tables[EVENT];

	memset(event, 0, sizeof(*event));
	event->event_id = DatumGetInt64(alloc_row_get(table, EVENT_C_ID));
	event->at = DatumGetTimestampTz(alloc_row_get(table, EVENT_C_AT));
	event->xact = DatumGetInt64(alloc_row_get(table, EVENT_C_XACT));
	event->qty = alloc_row_get_nullable(table, EVENT_C_QTY);
	event->old_qty = alloc_row_get_nullable(table, EVENT_C_OLD_QTY);
	event->eta = alloc_row_get_nullable(table, EVENT_C_ETA);
	event->old_eta = alloc_row_get_nullable(table, EVENT_C_OLD_ETA);
	event->expires_at = alloc_row_get_time(table, EVENT_C_EXPIRES);
	event->relay = DatumGetBool(alloc_row_get(table, EVENT_C_RELAY));
	event->type = TextDatumGetCString(alloc_row_get(table, EVENT_C_TYPE));
	event->sku = DatumGetTextPP(alloc_row_get(table, EVENT_C_SKU));
	event->orderid = alloc_row_get_text(table, EVENT_C_ORDERID);
	event->batchref = alloc_row_get_text(table, EVENT_C_BATCHREF);
	event->traceparent = alloc_row_get_text(table, EVENT_C_TRACEPARENT);
}
