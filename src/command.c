/*-------------------------------------------------------------------------
 *
 * command.c
 *	  SQL-callable commands: the service layer.
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

#include "access/htup_details.h"
#include "access/xact.h"
#include "argument.h"
#include "event.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "store.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/tuplestore.h"

#define ERRCODE_ALLOC_UNKNOWN_SKU	MAKE_SQLSTATE('S', 'K', '0', '0', '1')
#define ERRCODE_ALLOC_UNKNOWN_BATCH MAKE_SQLSTATE('S', 'K', '0', '0', '2')
#define ERRCODE_ALLOC_OTHER_QUANTITY MAKE_SQLSTATE('S', 'K', '0', '0', '3')
#define ERRCODE_ALLOC_SHIPPED		MAKE_SQLSTATE('S', 'K', '0', '0', '4')

PG_FUNCTION_INFO_V1(alloc_add_batch);
PG_FUNCTION_INFO_V1(alloc_allocate);
PG_FUNCTION_INFO_V1(alloc_deallocate);
PG_FUNCTION_INFO_V1(alloc_change_batch_quantity);

/* The change of a batch's quantity, and the lines that have to leave. */
typedef struct Shrink
{
	AllocBatchRow *batches;		/* of the sku, in order of preference */
	size_t		nbatches;
	size_t		at;				/* the batch that shrinks */
	int64		new_qty;
	AllocLineRow *lines;		/* newest first */
	size_t		nlines;
	AllocPlanBatch *left;		/* of each batch, when all is done */
	AllocPlanLine *places;		/* of each line, oldest first */
} Shrink;

/* So many calls after one about a line that was there, look for the line. */
#define REPEATS_EXPECTED 16

static int	repeats_expected;

static void add_batch(AllocBatchRow *batch);
static void require_same_batch(const AllocBatchRow *there,
							   const AllocBatchRow *batch);
static bool same_text(const text *a, const text *b);
static void require_sum_fits(const text *sku, const text *except, int64 qty);
static text *allocate(const AllocLine *line);
static void require_known_sku(const text *sku, bool known);
static void put_back(const AllocBatchRow *taken, int64 qty);
static text *allocated_before(const AllocLine *line, const AllocLineRow *there);
static text *deallocate(const text *orderid, const text *sku);
static void change_quantity(const text *ref, int64 qty, ReturnSetInfo *result);
static void lock_batch(const text *ref, int64 qty, AllocBatchRow *batch);
static void lock_all_slots(const text *sku);
static void find_batch(const text *ref, AllocBatchRow *batch);
static void resize(const AllocBatchRow *batch, int64 qty);
static void shrink(const AllocBatchRow *batch, int64 qty,
				   ReturnSetInfo *result);
static void plan_shrink(Shrink *plan, const AllocBatchRow *batch);
static void take_lines_off(const Shrink *plan);
static void place_lines(const Shrink *plan, ReturnSetInfo *result);
static const AllocLineRow *leaving_line(const Shrink *plan, size_t i);
static void return_moved(ReturnSetInfo *result, const AllocLine *line,
						 const text *old_ref, const text *new_ref);

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

	alloc_store_begin("add_batch()");
	add_batch(&batch);
	alloc_store_end();
	PG_RETURN_TEXT_P(batch.ref);
}

/*
 * alloc.allocate(orderid text, sku text, qty bigint) returns text
 *		Gives a line of qty units (1 or more) the best batch that can serve
 *		all of it, and returns its reference; NULL: out of stock.
 *
 * The same line again: its batch, and no event.  Errors: 22004, 22023, 22001,
 * SK001 (unknown sku), SK003 (the line is there with another quantity),
 * 40001.  Source: the book, chapter 1 (allocate), chapter 8 (OutOfStock).
 */
Datum
alloc_allocate(PG_FUNCTION_ARGS)
{
	AllocLine	line;
	text	   *ref;

	line.orderid = alloc_arg_key(fcinfo, 0, "orderid");
	line.sku = alloc_arg_key(fcinfo, 1, "sku");
	line.qty = alloc_arg_qty(fcinfo, 2, 1);

	alloc_store_begin("allocate()");
	ref = allocate(&line);
	alloc_store_end();
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

	alloc_store_begin("deallocate()");
	ref = deallocate(orderid, sku);
	alloc_store_end();
	if (ref == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(ref);
}

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
	alloc_store_begin("change_batch_quantity()");
	change_quantity(ref, qty, (ReturnSetInfo *) fcinfo->resultinfo);
	alloc_store_end();
	return (Datum) 0;
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
	while (!alloc_store_lock_product(batch->sku))
	{
		alloc_store_create_product(batch->sku);
		alloc_store_look();
	}
	alloc_store_look();
	do
	{
		if (alloc_store_settle_ref(batch->ref, &there))
		{
			require_same_batch(&there, batch);
			return;
		}
		require_sum_fits(batch->sku, NULL, batch->purchased);
	} while (!alloc_store_insert_batch(batch));
	alloc_event_batch_created(batch);
}

