/*-------------------------------------------------------------------------
 *
 * bulk.c
 *	  Allocation of many lines in one pass.
 *
 * The result is that of allocate() for each line in turn.  First the stock of
 * each sku is locked, and the planner places the sku's lines in memory.  Skus
 * come in the order of their bytes, so that two calls do not deadlock, and
 * lines of different skus do not bear on each other.  Here the caller may
 * decide that it does not want what was planned.  Then, with all locks held,
 * lines and events are written in the order of the call, and last the slots.
 *
 * Where one slot has enough for all lines of a sku, that slot is all that is
 * locked, as by allocate(); else as many as it takes of those that are free;
 * and all slots of the sku only where these do not suffice.
 *
 * Whether a line is there already is not asked at first: its insertion tells,
 * and so it is looked for only when no batch can serve it.  With care, whoever
 * is at work on one of the lines is waited for while nothing is locked, and
 * each line is looked for, when holds of its sku that are over have been ended.
 * A line that is held is confirmed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "bulk.h"
#include "command.h"
#include "common/int.h"
#include "event.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* A batch that serves some of the lines. */
typedef struct BulkBatch
{
	AllocBatchRow row;
	AllocChain	chain;			/* its lines, in the course of writing */
	int64		taken;
	bool		waiting;		/* lines may wait for its units */
} BulkBatch;

/* The lines of one sku, and the batches that may serve them. */
typedef struct BulkSku
{
	const text *sku;			/* the key of the hash table */
	AllocBulkLine   *first;
	AllocBulkLine   *last;
	int64		least;			/* the smallest quantity */
	int64		whole;			/* the sum of them, at most 2^63-1 */
	bool		one_slot;		/* the offer's slot is all that is locked */
	bool		waited;			/* for slots that others had */
	AllocOffer	offer;
	BulkBatch  *batches;
	size_t		nbatches;
} BulkSku;

static void group_by_sku(AllocBulk *bulk);
static void add_to_sku(BulkSku *sku, AllocBulkLine *line);
static int	compare_skus(const void *a, const void *b, void *arg);
static void lock_stock(const AllocBulk *bulk, BulkSku *sku);
static void lock_to_wait(BulkSku *sku);
static void add_batches(BulkSku *sku, const AllocBatchRow *rows, size_t n);
static void lock_all_stock(BulkSku *sku);
static bool lines_may_wait(const AllocBatchRow *batch);
static bool plan_sku(AllocBulk *bulk, BulkSku *sku);
static bool is_there(AllocBulk *bulk, const BulkSku *sku, AllocBulkLine *line,
					 bool *again);
static bool plan_line(AllocBulkLine *line, BulkSku *sku, AllocPlanBatch *left);
static void remember_all_before(AllocBulk *bulk, const BulkSku *sku,
								const AllocBulkLine *line);
static bool give_up_line(AllocBulk *bulk, AllocBulkLine *line);
static bool leave_held(AllocBulkLine *line);
static bool write_lines(AllocBulk *bulk);
static bool write_line(const AllocBulk *bulk, AllocBulkLine *line);
static bool is_wrong(const AllocBulkLine *line);
static void write_slots(BulkSku *sku);

/*
 * alloc_bulk_allocate
 *		Allocates the lines that can be served.
 *
 * As all of this works between alloc_store_begin() and alloc_store_end(), and
 * allocates in the current memory context.
 */
AllocBulkOutcome
alloc_bulk_allocate(AllocBulk *bulk)
{
	return alloc_bulk_plan(bulk) && alloc_bulk_write(bulk) ?
		ALLOC_BULK_DONE : ALLOC_BULK_AGAIN;
}

/*
 * alloc_bulk_plan
 *		Locks the stock for the lines, and says what is to become of each.
 *		False: one of them is about to be there; what was done so far is to be
 *		rolled back, and to be done again with care.
 */
bool
alloc_bulk_plan(AllocBulk *bulk)
{
	group_by_sku(bulk);
	alloc_bulk_begin_lines(bulk);
	if (bulk->careful)
		alloc_bulk_settle(bulk);
	for (size_t i = 0; i < bulk->nskus; i++)
	{
		CHECK_FOR_INTERRUPTS();
		lock_stock(bulk, bulk->skus[i]);
		if (!plan_sku(bulk, bulk->skus[i]))
			return false;
	}
	return true;
}

/*
 * alloc_bulk_give_up
 *		After planning: those lines that are not there get nothing.  False: as
 *		above.
 *
 * A line that was placed may be there, though nobody has looked for it; one
 * that cannot be served, since it was looked for.
 */
