/*-------------------------------------------------------------------------
 *
 * store_batch.c
 *	  The repository's part about batches and their slots.  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "compat.h"
#include "store_private.h"
#include "utils/date.h"
#include "utils/snapmgr.h"

static void set_eta(TupleTableSlot *row, int column,
					const AllocBatchRow *batch);
static void set_batch(TupleTableSlot *row, const AllocBatchRow *batch,
					  int64 purchased);
static void set_slot(TupleTableSlot *row, const AllocBatchRow *batch,
					 int64 available);
static void read_batch(AllocBatchRow *batch);
static void find_slot(AllocBatchRow *batch);
static void read_slot(AllocBatchRow *batch);
static bool adjust_slot(const AllocBatchRow *batch, int64 delta);

/*
 * alloc_store_find_batch
 *		The batch of a reference, with its slots.
 */
bool
alloc_store_find_batch(const text *ref, AllocBatchRow *batch)
{
	ScanKeyData key;

	alloc_key_text(&key, 1, ref);
	if (!alloc_table_find(&alloc_tables[BATCH], BATCH_REF, &key, 1))
		return false;
	read_batch(batch);
	find_slot(batch);
	return true;
}

/*
 * alloc_store_settle_ref
 *		Like alloc_store_find_batch(), but without the slot; sees a batch as
 *		well that others have committed since the last look, and waits for
 *		those who are about to.
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
	find_slot(batch);
}

/*
 * alloc_store_best_batch
 *		The preferred batch of a sku that can serve a line of qty units.
 *
 * Reads slots only, and no further than that of this batch: what only the
 * batch's own row has is not set.  *known_sku tells whether the sku has a
 * batch at all.
 */
bool
alloc_store_best_batch(const text *sku, int64 qty, AllocBatchRow *batch,
					   bool *known_sku)
{
	AllocTable *table = &alloc_tables[SLOT];
	ScanKeyData key;
	IndexScanDesc scan;
	bool		found = false;

	*known_sku = false;
	alloc_key_text(&key, 1, sku);
	scan = alloc_table_scan(table, SLOT_PREFERENCE, GetActiveSnapshot(),
							&key, 1);
	while (!found && alloc_table_next(table, scan, ForwardScanDirection))
	{
		*known_sku = true;
		read_slot(batch);
		found = alloc_plan_serves(&batch->plan, qty);
	}
	if (found)
	{
		batch->ref = DatumGetTextPCopy(alloc_row_get(table, SLOT_C_REF));
		batch->sku = DatumGetTextPCopy(alloc_row_get(table, SLOT_C_SKU));
	}
	index_endscan(scan);
	return found;
}

/*
 * alloc_store_batches
 *		All batches of a sku, with their slots, in order of preference.
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
		read_batch(&(*batches)[n]);
		find_slot(&(*batches)[n]);
		n++;
	}
	index_endscan(scan);
	return n;
}

/*
 * alloc_store_insert_batch
 *		A new batch with one slot that has all of its units.  Its product is
 *		locked.  False: somebody else was faster with this reference, and
 *		nothing is inserted.
 */
bool
alloc_store_insert_batch(const AllocBatchRow *batch)
{
	AllocBatchRow numbered = *batch;

	numbered.plan.batch_id = alloc_table_nextval(&alloc_tables[BATCH]);
	set_batch(alloc_table_row(&alloc_tables[BATCH]), &numbered, batch->purchased);
	if (!alloc_table_insert_new(&alloc_tables[BATCH], BATCH_REF))
		return false;
	set_slot(alloc_table_row(&alloc_tables[SLOT]), &numbered, batch->purchased);
	alloc_table_insert(&alloc_tables[SLOT]);
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

	set_batch(alloc_table_row(table), batch, purchased);
	alloc_store_require_unchanged(alloc_table_update(table, &tid), table);
}

/*
 * alloc_store_lock_slots
 *		Locks the slots of a batch, waiting for whoever has them.  To be
 *		followed by a look.
 */
void
alloc_store_lock_slots(const AllocBatchRow *batch)
{
	ItemPointerData tid = batch->slot_tid;

	alloc_store_require_unchanged(alloc_table_lock(&alloc_tables[SLOT], &tid),
					  &alloc_tables[SLOT]);
}

/*
 * alloc_store_take
 *		Takes qty units, which the last look saw available, from a batch.
 *
 * False: somebody has the slot, or has changed it; then there is
 * alloc_store_wait_slot().
 */
bool
alloc_store_take(const AllocBatchRow *batch, int64 qty)
{
	return !TransactionIdIsValid(batch->slot_busy) && adjust_slot(batch, -qty);
}

/*
 * alloc_store_give
 *		Gives qty units back to a batch, waiting for whoever has its slot.
 *
 * False: it has changed; look again.
 */
bool
alloc_store_give(const AllocBatchRow *batch, int64 qty)
{
	return adjust_slot(batch, qty);
}

