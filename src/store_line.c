/*-------------------------------------------------------------------------
 *
 * store_line.c
 *	  The repository's part about order lines.  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "common/int.h"
#include "compat.h"
#include "lib/pairingheap.h"
#include "store_private.h"
#include "utils/snapmgr.h"

/* An event of the list of a batch's lines, not yet visited. */
typedef struct LineLink
{
	pairingheap_node node;
	int64		event_id;
} LineLink;

/*
 * A walk along the list: first through the log, then, for what was moved out
 * of it, through the lines of the newest snapshot.
 */
typedef struct LineWalk
{
	MemoryContext cxt;			/* that lives as long as the walk */
	const AllocBatchRow *batch;
	pairingheap *heap;			/* of LineLink, newest first */
	bool		reached_archive;
	int64		archived;		/* from where to go on in the snapshot */
	IndexScanDesc snapshot;
} LineWalk;

/* Lines that leave a batch. */
typedef struct Leaving
{
	int64		deficit;		/* units that the batch still lacks */
	AllocLineRow *rows;
	size_t		n;
	size_t		room;
} Leaving;

static LineWalk begin_walk(const AllocBatchRow *batch);
static bool next_of_walk(LineWalk *walk, AllocLineRow *row);
static bool visit_newest(LineWalk *walk, AllocLineRow *row);
static bool visit_snapshot(LineWalk *walk, AllocLineRow *row);
static void begin_snapshot_lines(LineWalk *walk, int64 event_id);
static bool is_listed_line(const LineWalk *walk, const text *orderid,
						   int64 event_id, AllocLineRow *row);
static AllocChain end_walk(LineWalk *walk);
static int	newer_first(const pairingheap_node *a, const pairingheap_node *b,
						void *arg);
static void add_to_walk(LineWalk *walk, const AllocChain *lines);
static void add_link(LineWalk *walk, int64 event_id);
static void leave(Leaving *leaving, const AllocLineRow *row);
static void leave_from_all(const AllocBatchRow *batch, Leaving *leaving);
static int	compare_newer_first(const void *a, const void *b, void *arg);
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
 * alloc_store_newest_lines
 *		The lines that leave a batch which lacks deficit units (more than 0),
 *		newest first; its slots are locked and were read.
 *
 * Follows the list of the batch's lines, and so costs by the number of lines
 * that leave, and of those that have left since the last time: *rest, where
 * the list goes on, is for the slots to remember.  Returns how many, and them
 * in *rows.
 */
size_t
alloc_store_newest_lines(const AllocBatchRow *batch, int64 deficit,
						 AllocLineRow **rows, AllocChain *rest)
{
	LineWalk	walk = begin_walk(batch);
	Leaving		leaving = {.deficit = deficit,.room = 16};
	AllocLineRow row;

	leaving.rows = palloc_array(AllocLineRow, leaving.room);
	while (leaving.deficit > 0 && next_of_walk(&walk, &row))
		leave(&leaving, &row);
	*rest = end_walk(&walk);
	if (leaving.deficit > 0)
	{
		leaving.n = 0;
		leaving.deficit = deficit;
		leave_from_all(batch, &leaving);
	}
	if (leaving.deficit > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the slots of batch \"%s\" account for more allocated units than its lines have",
						alloc_show(batch->ref)),
				 errhint("check() tells what is wrong, and repair() mends it.")));
	*rows = leaving.rows;
	return leaving.n;
}

/*
 * alloc_store_listed_qty
 *		Units of the lines that the list of the batch's lines leads to; it ends
 *		when there are enough.  The batch's slots were read.
 */
int64
alloc_store_listed_qty(const AllocBatchRow *batch, int64 enough)
{
	MemoryContext line_cxt = AllocSetContextCreate(CurrentMemoryContext,
												   "alloc line",
												   ALLOCSET_SMALL_SIZES);
	LineWalk	walk = begin_walk(batch);
	AllocLineRow row;
	int64		listed = 0;

	while (listed < enough)
	{
		MemoryContext oldcxt = MemoryContextSwitchTo(line_cxt);
		bool		found = next_of_walk(&walk, &row);

		MemoryContextSwitchTo(oldcxt);
		if (!found || pg_add_s64_overflow(listed, row.line.qty, &listed))
			break;
		MemoryContextReset(line_cxt);
	}
	(void) end_walk(&walk);
	MemoryContextDelete(line_cxt);
	return listed;
}