bool
alloc_bulk_give_up(AllocBulk *bulk)
{
	alloc_store_look();
	for (size_t i = 0; i < bulk->nlines; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!give_up_line(bulk, &bulk->lines[i]))
			return false;
	}
	bulk->careful = true;
	return true;
}

/*
 * alloc_bulk_write
 *		Writes what was planned.  False: a line is there, or about to be;
 *		likewise.
 */
bool
alloc_bulk_write(AllocBulk *bulk)
{
	if (!write_lines(bulk))
		return false;
	for (size_t i = 0; i < bulk->nskus; i++)
		write_slots(bulk->skus[i]);
	return true;
}

static void
group_by_sku(AllocBulk *bulk)
{
	HTAB	   *skus = alloc_hash_by_key("alloc skus", sizeof(BulkSku),
									 bulk->nlines);
	HASH_SEQ_STATUS scan;
	BulkSku    *sku;

	for (size_t i = 0; i < bulk->nlines; i++)
	{
		AllocBulkLine   *line = &bulk->lines[i];
		bool		found;

		CHECK_FOR_INTERRUPTS();
		sku = hash_search(skus, &line->line.sku, HASH_ENTER, &found);
		if (!found)
			*sku = (BulkSku) {.sku = line->line.sku};
		add_to_sku(sku, line);
	}

	bulk->nskus = 0;
	bulk->skus = palloc_extended(hash_get_num_entries(skus) * sizeof(BulkSku *),
								 MCXT_ALLOC_HUGE);
	hash_seq_init(&scan, skus);
	while ((sku = hash_seq_search(&scan)) != NULL)
		bulk->skus[bulk->nskus++] = sku;
	qsort_interruptible(bulk->skus, bulk->nskus, sizeof(BulkSku *),
						compare_skus, NULL);
}

static void
add_to_sku(BulkSku *sku, AllocBulkLine *line)
{
	line->next = NULL;
	if (sku->first == NULL)
	{
		sku->first = line;
		sku->least = line->line.qty;
	}
	else
		sku->last->next = line;
	sku->last = line;
	sku->least = Min(sku->least, line->line.qty);
	if (pg_add_s64_overflow(sku->whole, line->line.qty, &sku->whole))
		sku->whole = PG_INT64_MAX;
}

static int
compare_skus(const void *a, const void *b, void *arg)
{
	return alloc_compare_keys((*(BulkSku *const *) a)->sku,
							  (*(BulkSku *const *) b)->sku);
}

/*
 * Locks the stock that may serve the lines of a sku.
 *
 * The batch of the offer is the first that can serve any of them, so when it
 * can serve all of them it does.
 */
static void
lock_stock(const AllocBulk *bulk, BulkSku *sku)
{
	AllocOffer *offer = &sku->offer;

	alloc_store_best_offer(sku->sku, sku->least, sku->whole, offer);
	if (!bulk->careful && offer->kind == ALLOC_OFFER_NONE)
	{
		if (bulk->rest_waits)
			lock_to_wait(sku);
		return;
	}
	if (!bulk->careful && offer->kind == ALLOC_OFFER_FREE &&
		alloc_store_try_lock_slot(&offer->slot))
	{
		sku->one_slot = true;
		offer->batch.plan.available = offer->slot.available;
		add_batches(sku, &offer->batch, 1);
		sku->batches[0].chain = offer->slot.lines;
		sku->batches[0].waiting = offer->slot.waiting;
		return;
	}
	sku->waited = offer->kind == ALLOC_OFFER_BUSY ||
		(offer->kind == ALLOC_OFFER_FREE && !bulk->careful);
	alloc_sweep_sku(sku->sku);
	alloc_store_best_offer(sku->sku, sku->least, sku->whole, offer);
	if (offer->kind == ALLOC_OFFER_NONE)
	{
		if (bulk->rest_waits)
			lock_to_wait(sku);
		return;
	}
	if (alloc_store_lock_free_slots(&offer->batch, sku->whole))
	{
		add_batches(sku, &offer->batch, 1);
		sku->batches[0].chain = offer->batch.slots[0].lines;
		sku->batches[0].waiting = lines_may_wait(&offer->batch);
	}
	else
		lock_all_stock(sku);
}

/*
 * For a line that no batch can serve: while it is put into the queue nobody
 * may free units.
 */
static void
lock_to_wait(BulkSku *sku)
{
	alloc_sweep_sku(sku->sku);
	lock_all_stock(sku);
}