static void
require_same_batch(const AllocBatchRow *there, const AllocBatchRow *batch)
{
	if (there->purchased == batch->purchased &&
		there->plan.in_stock == batch->plan.in_stock &&
		there->plan.eta == batch->plan.eta &&
		same_text(there->sku, batch->sku))
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

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/*
 * Raises 22003 when the purchased quantities of a sku's batches, but for one,
 * and qty do not add up to a bigint.  The views add them up.
 */
static void
require_sum_fits(const text *sku, const text *except, int64 qty)
{
	AllocBatchRow *batches;
	size_t		n = alloc_store_batches(sku, &batches);
	int64		room = PG_INT64_MAX - qty;

	for (size_t i = 0; i < n; i++)
	{
		if (except != NULL && same_text(batches[i].ref, except))
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
 * A line is nearly always new, and its insertion tells when it is not.  So
 * the line is looked for only when there is a reason: it could not be
 * inserted, stock was not free at once, the last calls were about lines that
 * were there, or the transaction has one snapshot that decides what is there.
 */
static text *
allocate(const AllocLine *line)
{
	bool		look_for_line = repeats_expected > 0 ||
		IsolationUsesXactSnapshot();

	for (;;)
	{
		AllocLineRow there;
		AllocBatchRow batch;
		bool		known_sku;
		bool		found;

		if (look_for_line && alloc_store_settle_line(line, &there))
		{
			repeats_expected = REPEATS_EXPECTED;
			return allocated_before(line, &there);
		}
		found = alloc_store_best_batch(line->sku, line->qty, &batch,
									   &known_sku);
		if (found && alloc_store_take(&batch, line->qty))
		{
			int64		event_id = alloc_store_next_event_id();

			if (alloc_store_insert_line(line, batch.plan.batch_id, event_id))
			{
				alloc_event_allocated(event_id, line, batch.ref);
				repeats_expected -= repeats_expected > 0;
				return batch.ref;
			}
			put_back(&batch, line->qty);
			look_for_line = true;
		}
		else if (!look_for_line)
			look_for_line = true;
		else if (found)
			alloc_store_wait_slot(&batch);
		else
		{
			require_known_sku(line->sku, known_sku);
			alloc_event_out_of_stock(line);
			return NULL;
		}
	}
}

static void
require_known_sku(const text *sku, bool known)
{
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_UNKNOWN_SKU),
				 errmsg("unknown sku \"%s\"", alloc_show(sku)),
				 errhint("A sku becomes known with its first add_batch().")));
}

/*
 * Undoes alloc_store_take().
 */
static void
put_back(const AllocBatchRow *taken, int64 qty)
{
	AllocBatchRow batch;

	alloc_store_look();
	alloc_store_get_batch(taken->plan.batch_id, &batch);
	if (!alloc_store_give(&batch, qty))
		elog(ERROR, "our own slot of batch \"%s\" has changed",
			 alloc_show(batch.ref));
	alloc_store_look();
}

/*
 * The answer for a line that is there.
 */
static text *
allocated_before(const AllocLine *line, const AllocLineRow *there)
{
	AllocBatchRow batch;

	if (there->line.qty != line->qty)
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_OTHER_QUANTITY),
				 errmsg("order line (\"%s\", \"%s\") exists with quantity " INT64_FORMAT ", not " INT64_FORMAT,
						alloc_show(line->orderid), alloc_show(line->sku),
						there->line.qty, line->qty),
				 errhint("Call deallocate() first to change the quantity of a line.")));
	alloc_store_get_batch(there->batch_id, &batch);
	return batch.ref;
}

static text *
deallocate(const text *orderid, const text *sku)
{
	AllocLineRow there;
	AllocBatchRow batch;

	while (alloc_store_find_line(orderid, sku, &there))
	{
		alloc_store_get_batch(there.batch_id, &batch);
		if (alloc_store_give(&batch, there.line.qty))
		{
			alloc_store_delete_line(&there);
			alloc_event_deallocated(&there.line, batch.ref);
			return batch.ref;
		}
		alloc_store_look();
	}
	return NULL;
}

static void
change_quantity(const text *ref, int64 qty, ReturnSetInfo *result)
{
	AllocBatchRow batch;

	lock_batch(ref, qty, &batch);
	if (qty == batch.purchased)
		return;
	if (qty < batch.shipped)
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_SHIPPED),
				 errmsg("quantity " INT64_FORMAT " of batch \"%s\" is below the " INT64_FORMAT " that have been shipped",
						qty, alloc_show(ref), batch.shipped)));
	if (qty > batch.purchased)
		require_sum_fits(batch.sku, ref, qty);
	if (alloc_plan_deficit(batch.purchased, batch.plan.available, qty) > 0)
		shrink(&batch, qty, result);
	else
		resize(&batch, qty);
}

/*
 * The batch, when its product is locked and the slots that setting its
 * quantity to qty may need: if lines may have to leave, any batch of the sku
 * may get them.  With all slots locked no line of the sku can come or go.
 */
