/*-------------------------------------------------------------------------
 *
 * command.c
 *	  SQL-callable commands: the service layer.  The bulk path is in
 *	  command_lines.c, changes of batches in command_quantity.c, lines that
 *	  wait in command_backorder.c.
 *
 * Each checks its arguments, then asks the store what is there and the
 * planner what to do, writes it, and records the facts.  All of it is the
 * caller's transaction: an error or a rollback undoes everything together.
 *
 * Memory: what a command allocates is in the context in which it is called,
 * which the executor resets for each row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "argument.h"
#include "command.h"
#include "event.h"
#include "fmgr.h"
#include "handler.h"
#include "share.h"
#include "stat.h"
#include "utils/date.h"

PG_FUNCTION_INFO_V1(alloc_add_batch);
PG_FUNCTION_INFO_V1(alloc_allocate);
PG_FUNCTION_INFO_V1(alloc_deallocate);

/* So many calls after one about a line that was there, look for the line. */
#define REPEATS_EXPECTED 16

/* Who has waited so often while others were faster locks the slot. */
#define MAX_WAITS 8

static int	repeats_expected;

static void add_batch(AllocBatchRow *batch);
static void require_same_batch(const AllocBatchRow *there,
							   const AllocBatchRow *batch);
static bool take(const AllocLine *line, const AllocOffer *offer,
				 bool *has_slot);
static bool is_there(const AllocLine *line, const AllocLineRow *there);
static text *batch_of(const AllocLineRow *row);
static text *deallocate(const text *orderid, const text *sku);

/*
 * alloc.add_batch(ref text, sku text, qty bigint, eta date DEFAULT NULL)
 * returns text
 *		Buys a batch of qty units (0 or more) of a product, which is created
 *		if it is new.  eta NULL: it is in the warehouse.  Returns ref.
 *
 * The same call again changes nothing.  Errors: 22004, 22023, 22001, 22003
 * (the sku's purchased sum passes 2^63-1), 23505 (ref is another batch).
 * Source: the book, chapters 1 and 9 (BatchCreated).
 */
Datum
alloc_add_batch(PG_FUNCTION_ARGS)
{
	AllocBatchRow batch = {0};

	batch.ref = alloc_arg_key(fcinfo, 0, "ref");
	batch.sku = alloc_arg_key(fcinfo, 1, "sku");
	batch.purchased = alloc_arg_qty(fcinfo, 2, 0);
	batch.plan.in_stock = PG_ARGISNULL(3);
	batch.plan.eta = batch.plan.in_stock ? 0 : PG_GETARG_DATEADT(3);

	alloc_command_begin("add_batch()");
	alloc_share_require(batch.sku);
	add_batch(&batch);
	alloc_stat_count(ALLOC_STAT_ADD_BATCH);
	alloc_command_end();
	PG_RETURN_TEXT_P(batch.ref);
}

/*
 * alloc.allocate(orderid text, sku text, qty bigint) returns text
 *		Gives a line of qty units (1 or more) the best batch that can serve
 *		all of it, and returns its reference; NULL: out of stock.
 *
 * The same line again: its batch, and no event; but one that was only held is
 * confirmed.  Errors: 22004, 22023, 22001, SK001 (unknown sku), SK003 (the line
 * is there, or waits, with another quantity), 40001.  Source: the book,
 * chapter 1 (allocate), chapter 8 (OutOfStock).
 */
