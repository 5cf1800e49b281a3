/*-------------------------------------------------------------------------
 *
 * store_line.c
 *	  The repository's part about order lines.  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "share.h"
#include "store_private.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

static void set_line_keys(ScanKey keys, const text *orderid, const text *sku);
static void set_line(TupleTableSlot *row, const AllocLine *line,
					 int64 batch_id, int64 event_id);

/*
 * alloc_store_find_line
 *		The line of an order, if a batch serves it.
 */
bool
alloc_store_find_line(const text *orderid, const text *sku, AllocLineRow *row)
{
	ScanKeyData keys[2];

	set_line_keys(keys, orderid, sku);
	if (!alloc_table_find(&alloc_tables[ALLOCATION], ALLOCATION_LINE, keys, 2))
		return false;
	alloc_line_read(row);
	return true;
}

/*
 * alloc_store_settle_line
 *		Like alloc_store_find_line(), but sees a line as well that others have
 *		committed since the last look, and waits for those who are about to.
 */
bool
alloc_store_settle_line(const AllocLine *line, AllocLineRow *row)
{
	ScanKeyData keys[2];

	set_line_keys(keys, line->orderid, line->sku);
	if (!alloc_store_settle_key(&alloc_tables[ALLOCATION], ALLOCATION_LINE,
								keys, 2))
		return false;
	alloc_line_read(row);
	/* The line may be newer than the last look: so may be its batch. */
	alloc_store_look();
	return true;
}

/*
 * alloc_store_line_is_coming
 *		Does anybody have a line that the last look did not see?
 */
bool
alloc_store_line_is_coming(const AllocLine *line)
{
	ScanKeyData keys[2];
	TransactionId busy;

	set_line_keys(keys, line->orderid, line->sku);
	return alloc_table_probe(&alloc_tables[ALLOCATION], ALLOCATION_LINE, keys,
							 2, &busy);
}

/*
 * alloc_store_insert_line
 *		Records that a batch serves a line.  False: somebody else was faster
 *		with this line, and nothing is recorded.
 */
bool
alloc_store_insert_line(const AllocLine *line, int64 batch_id, int64 event_id)
{
	AllocTable *table = &alloc_tables[ALLOCATION];

	set_line(alloc_table_row(table), line, batch_id, event_id);
	return alloc_table_insert_new(table, ALLOCATION_LINE);
}

/*
 * alloc_store_add_line
 *		Like alloc_store_insert_line(), between alloc_store_begin_bulk() and
 *		alloc_store_end_bulk().  False: somebody has this line or one before,
 *		or it was added twice; what was done so far is to be rolled back.
 */
bool
alloc_store_add_line(const AllocLine *line, int64 batch_id, int64 event_id)
{
	AllocTable *table = &alloc_tables[ALLOCATION];

	set_line(alloc_table_row(table), line, batch_id, event_id);
	return alloc_table_buffer_row(table);
}

/*
 * alloc_store_move_line
 *		Gives a line another batch.  The caller has locked the slots of the old
 *		one.
 */
void
alloc_store_move_line(const AllocLineRow *row, int64 batch_id, int64 event_id)
{
	AllocTable *table = &alloc_tables[ALLOCATION];
	ItemPointerData tid = row->tid;

	set_line(alloc_table_row(table), &row->line, batch_id, event_id);
	alloc_store_require_unchanged(alloc_table_update(table, &tid), table);
}

/*
 * alloc_store_rewrite_line
 *		Changes until when a line is held.  The caller has locked its hold.
 */
void
alloc_store_rewrite_line(const AllocLineRow *row)
{
	alloc_store_move_line(row, row->batch_id, row->event_id);
}

/*
 * alloc_store_try_keep_line
 *		Keeps a line from being taken off until the end of the transaction; it
 *		may be shipped.  False: somebody is at work on it, or has changed it
 *		since the last look.
 */
bool
alloc_store_try_keep_line(const ItemPointerData *tid)
{
	ItemPointerData kept = *tid;

	return alloc_table_try_keep(&alloc_tables[ALLOCATION], &kept) ||
		alloc_store_is_unchanged(TM_Updated);
}

/*
 * alloc_store_delete_line
 *		Takes a line off.  The caller has written or locked a slot of its
 *		batch.  False: somebody else was faster; look again.
 */
bool
alloc_store_delete_line(const AllocLineRow *row)
{
	ItemPointerData tid = row->tid;

	return alloc_store_is_unchanged(alloc_table_delete(&alloc_tables[ALLOCATION],
													   &tid));
}