static LineWalk
begin_walk(const AllocBatchRow *batch)
{
	LineWalk	walk = {.cxt = CurrentMemoryContext,.batch = batch};
	AllocChain	lines = alloc_store_lines(batch);

	walk.heap = pairingheap_allocate(newer_first, NULL);
	add_to_walk(&walk, &lines);
	return walk;
}

/*
 * The next newest line that the batch serves.  False: the list has ended.
 */
static bool
next_of_walk(LineWalk *walk, AllocLineRow *row)
{
	while (!pairingheap_is_empty(walk->heap))
		if (visit_newest(walk, row))
			return true;
	while (walk->reached_archive)
		if (visit_snapshot(walk, row))
			return true;
	return false;
}

/*
 * Goes behind the newest event of the list.  False: the batch does not serve
 * its line any more.
 */
static bool
visit_newest(LineWalk *walk, AllocLineRow *row)
{
	LineLink   *link = pairingheap_container(LineLink, node,
											 pairingheap_remove_first(walk->heap));
	int64		event_id = link->event_id;
	AllocTable *table = &alloc_tables[EVENT];
	AllocChain	before;
	text	   *orderid;
	ScanKeyData key;
	bool		found;

	pfree(link);
	alloc_key_int8(&key, 1, event_id);
	if (!alloc_table_find(table, EVENT_PKEY, &key, 1))
	{
		if (!walk->reached_archive)
			begin_snapshot_lines(walk, event_id);
		return false;
	}
	if (table->found->tts_isnull[EVENT_C_ORDERID])
		return false;
	orderid = DatumGetTextPCopy(alloc_row_get(table, EVENT_C_ORDERID));
	before = alloc_row_get_chain(table, EVENT_C_PREVIOUS, EVENT_C_MERGED);
	add_to_walk(walk, &before);
	found = is_listed_line(walk, orderid, event_id, row);
	pfree(orderid);
	return found;
}

/*
 * An event of the list is not in the log: it goes on in the newest snapshot,
 * which has all lines that are older than what is left of the log.  It is the
 * newest one that is not there, because newer ones are visited first.
 */
static void
begin_snapshot_lines(LineWalk *walk, int64 event_id)
{
	AllocTable *table = &alloc_tables[SNAPSHOT_LINE];
	int64		archived_to = alloc_store_archived_to();
	ScanKeyData keys[4];
	MemoryContext oldcxt;

	if (archived_to == 0)
		return;
	oldcxt = MemoryContextSwitchTo(walk->cxt);
	alloc_key_int8(&keys[0], 1, alloc_store_newest_snapshot(PG_INT64_MAX));
	alloc_key_text(&keys[1], 2, walk->batch->sku);
	alloc_key_text(&keys[2], 3, walk->batch->ref);
	walk->archived = Min(event_id, archived_to);
	alloc_key_int8_up_to(&keys[3], 4, walk->archived);
	walk->snapshot = alloc_table_scan(table, SNAPSHOT_LINE_BATCH,
									  GetActiveSnapshot(), keys, 4);
	walk->reached_archive = true;
	MemoryContextSwitchTo(oldcxt);
}

/*
 * Likewise, for the next newest line of the snapshot.
 */
static bool
visit_snapshot(LineWalk *walk, AllocLineRow *row)
{
	AllocTable *table = &alloc_tables[SNAPSHOT_LINE];
	text	   *orderid;
	bool		found;

	if (!alloc_table_next(table, walk->snapshot, BackwardScanDirection))
	{
		walk->reached_archive = false;
		return false;
	}
	orderid = DatumGetTextPCopy(alloc_row_get(table, SNAPSHOT_LINE_C_ORDERID));
	walk->archived = DatumGetInt64(alloc_row_get(table, SNAPSHOT_LINE_C_EVENT));
	found = is_listed_line(walk, orderid, walk->archived, row);
	pfree(orderid);
	return found;
}

