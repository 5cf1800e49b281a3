/*-------------------------------------------------------------------------
 *
 * store_slot.c
 *	  The repository's part about slots: the stock of a batch, in one row or
 *	  in many.  See store.c.
 *
 * A line is taken from one slot.  A quiet batch has one.  Where clients have
 * to wait for each other's commits the stock is spread over more of them, each
 * client looks at them from another one on, and passes by those that others
 * are at work on.  A batch is never passed by because its slots are busy: what
 * the last look saw committed in all of them decides.  DESIGN section 4.
 *
 * Who takes from one slot holds that slot only, waits for nothing after it,
 * and while it waits for the slot it holds nothing of the sku.  Who needs
 * several locks the product first, so that there is one at a time of them, and
 * then may wait for slots in any order.  Who merges slots takes only those
 * that are free, without waiting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "store_private.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

/* Setting alloc.max_slots. */
int			alloc_max_slots = 128;

/* A split leaves the units of a slot in so many, */
#define SPLIT_INTO 4
/* each with enough for so many lines like the one that was served. */
#define SPLIT_LINES 8

static void consider_slot(AllocOffer *offer, int64 least, int64 whole);
static void consider_spread(AllocOffer *offer, int64 least, int64 whole);
static void keep_batch(AllocOffer *offer);
static IndexScanDesc scan_from(const AllocPlanBatch *plan, const text *sku,
							   StrategyNumber side, int16 number);
static int16 random_number(void);
static bool find_number(int64 batch_id, int16 number, AllocSlotRow *slot);
static void set_slot(const AllocBatchRow *batch, const AllocSlotRow *slot);
static bool write_slot(const AllocBatchRow *batch, const AllocSlotRow *slot);
static void must_write_slot(const AllocBatchRow *batch,
							const AllocSlotRow *slot);
static void read_slot(AllocSlotRow *slot);
static bool lock_all(AllocBatchRow *batch);
static bool same_slots(const AllocSlotRow *a, size_t na,
					   const AllocSlotRow *b, size_t nb);
static int64 free_units(const AllocBatchRow *batch);
static bool merge_free(const AllocBatchRow *batch, int64 qty);
static bool grab(const AllocSlotRow *slot);
static void absorb(AllocSlotRow *into, const AllocSlotRow *slot);
static AllocChain join_chains(const AllocChain *a, const AllocChain *b);
static int	add_chain(Datum *ids, int n, const AllocChain *chain);

/*
 * alloc_store_best_offer
 *		The preferred batch of a sku that can serve a line of least units, and
 *		the slot from which to take whole units (least or more).
 *
 * Reads no further than it must.  ALLOC_OFFER_BUSY: the slot is the one whose
 * holder began last, because who has held one for long may do so for longer.
 */
void
alloc_store_best_offer(const text *sku, int64 least, int64 whole,
					   AllocOffer *offer)
{
	AllocTable *table = &alloc_tables[SLOT];
	ScanKeyData key;
	IndexScanDesc scan;
	int64		seen = 0;

	offer->kind = ALLOC_OFFER_NONE;
	offer->passed = 0;
	alloc_key_text(&key, 1, sku);
	scan = alloc_table_scan(table, SLOT_PREFERENCE, GetActiveSnapshot(),
							&key, 1);
	while (offer->kind == ALLOC_OFFER_NONE &&
		   alloc_table_next(table, scan, ForwardScanDirection))
	{
		AllocPlanBatch *plan = &offer->batch.plan;

		plan->batch_id = DatumGetInt64(alloc_row_get(table, SLOT_C_BATCH));
		if (plan->batch_id == seen)
			continue;
		seen = plan->batch_id;
		alloc_row_get_eta(table, SLOT_C_ETA, plan);
		if (DatumGetBool(alloc_row_get(table, SLOT_C_SPREAD)))
			consider_spread(offer, least, whole);
		else
			consider_slot(offer, least, whole);
	}
	index_endscan(scan);
}

/*
 * The only slot of a batch, that the scan found.
 */