Datum
alloc_allocate(PG_FUNCTION_ARGS)
{
	AllocLine	line = {0};
	text	   *ref;

	line.orderid = alloc_arg_key(fcinfo, 0, "orderid");
	line.sku = alloc_arg_key(fcinfo, 1, "sku");
	line.qty = alloc_arg_qty(fcinfo, 2, 1);

	alloc_command_begin("allocate()");
	alloc_share_require(line.sku);
	ref = alloc_place(&line);
	alloc_stat_count(ALLOC_STAT_ALLOCATE);
	alloc_command_end();
	if (ref == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(ref);
}

/*
 * alloc.deallocate(orderid text, sku text) returns text
 *		Frees a line; returns the reference of the batch that it had, or NULL
 *		if it had none.
 *
 * Errors: 22004, 22023, 22001, 40001.  Source: the book, chapter 1, exercise
 * (Batch.deallocate).
 */
Datum
alloc_deallocate(PG_FUNCTION_ARGS)
{
	text	   *orderid = alloc_arg_key(fcinfo, 0, "orderid");
	text	   *sku = alloc_arg_key(fcinfo, 1, "sku");
	text	   *ref;

	alloc_command_begin("deallocate()");
	alloc_share_require(sku);
	ref = deallocate(orderid, sku);
	alloc_stat_count(ALLOC_STAT_DEALLOCATE);
	alloc_command_end();
	if (ref == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(ref);
}

/*
 * alloc_command_begin, alloc_command_end
 *		Around what a command does.  When it is done and what it did can be
 *		seen, synchronous handlers are called.
 */
void
alloc_command_begin(const char *command)
{
	alloc_store_begin(command);
	alloc_store_open_stock();
	/* With other skus rows may have come that the first look did not see. */
	if (!alloc_share_is_known)
	{
		alloc_share_learn();
		alloc_store_look();
	}
	alloc_handler_begin();
}

void
alloc_command_end(void)
{
	alloc_store_end();
	alloc_handler_run_noted();
}

static void
add_batch(AllocBatchRow *batch)
{
	AllocBatchRow there;

	if (alloc_store_find_batch(batch->ref, &there))
	{
		require_same_batch(&there, batch);
		return;
	}
	alloc_lock_product_for(batch->sku);
	(void) alloc_buy_batch(batch);
}

/*
 * alloc_lock_product_for
 *		Locks the product that gets a batch, which is created if it is new, and
 *		looks.
 */
void
alloc_lock_product_for(const text *sku)
{
	while (!alloc_store_renew_product(sku))
	{
		alloc_store_create_product(sku);
		alloc_store_look();
	}
	alloc_store_look();
}

/*
 * alloc_buy_batch
 *		A new batch, whose product is locked.  False: it is there, with these
 *		values.  Raises 23505 when it has others, and 22003.
 */
bool
alloc_buy_batch(AllocBatchRow *batch)
{
	AllocBatchRow there;

	do
	{
		if (alloc_store_settle_ref(batch->ref, &there))
		{
			require_same_batch(&there, batch);
			return false;
		}
		alloc_require_sum_fits(batch->sku, NULL, batch->purchased);
	} while (!alloc_store_insert_batch(batch));
	alloc_event_batch_created(batch);
	alloc_serve_from_new(batch->ref, batch->sku);
	return true;
}

static void
require_same_batch(const AllocBatchRow *there, const AllocBatchRow *batch)
{
	if (there->purchased == batch->purchased &&
		there->plan.in_stock == batch->plan.in_stock &&
		there->plan.eta == batch->plan.eta &&
		alloc_same_key(there->sku, batch->sku))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("batch \"%s\" already exists with other values",
					alloc_show(batch->ref)),
			 errdetail("It has sku \"%s\", quantity " INT64_FORMAT " and eta %s.",
					   alloc_show(there->sku), there->purchased,
					   there->plan.in_stock ? "NULL" :
					   alloc_show_date(there->plan.eta)),
			 errhint("Give a new batch a reference of its own, or change this one with change_batch_quantity().")));
}

/*
 * alloc_require_sum_fits
 *		Raises 22003 when the purchased quantities of a sku's batches,
 *		but for one, and qty do not add up to a bigint.  The views add them up.
 */
void
alloc_require_sum_fits(const text *sku, const text *except, int64 qty)
{
	AllocBatchRow *batches;
	size_t		n = alloc_store_batches(sku, &batches);
	int64		room = PG_INT64_MAX - qty;

	for (size_t i = 0; i < n; i++)
	{
		if (except != NULL && alloc_same_key(batches[i].ref, except))
			continue;
		if (batches[i].purchased > room)
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("quantity " INT64_FORMAT " is too large for sku \"%s\"",
							qty, alloc_show(sku)),
					 errdetail("The quantities of all batches of a sku must add up to a bigint.")));
		room -= batches[i].purchased;
	}
}

/*
 * alloc_place
 *		Allocates a line, or holds it; returns its batch, NULL: out of stock.
 *
 * A line is nearly always new, and its insertion tells when it is not.  So
 * the line is looked for only when there is a reason: it could not be
 * inserted, stock was not free at once, the last calls were about lines that
 * were there, or the transaction has one snapshot that decides what is there.
 *
 * Where it could not be inserted, the slot that it was to be taken from stays
 * locked to the end of the transaction.  Whoever locks all slots of the sku may
 * wait for it, so no other one is waited for then: if the line is not there any
 * more, it gets that slot.
 */