/*
 * alloc_store_wait_slot
 *		Waits for whoever was at work on the slot of a batch, and looks again.
 *
 * It waits in the row's queue, so that who came first goes on first, but
 * keeps no lock on the row: the next look may prefer another batch, and who
 * waits for that one must have nothing that others wait for.
 */
void
alloc_store_wait_slot(const AllocBatchRow *batch)
{
	if (TransactionIdIsValid(batch->slot_busy))
		alloc_table_wait(&alloc_tables[SLOT], &batch->slot_tid,
						 batch->slot_busy);
	alloc_store_look();
}

/*
 * alloc_store_set_available
 *		Changes the available units of a batch whose slots are locked.
 */
void
alloc_store_set_available(const AllocBatchRow *batch, int64 available)
{
	if (!adjust_slot(batch, available - batch->plan.available))
		elog(ERROR, "slot of batch " INT64_FORMAT " changed under lock",
			 batch->plan.batch_id);
}

static void
set_eta(TupleTableSlot *row, int column, const AllocBatchRow *batch)
{
	if (batch->plan.in_stock)
		alloc_row_set_null(row, column);
	else
		alloc_row_set(row, column, DateADTGetDatum(batch->plan.eta));
}

static void
set_batch(TupleTableSlot *row, const AllocBatchRow *batch, int64 purchased)
{
	alloc_row_set(row, BATCH_C_ID, Int64GetDatum(batch->plan.batch_id));
	alloc_row_set(row, BATCH_C_PURCHASED, Int64GetDatum(purchased));
	set_eta(row, BATCH_C_ETA, batch);
	alloc_row_set_text(row, BATCH_C_REF, batch->ref);
	alloc_row_set_text(row, BATCH_C_SKU, batch->sku);
}

static void
set_slot(TupleTableSlot *row, const AllocBatchRow *batch, int64 available)
{
	alloc_row_set(row, SLOT_C_BATCH, Int64GetDatum(batch->plan.batch_id));
	alloc_row_set(row, SLOT_C_AVAILABLE, Int64GetDatum(available));
	alloc_row_set(row, SLOT_C_SHIPPED, Int64GetDatum(batch->shipped));
	alloc_row_set(row, SLOT_C_SLOT, Int32GetDatum(batch->slot));
	set_eta(row, SLOT_C_ETA, batch);
	alloc_row_set_text(row, SLOT_C_REF, batch->ref);
	alloc_row_set_text(row, SLOT_C_SKU, batch->sku);
}

/*
 * The batch that a scan found, but for its slots.
 */
static void
read_batch(AllocBatchRow *batch)
{
	AllocTable *table = &alloc_tables[BATCH];

	batch->plan.batch_id = DatumGetInt64(alloc_row_get(table, BATCH_C_ID));
	batch->plan.in_stock = table->found->tts_isnull[BATCH_C_ETA];
	batch->plan.eta = batch->plan.in_stock ? 0 :
		DatumGetDateADT(alloc_row_get(table, BATCH_C_ETA));
	batch->purchased = DatumGetInt64(alloc_row_get(table, BATCH_C_PURCHASED));
	batch->ref = DatumGetTextPCopy(alloc_row_get(table, BATCH_C_REF));
	batch->sku = DatumGetTextPCopy(alloc_row_get(table, BATCH_C_SKU));
	batch->tid = table->found->tts_tid;
}

/*
 * The slot of a batch whose row has been read.
 */
static void
find_slot(AllocBatchRow *batch)
{
	ScanKeyData key;

	alloc_key_int8(&key, 1, batch->plan.batch_id);
	if (!alloc_table_find(&alloc_tables[SLOT], SLOT_PKEY, &key, 1))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("batch \"%s\" has no slot", alloc_show(batch->ref))));
	read_slot(batch);
}

/*
 * The slot that a scan found, but for its text columns.
 */
static void
read_slot(AllocBatchRow *batch)
{
	AllocTable *table = &alloc_tables[SLOT];

	batch->plan.batch_id = DatumGetInt64(alloc_row_get(table, SLOT_C_BATCH));
	batch->plan.available = DatumGetInt64(alloc_row_get(table, SLOT_C_AVAILABLE));
	batch->plan.in_stock = table->found->tts_isnull[SLOT_C_ETA];
	batch->plan.eta = batch->plan.in_stock ? 0 :
		DatumGetDateADT(alloc_row_get(table, SLOT_C_ETA));
	batch->shipped = DatumGetInt64(alloc_row_get(table, SLOT_C_SHIPPED));
	batch->slot = DatumGetInt32(alloc_row_get(table, SLOT_C_SLOT));
	batch->slot_tid = table->found->tts_tid;
	batch->slot_busy = alloc_table_found_busy(table);
}

/*
 * Adds delta units to the slot of a batch, waiting for whoever has it.
 * False: it has changed since the last look.
 */
static bool
adjust_slot(const AllocBatchRow *batch, int64 delta)
{
	AllocTable *table = &alloc_tables[SLOT];
	ItemPointerData tid = batch->slot_tid;

	set_slot(alloc_table_row(table), batch, batch->plan.available + delta);
	return alloc_store_is_unchanged(alloc_table_update(table, &tid));
}