static void
add_batches(BulkSku *sku, const AllocBatchRow *rows, size_t n)
{
	sku->nbatches = n;
	sku->batches = palloc_extended(n * sizeof(BulkBatch),
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (size_t i = 0; i < n; i++)
		sku->batches[i].row = rows[i];
}

/*
 * All of it, waiting for whoever has some.
 */
static void
lock_all_stock(BulkSku *sku)
{
	AllocBatchRow *rows;
	size_t		n;

	alloc_store_look();
	n = alloc_store_batches(sku->sku, &rows);
	add_batches(sku, rows, n);
	pfree(rows);
	for (size_t i = 0; i < n; i++)
	{
		BulkBatch  *batch = &sku->batches[i];

		alloc_store_lock_slots(&batch->row);
		batch->chain = batch->row.slots[0].lines;
		batch->waiting = lines_may_wait(&batch->row);
	}
}

/*
 * Any of the slots that are locked says it rightly when nobody waits.
 */
static bool
lines_may_wait(const AllocBatchRow *batch)
{
	return batch->slots[0].waiting;
}

/*
 * Places the lines of a sku.  False: somebody is at work on one of them.
 */
static bool
plan_sku(AllocBulk *bulk, BulkSku *sku)
{
	AllocPlanBatch *left = palloc_extended(sku->nbatches * sizeof(AllocPlanBatch),
										   MCXT_ALLOC_HUGE);
	bool		look_for_lines = bulk->careful;
	bool		again = false;

	for (size_t i = 0; i < sku->nbatches; i++)
		left[i] = sku->batches[i].row.plan;
	for (AllocBulkLine *line = sku->first; line != NULL && !again; line = line->next)
	{
		CHECK_FOR_INTERRUPTS();
		if (look_for_lines && is_there(bulk, sku, line, &again))
			continue;
		if (plan_line(line, sku, left))
		{
			if (look_for_lines)
				alloc_bulk_remember(bulk, line);
			continue;
		}
		if (!look_for_lines)
		{
			look_for_lines = true;
			remember_all_before(bulk, sku, line);
			if (is_there(bulk, sku, line, &again))
				continue;
		}
		again |= alloc_store_line_is_coming(&line->line);
		/* Whoever decides with an older snapshot is to meet that. */
		if (bulk->rest_waits)
			(void) alloc_store_renew_product(sku->sku);
	}
	pfree(left);
	return !again;
}

/*
 * Is a line there?  One that is held is locked here, with its product: so those
 * who need the holds of several skus lock them in the order of skus, and those
 * who need several of one sku take turns.  *again is set when it has changed, or
 * is over: whoever was at work on it, so that it could not be ended, is not now.
 */
static bool
is_there(AllocBulk *bulk, const BulkSku *sku, AllocBulkLine *line, bool *again)
{
	AllocHoldRow hold;

	if (!alloc_bulk_is_there(bulk, line))
		return false;
	if (line->fate != ALLOC_LINE_HELD)
		return true;
	/* Where there is nothing to take from, nothing was locked. */
	if (sku->nbatches == 0)
	{
		alloc_store_lock_product(sku->sku);
		alloc_store_look();
	}
	*again |= !alloc_find_hold_of(line->held, &hold) ||
		!alloc_store_lock_hold(&hold) ||
		alloc_is_over(&line->held->line);
	return true;
}

/*
 * The batch that serves a line.  False: none can.
 */
static bool
plan_line(AllocBulkLine *line, BulkSku *sku, AllocPlanBatch *left)
{
	ptrdiff_t	place = alloc_plan_take(left, sku->nbatches, line->line.qty);

	line->fate = ALLOC_LINE_NOT_SERVED;
	line->ref = NULL;
	if (place == ALLOC_NO_BATCH)
		return false;
	line->fate = ALLOC_LINE_PLACED;
	line->batch = &sku->batches[place];
	line->batch->taken += line->line.qty;
	line->ref = line->batch->row.ref;
	return true;
}

static void
remember_all_before(AllocBulk *bulk, const BulkSku *sku, const AllocBulkLine *line)
{
	for (AllocBulkLine *earlier = sku->first; earlier != line; earlier = earlier->next)
	{
		CHECK_FOR_INTERRUPTS();
		alloc_bulk_remember(bulk, earlier);
	}
}

/*
 * False: it is about to be there, or is there since it could not be served; or
 * it is held no longer.
 */
static bool
give_up_line(AllocBulk *bulk, AllocBulkLine *line)
{
	bool		was_placed = line->fate == ALLOC_LINE_PLACED;

	if (line->fate == ALLOC_LINE_THERE)
		return true;
	if (line->fate == ALLOC_LINE_HELD)
		return leave_held(line);
	if (was_placed)
		line->batch->taken -= line->line.qty;
	if (alloc_bulk_is_there(bulk, line))
		return was_placed &&
			(line->fate == ALLOC_LINE_THERE || leave_held(line));
	if (was_placed)
	{
		line->fate = ALLOC_LINE_NOT_TAKEN;
		line->ref = NULL;
	}
	return !alloc_store_line_is_coming(&line->line);
}

/*
 * It stays held, and is not confirmed.  False: its hold is over.
 */
static bool
leave_held(AllocBulkLine *line)
{
	if (alloc_is_over(&line->held->line))
		return false;
	alloc_require_same_qty(&line->line, line->qty_there);
	line->fate = ALLOC_LINE_NOT_TAKEN;
	line->ref = NULL;
	return true;
}

/*
 * Writes the lines and their events.  False: a line is there.
 */
static bool
write_lines(AllocBulk *bulk)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "alloc scratch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcxt;

	alloc_store_begin_bulk();
	for (size_t i = 0; i < bulk->nlines; i++)
	{
		bool		is_new;

		CHECK_FOR_INTERRUPTS();
		oldcxt = MemoryContextSwitchTo(scratch);
		is_new = write_line(bulk, &bulk->lines[i]);
		MemoryContextSwitchTo(oldcxt);
		MemoryContextReset(scratch);
		if (!is_new)
			return false;
	}
	MemoryContextDelete(scratch);
	return alloc_store_end_bulk();
}