static void
consider_slot(AllocOffer *offer, int64 least, int64 whole)
{
	read_slot(&offer->slot);
	offer->batch.plan.available = offer->slot.available;
	if (!alloc_plan_serves(&offer->batch.plan, least))
		return;
	keep_batch(offer);
	if (offer->slot.available < whole)
		offer->kind = ALLOC_OFFER_SCATTERED;
	else if (TransactionIdIsValid(offer->slot.busy))
		offer->kind = ALLOC_OFFER_BUSY;
	else
		offer->kind = ALLOC_OFFER_FREE;
}

/*
 * The slots of a batch, one of which the scan found: from a random one on to
 * the last, then from the first.
 */
static void
consider_spread(AllocOffer *offer, int64 least, int64 whole)
{
	AllocTable *table = &alloc_tables[SLOT];
	int16		start = random_number();
	StrategyNumber sides[] = {
		BTGreaterEqualStrategyNumber, BTLessStrategyNumber
	};

	offer->batch.plan.available = 0;
	offer->passed = 0;
	keep_batch(offer);
	for (int i = 0; i < lengthof(sides); i++)
	{
		IndexScanDesc scan = scan_from(&offer->batch.plan, offer->batch.sku,
									   sides[i], start);

		while (offer->kind == ALLOC_OFFER_NONE &&
			   alloc_table_next(table, scan, ForwardScanDirection))
		{
			AllocSlotRow slot;

			read_slot(&slot);
			offer->batch.plan.available += slot.available;
			if (slot.available < whole)
				continue;
			if (!TransactionIdIsValid(slot.busy))
				offer->kind = ALLOC_OFFER_FREE;
			else if (offer->passed++ > 0 &&
					 !TransactionIdFollows(slot.busy, offer->slot.busy))
				continue;
			offer->slot = slot;
		}
		index_endscan(scan);
	}
	if (offer->kind == ALLOC_OFFER_NONE &&
		alloc_plan_serves(&offer->batch.plan, least))
		offer->kind = offer->passed > 0 ? ALLOC_OFFER_BUSY :
			ALLOC_OFFER_SCATTERED;
}

static void
keep_batch(AllocOffer *offer)
{
	AllocTable *table = &alloc_tables[SLOT];

	offer->batch.ref = DatumGetTextPCopy(alloc_row_get(table, SLOT_C_REF));
	offer->batch.sku = DatumGetTextPCopy(alloc_row_get(table, SLOT_C_SKU));
}

/*
 * A scan of the slots of a batch that are not exhausted, on one side of a
 * number.
 */
static IndexScanDesc
scan_from(const AllocPlanBatch *plan, const text *sku, StrategyNumber side,
		  int16 number)
{
	ScanKeyData keys[4];

	alloc_key_text(&keys[0], 1, sku);
	if (plan->in_stock)
		alloc_key_null(&keys[1], 2);
	else
		alloc_key_date(&keys[1], 2, plan->eta);
	alloc_key_int8(&keys[2], 3, plan->batch_id);
	alloc_key_int2(&keys[3], 4, side, number);
	return alloc_table_scan(&alloc_tables[SLOT], SLOT_PREFERENCE,
							GetActiveSnapshot(), keys, lengthof(keys));
}

static int16
random_number(void)
{
	return (int16) pg_prng_uint64_range(&pg_global_prng_state, 0,
										alloc_max_slots - 1);
}

/*
 * alloc_store_any_slot
 *		A slot of a batch to give units to: a free one, if there is, else the
 *		one whose holder began last.
 */
void
alloc_store_any_slot(const AllocBatchRow *batch, AllocSlotRow *slot)
{
	AllocBatchRow all = *batch;
	size_t		start;

	alloc_store_read_slots(&all);
	start = random_number() % all.nslots;
	*slot = all.slots[start];
	for (size_t i = 1; i < all.nslots && TransactionIdIsValid(slot->busy); i++)
	{
		const AllocSlotRow *other = &all.slots[(start + i) % all.nslots];

		if (!TransactionIdIsValid(other->busy) ||
			TransactionIdFollows(other->busy, slot->busy))
			*slot = *other;
	}
}

