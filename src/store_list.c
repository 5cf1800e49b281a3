/*-------------------------------------------------------------------------
 *
 * store_list.c
 *	  The repository's part about the list of a batch's lines, newest first.
 *	  See store.c.
 *
 * The list begins in the batch's slots, and goes on in the events that
 * allocated its lines: each names the one before.  It is what
 * change_batch_quantity() follows to the lines that leave, so that there need
 * not be an index on lines by batch and age, which each allocate() would feed.
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
	IndexScanDesc snapshot;		/* NULL: the log has not ended */
	int64		archived;		/* what it goes on with there; 0: nothing */
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
	while (walk->archived != 0)
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
		if (walk->snapshot == NULL)
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
 * The newest event of the list is not in the log: it goes on in the newest
 * snapshot, which has all lines that are older than what is left of the log.
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
		walk->archived = 0;
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
		row->event_id == event_id && row->shipped_at == 0 &&
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

	if (walk->archived != 0)
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

		alloc_line_read(&row);
		if (row.shipped_at == 0)
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
