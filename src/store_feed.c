/*-------------------------------------------------------------------------
 *
 * store_feed.c
 *	  The repository's part about all batches at once, as a feed is compared
 *	  with them.  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "compat.h"
#include "miscadmin.h"
#include "share.h"
#include "storage/lmgr.h"
#include "store_private.h"

/* Units of a slot that were shipped. */
typedef struct ShippedUnits
{
	int64		batch_id;
	int64		qty;
} ShippedUnits;

typedef struct Shipped
{
	ShippedUnits *units;		/* by batch */
	size_t		n;
	size_t		room;
} Shipped;

static void read_shipped(Shipped *shipped);
static int	compare_batches(const void *a, const void *b, void *arg);
static int64 shipped_of(const Shipped *shipped, int64 batch_id);
static void read_present(AllocPlanPresent *batch, const Shipped *shipped);

/*
 * alloc_store_take_turn
 *		Waits for the ends of transactions that carry out a feed, and lets
 *		those that come wait for ours.  To be followed by a look.
 *
 * Nobody else takes this lock, which is not that of the table.
 */
void
alloc_store_take_turn(void)
{
	AllocTable *table = &alloc_tables[BATCH];

	alloc_table_open(table);
	LockDatabaseObject(RelationRelationId, table->relid, 0, ExclusiveLock);
}

/*
 * alloc_store_present
 *		All batches of skus that are served here, in no order, with what was
 *		shipped.
 *
 * Reads both tables in whole.  Returns how many, and them in *present.
 */
size_t
alloc_store_present(AllocPlanPresent **present)
{
	AllocTable *table = &alloc_tables[BATCH];
	Shipped		shipped = {.room = 64};
	TableScanDesc scan;
	size_t		n = 0;
	size_t		room = 64;

	read_shipped(&shipped);
	*present = palloc_array(AllocPlanPresent, room);
	scan = alloc_table_scan_all(table, NULL, 0);
	while (alloc_table_next_of_all(table, scan))
	{
		if (!alloc_share_serves(DatumGetTextPP(alloc_row_get(table, BATCH_C_SKU))))
			continue;
		if (n == room)
		{
			room *= 2;
			*present = repalloc_huge(*present,
									 room * sizeof(AllocPlanPresent));
		}
		read_present(&(*present)[n++], &shipped);
	}
	table_endscan(scan);
	pfree(shipped.units);
	return n;
}

static void
read_shipped(Shipped *shipped)
{
	AllocTable *table = &alloc_tables[SLOT];
	TableScanDesc scan;

	shipped->units = palloc_array(ShippedUnits, shipped->room);
	scan = alloc_table_scan_all(table, NULL, 0);
	while (alloc_table_next_of_all(table, scan))
	{
		int64		qty = DatumGetInt64(alloc_row_get(table, SLOT_C_SHIPPED));

		if (qty == 0)
			continue;
		if (shipped->n == shipped->room)
		{
			shipped->room *= 2;
			shipped->units = repalloc_huge(shipped->units,
										   shipped->room * sizeof(ShippedUnits));
		}
		shipped->units[shipped->n++] = (ShippedUnits)
		{
			DatumGetInt64(alloc_row_get(table, SLOT_C_BATCH)), qty
		};
	}
	table_endscan(scan);
	qsort_interruptible(shipped->units, shipped->n, sizeof(ShippedUnits),
						compare_batches, NULL);
}

static int
compare_batches(const void *a, const void *b, void *arg)
{
	int64		id_a = ((const ShippedUnits *) a)->batch_id;
	int64		id_b = ((const ShippedUnits *) b)->batch_id;

	return id_a < id_b ? -1 : id_a > id_b;
}

static int64
shipped_of(const Shipped *shipped, int64 batch_id)
{
	size_t		low = 0;
	size_t		high = shipped->n;
	int64		sum = 0;

	while (low < high)
	{
		size_t		middle = low + (high - low) / 2;

		if (shipped->units[middle].batch_id < batch_id)
			low = middle + 1;
		else
			high = middle;
	}
	while (low < shipped->n && shipped->units[low].batch_id == batch_id)
		sum += shipped->units[low++].qty;
	return sum;
}

/*
 * The batch that a scan found; its keys in one piece of memory.
 */
static void
read_present(AllocPlanPresent *batch, const Shipped *shipped)
{
	const AllocTable *table = &alloc_tables[BATCH];
	const text *ref = DatumGetTextPP(alloc_row_get(table, BATCH_C_REF));
	const text *sku = DatumGetTextPP(alloc_row_get(table, BATCH_C_SKU));
	AllocPlanBatch plan;
	char	   *keys;

	batch->ref.length = VARSIZE_ANY_EXHDR(ref);
	batch->sku.length = VARSIZE_ANY_EXHDR(sku);
	keys = palloc(batch->ref.length + batch->sku.length);
	batch->ref.bytes = keys;
	batch->sku.bytes = keys + batch->ref.length;
	memcpy(keys, VARDATA_ANY(ref), batch->ref.length);
	memcpy(keys + batch->ref.length, VARDATA_ANY(sku), batch->sku.length);

	alloc_row_get_eta(table, BATCH_C_ETA, &plan);
	batch->terms.qty = DatumGetInt64(alloc_row_get(table, BATCH_C_PURCHASED));
	batch->terms.eta = plan.eta;
	batch->terms.in_stock = plan.in_stock;
	batch->shipped = shipped_of(shipped,
								DatumGetInt64(alloc_row_get(table, BATCH_C_ID)));
}