/*
 * alloc_store_mark_shipped
 *		Notes that a line has been shipped, which an event records.  As
 *		alloc_store_delete_line().
 */
bool
alloc_store_mark_shipped(const AllocLineRow *row, int64 event_id)
{
	AllocTable *table = &alloc_tables[ALLOCATION];
	TupleTableSlot *values = alloc_table_row(table);
	ItemPointerData tid = row->tid;

	set_line(values, &row->line, row->batch_id, event_id);
	alloc_row_set(values, LINE_C_SHIPPED,
				  TimestampTzGetDatum(GetCurrentStatementStartTimestamp()));
	return alloc_store_is_unchanged(alloc_table_update(table, &tid));
}

/*
 * alloc_store_purge_shipped
 *		Forgets lines that were shipped before a moment, of skus that are
 *		served here; returns how many.
 */
int64
alloc_store_purge_shipped(TimestampTz before)
{
	AllocTable *table = &alloc_tables[ALLOCATION];
	ScanKeyData key;
	TableScanDesc scan;
	int64		purged = 0;

	alloc_key_time(&key, LINE_C_SHIPPED + 1, BTLessStrategyNumber, before);
	scan = alloc_table_scan_all(table, &key, 1);
	while (alloc_table_next_of_all(table, scan))
	{
		ItemPointerData tid = table->found->tts_tid;

		if (!alloc_share_serves(DatumGetTextPP(alloc_row_get(table, LINE_C_SKU))))
			continue;
		/* Who was faster has forgotten it. */
		purged += alloc_store_is_unchanged(alloc_table_delete(table, &tid));
	}
	table_endscan(scan);
	return purged;
}

/*
 * alloc_store_skus_of_order
 *		The skus of an order's lines that were not shipped, in the order of
 *		their bytes, if they are served here.  Returns how many, and them in
 *		*skus.
 */
size_t
alloc_store_skus_of_order(const text *orderid, const text ***skus)
{
	AllocTable *table = &alloc_tables[ALLOCATION];
	ScanKeyData key;
	IndexScanDesc scan;
	size_t		n = 0;
	size_t		room = 8;

	*skus = palloc_array(const text *, room);
	alloc_key_text(&key, 1, orderid);
	scan = alloc_table_scan(table, ALLOCATION_LINE, GetActiveSnapshot(), &key, 1);
	while (alloc_table_next(table, scan, ForwardScanDirection))
	{
		Datum		sku = alloc_row_get(table, LINE_C_SKU);

		if (!table->found->tts_isnull[LINE_C_SHIPPED] ||
			!alloc_share_serves(DatumGetTextPP(sku)))
			continue;
		if (n == room)
			*skus = repalloc_array(*skus, const text *, room *= 2);
		(*skus)[n++] = DatumGetTextPCopy(sku);
	}
	index_endscan(scan);
	return n;
}

static void
set_line_keys(ScanKey keys, const text *orderid, const text *sku)
{
	alloc_key_text(&keys[0], 1, orderid);
	alloc_key_text(&keys[1], 2, sku);
}

static void
set_line(TupleTableSlot *row, const AllocLine *line, int64 batch_id,
		 int64 event_id)
{
	alloc_row_set(row, LINE_C_BATCH, Int64GetDatum(batch_id));
	alloc_row_set(row, LINE_C_EVENT, Int64GetDatum(event_id));
	alloc_row_set(row, LINE_C_QTY, Int64GetDatum(line->qty));
	alloc_row_set_time(row, LINE_C_EXPIRES, line->expires_at);
	alloc_row_set_null(row, LINE_C_SHIPPED);
	alloc_row_set_text(row, LINE_C_ORDERID, line->orderid);
	alloc_row_set_text(row, LINE_C_SKU, line->sku);
}

/*
 * The line that a scan found.
 */
void
alloc_line_read(AllocLineRow *row)
{
	AllocTable *table = &alloc_tables[ALLOCATION];

	row->batch_id = DatumGetInt64(alloc_row_get(table, LINE_C_BATCH));
	row->event_id = DatumGetInt64(alloc_row_get(table, LINE_C_EVENT));
	row->shipped_at = alloc_row_get_time(table, LINE_C_SHIPPED);
	row->line.expires_at = alloc_row_get_time(table, LINE_C_EXPIRES);
	row->line.qty = DatumGetInt64(alloc_row_get(table, LINE_C_QTY));
	row->line.orderid = DatumGetTextPCopy(alloc_row_get(table, LINE_C_ORDERID));
	row->line.sku = DatumGetTextPCopy(alloc_row_get(table, LINE_C_SKU));
	row->tid = table->found->tts_tid;
}
