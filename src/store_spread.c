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
#include "stat.h"
#include "store_private.h"

/* A split leaves the units of a slot in so many, */
#define SPLIT_INTO 4
/* each with enough for so many lines like the one that was served. */
#define SPLIT_LINES 8

/* Among so many busy slots even a batch that looked full gets more of them. */
#define MANY_PASSED 3

/* Not each time that a quiet slot is met the others are looked at. */
#define QUIET_OFFERS 64

/* The batch for which this session last found no number for a new slot. */
static int64 full_batch;

static void spread(const AllocOffer *offer, int64 qty);
static void merge_quiet(const AllocOffer *offer);
static int64 free_units(const AllocBatchRow *batch);
static const AllocSlotRow *youngest_busy(const AllocBatchRow *batch);
static void merge_free(const AllocBatchRow *batch, int64 qty);
static bool add_piece(const AllocBatchRow *batch, const AllocSlotRow *slot,
					  int64 available);
static bool lock_all(AllocBatchRow *batch);
static int	held_longest_first(const void *a, const void *b);
static bool same_slots(const AllocSlotRow *a, size_t na,
					   const AllocSlotRow *b, size_t nb);
static void absorb(AllocSlotRow *into, const AllocSlotRow *slot);
static AllocChain join_chains(const AllocChain *a, const AllocChain *b);
static int	add_chain(Datum *ids, int n, const AllocChain *chain);

/*
 * alloc_store_gather
 *		Brings qty units of a scattered offer's batch together in one slot, or
 *		waits for somebody who has some of them; and looks again.
 *
 * Takes the slots that are free, with the product locked, when they have
 * enough; while it waits for one it has none.
 */
void
alloc_store_gather(const AllocOffer *offer, int64 qty)
{
	AllocBatchRow batch = offer->batch;

	alloc_store_read_slots(&batch);
	if (free_units(&batch) >= qty)
	{
		alloc_store_lock_product(batch.sku);
		alloc_store_look();
		alloc_store_read_slots(&batch);
		merge_free(&batch, qty);
		alloc_store_look();
	}
	else
		alloc_store_wait_slot(youngest_busy(&batch));
}

/*
 * alloc_store_seize
 *		Locks the slot of a busy offer, waiting for its holder, and looks
 *		again.
 *
 * With the product locked: for those who have waited in vain, because others
 * were faster when the slot was free.
 */
void
alloc_store_seize(const AllocOffer *offer)
{
	ItemPointerData tid = offer->slot.tid;

	alloc_stat_count_now(ALLOC_STAT_SLOT_WAITS);
	alloc_store_lock_product(offer->batch.sku);
	(void) alloc_store_is_unchanged(alloc_table_lock(&alloc_tables[SLOT],
													 &tid));
	alloc_store_look();
}

/*
 * alloc_store_lock_free_slots
 *		Locks free slots of a batch, without waiting, until they have qty units
 *		together; the batch has these slots then, and no others.  False: they
 *		do not suffice.  The product is locked.
 */