/*
 * alloc_store_take
 *		Takes qty units from the slot of an offer, for the line that the event
 *		allocates.  False: it has changed; look again.
 */
bool
alloc_store_take(const AllocOffer *offer, int64 qty, int64 event_id)
{
	AllocSlotRow slot = offer->slot;

	slot.available -= qty;
	slot.lines.newest = event_id;
	slot.lines.merged = NULL;
	return write_slot(&offer->batch, &slot);
}

/*
 * alloc_store_give
 *		Gives qty units to a slot of a batch.  False: it has changed; look
 *		again.
 */
bool
alloc_store_give(const AllocBatchRow *batch, const AllocSlotRow *slot,
				 int64 qty)
{
	AllocSlotRow more = *slot;

	more.available += qty;
	return write_slot(batch, &more);
}

/*
 * alloc_store_undo
 *		Makes a slot what it was before this command wrote it, and looks
 *		again.
 */
void
alloc_store_undo(const AllocBatchRow *batch, const AllocSlotRow *slot)
{
	AllocSlotRow now;
	AllocSlotRow before = *slot;

	alloc_store_look();
	if (!find_number(batch->plan.batch_id, slot->number, &now))
		elog(ERROR, "our own slot of batch \"%s\" is gone",
			 alloc_show(batch->ref));
	before.tid = now.tid;
	must_write_slot(batch, &before);
	alloc_store_look();
}

/*
 * alloc_store_wait_slot
 *		Waits for whoever was at work on a slot, and looks again.
 *
 * It waits in the row's queue, so that who came first goes on first, but
 * keeps no lock on the row: the next look may prefer another one, and who
 * waits for that must have nothing that others wait for.
 */
void
alloc_store_wait_slot(const AllocSlotRow *slot)
{
	ItemPointerData tid = slot->tid;

	alloc_table_wait(&alloc_tables[SLOT], &tid, slot->busy);
	/* With one snapshot there is nothing new to see: it is free, or 40001. */
	if (IsolationUsesXactSnapshot())
		(void) alloc_store_is_unchanged(alloc_table_lock(&alloc_tables[SLOT],
														 &tid));
	alloc_store_look();
}

/*
 * alloc_store_gather
 *		Brings qty units of the best batch together in one slot, if they are
 *		scattered over several, and looks again.
 *
 * Locks the product, and then as many slots as it needs: those that are free;
 * when they do not suffice all of them, waiting for their holders.
 */
void
alloc_store_gather(const text *sku, int64 qty)
{
	AllocOffer	offer;

	alloc_table_leave_queue(&alloc_tables[SLOT]);
	alloc_store_lock_product(sku);
	alloc_store_look();
	alloc_store_best_offer(sku, qty, qty, &offer);
	if (offer.kind == ALLOC_OFFER_NONE || offer.kind == ALLOC_OFFER_FREE)
		return;
	alloc_store_read_slots(&offer.batch);
	if (!merge_free(&offer.batch, qty))
	{
		alloc_store_look();
		alloc_store_lock_slots(&offer.batch);
		(void) merge_free(&offer.batch, qty);
	}
	alloc_store_look();
}

static int64
free_units(const AllocBatchRow *batch)
{
	int64		sum = 0;

	for (size_t i = 0; i < batch->nslots; i++)
		if (!TransactionIdIsValid(batch->slots[i].busy))
			sum += batch->slots[i].available;
	return sum;
}

/*
 * Merges free slots of a batch until one has qty units.  False: there are not
 * enough of them.
 */
static bool
merge_free(const AllocBatchRow *batch, int64 qty)
{
	AllocSlotRow into = {0};
	bool		begun = false;

	if (free_units(batch) < qty)
		return false;
	for (size_t i = 0; i < batch->nslots && into.available < qty; i++)
	{
		const AllocSlotRow *slot = &batch->slots[i];

		if (slot->available == 0 || !grab(slot))
			continue;
		if (begun)
			absorb(&into, slot);
		else
			into = *slot;
		begun = true;
	}
	if (begun)
		must_write_slot(batch, &into);
	return into.available >= qty;
}