static void
lock_batch(const text *ref, int64 qty, AllocBatchRow *batch)
{
	find_batch(ref, batch);
	alloc_store_lock_product(batch->sku);
	alloc_store_look();
	find_batch(ref, batch);
	if (qty < batch->purchased)
		lock_all_slots(batch->sku);
	else
		alloc_store_lock_slots(batch);
	alloc_store_look();
	find_batch(ref, batch);
}

static void
lock_all_slots(const text *sku)
{
	AllocBatchRow *batches;
	size_t		n = alloc_store_batches(sku, &batches);

	for (size_t i = 0; i < n; i++)
		alloc_store_lock_slots(&batches[i]);
}

static void
find_batch(const text *ref, AllocBatchRow *batch)
{
	if (!alloc_store_find_batch(ref, batch))
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_UNKNOWN_BATCH),
				 errmsg("unknown batch \"%s\"", alloc_show(ref)),
				 errhint("A batch becomes known with add_batch().")));
}

/*
 * A change of quantity for which no line has to leave.
 */
static void
resize(const AllocBatchRow *batch, int64 qty)
{
	alloc_store_set_available(batch, -alloc_plan_deficit(batch->purchased,
														 batch->plan.available,
														 qty));
	alloc_store_set_purchased(batch, qty);
	alloc_event_quantity_changed(batch, qty);
}

/*
 * A change of quantity for which lines have to leave.
 *
 * Events are in an order that is sound at each: lines go, then the quantity,
 * then lines come.
 */
static void
shrink(const AllocBatchRow *batch, int64 qty, ReturnSetInfo *result)
{
	Shrink		plan = {.new_qty = qty};

	plan_shrink(&plan, batch);
	take_lines_off(&plan);
	for (size_t i = 0; i < plan.nbatches; i++)
		if (i == plan.at ||
			plan.left[i].available != plan.batches[i].plan.available)
			alloc_store_set_available(&plan.batches[i], plan.left[i].available);
	alloc_store_set_purchased(&plan.batches[plan.at], qty);
	alloc_event_quantity_changed(&plan.batches[plan.at], qty);
	place_lines(&plan, result);
}

static void
plan_shrink(Shrink *plan, const AllocBatchRow *batch)
{
	int64		deficit = alloc_plan_deficit(batch->purchased,
											 batch->plan.available,
											 plan->new_qty);

	plan->nlines = alloc_store_newest_lines(batch->plan.batch_id, deficit,
											&plan->lines);
	for (size_t i = 0; i < plan->nlines; i++)
		deficit = alloc_plan_shed(deficit, plan->lines[i].line.qty);

	plan->nbatches = alloc_store_batches(batch->sku, &plan->batches);
	plan->left = palloc_array(AllocPlanBatch, plan->nbatches);
	for (size_t i = 0; i < plan->nbatches; i++)
	{
		plan->left[i] = plan->batches[i].plan;
		if (plan->left[i].batch_id == batch->plan.batch_id)
			plan->at = i;
	}
	plan->left[plan->at].available = -deficit;

	plan->places = palloc_extended(plan->nlines * sizeof(AllocPlanLine),
								   MCXT_ALLOC_HUGE);
	for (size_t i = 0; i < plan->nlines; i++)
		plan->places[i].qty = plan->lines[plan->nlines - 1 - i].line.qty;
	alloc_plan_lines(plan->left, plan->nbatches, plan->places, plan->nlines);
}

/*
 * The i-th of the shed lines, oldest first, or NULL if it stays after all.
 */
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
place_lines(const Shrink *plan, ReturnSetInfo *result)
{
	for (size_t i = 0; i < plan->nlines; i++)
	{
		const AllocLineRow *row = leaving_line(plan, i);
		const text *new_ref = NULL;

		CHECK_FOR_INTERRUPTS();
		if (row == NULL)
			continue;
		if (plan->places[i].batch == ALLOC_NO_BATCH)
		{
			alloc_store_delete_line(row);
			alloc_event_out_of_stock(&row->line);
		}
		else
		{
			const AllocBatchRow *batch = &plan->batches[plan->places[i].batch];
			int64		event_id = alloc_store_next_event_id();

			new_ref = batch->ref;
			alloc_store_move_line(row, batch->plan.batch_id, event_id);
			alloc_event_allocated(event_id, &row->line, new_ref);
		}
		return_moved(result, &row->line, plan->batches[plan->at].ref, new_ref);
	}
}

static void
return_moved(ReturnSetInfo *result, const AllocLine *line,
			 const text *old_ref, const text *new_ref)
{
	Datum		values[5];
	bool		nulls[5] = {0};

	values[0] = PointerGetDatum(line->orderid);
	values[1] = PointerGetDatum(line->sku);
	values[2] = Int64GetDatum(line->qty);
	values[3] = PointerGetDatum(old_ref);
	values[4] = PointerGetDatum(new_ref);
	nulls[4] = new_ref == NULL;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}