text *
alloc_place(const AllocLine *line)
{
	bool		look_for_line = repeats_expected > 0 ||
		IsolationUsesXactSnapshot();
	bool		has_slot = false;
	int			waits = 0;
	AllocOffer	offer;

	for (;;)
	{
		AllocLineRow there;

		if (look_for_line && alloc_store_settle_line(line, &there))
		{
			repeats_expected = REPEATS_EXPECTED;
			if (is_there(line, &there))
				return batch_of(&there);
			continue;
		}
		if (has_slot)
			has_slot = alloc_store_offer_again(&offer, line->qty);
		if (!has_slot)
			alloc_store_best_offer(line->sku, line->qty, line->qty, &offer);
		if (offer.kind == ALLOC_OFFER_FREE)
		{
			if (take(line, &offer, &has_slot))
			{
				alloc_store_arrange(&offer, line->qty, waits > 0);
				return offer.batch.ref;
			}
			look_for_line |= has_slot;
			waits++;
		}
		else if (!look_for_line)
			look_for_line = true;
		else if (offer.kind == ALLOC_OFFER_EXPIRED)
			alloc_sweep_sku(line->sku);
		else if (offer.kind == ALLOC_OFFER_NONE)
		{
			if (!alloc_store_product_exists(line->sku))
				alloc_unknown_sku(line->sku);
			alloc_require_not_waiting_otherwise(line);
			alloc_event_out_of_stock(line);
			return NULL;
		}
		else if (offer.kind == ALLOC_OFFER_SCATTERED)
			alloc_store_gather(&offer, line->qty);
		else if (waits++ < MAX_WAITS)
			alloc_store_wait_slot(&offer.slot);
		else
			alloc_store_seize(&offer);
	}
}

/*
 * Takes what is offered, and records it.  False: the slot has changed, or
 * somebody else was faster with the line; then *has_slot is set.
 *
 * The event's id is drawn after the look that found the slot, and the slot is
 * still as it was then: so whatever wrote it before has a smaller one.
 */
static bool
take(const AllocLine *line, const AllocOffer *offer, bool *has_slot)
{
	int64		event_id = alloc_store_next_event_id();
	bool		held = line->expires_at != 0;

	if (!(held ? alloc_store_take_held(offer, line, event_id) :
		  alloc_store_take(offer, line->qty, event_id)))
	{
		alloc_store_look();
		return false;
	}
	if (!alloc_store_insert_line(line, offer->batch.plan.batch_id, event_id))
	{
		alloc_store_undo(&offer->batch, &offer->slot);
		*has_slot = true;
		return false;
	}
	if (offer->slot.waiting)
		alloc_leave_queue(line);
	if (held)
	{
		alloc_store_insert_hold(line, &offer->batch);
		alloc_require_hold_room(line->orderid);
	}
	alloc_event_allocated(event_id, line, offer->batch.ref,
						  &offer->slot.lines);
	repeats_expected -= repeats_expected > 0;
	return true;
}

/*
 * alloc_require_batch
 *		The batch of a reference.  Raises SK002 when there is none.
 */
void
alloc_require_batch(const text *ref, AllocBatchRow *batch)
{
	if (!alloc_store_find_batch(ref, batch))
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_UNKNOWN_BATCH),
				 errmsg("unknown batch \"%s\"", alloc_show(ref)),
				 errhint("A batch becomes known with add_batch().")));
}

/*
 * alloc_unknown_sku
 */
void
alloc_unknown_sku(const text *sku)
{
	ereport(ERROR,
			(errcode(ERRCODE_ALLOC_UNKNOWN_SKU),
			 errmsg("unknown sku \"%s\"", alloc_show(sku)),
			 errhint("A sku becomes known with its first add_batch().")));
}

/*
 * alloc_require_same_qty
 *		Raises SK003 when a line that is there has another quantity.
 */
void
alloc_require_same_qty(const AllocLine *line, int64 qty_there)
{
	if (qty_there != line->qty)
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_OTHER_QUANTITY),
				 errmsg("order line (\"%s\", \"%s\") exists with quantity " INT64_FORMAT ", not " INT64_FORMAT,
						alloc_show(line->orderid), alloc_show(line->sku),
						qty_there, line->qty),
				 errhint("Call deallocate() first to change the quantity of a line.")));
}

/*
 * Is a line that is there as it is wanted?  One that was held is allocated for
 * good if it is to be.  False: look again.
 */
static bool
is_there(const AllocLine *line, const AllocLineRow *there)
{
	if (alloc_is_over(&there->line))
	{
		alloc_sweep_sku(line->sku);
		return false;
	}
	alloc_require_same_qty(line, there->line.qty);
	return there->line.expires_at == 0 || line->expires_at != 0 ||
		alloc_confirm_line(there);
}

static text *
batch_of(const AllocLineRow *row)
{
	AllocBatchRow batch;

	alloc_store_get_batch(row->batch_id, &batch);
	return batch.ref;
}

static text *
deallocate(const text *orderid, const text *sku)
{
	AllocLineRow row;
	text	   *ref;
	bool		nobody_waits = false;

	while (alloc_store_find_line(orderid, sku, &row) && row.shipped_at == 0)
	{
		if (alloc_is_over(&row.line))
			alloc_sweep_sku(sku);
		else if ((ref = alloc_try_free(&row, &nobody_waits)) != NULL)
		{
			/* What it was before it was allocated is over now. */
			alloc_store_forget_end(orderid, sku);
			return ref;
		}
	}
	return NULL;
}
