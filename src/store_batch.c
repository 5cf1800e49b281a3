/*-------------------------------------------------------------------------
 *
 * store_batch.c
 *	  The repository's part about batches.  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "store_private.h"
#include "utils/snapmgr.h"

static void set_batch(const AllocBatchRow *batch, int64 purchased);
static void read_batch(AllocBatchRow *batch);

/*
 * alloc_store_find_batch
 *		The batch of a reference.
 */
bool
alloc_store_find_batch(const text *ref, AllocBatchRow *batch)
{
	ScanKeyData key;

	alloc_key_text(&key, 1, ref);
	if (!alloc_table_find(&alloc_tables[BATCH], BATCH_REF, &key, 1))
		return false;
	read_batch(batch);
	return true;
}

/*
 * alloc_store_settle_ref
 *		Like alloc_store_find_batch(), but sees a batch as well that others
 *		have committed since the last look, and waits for those who are about
 *		to.
 */
bool
alloc_store_settle_ref(const text *ref, AllocBatchRow *batch)
{
	ScanKeyData key;

	alloc_key_text(&key, 1, ref);
	if (!alloc_store_settle_key(&alloc_tables[BATCH], BATCH_REF, &key, 1))
		return false;
	read_batch(batch);
	return true;
}

/*
 * alloc_store_get_batch
 *		The batch that a line names.
 */
void
alloc_store_get_batch(int64 batch_id, AllocBatchRow *batch)
{
	ScanKeyData key;

	alloc_key_int8(&key, 1, batch_id);
	if (!alloc_table_find(&alloc_tables[BATCH], BATCH_PKEY, &key, 1))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("batch " INT64_FORMAT " does not exist", batch_id),
				 errdetail("An order line says that this batch serves it.")));
	read_batch(batch);
}

/*
 * alloc_store_batches
 *		All batches of a sku, in order of preference.
 *
 * Returns how many, and them in *batches.
 */
size_t
alloc_store_batches(const text *sku, AllocBatchRow **batches)
{
	AllocTable *table = &alloc_tables[BATCH];
	ScanKeyData key;
	IndexScanDesc scan;
	size_t		n = 0;
	size_t		room = 16;

	*batches = palloc_array(AllocBatchRow, room);
	alloc_key_text(&key, 1, sku);
	scan = alloc_table_scan(table, BATCH_PREFERENCE, GetActiveSnapshot(),
							&key, 1);
	while (alloc_table_next(table, scan, ForwardScanDirection))
	{
		if (n == room)
		{
			room *= 2;
			*batches = repalloc_huge(*batches, room * sizeof(AllocBatchRow));
		}
		read_batch(&(*batches)[n++]);
	}
	index_endscan(scan);
	return n;
}

/*
 * alloc_store_insert_batch
 *		A new batch with slots that have all of its units.  Its product is
 *		locked.  False: somebody else was faster with this reference, and
 *		nothing is inserted.
 */
bool
alloc_store_insert_batch(const AllocBatchRow *batch)
{
	AllocBatchRow numbered = *batch;

	numbered.plan.batch_id = alloc_table_nextval(&alloc_tables[BATCH]);
	set_batch(&numbered, batch->purchased);
	if (!alloc_table_insert_new(&alloc_tables[BATCH], BATCH_REF))
		return false;
	alloc_store_insert_slots(&numbered);
	return true;
}

/*
 * alloc_store_set_purchased
 *		Changes the purchased quantity, of a batch whose product is locked.
 */
void
alloc_store_set_purchased(const AllocBatchRow *batch, int64 purchased)
{
	AllocTable *table = &alloc_tables[BATCH];
	ItemPointerData tid = batch->tid;

	set_batch(batch, purchased);
	alloc_store_require_unchanged(alloc_table_update(table, &tid), table);
}

/*
 * alloc_store_set_eta
 *		Changes the day of arrival of a batch whose product is locked, as are
 *		its slots.
 */
void
alloc_store_set_eta(const AllocBatchRow *batch, const AllocPlanBatch *now)
{
	AllocTable *table = &alloc_tables[BATCH];
	ItemPointerData tid = batch->tid;
	AllocBatchRow changed = *batch;

	changed.plan.in_stock = now->in_stock;
	changed.plan.eta = now->eta;
	set_batch(&changed, batch->purchased);
	alloc_store_require_unchanged(alloc_table_update(table, &tid), table);
	for (size_t i = 0; i < batch->nslots; i++)
		alloc_slot_must_write(&changed, &batch->slots[i]);
}

static void
set_batch(const AllocBatchRow *batch, int64 purchased)
{
	TupleTableSlot *row = alloc_table_row(&alloc_tables[BATCH]);

	alloc_row_set(row, BATCH_C_ID, Int64GetDatum(batch->plan.batch_id));
	alloc_row_set(row, BATCH_C_PURCHASED, Int64GetDatum(purchased));
	alloc_row_set_eta(row, BATCH_C_ETA, &batch->plan);
	alloc_row_set_text(row, BATCH_C_REF, batch->ref);
	alloc_row_set_text(row, BATCH_C_SKU, batch->sku);
}

/*
 * The batch that a scan found.
 */
static void
read_batch(AllocBatchRow *batch)
{
	AllocTable *table = &alloc_tables[BATCH];

	batch->plan.batch_id = DatumGetInt64(alloc_row_get(table, BATCH_C_ID));
	alloc_row_get_eta(table, BATCH_C_ETA, &batch->plan);
	batch->purchased = DatumGetInt64(alloc_row_get(table, BATCH_C_PURCHASED));
	batch->ref = DatumGetTextPCopy(alloc_row_get(table, BATCH_C_REF));
	batch->sku = DatumGetTextPCopy(alloc_row_get(table, BATCH_C_SKU));
	batch->tid = table->found->tts_tid;
}
