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
 * and while it waits for the slot it holds nothing of the sku.  How slots
 * become more and fewer, and who may have several, is in store_spread.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "common/pg_prng.h"
#include "compat.h"
#include "stat.h"
#include "store_private.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Setting alloc.max_slots. */
int			alloc_max_slots = 128;

/* Units from which on a batch has two slots even when it is quiet. */
#define LARGE_BATCH 1000

/* The batch in which this session last met others. */
static int64 crowded_batch;

/* The slot of a crowded batch that was free at the first try; -1: none. */
static int16 own_number = -1;

static void consider_slot(AllocOffer *offer, int64 least, int64 whole);
static void consider_spread(AllocOffer *offer, int64 least, int64 whole);
static void keep_batch(AllocOffer *offer);
static IndexScanDesc scan_from(const AllocPlanBatch *plan, const text *sku,
							   StrategyNumber side, int16 number);
static bool take(const AllocOffer *offer, TimestampTz hold_until, int64 qty,
				 int64 event_id);
static void insert_slot(const AllocBatchRow *batch, const AllocSlotRow *slot);
static bool write_slot(const AllocBatchRow *batch, const AllocSlotRow *slot);
static void read_slot(AllocSlotRow *slot);

/*
 * alloc_store_best_offer
 *		The preferred batch of a sku that can serve a line of least units, and
 *		the slot from which to take whole units (least or more).
 *
 * Reads no further than it must.  ALLOC_OFFER_EXPIRED: it has not enough, but
 * would perhaps if its holds that are over were ended.  ALLOC_OFFER_BUSY: the
 * slot is the one whose holder began last, because who has held one for long
 * may do so for longer.
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
		read_slot(&offer->slot);
		offer->expired = alloc_store_may_be_over(&offer->slot);
		consider_slot(offer, least, whole);
		if (offer->slot.spread && offer->kind != ALLOC_OFFER_FREE)
			consider_spread(offer, least, whole);
		if (offer->expired && offer->kind == ALLOC_OFFER_NONE)
			offer->kind = ALLOC_OFFER_EXPIRED;
	}
	index_endscan(scan);
}

/*
 * The first slot of a batch, or the only one.
 *
 * Where this session has met others it is not to be the first for all.
 */
static void
consider_slot(AllocOffer *offer, int64 least, int64 whole)
{
	AllocPlanBatch *plan = &offer->batch.plan;

	plan->available = offer->slot.available;
	if (offer->slot.spread && plan->batch_id == crowded_batch)
		return;
	if (!alloc_plan_serves(plan, least))
		return;
	if (offer->slot.available < whole)
		offer->kind = ALLOC_OFFER_SCATTERED;
	else if (TransactionIdIsValid(offer->slot.busy))
		offer->kind = ALLOC_OFFER_BUSY;
	else
		offer->kind = ALLOC_OFFER_FREE;
	if (offer->slot.spread && offer->kind == ALLOC_OFFER_BUSY)
		crowded_batch = plan->batch_id;
	keep_batch(offer);
}

/*
 * The slots of a batch, the first of which the scan found: from one on to the
 * last, then from the first.
 *
 * The one is random until a session finds it free at the first try, and the
 * same from then on: so that sessions which keep at it, fewer than there are
 * slots, come to have one each.
 */
static void
consider_spread(AllocOffer *offer, int64 least, int64 whole)
{
	AllocTable *table = &alloc_tables[SLOT];
	int16		start = own_number;
	StrategyNumber sides[] = {
		BTGreaterEqualStrategyNumber, BTLessStrategyNumber
	};

	if (start < 0)
		start = alloc_slot_random_number();
	offer->kind = ALLOC_OFFER_NONE;
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
			offer->expired |= alloc_store_may_be_over(&slot);
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
	own_number = -1;
	if (offer->kind == ALLOC_OFFER_FREE && offer->passed == 0)
		own_number = offer->slot.number;
	if (offer->passed > 0)
		crowded_batch = offer->batch.plan.batch_id;
	else if (offer->kind == ALLOC_OFFER_FREE && offer->slot.quiet)
		crowded_batch = 0;
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

/*
 * alloc_slot_random_number
 *		A number that a slot may have.
 */
int16
alloc_slot_random_number(void)
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
	start = alloc_slot_random_number() % all.nslots;
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
	return take(offer, offer->slot.hold_until, qty, event_id);
}

/*
 * alloc_store_take_held
 *		Likewise, for a line that is held.
 */
bool
alloc_store_take_held(const AllocOffer *offer, const AllocLine *line,
					  int64 event_id)
{
	return take(offer,
				alloc_earlier_moment(offer->slot.hold_until, line->expires_at),
				line->qty, event_id);
}

/*
 * alloc_store_cover_hold
 *		Makes a slot, still to be written, say when the hold of a line of its
 *		batch may be over.
 */
void
alloc_store_cover_hold(AllocSlotRow *slot, const AllocLine *line)
{
	slot->hold_until = alloc_earlier_moment(slot->hold_until,
											line->expires_at);
}

static bool
take(const AllocOffer *offer, TimestampTz hold_until, int64 qty,
	 int64 event_id)
{
	AllocSlotRow slot = offer->slot;

	slot.available -= qty;
	slot.hold_until = hold_until;
	slot.lines.newest = event_id;
	slot.lines.merged = NULL;
	if (write_slot(&offer->batch, &slot))
		return true;
	crowded_batch = offer->batch.plan.batch_id;
	return false;
}

/*
 * alloc_store_may_be_over
 *		Does a slot say that holds of its batch may be over?
 */
