/*-------------------------------------------------------------------------
 *
 * store_spread.c
 *	  The repository's part about batches with many slots: how these become
 *	  more and fewer, and are taken together.  See store_slot.c.
 *
 * Who needs several slots and may have to wait for them locks the product
 * first: so there is one of them at a time, and the order of slots does not
 * matter.  Who merges slots only to tidy up takes those that are free, without
 * waiting.  Others have one slot, and wait for nothing when they have it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "store_private.h"

/* A split leaves the units of a slot in so many, */
#define SPLIT_INTO 4
/* each with enough for so many lines like the one that was served. */
#define SPLIT_LINES 8

static int64 free_units(const AllocBatchRow *batch);
static bool merge_free(const AllocBatchRow *batch, int64 qty);
static bool add_piece(const AllocBatchRow *batch, int64 available);
static bool lock_all(AllocBatchRow *batch);
static bool same_slots(const AllocSlotRow *a, size_t na,
					   const AllocSlotRow *b, size_t nb);
static void absorb(AllocSlotRow *into, const AllocSlotRow *slot);
static AllocChain join_chains(const AllocChain *a, const AllocChain *b);
static int	add_chain(Datum *ids, int n, const AllocChain *chain);

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

		if (slot->available == 0 || !alloc_store_try_lock_slot(slot))
			continue;
		if (begun)
			absorb(&into, slot);
		else
			into = *slot;
		begun = true;
	}
	if (begun)
		alloc_slot_must_write(batch, &into);
	return into.available >= qty;
}

/*
 * alloc_store_try_lock_slot
 *		Locks a slot if it is free and has not changed, without waiting.
 */
bool
alloc_store_try_lock_slot(const AllocSlotRow *slot)
{
	ItemPointerData tid = slot->tid;

	return !TransactionIdIsValid(slot->busy) &&
		alloc_table_try_lock(&alloc_tables[SLOT], &tid);
}

/*
 * alloc_store_spread
 *		Splits the slot that this command has taken qty units from, because it
 *		was waited for, or others were.
 *
 * There are as many new slots as there are units for, and as alloc.max_slots
 * allows.
 */
void
alloc_store_spread(const AllocOffer *offer, int64 qty)
{
	const AllocBatchRow *batch = &offer->batch;
	AllocSlotRow slot;
	int64		pieces;
	int64		given = 0;

	if (alloc_max_slots == 1)
		return;
	alloc_store_look();
	if (!alloc_slot_find(batch->plan.batch_id, offer->slot.number, &slot))
		return;
	pieces = Min(SPLIT_INTO, slot.available / SPLIT_LINES / qty);
	for (int64 i = 1; i < pieces; i++)
		if (add_piece(batch, slot.available / pieces))
			given += slot.available / pieces;
	if (given == 0)
		return;
	slot.available -= given;
	slot.spread = true;
	alloc_slot_must_write(batch, &slot);
}

/*
 * A new slot, if the number that is drawn for it is free.  Slot numbers are
 * random, so that two who split at once seldom meet, and below
 * alloc.max_slots.
 */
static bool
add_piece(const AllocBatchRow *batch, int64 available)
{
	AllocTable *table = &alloc_tables[SLOT];
	AllocSlotRow piece = {
		.available = available,
		.number = alloc_slot_random_number(),
		.spread = true
	};
	ScanKeyData keys[2];
	TransactionId busy;

	alloc_key_int8(&keys[0], 1, batch->plan.batch_id);
	alloc_key_int2(&keys[1], 2, BTEqualStrategyNumber, piece.number);
	if (alloc_table_probe(table, SLOT_PKEY, keys, 2, &busy))
		return false;
	alloc_slot_set(batch, &piece);
	return alloc_table_insert_new(table, SLOT_PKEY);
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
		if (slot->quiet && alloc_store_try_lock_slot(slot))
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
		alloc_slot_must_write(&batch, &into);
	}
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
 * alloc_store_take_from_all
 *		Takes qty units from a batch whose slots are locked and were read, for
 *		lines of which the newest is the event's.  The list of lines that it
 *		goes on from is that of the first slot.
 */
void
alloc_store_take_from_all(const AllocBatchRow *batch, int64 qty,
						  int64 event_id)
{
	for (size_t i = 0; i < batch->nslots && (i == 0 || qty > 0); i++)
	{
		AllocSlotRow slot = batch->slots[i];
		int64		taken = Min(qty, slot.available);

		qty -= taken;
		slot.available -= taken;
		if (i == 0)
		{
			slot.lines.newest = event_id;
			slot.lines.merged = NULL;
		}
		if (i == 0 || taken > 0)
			alloc_slot_must_write(batch, &slot);
	}
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
	alloc_slot_must_write(batch, &slot);
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
