/*-------------------------------------------------------------------------
 *
 * table_bitmap.c
 *	  Direct access, continued: rows by way of an index that tells only in
 *	  which blocks they may be, like BRIN.  See table.c.
 *
 * It is the work of a bitmap heap scan.  How that reads the table is another
 * interface in each version of PostgreSQL, so blocks are read by ranges of
 * TIDs, those that follow each other in one range.
 *
 * Memory: a scan is in the context in which it was begun.  Its bitmap keeps to
 * work_mem.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/amapi.h"
#include "access/htup_details.h"
#include "catalog/pg_index.h"
#include "catalog/pg_operator.h"
#include "compat.h"
#include "miscadmin.h"
#include "storage/predicate.h"
#include "table.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

struct AllocBitmapScan
{
	TIDBitmap  *bitmap;
	AllocBitmapIterator *blocks;
	bool		more;			/* are there, from next on */
	BlockNumber next;
	TableScanDesc rows;			/* of the blocks at hand; NULL: none yet */
};

static TIDBitmap *find_blocks(AllocTable *table, int index, ScanKey key);
static bool next_range(AllocTable *table, AllocBitmapScan *scan);

/*
 * alloc_table_fit_key
 *		Makes a key, by alloc_key_text(), one for an index (a position in
 *		index_names) that may be missing, and of any kind.  False: there is
 *		none that finds all rows which the active snapshot sees; column is the
 *		one of the table that the key is about.
 */
bool
alloc_table_fit_key(AllocTable *table, int index, int column, ScanKey key)
{
	Relation	rel;

	alloc_table_open(table);
	if (table->index_at[index] < 0)
		return false;
	rel = alloc_table_open_index(table, table->index_at[index]);
	key->sk_subtype = rel->rd_opcintype[0];
	key->sk_collation = rel->rd_indcollation[0];
	key->sk_strategy = (StrategyNumber)
		get_op_opfamily_strategy(TextEqualOperator, rel->rd_opfamily[0]);
	return key->sk_strategy != InvalidStrategy &&
		rel->rd_indam->amgetbitmap != NULL &&
		rel->rd_index->indkey.values[0] == column + 1 &&
		rel->rd_index->indisvalid && !rel->rd_index->indcheckxmin &&
		heap_attisnull(rel->rd_indextuple, Anum_pg_index_indpred, NULL);
}

/*
 * alloc_table_scan_bitmap
 *		Begins a scan of blocks, in their order, that have all rows which the
 *		key selects; others as well.  To be ended by alloc_table_end_bitmap().
 */
AllocBitmapScan *
alloc_table_scan_bitmap(AllocTable *table, int index, ScanKey key)
{
	AllocBitmapScan *scan = palloc0(sizeof(AllocBitmapScan));

	scan->bitmap = find_blocks(table, index, key);
	scan->blocks = alloc_bitmap_begin(scan->bitmap);
	scan->more = alloc_bitmap_next(scan->blocks, &scan->next);
	return scan;
}

static TIDBitmap *
find_blocks(AllocTable *table, int index, ScanKey key)
{
	TIDBitmap  *bitmap = tbm_create(work_mem * 1024L, NULL);
	IndexScanDesc scan;

	/* A scan by TIDs does not see to that. */
	PredicateLockRelation(table->rel, GetActiveSnapshot());
	scan = alloc_index_beginscan_bitmap(alloc_table_open_index(table, table->index_at[index]),
										GetActiveSnapshot(), 1);
	index_rescan(scan, key, 1, NULL, 0);
	(void) index_getbitmap(scan, bitmap);
	index_endscan(scan);
	return bitmap;
}

/*
 * alloc_table_next_of_bitmap
 *		The next row of these blocks, in table->found.  False: there is none.
 */
bool
alloc_table_next_of_bitmap(AllocTable *table, AllocBitmapScan *scan)
{
	CHECK_FOR_INTERRUPTS();
	while (scan->rows == NULL ||
		   !table_scan_getnextslot_tidrange(scan->rows, ForwardScanDirection,
											table->found))
		if (!next_range(table, scan))
			return false;
	slot_getallattrs(table->found);
	return true;
}

/*
 * Goes on to the next blocks that follow each other.  False: there are none.
 */
static bool
next_range(AllocTable *table, AllocBitmapScan *scan)
{
	BlockNumber last = scan->next;
	ItemPointerData from;
	ItemPointerData to;

	CHECK_FOR_INTERRUPTS();
	if (!scan->more)
		return false;
	ItemPointerSet(&from, scan->next, FirstOffsetNumber);
	while ((scan->more = alloc_bitmap_next(scan->blocks, &scan->next)) &&
		   scan->next == last + 1)
		last++;
	ItemPointerSet(&to, last, MaxOffsetNumber);
	if (scan->rows == NULL)
		scan->rows = table_beginscan_tidrange(table->rel, GetActiveSnapshot(),
											  &from, &to);
	else
		table_rescan_tidrange(scan->rows, &from, &to);
	return true;
}

/*
 * alloc_table_end_bitmap
 */
void
alloc_table_end_bitmap(AllocBitmapScan *scan)
{
	if (scan->rows != NULL)
		table_endscan(scan->rows);
	alloc_bitmap_end(scan->blocks);
	tbm_free(scan->bitmap);
	pfree(scan);
}