/*
 * Locks a slot if it is free and has not changed.
 */
static bool
grab(const AllocSlotRow *slot)
{
	ItemPointerData tid = slot->tid;

	return !TransactionIdIsValid(slot->busy) &&
		alloc_table_try_lock(&alloc_tables[SLOT], &tid);
}

/*
 * Deletes a slot that is locked; what it had goes to another one, still to be
 * written.
 */
static void
absorb(AllocSlotRow *into, const AllocSlotRow *slot)
{
	ItemPointerData tid = slot->tid;

	alloc_store_require_unchanged(alloc_table_delete(&alloc_tables[SLOT], &tid),
								  &alloc_tables[SLOT]);
	into->available += slot->available;
	into->shipped += slot->shipped;
	into->lines = join_chains(&into->lines, &slot->lines);
}

static AllocChain
join_chains(const AllocChain *a, const AllocChain *b)
{
	AllocChain	joined = {0};
	int			room = 2 +
		(a->merged ? ArrayGetNItems(ARR_NDIM(a->merged), ARR_DIMS(a->merged)) : 0) +
		(b->merged ? ArrayGetNItems(ARR_NDIM(b->merged), ARR_DIMS(b->merged)) : 0);
	Datum	   *ids = palloc_array(Datum, room);
	int			n = add_chain(ids, 0, a);

	n = add_chain(ids, n, b);
	if (n > 0)
		joined.newest = DatumGetInt64(ids[0]);
	if (n > 1)
		joined.merged = construct_array(ids + 1, n - 1, INT8OID,
										sizeof(int64), FLOAT8PASSBYVAL,
										TYPALIGN_DOUBLE);
	pfree(ids);
	return joined;
}

static int
add_chain(Datum *ids, int n, const AllocChain *chain)
{
	Datum	   *more;
	int			nmore;

	if (chain->newest != 0)
		ids[n++] = Int64GetDatum(chain->newest);
	if (chain->merged == NULL)
		return n;
	deconstruct_array(chain->merged, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &more, NULL, &nmore);
	for (int i = 0; i < nmore; i++)
		ids[n++] = more[i];
	pfree(more);
	return n;
}

/*
 * alloc_store_spread
 *		Splits the slot that this command has taken qty units from, because it
 *		was waited for, or others were.
 *
 * As many new slots as there are units for, and as alloc.max_slots allows:
 * slot numbers are below it, and random, so that two who split at once seldom
 * meet.
 */
void
alloc_store_spread(const AllocOffer *offer, int64 qty)
{
	AllocSlotRow slot;
	AllocSlotRow piece = {.spread = true};
	int64		pieces;
	int64		left;

	if (alloc_max_slots == 1)
		return;
	alloc_store_look();
	if (!find_number(offer->batch.plan.batch_id, offer->slot.number, &slot))
		return;
	pieces = Min(SPLIT_INTO, slot.available / SPLIT_LINES / qty);
	if (pieces < 2)
		return;
	piece.available = slot.available / pieces;
	left = slot.available;
	while (--pieces > 0)
	{
		AllocTable *table = &alloc_tables[SLOT];
		ScanKeyData keys[2];
		TransactionId busy;

		piece.number = random_number();
		alloc_key_int8(&keys[0], 1, offer->batch.plan.batch_id);
		alloc_key_int2(&keys[1], 2, BTEqualStrategyNumber, piece.number);
		if (alloc_table_probe(table, SLOT_PKEY, keys, 2, &busy))
			continue;
		set_slot(&offer->batch, &piece);
		if (alloc_table_insert_new(table, SLOT_PKEY))
			left -= piece.available;
	}
	if (left == slot.available)
		return;
	slot.available = left;
	slot.spread = true;
	alloc_store_look();
	if (!find_number(offer->batch.plan.batch_id, slot.number, &piece))
		elog(ERROR, "our own slot of batch \"%s\" is gone",
			 alloc_show(offer->batch.ref));
	slot.tid = piece.tid;
	must_write_slot(&offer->batch, &slot);
}