/*
 * Does the batch still serve the line that an event allocated?
 */
static bool
is_listed_line(const LineWalk *walk, const text *orderid, int64 event_id,
			   AllocLineRow *row)
{
	return alloc_store_find_line(orderid, walk->batch->sku, row) &&
		row->event_id == event_id &&
		row->batch_id == walk->batch->plan.batch_id;
}

/*
 * What is left of the list.
 */
static AllocChain
end_walk(LineWalk *walk)
{
	AllocChain	rest = {0};
	int			room = 16;
	int			n = 0;
	int64	   *ids = palloc_array(int64, room);

	if (walk->reached_archive)
		add_link(walk, walk->archived);
	while (!pairingheap_is_empty(walk->heap))
	{
		LineLink   *link = pairingheap_container(LineLink, node,
												 pairingheap_remove_first(walk->heap));

		if (n == room)
			ids = repalloc_array(ids, int64, room *= 2);
		ids[n++] = link->event_id;
		pfree(link);
	}
	pairingheap_free(walk->heap);
	if (walk->snapshot != NULL)
		index_endscan(walk->snapshot);
	if (n > 0)
		rest.newest = ids[0];
	if (n > 1)
		rest.merged = DatumGetArrayTypeP(alloc_int8_array(ids + 1, n - 1));
	pfree(ids);
	return rest;
}

static int
newer_first(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	int64		id_a = pairingheap_const_container(LineLink, node, a)->event_id;
	int64		id_b = pairingheap_const_container(LineLink, node, b)->event_id;

	return id_a < id_b ? -1 : id_a > id_b;
}

static void
add_to_walk(LineWalk *walk, const AllocChain *lines)
{
	int64	   *merged;
	int			n;

	if (lines->newest != 0)
		add_link(walk, lines->newest);
	if (lines->merged == NULL)
		return;
	merged = alloc_array_int8(lines->merged, &n);
	for (int i = 0; i < n; i++)
		add_link(walk, merged[i]);
	pfree(merged);
}

static void
add_link(LineWalk *walk, int64 event_id)
{
	LineLink   *link = MemoryContextAlloc(walk->cxt, sizeof(LineLink));

	link->event_id = event_id;
	pairingheap_add(walk->heap, &link->node);
}

static void
leave(Leaving *leaving, const AllocLineRow *row)
{
	if (leaving->n == leaving->room)
	{
		leaving->room *= 2;
		leaving->rows = repalloc_huge(leaving->rows,
									  leaving->room * sizeof(AllocLineRow));
	}
	leaving->rows[leaving->n++] = *row;
	leaving->deficit = alloc_plan_shed(leaving->deficit, row->line.qty);
}

/*
 * The list has ended too early: a row was changed by hand.  So all lines of
 * the batch are read, and the newest leave.
 */
static void
leave_from_all(const AllocBatchRow *batch, Leaving *leaving)
{
	Leaving		all = {.deficit = PG_INT64_MAX,.room = 16};
	ScanKeyData key;
	TableScanDesc scan;

	all.rows = palloc_array(AllocLineRow, all.room);
	alloc_key_int8(&key, LINE_C_BATCH + 1, batch->plan.batch_id);
	scan = alloc_table_scan_all(&alloc_tables[ALLOCATION], &key, 1);
	while (alloc_table_next_of_all(&alloc_tables[ALLOCATION], scan))
	{
		AllocLineRow row;

		read_line(&row);
		leave(&all, &row);
	}
	table_endscan(scan);
	qsort_interruptible(all.rows, all.n, sizeof(AllocLineRow),
						compare_newer_first, NULL);
	for (size_t i = 0; i < all.n && leaving->deficit > 0; i++)
		leave(leaving, &all.rows[i]);
	pfree(all.rows);
}

static int
compare_newer_first(const void *a, const void *b, void *arg)
{
	int64		id_a = ((const AllocLineRow *) a)->event_id;
	int64		id_b = ((const AllocLineRow *) b)->event_id;

	return id_a > id_b ? -1 : id_a < id_b;
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
