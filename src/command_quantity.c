/*-------------------------------------------------------------------------
 *
 * command_quantity.c
 *	  change_batch_quantity(): a delivery turns out larger or smaller.
 *
 * All of it is done with the product locked.  When the batch becomes smaller
 * lines may have to leave, and any batch of the sku may get them: then all
 * slots of the sku are locked as well, so that no line of it comes or goes.
 * Lines whose holds are over have left before; a line that is held moves like
 * any other, with its hold, which is locked, because confirm() takes no slot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "command.h"
#include "event.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "share.h"
#include "stat.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(alloc_change_batch_quantity);

/* The change of a batch's quantity, and the lines that have to leave. */
typedef struct Shrink
{
	AllocBatchRow *batches;		/* of the sku, in order of preference */
	AllocChain *chains;			/* of each batch's lines, when all is done */
	size_t		nbatches;
	size_t		at;				/* the batch that shrinks */
	AllocLineRow *lines;		/* newest first */
	size_t		nlines;
	AllocPlanBatch *left;		/* of each batch, when all is done */
	AllocPlanLine *places;		/* of each line, oldest first */
	bool		queued;			/* some of them wait */
} Shrink;

static void change_quantity(const text *ref, int64 qty, ReturnSetInfo *result);
static void grow(const AllocBatchRow *batch, int64 qty);
static void give_to_any(const AllocBatchRow *batch, int64 qty);
static void shrink(Shrink *plan, int64 qty, ReturnSetInfo *result);
static void lock_batches(Shrink *plan, const AllocBatchRow *batch);
static void plan_shrink(Shrink *plan, int64 qty);
static void take_lines_off(const Shrink *plan);
static void place_lines(Shrink *plan, ReturnSetInfo *result);
static bool lock_holds(const Shrink *plan);
static void lose_line(Shrink *plan, const AllocLineRow *row);
static void move_line(const Shrink *plan, const AllocLineRow *row, size_t to);
static void serve_rest(Shrink *plan);
static const AllocLineRow *leaving_line(const Shrink *plan, size_t i);
static void save_batches(const Shrink *plan);
static void return_moved(ReturnSetInfo *result, const AllocLine *line,
						 const text *old_ref, const text *new_ref);

/*
 * alloc.change_batch_quantity(ref text, qty bigint)
 * returns setof (orderid, sku, qty, old_batchref, new_batchref)
 *		Sets the purchased quantity of a batch to qty units (0 or more).
 *		Lines that no longer fit leave, newest first, and are allocated again,
 *		oldest first; a row for each that ended elsewhere, oldest first, with
 *		new_batchref NULL for one that is out of stock.
 *
 * Errors: 22004, 22023, 22001, 22003, SK002 (unknown ref), SK004 (qty is
 * below what has been shipped), 40001.  Source: the book, chapter 9.
 */
Datum
alloc_change_batch_quantity(PG_FUNCTION_ARGS)
{
	text	   *ref = alloc_arg_key(fcinfo, 0, "ref");
	int64		qty = alloc_arg_qty(fcinfo, 1, 0);

	InitMaterializedSRF(fcinfo, 0);
	alloc_command_begin("change_batch_quantity()");
	change_quantity(ref, qty, (ReturnSetInfo *) fcinfo->resultinfo);
	alloc_stat_count(ALLOC_STAT_CHANGE_BATCH_QUANTITY);
	alloc_command_end();
	return (Datum) 0;
}

static void
change_quantity(const text *ref, int64 qty, ReturnSetInfo *result)
{
	AllocBatchRow batch;

	alloc_require_batch(ref, &batch);
	alloc_share_require(batch.sku);
	alloc_store_renew_product(batch.sku);
	alloc_store_look();
	alloc_require_batch(ref, &batch);
	alloc_set_quantity(&batch, qty, result);
}

/*
 * alloc_set_quantity
 *		Sets the purchased quantity of a batch, whose product is locked.  The
 *		result gets a row for each line that ended elsewhere; NULL: nobody
 *		wants them.  Raises 22003 and SK004.
 */
void
alloc_set_quantity(const AllocBatchRow *batch, int64 qty,
				   ReturnSetInfo *result)
{
	Shrink		plan = {0};

	if (qty > batch->purchased)
		grow(batch, qty);
	else if (qty < batch->purchased)
	{
		alloc_sweep_product(batch->sku);
		lock_batches(&plan, batch);
		alloc_require_not_shipped(batch->ref, plan.batches[plan.at].shipped,
								  qty);
		shrink(&plan, qty, result);
	}
}

/*
 * alloc_retire
 *		Sets the purchased quantity of a batch, whose product is locked, to
 *		what has been shipped, and returns that.
 */