/*
 * alloc_store_merge_quiet
 *		Merges into the slot that this command has taken from those others of
 *		the batch that nobody has written for long.
 */
void
alloc_store_merge_quiet(const AllocOffer *offer)
{
	AllocBatchRow batch = offer->batch;
	AllocSlotRow into = {0};
	size_t		nothers = 0;
	bool		merged = false;

	alloc_store_look();
	alloc_store_read_slots(&batch);
	for (size_t i = 0; i < batch.nslots; i++)
		if (batch.slots[i].number == offer->slot.number)
			into = batch.slots[i];
	for (size_t i = 0; i < batch.nslots; i++)
	{
		const AllocSlotRow *slot = &batch.slots[i];

		if (slot->number == into.number)
			continue;
		if (slot->quiet && grab(slot))
		{
			absorb(&into, slot);
			merged = true;
		}
		else
			nothers++;
	}
	if (merged || nothers == 0)
	{
		into.spread = nothers > 0;
		must_write_slot(&batch, &into);
	}
}

/*
 * alloc_store_insert_slot
 *		The first slot of a new batch, with all of its units.
 */
void
alloc_store_insert_slot(const AllocBatchRow *batch)
{
	AllocSlotRow slot = {.available = batch->purchased};

	set_slot(batch, &slot);
	alloc_table_insert(&alloc_tables[SLOT]);
}

/*
 * alloc_store_read_slots
 *		All slots of a batch, and what they add up to.
 */
void
alloc_store_read_slots(AllocBatchRow *batch)
{
	AllocTable *table = &alloc_tables[SLOT];
	ScanKeyData key;
	IndexScanDesc scan;
	size_t		room = 1;

	batch->plan.available = batch->shipped = 0;
	batch->nslots = 0;
	batch->slots = palloc_array(AllocSlotRow, room);
	alloc_key_int8(&key, 1, batch->plan.batch_id);
	scan = alloc_table_scan(table, SLOT_PKEY, GetActiveSnapshot(), &key, 1);
	while (alloc_table_next(table, scan, ForwardScanDirection))
	{
		AllocSlotRow *slot;

		if (batch->nslots == room)
		{
			room *= 8;
			batch->slots = repalloc(batch->slots, room * sizeof(AllocSlotRow));
		}
		slot = &batch->slots[batch->nslots++];
		read_slot(slot);
		batch->plan.available += slot->available;
		batch->shipped += slot->shipped;
	}
	index_endscan(scan);
	if (batch->nslots == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("batch \"%s\" has no slot", alloc_show(batch->ref))));
}

/*
 * alloc_store_lock_slots
 *		Locks all slots of a batch, waiting for their holders, and reads them.
 *
 * The product is locked.  A holder may have made more of them, or fewer: so
 * look again until there is nothing new.  Nobody adds one without having one.
 */
void
alloc_store_lock_slots(AllocBatchRow *batch)
{
	alloc_store_read_slots(batch);
	while (!lock_all(batch))
		 /* look again */ ;
}

/*
 * Locks the slots that the last look saw, and looks again.  False: they are
 * other ones now.
 */
static bool
lock_all(AllocBatchRow *batch)
{
	AllocSlotRow *before = batch->slots;
	size_t		nbefore = batch->nslots;

	for (size_t i = 0; i < nbefore; i++)
	{
		ItemPointerData tid = before[i].tid;

		(void) alloc_store_is_unchanged(alloc_table_lock(&alloc_tables[SLOT],
														 &tid));
	}
	alloc_store_look();
	alloc_store_read_slots(batch);
	return same_slots(before, nbefore, batch->slots, batch->nslots);
}

static bool
same_slots(const AllocSlotRow *a, size_t na, const AllocSlotRow *b, size_t nb)
{
	if (na != nb)
		return false;
	for (size_t i = 0; i < na; i++)
		if (a[i].number != b[i].number)
			return false;
	return true;
}