/*
 * An error in a line is told when those before it are known to have none.
 */
static bool
write_line(const AllocBulk *bulk, AllocBulkLine *line)
{
	AllocChain *chain;
	int64		event_id;

	if (!bulk->careful && is_wrong(line))
		return false;
	switch (line->fate)
	{
		case ALLOC_LINE_THERE:
			alloc_require_same_qty(&line->line, line->qty_there);
			break;
		case ALLOC_LINE_HELD:
			alloc_require_same_qty(&line->line, line->qty_there);
			return alloc_confirm_line(line->held);
		case ALLOC_LINE_NOT_SERVED:
			if (!alloc_store_product_exists(line->line.sku))
				alloc_unknown_sku(line->line.sku);
			alloc_require_not_waiting_otherwise(&line->line);
			if (!bulk->rest_waits)
				alloc_event_out_of_stock(&line->line);
			else
			{
				alloc_wait_for_stock(&line->line);
				line->fate = ALLOC_LINE_WAITS;
			}
			break;
		case ALLOC_LINE_PLACED:
			if (line->batch->waiting && !alloc_leave_queue_now(&line->line))
				return false;
			chain = &line->batch->chain;
			event_id = alloc_store_next_event_id();
			if (!alloc_store_add_line(&line->line,
									  line->batch->row.plan.batch_id,
									  event_id))
				return false;
			alloc_event_allocated(event_id, &line->line, line->ref, chain);
			chain->newest = event_id;
			chain->merged = NULL;
			break;
		case ALLOC_LINE_NOT_TAKEN:
		case ALLOC_LINE_WAITS:
			break;
	}
	return true;
}

static bool
is_wrong(const AllocBulkLine *line)
{
	switch (line->fate)
	{
		case ALLOC_LINE_THERE:
		case ALLOC_LINE_HELD:
			return line->qty_there != line->line.qty;
		case ALLOC_LINE_NOT_SERVED:
			return !alloc_store_product_exists(line->line.sku) ||
				alloc_waits_otherwise(&line->line);
		case ALLOC_LINE_PLACED:
			return line->batch->waiting && alloc_waits_otherwise(&line->line);
		case ALLOC_LINE_NOT_TAKEN:
		case ALLOC_LINE_WAITS:
			break;
	}
	return false;
}

/*
 * Takes from the slots what the lines got.  A batch whose slots were waited
 * for is spread over more of them; one that nothing was taken from says that
 * lines wait, if they do.
 */
static void
write_slots(BulkSku *sku)
{
	CHECK_FOR_INTERRUPTS();
	for (size_t i = 0; i < sku->nbatches; i++)
	{
		const BulkBatch *batch = &sku->batches[i];

		if (batch->taken == 0)
		{
			if (sku->first->fate == ALLOC_LINE_WAITS)
				alloc_store_mark_waiting(&batch->row);
			continue;
		}
		if (!sku->one_slot)
			alloc_store_take_from_all(&batch->row, batch->taken,
									  batch->chain.newest);
		else if (!alloc_store_take(&sku->offer, batch->taken,
								   batch->chain.newest))
			elog(ERROR, "slot of batch \"%s\" changed under lock",
				 alloc_show(batch->row.ref));
		if (sku->waited)
		{
			sku->offer.batch = batch->row;
			sku->offer.slot = batch->row.slots[0];
		}
		if (sku->waited || sku->one_slot)
			alloc_store_arrange(&sku->offer, sku->least, sku->waited);
		sku->waited = false;
	}
}
