/*-------------------------------------------------------------------------
 *
 * store_line.c
 *	  The repository's part about order lines.  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "catalog/pg_type.h"
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

/* A walk along the list, and the lines that leave. */
typedef struct LineWalk
{
	int64		batch_id;
	int64		deficit;		/* units that the batch still lacks */
	pairingheap *heap;			/* of LineLink, newest first */
	AllocLineRow *rows;
	size_t		n;
	size_t		room;
} LineWalk;

static int	newer_first(const pairingheap_node *a, const pairingheap_node *b,
						void *arg);
static void add_to_walk(LineWalk *walk, const AllocChain *lines);
static void add_link(LineWalk *walk, int64 event_id);
static void visit_newest(LineWalk *walk);
static void leave(LineWalk *walk, const AllocLineRow *row);
static void walk_all_lines(LineWalk *walk, int64 deficit);
static int	compare_newer_first(const void *a, const void *b, void *arg);
static AllocChain rest_of_walk(LineWalk *walk);
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
	AllocChain	lines = alloc_store_lines(batch);
	LineWalk	walk = {.batch_id = batch->plan.batch_id,.deficit = deficit};

	walk.room = 16;
	walk.rows = palloc_array(AllocLineRow, walk.room);
	walk.heap = pairingheap_allocate(newer_first, NULL);
	add_to_walk(&walk, &lines);
	while (walk.deficit > 0 && !pairingheap_is_empty(walk.heap))
		visit_newest(&walk);
	if (walk.deficit > 0)
		walk_all_lines(&walk, deficit);
	*rest = rest_of_walk(&walk);
	pairingheap_free(walk.heap);
	if (walk.deficit > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the slots of batch \"%s\" account for more allocated units than its lines have",
						alloc_show(batch->ref))));
	*rows = walk.rows;
	return walk.n;
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
	ArrayIterator more;
	Datum		event_id;
	bool		isnull;

	if (lines->newest != 0)
		add_link(walk, lines->newest);
	if (lines->merged == NULL)
		return;
	more = array_create_iterator(lines->merged, 0, NULL);
	while (array_iterate(more, &event_id, &isnull))
		if (!isnull)
			add_link(walk, DatumGetInt64(event_id));
	array_free_iterator(more);
}

static void
add_link(LineWalk *walk, int64 event_id)
{
	LineLink   *link = palloc(sizeof(LineLink));

	link->event_id = event_id;
	pairingheap_add(walk->heap, &link->node);
}

/*
 * The newest event of the list: its line leaves if it is still that one, and
 * the list goes on behind it.
 */
static void
visit_newest(LineWalk *walk)
{
	LineLink   *link = pairingheap_container(LineLink, node,
											 pairingheap_remove_first(walk->heap));
	AllocTable *table = &alloc_tables[EVENT];
	AllocLineRow row;
	AllocChain	before;
	text	   *orderid;
	text	   *sku;
	ScanKeyData key;

	alloc_key_int8(&key, 1, link->event_id);
	if (alloc_table_find(table, EVENT_PKEY, &key, 1) &&
		!table->found->tts_isnull[EVENT_C_ORDERID])
	{
		orderid = DatumGetTextPCopy(alloc_row_get(table, EVENT_C_ORDERID));
		sku = DatumGetTextPCopy(alloc_row_get(table, EVENT_C_SKU));
		before = alloc_row_get_chain(table, EVENT_C_PREVIOUS, EVENT_C_MERGED);
		add_to_walk(walk, &before);
		if (alloc_store_find_line(orderid, sku, &row) &&
			row.event_id == link->event_id && row.batch_id == walk->batch_id)
			leave(walk, &row);
		pfree(orderid);
		pfree(sku);
	}
	pfree(link);
}

static void
leave(LineWalk *walk, const AllocLineRow *row)
{
	if (walk->n == walk->room)
	{
		walk->room *= 2;
		walk->rows = repalloc_huge(walk->rows,
								   walk->room * sizeof(AllocLineRow));
	}
	walk->rows[walk->n++] = *row;
	walk->deficit = alloc_plan_shed(walk->deficit, row->line.qty);
}

/*
 * The list has ended too early: events have been archived, or a row was
 * changed by hand.  So all lines of the batch are read, and the newest leave.
 */
static void
walk_all_lines(LineWalk *walk, int64 deficit)
{
	LineWalk	all = {.room = 16};
	ScanKeyData key;
	TableScanDesc scan;

	all.rows = palloc_array(AllocLineRow, all.room);
	alloc_key_int8(&key, LINE_C_BATCH + 1, walk->batch_id);
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
	walk->n = 0;
	walk->deficit = deficit;
	for (size_t i = 0; i < all.n && walk->deficit > 0; i++)
		leave(walk, &all.rows[i]);
	pfree(all.rows);
}

static int
compare_newer_first(const void *a, const void *b, void *arg)
{
	int64		id_a = ((const AllocLineRow *) a)->event_id;
	int64		id_b = ((const AllocLineRow *) b)->event_id;

	return id_a > id_b ? -1 : id_a < id_b;
}

/*
 * What is left of the list.
 */
static AllocChain
rest_of_walk(LineWalk *walk)
{
	AllocChain	rest = {0};
	int			room = 16;
	int			n = 0;
	Datum	   *ids = palloc_array(Datum, room);

	while (!pairingheap_is_empty(walk->heap))
	{
		if (n == room)
			ids = repalloc_array(ids, Datum, room *= 2);
		ids[n++] = Int64GetDatum(pairingheap_container(LineLink, node,
													   pairingheap_remove_first(walk->heap))->event_id);
	}
	if (n > 0)
		rest.newest = DatumGetInt64(ids[0]);
	if (n > 1)
		rest.merged = construct_array(ids + 1, n - 1, INT8OID, sizeof(int64),
									  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	return rest;
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