bool
alloc_store_lock_free_slots(AllocBatchRow *batch, int64 qty)
{
	size_t		nlocked = 0;

	alloc_store_read_slots(batch);
	if (free_units(batch) < qty)
		return false;
	batch->plan.available = 0;
	for (size_t i = 0; i < batch->nslots && batch->plan.available < qty; i++)
	{
		const AllocSlotRow *slot = &batch->slots[i];

		if (slot->available == 0 || !alloc_store_try_lock_slot(slot))
			continue;
		batch->plan.available += slot->available;
		batch->slots[nlocked++] = *slot;
	}
	batch->nslots = nlocked;
	return batch->plan.available >= qty;
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
 * The slot with units whose holder began last; there is one, because the batch
 * has enough, and its free slots have not.
 */
static const AllocSlotRow *
youngest_busy(const AllocBatchRow *batch)
{
	const AllocSlotRow *youngest = NULL;

	for (size_t i = 0; i < batch->nslots; i++)
	{
		const AllocSlotRow *slot = &batch->slots[i];

		if (slot->available > 0 && TransactionIdIsValid(slot->busy) &&
			(youngest == NULL ||
			 TransactionIdFollows(slot->busy, youngest->busy)))
			youngest = slot;
	}
	if (youngest == NULL)
		elog(ERROR, "slots of batch \"%s\" have changed in a snapshot",
			 alloc_show(batch->ref));
	return youngest;
}

/*
 * Merges free slots of a batch until one has qty units.
 */
static void
merge_free(const AllocBatchRow *batch, int64 qty)
{
	AllocSlotRow into = {0};
	bool		begun = false;

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
 * alloc_store_try_lock_slots
 *		Reads all slots of a batch and locks them, without waiting.  False: not
 *		all of them are free.
 *
 * The product is locked.  Nobody adds a slot without changing one.
 */
bool
alloc_store_try_lock_slots(AllocBatchRow *batch)
{
	alloc_store_read_slots(batch);
	for (size_t i = 0; i < batch->nslots; i++)
		if (!alloc_store_try_lock_slot(&batch->slots[i]))
			return false;
	return true;
}

/*
 * alloc_store_arrange
 *		After this command has taken qty units from the slot of an offer: a
 *		batch whose slots were waited for, or passed by, is spread over more of
 *		them; one that is quiet again is brought together.
 */
void
alloc_store_arrange(const AllocOffer *offer, int64 qty, bool waited)
{
	static int	quiet_offers;
	int			many = offer->batch.plan.batch_id == full_batch ?
		MANY_PASSED : 1;

	if (waited || offer->passed >= many)
		spread(offer, qty);
	else if (offer->slot.quiet &&
			 (offer->slot.number > 1 || ++quiet_offers % QUIET_OFFERS == 0))
		merge_quiet(offer);
}

/*
 * Splits the slot: into as many as there are units for, and as alloc.max_slots
 * allows.
 */
static void
spread(const AllocOffer *offer, int64 qty)
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
		if (add_piece(batch, &slot, slot.available / pieces))
			given += slot.available / pieces;
	if (given == 0)
	{
		full_batch = batch->plan.batch_id;
		return;
	}
	slot.available -= given;
	slot.spread = true;
	alloc_slot_must_write(batch, &slot);
}

/*
 * A part of a slot, if the number that is drawn for it is free.  Slot numbers
 * are random, so that two who split at once seldom meet, and below
 * alloc.max_slots.
 */
static bool
add_piece(const AllocBatchRow *batch, const AllocSlotRow *slot,
		  int64 available)
{
	AllocTable *table = &alloc_tables[SLOT];
	AllocSlotRow piece = {
		.available = available,
		.number = alloc_slot_random_number(),
		.spread = true,
		.waiting = slot->waiting
	};
	ScanKeyData keys[2];
	TransactionId busy;

	alloc_key_int8(&keys[0], 1, batch->plan.batch_id);
	alloc_key_int2(&keys[1], 2, BTEqualStrategyNumber, piece.number);
	if (alloc_table_probe(table, SLOT_PKEY, keys, 2, &busy))
		return false;
	alloc_slot_set(batch, &piece);
	if (!alloc_table_insert_new(table, SLOT_PKEY))
		return false;
	alloc_stat_count(ALLOC_STAT_SLOT_SPLITS);
	return true;
}

/*
 * Merges into the slot others of the batch that nobody has written for long.
 */
static void
merge_quiet(const AllocOffer *offer)
{
	AllocBatchRow batch = offer->batch;
	AllocSlotRow into = {0};
	size_t		left;
	size_t		enough;

	alloc_store_look();
	alloc_store_read_slots(&batch);
	for (size_t i = 0; i < batch.nslots; i++)
		if (batch.slots[i].number == offer->slot.number)
			into = batch.slots[i];
	left = batch.nslots;
	enough = alloc_store_is_large(batch.plan.available) ? 2 : 1;
	for (size_t i = 0; i < batch.nslots && left > enough; i++)
	{
		const AllocSlotRow *slot = &batch.slots[i];

		if (slot->number != into.number && slot->quiet &&
			alloc_store_try_lock_slot(slot))
		{
			absorb(&into, slot);
			left--;
		}
	}
	if (left < batch.nslots || left == 1)
	{
		into.spread = left > 1;
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
	AllocSlotRow *queue = palloc_array(AllocSlotRow, batch->nslots);
	size_t		nbefore = batch->nslots;

	memcpy(queue, before, nbefore * sizeof(AllocSlotRow));
	qsort(queue, nbefore, sizeof(AllocSlotRow), held_longest_first);
	for (size_t i = 0; i < nbefore; i++)
	{
		if (TransactionIdIsValid(queue[i].busy))
			alloc_stat_count_now(ALLOC_STAT_SLOT_WAITS);
		(void) alloc_store_is_unchanged(alloc_table_lock(&alloc_tables[SLOT],
														 &queue[i].tid));
	}
	pfree(queue);
	alloc_store_look();
	alloc_store_read_slots(batch);
	return same_slots(before, nbefore, batch->slots, batch->nslots);
}

/*
 * In this order little is locked while a client is waited for that sits in its
 * transaction.
 */
static int
held_longest_first(const void *a, const void *b)
{
	TransactionId busy_a = ((const AllocSlotRow *) a)->busy;
	TransactionId busy_b = ((const AllocSlotRow *) b)->busy;

	if (!TransactionIdIsValid(busy_a) || !TransactionIdIsValid(busy_b))
		return TransactionIdIsValid(busy_b) - TransactionIdIsValid(busy_a);
	return TransactionIdPrecedes(busy_a, busy_b) ? -1 :
		TransactionIdFollows(busy_a, busy_b);
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
 * alloc_store_give_locked
 *		Gives qty units to a batch whose slots are locked and were read.
 */
void
alloc_store_give_locked(const AllocBatchRow *batch, int64 qty)
{
	AllocSlotRow slot = batch->slots[0];

	slot.available += qty;
	alloc_slot_must_write(batch, &slot);
}

/*
 * alloc_store_mark_waiting
 *		Notes in the slots of a batch, which are locked and were read, that
 *		lines wait: a new version of each that did not say so, or who has seen
 *		the old one would free units without a look at the queue.
 */
void
alloc_store_mark_waiting(const AllocBatchRow *batch)
{
	for (size_t i = 0; i < batch->nslots; i++)
	{
		AllocSlotRow slot = batch->slots[i];

		if (slot.waiting)
			continue;
		slot.waiting = true;
		alloc_slot_must_write(batch, &slot);
	}
}

/*
 * alloc_store_save_slots
 *		Writes what a batch has available, and where the list of its lines
 *		begins, into one slot, or two when it is large; all of them are locked
 *		and were read.
 */
void
alloc_store_save_slots(const AllocBatchRow *batch, const AllocChain *lines)
{
	AllocSlotRow slot = batch->slots[0];
	size_t		kept = alloc_store_is_large(batch->plan.available) ? 2 : 1;

	for (size_t i = kept; i < batch->nslots; i++)
		absorb(&slot, &batch->slots[i]);
	slot.available = batch->plan.available;
	slot.spread = kept > 1 && batch->nslots > 1;
	slot.lines = *lines;
	if (slot.spread)
	{
		AllocSlotRow other = batch->slots[1];

		other.available = slot.available / 2;
		other.lines = (AllocChain) {0};
		slot.available -= other.available;
		alloc_slot_must_write(batch, &other);
	}
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
	into->hold_until = alloc_earlier_moment(into->hold_until, slot->hold_until);
	into->waiting |= slot->waiting;
	into->lines = join_chains(&into->lines, &slot->lines);
	alloc_stat_count(ALLOC_STAT_SLOT_MERGES);
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
