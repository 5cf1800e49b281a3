/*-------------------------------------------------------------------------
 *
 * store_line.c
 *	  The repository's part about order lines.  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "store_private.h"
#include "utils/snapmgr.h"

static void set_line_keys(ScanKey keys, const text *orderid, const text *sku);
static void set_line(TupleTableSlot *row, const AllocLine *line,
					 int64 batch_id, int64 event_id);
static void read_line(AllocLineRow *row);

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
	read_line(row);
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
	read_line(row);
	/* The line may be newer than the last look: so may be its batch. */
	alloc_store_look();
	return true;
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
 * alloc_store_move_line
 *		Gives a line another batch.  The caller has written a slot of the old
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
 * alloc_store_delete_line
 *		Takes a line off.  The caller has written a slot of its batch.
 */
void
alloc_store_delete_line(const AllocLineRow *row)
{
	ItemPointerData tid = row->tid;

	alloc_store_require_unchanged(alloc_table_delete(&alloc_tables[ALLOCATION], &tid),
					  &alloc_tables[ALLOCATION]);
}

/*
 * alloc_store_newest_lines
 *		The lines that leave a batch which lacks deficit units (more than 0),
 *		newest first.
 *
 * Reads those and no others.  Returns how many, and them in *rows.
 */
size_t
alloc_store_newest_lines(int64 batch_id, int64 deficit, AllocLineRow **rows)
{
	AllocTable *table = &alloc_tables[ALLOCATION];
	ScanKeyData key;
	IndexScanDesc scan;
	size_t		n = 0;
	size_t		room = 16;

	*rows = palloc_array(AllocLineRow, room);
	alloc_key_int8(&key, 1, batch_id);
	scan = alloc_table_scan(table, ALLOCATION_BATCH, GetActiveSnapshot(),
							&key, 1);
	while (deficit > 0 && alloc_table_next(table, scan, BackwardScanDirection))
	{
		if (n == room)
		{
			room *= 2;
			*rows = repalloc_huge(*rows, room * sizeof(AllocLineRow));
		}
		read_line(&(*rows)[n]);
		deficit = alloc_plan_shed(deficit, (*rows)[n].line.qty);
		n++;
	}
	index_endscan(scan);
	if (deficit > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the slots of batch " INT64_FORMAT " account for more allocated units than its lines have",
						batch_id)));
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
	alloc_row_set_null(row, LINE_C_EXPIRES);
	alloc_row_set_text(row, LINE_C_ORDERID, line->orderid);
	alloc_row_set_text(row, LINE_C_SKU, line->sku);
}

/*
 * The line that a scan found.
 */
static void
read_line(AllocLineRow *row)
{
	AllocTable *table = &alloc_tables[ALLOCATION];

	row->batch_id = DatumGetInt64(alloc_row_get(table, LINE_C_BATCH));
	row->event_id = DatumGetInt64(alloc_row_get(table, LINE_C_EVENT));
	row->line.qty = DatumGetInt64(alloc_row_get(table, LINE_C_QTY));
	row->line.orderid = DatumGetTextPCopy(alloc_row_get(table, LINE_C_ORDERID));
	row->line.sku = DatumGetTextPCopy(alloc_row_get(table, LINE_C_SKU));
	row->tid = table->found->tts_tid;
}
