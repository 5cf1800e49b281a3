/*-------------------------------------------------------------------------
 *
 * command_eta.c
 *	  change_batch_eta(): a ship comes earlier or later, or has arrived.
 *
 * Lines stay where they are, but what was promised to them changes.  All of it
 * is done with the product and the batch's slots locked: while it lasts no line
 * of the batch comes or goes.
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
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(alloc_change_batch_eta);

static void change_eta(const text *ref, const AllocPlanBatch *now,
					   ReturnSetInfo *result);
static bool same_eta(const AllocPlanBatch *a, const AllocPlanBatch *b);
static void tell_lines(const AllocBatchRow *batch, const AllocPlanBatch *now,
					   ReturnSetInfo *result);
static void return_line(ReturnSetInfo *result, const AllocLine *line,
						const AllocPlanBatch *old, const AllocPlanBatch *now);
static void set_eta(Datum *value, bool *isnull, const AllocPlanBatch *plan);

/*
 * alloc.change_batch_eta(ref text, eta date)
 * returns setof (orderid, sku, qty, old_eta, new_eta)
 *		Sets the day of arrival of a batch; NULL: it is in the warehouse.  A
 *		row, and an event, for each line that the batch serves, oldest first.
 *
 * The same day again changes nothing.  Errors: 22004, 22023, 22001, SK002
 * (unknown ref), 40001.  Source: the book, chapter 2 (preference: warehouse,
 * then earliest ship).
 */
Datum
alloc_change_batch_eta(PG_FUNCTION_ARGS)
{
	text	   *ref = alloc_arg_key(fcinfo, 0, "ref");
	AllocPlanBatch now = {0};

	now.in_stock = PG_ARGISNULL(1);
	now.eta = now.in_stock ? 0 : PG_GETARG_DATEADT(1);
	InitMaterializedSRF(fcinfo, 0);
	alloc_command_begin("change_batch_eta()");
	change_eta(ref, &now, (ReturnSetInfo *) fcinfo->resultinfo);
	alloc_stat_count(ALLOC_STAT_CHANGE_BATCH_ETA);
	alloc_command_end();
	return (Datum) 0;
}

static void
change_eta(const text *ref, const AllocPlanBatch *now, ReturnSetInfo *result)
{
	AllocBatchRow batch;

	alloc_require_batch(ref, &batch);
	alloc_share_require(batch.sku);
	alloc_store_renew_product(batch.sku);
	alloc_store_look();
	alloc_require_batch(ref, &batch);
	(void) alloc_set_eta(&batch, now, result);
}

/*
 * alloc_set_eta
 *		Sets the day of arrival of a batch, whose product is locked.  The result
 *		gets a row for each line that it serves; NULL: nobody wants them.
 *		False: it has that day.
 */
bool
alloc_set_eta(const AllocBatchRow *batch, const AllocPlanBatch *now,
			  ReturnSetInfo *result)
{
	AllocBatchRow locked = *batch;

	if (same_eta(&batch->plan, now))
		return false;
	alloc_sweep_product(batch->sku);
	alloc_store_lock_slots(&locked);
	alloc_event_eta_changed(&locked, now);
	tell_lines(&locked, now, result);
	alloc_store_set_eta(&locked, now);
	return true;
}

static bool
same_eta(const AllocPlanBatch *a, const AllocPlanBatch *b)
{
	return a->in_stock == b->in_stock && a->eta == b->eta;
}

static void
tell_lines(const AllocBatchRow *batch, const AllocPlanBatch *now,
		   ReturnSetInfo *result)
{
	int64		allocated = batch->purchased - batch->shipped -
		batch->plan.available;
	AllocLineRow *lines;
	AllocChain	rest;
	size_t		n = 0;

	if (allocated > 0)
		n = alloc_store_newest_lines(batch, allocated, &lines, &rest);
	while (n-- > 0)
	{
		CHECK_FOR_INTERRUPTS();
		alloc_event_promise_changed(&lines[n].line, batch, now);
		return_line(result, &lines[n].line, &batch->plan, now);
	}
}

static void
return_line(ReturnSetInfo *result, const AllocLine *line,
			const AllocPlanBatch *old, const AllocPlanBatch *now)
{
	Datum		values[5];
	bool		nulls[5] = {0};

	if (result == NULL)
		return;
	values[0] = PointerGetDatum(line->orderid);
	values[1] = PointerGetDatum(line->sku);
	values[2] = Int64GetDatum(line->qty);
	set_eta(&values[3], &nulls[3], old);
	set_eta(&values[4], &nulls[4], now);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
set_eta(Datum *value, bool *isnull, const AllocPlanBatch *plan)
{
	*isnull = plan->in_stock;
	*value = DateADTGetDatum(plan->eta);
}