int64
alloc_retire(const AllocBatchRow *batch)
{
	Shrink		plan = {0};
	int64		shipped;

	alloc_sweep_product(batch->sku);
	lock_batches(&plan, batch);
	shipped = plan.batches[plan.at].shipped;
	if (shipped < batch->purchased)
		shrink(&plan, shipped, NULL);
	return shipped;
}

/*
 * More units: any slot may get them when no line waits for them.
 */
static void
grow(const AllocBatchRow *batch, int64 qty)
{
	bool		lines_wait = alloc_store_anybody_waits(batch->sku);
	AllocBatchRow locked = *batch;

	alloc_require_sum_fits(batch->sku, batch->ref, qty);
	if (lines_wait)
		alloc_store_lock_slots(&locked);
	else
		give_to_any(batch, qty - batch->purchased);
	alloc_store_set_purchased(batch, qty);
	alloc_event_quantity_changed(batch, qty);
	if (lines_wait)
		alloc_give_and_serve(&locked, qty - batch->purchased);
}

static void
give_to_any(const AllocBatchRow *batch, int64 qty)
{
	AllocSlotRow slot;

	for (;;)
	{
		alloc_store_any_slot(batch, &slot);
		if (TransactionIdIsValid(slot.busy))
			alloc_store_wait_slot(&slot);
		else if (alloc_store_give(batch, &slot, qty))
			break;
		else
			alloc_store_look();
	}
}

/*
 * Fewer units, for which lines may have to leave; all batches are locked.
 *
 * Events are in an order that is sound at each: lines go, then the quantity,
 * then lines come: first those that had to leave, then those that waited.
 */
static void
shrink(Shrink *plan, int64 qty, ReturnSetInfo *result)
{
	const AllocBatchRow *batch = &plan->batches[plan->at];

	plan_shrink(plan, qty);
	take_lines_off(plan);
	alloc_store_set_purchased(batch, qty);
	alloc_event_quantity_changed(batch, qty);
	place_lines(plan, result);
	serve_rest(plan);
	save_batches(plan);
}

static void
lock_batches(Shrink *plan, const AllocBatchRow *batch)
{
	plan->nbatches = alloc_store_batches(batch->sku, &plan->batches);
	plan->chains = palloc_array(AllocChain, plan->nbatches);
	plan->left = palloc_array(AllocPlanBatch, plan->nbatches);
	for (size_t i = 0; i < plan->nbatches; i++)
	{
		alloc_store_lock_slots(&plan->batches[i]);
		plan->chains[i] = alloc_store_lines(&plan->batches[i]);
		plan->left[i] = plan->batches[i].plan;
		if (plan->left[i].batch_id == batch->plan.batch_id)
			plan->at = i;
	}
}

/*
 * alloc_require_not_shipped
 *		Raises SK004 when a batch is to have less than was shipped from it.
 */
void
alloc_require_not_shipped(const text *ref, int64 shipped, int64 qty)
{
	if (qty < shipped)
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_SHIPPED),
				 errmsg("quantity " INT64_FORMAT " of batch \"%s\" is below the " INT64_FORMAT " that have been shipped",
						qty, alloc_show(ref), shipped)));
}

/*
 * Which lines leave, and where they go.
 *
 * The list of the batch's lines goes on behind those that have left; where one
 * of them stays after all, it begins where it began.
 */
static void
plan_shrink(Shrink *plan, int64 qty)
{
	const AllocBatchRow *batch = &plan->batches[plan->at];
	AllocChain	rest = plan->chains[plan->at];
	int64		deficit = alloc_plan_deficit(batch->purchased,
											 batch->plan.available, qty);

	if (deficit > 0)
	{
		do
			plan->nlines = alloc_store_newest_lines(batch, deficit,
													&plan->lines, &rest);
		while (!lock_holds(plan));
	}
	for (size_t i = 0; i < plan->nlines; i++)
		deficit = alloc_plan_shed(deficit, plan->lines[i].line.qty);
	plan->left[plan->at].available = -deficit;

	plan->places = palloc_extended(plan->nlines * sizeof(AllocPlanLine),
								   MCXT_ALLOC_HUGE);
	for (size_t i = 0; i < plan->nlines; i++)
		plan->places[i].qty = plan->lines[plan->nlines - 1 - i].line.qty;
	alloc_plan_lines(plan->left, plan->nbatches, plan->places, plan->nlines);
	for (size_t i = 0; i < plan->nlines; i++)
		if (leaving_line(plan, i) == NULL)
			return;
	plan->chains[plan->at] = rest;
}

/*
 * Locks the holds among the lines.  False: one has changed; look again.
 */
static bool
lock_holds(const Shrink *plan)
{
	for (size_t i = 0; i < plan->nlines; i++)
	{
		AllocHoldRow hold;

		CHECK_FOR_INTERRUPTS();
		if (plan->lines[i].line.expires_at == 0)
			continue;
		if (!alloc_find_hold_of(&plan->lines[i], &hold) ||
			!alloc_store_lock_hold(&hold))
		{
			alloc_store_look();
			return false;
		}
	}
	return true;
}