/*
 * alloc_store_save_slots
 *		Writes what a batch has available, and where the list of its lines
 *		begins, into one slot; all of them are locked and were read.
 */
void
alloc_store_save_slots(const AllocBatchRow *batch, const AllocChain *lines)
{
	AllocSlotRow slot = batch->slots[0];

	for (size_t i = 1; i < batch->nslots; i++)
		absorb(&slot, &batch->slots[i]);
	slot.available = batch->plan.available;
	slot.spread = false;
	slot.lines = *lines;
	must_write_slot(batch, &slot);
}

/*
 * alloc_store_lines
 *		Where the list of a batch's lines begins; its slots were read.
 */
AllocChain
alloc_store_lines(const AllocBatchRow *batch)
{
	AllocChain	lines = {0};

	for (size_t i = 0; i < batch->nslots; i++)
		lines = join_chains(&lines, &batch->slots[i].lines);
	return lines;
}

static bool
find_number(int64 batch_id, int16 number, AllocSlotRow *slot)
{
	ScanKeyData keys[2];

	alloc_key_int8(&keys[0], 1, batch_id);
	alloc_key_int2(&keys[1], 2, BTEqualStrategyNumber, number);
	if (!alloc_table_find(&alloc_tables[SLOT], SLOT_PKEY, keys, 2))
		return false;
	read_slot(slot);
	return true;
}

static void
set_slot(const AllocBatchRow *batch, const AllocSlotRow *slot)
{
	TupleTableSlot *row = alloc_table_row(&alloc_tables[SLOT]);

	alloc_row_set(row, SLOT_C_BATCH, Int64GetDatum(batch->plan.batch_id));
	alloc_row_set(row, SLOT_C_AVAILABLE, Int64GetDatum(slot->available));
	alloc_row_set(row, SLOT_C_SHIPPED, Int64GetDatum(slot->shipped));
	alloc_row_set_chain(row, SLOT_C_NEWEST, SLOT_C_MERGED, &slot->lines);
	alloc_row_set_eta(row, SLOT_C_ETA, &batch->plan);
	alloc_row_set(row, SLOT_C_SLOT, Int16GetDatum(slot->number));
	alloc_row_set(row, SLOT_C_SPREAD, BoolGetDatum(slot->spread));
	alloc_row_set(row, SLOT_C_EXHAUSTED, BoolGetDatum(slot->available == 0));
	alloc_row_set_text(row, SLOT_C_REF, batch->ref);
	alloc_row_set_text(row, SLOT_C_SKU, batch->sku);
}

/*
 * Writes a slot unless it has changed since the last look, which is false.
 */
static bool
write_slot(const AllocBatchRow *batch, const AllocSlotRow *slot)
{
	AllocTable *table = &alloc_tables[SLOT];
	ItemPointerData tid = slot->tid;

	set_slot(batch, slot);
	return alloc_store_is_unchanged(alloc_table_update(table, &tid));
}

/*
 * Writes a slot that is locked or our own.
 */
static void
must_write_slot(const AllocBatchRow *batch, const AllocSlotRow *slot)
{
	if (!write_slot(batch, slot))
		elog(ERROR, "slot %d of batch \"%s\" changed under lock",
			 slot->number, alloc_show(batch->ref));
}

/*
 * The slot that a scan found.
 */
static void
read_slot(AllocSlotRow *slot)
{
	AllocTable *table = &alloc_tables[SLOT];

	slot->available = DatumGetInt64(alloc_row_get(table, SLOT_C_AVAILABLE));
	slot->shipped = DatumGetInt64(alloc_row_get(table, SLOT_C_SHIPPED));
	slot->lines = alloc_row_get_chain(table, SLOT_C_NEWEST, SLOT_C_MERGED);
	slot->tid = table->found->tts_tid;
	slot->busy = alloc_table_found_busy(table);
	slot->number = DatumGetInt16(alloc_row_get(table, SLOT_C_SLOT));
	slot->spread = DatumGetBool(alloc_row_get(table, SLOT_C_SPREAD));
	slot->quiet = slot->spread && alloc_table_found_quiet(table);
}