bool
alloc_store_may_be_over(const AllocSlotRow *slot)
{
	return slot->hold_until != 0 &&
		slot->hold_until <= GetCurrentStatementStartTimestamp();
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
 * alloc_store_ship
 *		Notes in a slot that qty units of a batch, which were allocated, have
 *		left.  False: it has changed; look again.
 */
bool
alloc_store_ship(const AllocBatchRow *batch, const AllocSlotRow *slot,
				 int64 qty)
{
	AllocSlotRow more = *slot;

	more.shipped += qty;
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
	if (!alloc_slot_find(batch->plan.batch_id, slot->number, &now))
		elog(ERROR, "our own slot of batch \"%s\" is gone",
			 alloc_show(batch->ref));
	before.tid = now.tid;
	alloc_slot_must_write(batch, &before);
	alloc_store_look();
}

/*
 * alloc_store_offer_again
 *		Makes an offer whose slot this command has written, and undone, the one
 *		to take qty units from.  False: it has merged the slot since, or moved
 *		its units.
 */
bool
alloc_store_offer_again(AllocOffer *offer, int64 qty)
{
	if (!alloc_slot_find(offer->batch.plan.batch_id, offer->slot.number,
						 &offer->slot) ||
		offer->slot.available < qty)
		return false;
	offer->kind = ALLOC_OFFER_FREE;
	return true;
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

	alloc_stat_count_now(ALLOC_STAT_SLOT_WAITS);
	alloc_table_wait(&alloc_tables[SLOT], &tid, slot->busy);
	/* With one snapshot there is nothing new to see: it is free, or 40001. */
	if (IsolationUsesXactSnapshot())
		(void) alloc_store_is_unchanged(alloc_table_lock(&alloc_tables[SLOT],
														 &tid));
	alloc_store_look();
}

/*
 * alloc_store_insert_slots
 *		The slots of a new batch, with all of its units: one, or two when they
 *		are many, so that a client that sits in its transaction with the first
 *		does not stop the others.
 */
void
alloc_store_insert_slots(const AllocBatchRow *batch)
{
	AllocSlotRow slot = {.available = batch->purchased};

	slot.spread = alloc_store_is_large(batch->purchased);
	if (slot.spread)
	{
		slot.available = batch->purchased / 2;
		slot.number = 1;
		insert_slot(batch, &slot);
		slot.available = batch->purchased - slot.available;
		slot.number = 0;
	}
	insert_slot(batch, &slot);
}

static void
insert_slot(const AllocBatchRow *batch, const AllocSlotRow *slot)
{
	alloc_slot_set(batch, slot);
	alloc_table_insert(&alloc_tables[SLOT]);
}

/*
 * alloc_store_open_stock
 *		Locks the table of slots as all who write do.  Whoever wants no command
 *		to be at work waits here for all of them, and has nothing yet that they
 *		could wait for.
 */
void
alloc_store_open_stock(void)
{
	(void) alloc_table_row(&alloc_tables[SLOT]);
}

/*
 * alloc_store_is_large
 *		Is a batch with so many units available worth two slots when it is
 *		quiet?
 */
bool
alloc_store_is_large(int64 available)
{
	return available >= LARGE_BATCH && alloc_max_slots > 1;
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
 * alloc_slot_find
 *		The slot of a batch with a number, if there is one.
 */
bool
alloc_slot_find(int64 batch_id, int16 number, AllocSlotRow *slot)
{
	ScanKeyData keys[2];

	alloc_key_int8(&keys[0], 1, batch_id);
	alloc_key_int2(&keys[1], 2, BTEqualStrategyNumber, number);
	if (!alloc_table_find(&alloc_tables[SLOT], SLOT_PKEY, keys, 2))
		return false;
	read_slot(slot);
	return true;
}

/*
 * alloc_slot_set
 *		A slot as the row to be written.
 */
void
alloc_slot_set(const AllocBatchRow *batch, const AllocSlotRow *slot)
{
	TupleTableSlot *row = alloc_table_row(&alloc_tables[SLOT]);

	alloc_row_set(row, SLOT_C_BATCH, Int64GetDatum(batch->plan.batch_id));
	alloc_row_set(row, SLOT_C_AVAILABLE, Int64GetDatum(slot->available));
	alloc_row_set(row, SLOT_C_SHIPPED, Int64GetDatum(slot->shipped));
	alloc_row_set_chain(row, SLOT_C_NEWEST, SLOT_C_MERGED, &slot->lines);
	alloc_row_set_time(row, SLOT_C_HOLD_UNTIL, slot->hold_until);
	alloc_row_set_eta(row, SLOT_C_ETA, &batch->plan);
	alloc_row_set(row, SLOT_C_SLOT, Int16GetDatum(slot->number));
	alloc_row_set(row, SLOT_C_SPREAD, BoolGetDatum(slot->spread));
	alloc_row_set(row, SLOT_C_WAITING, BoolGetDatum(slot->waiting));
	alloc_row_set(row, SLOT_C_EXHAUSTED,
				  BoolGetDatum(slot->available == 0 && slot->hold_until == 0));
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

	alloc_slot_set(batch, slot);
	return alloc_store_is_unchanged(alloc_table_update(table, &tid));
}

/*
 * alloc_slot_must_write
 *		Writes a slot that is locked or our own.
 */
void
alloc_slot_must_write(const AllocBatchRow *batch, const AllocSlotRow *slot)
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
	slot->hold_until = alloc_row_get_time(table, SLOT_C_HOLD_UNTIL);
	slot->tid = table->found->tts_tid;
	slot->busy = alloc_table_found_busy(table);
	slot->number = DatumGetInt16(alloc_row_get(table, SLOT_C_SLOT));
	slot->spread = DatumGetBool(alloc_row_get(table, SLOT_C_SPREAD));
	slot->waiting = DatumGetBool(alloc_row_get(table, SLOT_C_WAITING));
	slot->quiet = slot->spread && alloc_table_found_quiet(table);
}