static const AllocLineRow *
leaving_line(const Shrink *plan, size_t i)
{
	if (plan->places[i].batch == (ptrdiff_t) plan->at)
		return NULL;
	return &plan->lines[plan->nlines - 1 - i];
}

static void
take_lines_off(const Shrink *plan)
{
	for (size_t i = plan->nlines; i-- > 0;)
	{
		const AllocLineRow *row = leaving_line(plan, i);

		CHECK_FOR_INTERRUPTS();
		if (row != NULL)
			alloc_event_deallocated(&row->line, plan->batches[plan->at].ref);
	}
}

static void
place_lines(Shrink *plan, ReturnSetInfo *result)
{
	for (size_t i = 0; i < plan->nlines; i++)
	{
		const AllocLineRow *row = leaving_line(plan, i);
		const text *new_ref = NULL;

		CHECK_FOR_INTERRUPTS();
		if (row == NULL)
			continue;
		if (plan->places[i].batch == ALLOC_NO_BATCH)
			lose_line(plan, row);
		else
		{
			move_line(plan, row, (size_t) plan->places[i].batch);
			new_ref = plan->batches[plan->places[i].batch].ref;
		}
		return_moved(result, &row->line, plan->batches[plan->at].ref, new_ref);
	}
}

/*
 * A line that no batch can serve waits.  A hold has ended early.
 */
static void
lose_line(Shrink *plan, const AllocLineRow *row)
{
	AllocHoldRow hold;
	bool		held = row->line.expires_at != 0;

	if (held && !(alloc_find_hold_of(row, &hold) &&
				  alloc_store_end_hold(&hold, GetCurrentStatementStartTimestamp())))
		elog(ERROR, "a hold of batch \"%s\" has changed under lock",
			 alloc_show(plan->batches[plan->at].ref));
	if (!alloc_store_delete_line(row))
		elog(ERROR, "a line of batch \"%s\" has gone under lock",
			 alloc_show(plan->batches[plan->at].ref));
	if (held)
		alloc_event_out_of_stock(&row->line);
	else
	{
		alloc_queue_line(&row->line);
		plan->queued = true;
	}
}

static void
move_line(const Shrink *plan, const AllocLineRow *row, size_t to)
{
	const AllocBatchRow *batch = &plan->batches[to];
	AllocChain *chain = &plan->chains[to];
	int64		event_id = alloc_store_next_event_id();
	AllocHoldRow hold;

	if (row->line.expires_at != 0)
	{
		if (!(alloc_find_hold_of(row, &hold) &&
			  alloc_store_move_hold(&hold, batch)))
			elog(ERROR, "a hold of batch \"%s\" has changed under lock",
				 alloc_show(plan->batches[plan->at].ref));
		alloc_store_cover_hold(&batch->slots[0], &row->line);
	}
	alloc_store_move_line(row, batch->plan.batch_id, event_id);
	alloc_event_allocated(event_id, &row->line, batch->ref, chain);
	alloc_stat_count(ALLOC_STAT_LINES_MOVED);
	chain->newest = event_id;
	chain->merged = NULL;
}

/*
 * What the lines that had to leave do not need serves those that waited.
 */
static void
serve_rest(Shrink *plan)
{
	AllocBatchRow rest = plan->batches[plan->at];

	rest.plan.available = plan->left[plan->at].available;
	(void) alloc_serve_waiting(&rest, &plan->chains[plan->at]);
	plan->left[plan->at].available = rest.plan.available;
}

/*
 * The slots of the batches that have become other ones, and of all when lines
 * wait that did not before.
 */
static void
save_batches(const Shrink *plan)
{
	for (size_t i = 0; i < plan->nbatches; i++)
	{
		AllocBatchRow *batch = &plan->batches[i];
		bool		changed = i == plan->at ||
			batch->plan.available != plan->left[i].available;

		batch->plan.available = plan->left[i].available;
		if (changed)
		{
			if (plan->queued)
				(void) alloc_mark_slots(batch, true);
			alloc_store_save_slots(batch, &plan->chains[i]);
		}
		else if (plan->queued)
			alloc_store_mark_waiting(batch);
	}
}

static void
return_moved(ReturnSetInfo *result, const AllocLine *line,
			 const text *old_ref, const text *new_ref)
{
	Datum		values[5];
	bool		nulls[5] = {0};

	if (result == NULL)
		return;
	values[0] = PointerGetDatum(line->orderid);
	values[1] = PointerGetDatum(line->sku);
	values[2] = Int64GetDatum(line->qty);
	values[3] = PointerGetDatum(old_ref);
	values[4] = PointerGetDatum(new_ref);
	nulls[4] = new_ref == NULL;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}
