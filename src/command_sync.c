/*-------------------------------------------------------------------------
 *
 * command_sync.c
 *	  sync_batches(): makes the batches equal to a feed.
 *
 * The feed (feed.c) and all batches are read and sorted, and the planner says
 * what is to be done.  Then each action is what the command of its kind does,
 * with the product locked once for all actions of a sku.
 *
 * Locks: feeds take turns, and each is read and planned after those before it
 * have ended: so the batches are never a mixture of two feeds.  Other commands
 * go on meanwhile: what they change after the plan counts as later than the
 * feed, but for the rows that the feed changes itself.  Skus are locked in the
 * order of their bytes.
 *
 * Memory: "alloc feed" has the feed, the batches and the plan, about 100 bytes
 * for each row, each batch and each action; "alloc action" is emptied after
 * each.  The result is a tuplestore, which goes to disk beyond work_mem.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "command.h"
#include "feed.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "share.h"
#include "stat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(alloc_sync_batches);

/* What is to be done, in order. */
typedef struct SyncPlan
{
	AllocPlanAction *actions;
	size_t		n;
	size_t		room;
} SyncPlan;

static void sync_batches(AllocFeed *feed, Oid source, ReturnSetInfo *result);
static void show_plan(AllocFeed *feed, Oid source, ReturnSetInfo *result);
static void make_plan(SyncPlan *plan, AllocFeed *feed);
static void require_served(const AllocFeed *feed);
static void add_action(SyncPlan *plan, AllocFeed *feed,
					   const AllocPlanAction *action);
static int	compare_feed(const void *a, const void *b, void *arg);
static int	compare_present(const void *a, const void *b, void *arg);
static int	compare_actions(const void *a, const void *b, void *arg);
static void carry_out(const SyncPlan *plan, ReturnSetInfo *result);
static bool carry_out_action(AllocPlanAction *action);
static bool create(const AllocPlanAction *action);
static AllocPlanTerms terms_of(const AllocBatchRow *batch);
static void return_action(ReturnSetInfo *result,
						  const AllocPlanAction *action);
static void set_terms(Datum *values, bool *nulls, const AllocPlanTerms *terms);

/*
 * alloc.sync_batches(source regclass, dry_run boolean DEFAULT false)
 * returns setof (action, ref, sku, old_qty, new_qty, old_eta, new_eta)
 *		Makes the batches equal to the rows of a table, view or foreign table
 *		with the columns ref, sku, qty and eta; a batch that is not there gets
 *		the quantity that has been shipped.  A row for each thing done, in that
 *		order: by sku; then new batches, larger quantities, days of arrival,
 *		smaller quantities, batches not in the feed; then by ref.  dry_run:
 *		tells, and does nothing.
 *
 * Errors: 22004 (an argument), 22023 (rows that are bad; the first are in the
 * detail), 42P01, 42703, 42804, 42501 (the source), and those of add_batch(),
 * change_batch_quantity() and change_batch_eta().  Source: DESIGN section 2.
 */
Datum
alloc_sync_batches(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"source", "dry_run"};
	AllocFeed	feed = {0};
	MemoryContext oldcxt;

	for (int i = 0; i < lengthof(names); i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", names[i])));
	InitMaterializedSRF(fcinfo, 0);
	feed.cxt = AllocSetContextCreate(CurrentMemoryContext, "alloc feed",
									 ALLOCSET_DEFAULT_SIZES);
	oldcxt = MemoryContextSwitchTo(feed.cxt);
	if (PG_GETARG_BOOL(1))
		show_plan(&feed, PG_GETARG_OID(0),
				  (ReturnSetInfo *) fcinfo->resultinfo);
	else
		sync_batches(&feed, PG_GETARG_OID(0),
					 (ReturnSetInfo *) fcinfo->resultinfo);
	alloc_stat_count(ALLOC_STAT_SYNC_BATCHES);
	MemoryContextSwitchTo(oldcxt);
	MemoryContextDelete(feed.cxt);
	return (Datum) 0;
}

/*
 * The feed is read outside the command: its view may call others.
 */
static void
sync_batches(AllocFeed *feed, Oid source, ReturnSetInfo *result)
{
	SyncPlan	plan = {0};

	alloc_store_begin("sync_batches()");
	alloc_store_open_stock();
	alloc_store_take_turn();
	alloc_store_end();
	alloc_feed_read(feed, source, true);

	alloc_command_begin("sync_batches()");
	make_plan(&plan, feed);
	carry_out(&plan, result);
	alloc_command_end();
}

/*
 * As the statement sees the feed and the batches.
 */
static void
show_plan(AllocFeed *feed, Oid source, ReturnSetInfo *result)
{
	SyncPlan	plan = {0};

	alloc_feed_read(feed, source, false);
	alloc_store_begin_query("sync_batches()");
	make_plan(&plan, feed);
	alloc_store_end_query();
	for (size_t i = 0; i < plan.n; i++)
		return_action(result, &plan.actions[i]);
}

/*
 * Raises 22023, 55000 and SK004.
 */
static void
make_plan(SyncPlan *plan, AllocFeed *feed)
{
	AllocPlanPresent *present;
	AllocPlanAction action;
	AllocPlanSync sync = {.feed = feed->rows,.nfeed = feed->n};

	require_served(feed);
	plan->room = 64;
	plan->actions = palloc_array(AllocPlanAction, plan->room);
	sync.npresent = alloc_store_present(&present);
	sync.present = present;
	qsort_interruptible(feed->rows, feed->n, sizeof(AllocPlanFeedRow),
						compare_feed, NULL);
	qsort_interruptible(present, sync.npresent, sizeof(AllocPlanPresent),
						compare_present, NULL);
	while (alloc_plan_next_action(&sync, &action))
	{
		CHECK_FOR_INTERRUPTS();
		add_action(plan, feed, &action);
	}
	alloc_feed_require_sound(feed);
	qsort_interruptible(plan->actions, plan->n, sizeof(AllocPlanAction),
						compare_actions, NULL);
	for (size_t i = 0; i < plan->n; i++)
		if (plan->actions[i].kind == ALLOC_ACTION_SHRINK)
			alloc_require_not_shipped(alloc_feed_text(&plan->actions[i].ref),
									  plan->actions[i].shipped,
									  plan->actions[i].after.qty);
}

/*
 * A feed is for the skus of this partition, all of them.
 */
static void
require_served(const AllocFeed *feed)
{
	for (size_t i = 0; i < feed->n; i++)
	{
		text	   *sku = alloc_feed_text(&feed->rows[i].sku);

		CHECK_FOR_INTERRUPTS();
		alloc_share_require(sku);
		pfree(sku);
	}
}

static void
add_action(SyncPlan *plan, AllocFeed *feed, const AllocPlanAction *action)
{
	if (action->kind == ALLOC_REFUSE_TWICE)
		alloc_feed_flaw(feed, action->number,
						"ref \"%s\" is in an earlier row as well.",
						alloc_show(alloc_feed_text(&action->ref)));
	else if (action->kind == ALLOC_REFUSE_SKU)
		alloc_feed_flaw(feed, action->number,
						"ref \"%s\" is a batch of sku \"%s\".",
						alloc_show(alloc_feed_text(&action->ref)),
						alloc_show(alloc_feed_text(&action->sku)));
	else
	{
		if (plan->n == plan->room)
		{
			plan->room *= 2;
			plan->actions = repalloc_huge(plan->actions,
										  plan->room * sizeof(AllocPlanAction));
		}
		plan->actions[plan->n++] = *action;
	}
}

static int
compare_feed(const void *a, const void *b, void *arg)
{
	return alloc_plan_compare_feed(a, b);
}

static int
compare_present(const void *a, const void *b, void *arg)
{
	return alloc_plan_compare_present(a, b);
}

static int
compare_actions(const void *a, const void *b, void *arg)
{
	return alloc_plan_compare_actions(a, b);
}

static void
carry_out(const SyncPlan *plan, ReturnSetInfo *result)
{
	MemoryContext action_cxt = AllocSetContextCreate(CurrentMemoryContext,
													 "alloc action",
													 ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcxt = MemoryContextSwitchTo(action_cxt);

	for (size_t i = 0; i < plan->n; i++)
	{
		AllocPlanAction *action = &plan->actions[i];

		CHECK_FOR_INTERRUPTS();
		if (i == 0 || alloc_plan_compare_keys(&action[-1].sku, &action->sku) != 0)
			alloc_lock_product_for(alloc_feed_text(&action->sku));
		if (carry_out_action(action))
			return_action(result, action);
		alloc_store_look();
		MemoryContextReset(action_cxt);
	}
	MemoryContextSwitchTo(oldcxt);
	MemoryContextDelete(action_cxt);
}

/*
 * The batch may be another one since the plan: what it was before, and is
 * after, is told as it was found.  False: there was nothing left to do.
 */
static bool
carry_out_action(AllocPlanAction *action)
{
	AllocBatchRow batch;
	AllocPlanBatch eta = {
		.eta = action->after.eta,.in_stock = action->after.in_stock
	};
	int64		qty = action->after.qty;

	if (action->kind == ALLOC_ACTION_CREATE)
		return create(action);
	alloc_require_batch(alloc_feed_text(&action->ref), &batch);
	action->before = action->after = terms_of(&batch);
	switch (action->kind)
	{
		case ALLOC_ACTION_ETA:
			action->after.eta = eta.eta;
			action->after.in_stock = eta.in_stock;
			return alloc_set_eta(&batch, &eta, NULL);
		case ALLOC_ACTION_RETIRE:
			action->after.qty = alloc_retire(&batch);
			return action->after.qty != batch.purchased;
		default:
			alloc_set_quantity(&batch, qty, NULL);
			action->after.qty = qty;
			return qty != batch.purchased;
	}
}

static bool
create(const AllocPlanAction *action)
{
	AllocBatchRow batch = {
		.ref = alloc_feed_text(&action->ref),
		.sku = alloc_feed_text(&action->sku),
		.purchased = action->after.qty,
		.plan.eta = action->after.eta,
		.plan.in_stock = action->after.in_stock
	};

	return alloc_buy_batch(&batch);
}

static AllocPlanTerms
terms_of(const AllocBatchRow *batch)
{
	AllocPlanTerms terms = {
		.qty = batch->purchased,
		.eta = batch->plan.eta,
		.in_stock = batch->plan.in_stock
	};

	return terms;
}

static void
return_action(ReturnSetInfo *result, const AllocPlanAction *action)
{
	static const char *const names[] = {
		[ALLOC_ACTION_CREATE] = "create",
		[ALLOC_ACTION_GROW] = "change_quantity",
		[ALLOC_ACTION_ETA] = "change_eta",
		[ALLOC_ACTION_SHRINK] = "change_quantity",
		[ALLOC_ACTION_RETIRE] = "retire"
	};
	Datum		values[7];
	bool		nulls[7] = {0};

	values[0] = CStringGetTextDatum(names[action->kind]);
	values[1] = PointerGetDatum(alloc_feed_text(&action->ref));
	values[2] = PointerGetDatum(alloc_feed_text(&action->sku));
	set_terms(&values[3], &nulls[3], &action->before);
	if (action->kind == ALLOC_ACTION_CREATE)
		nulls[3] = nulls[5] = true;
	set_terms(&values[4], &nulls[4], &action->after);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * The quantity, and two columns on the day of arrival.
 */
static void
set_terms(Datum *values, bool *nulls, const AllocPlanTerms *terms)
{
	values[0] = Int64GetDatum(terms->qty);
	nulls[0] = false;
	values[2] = DateADTGetDatum(terms->eta);
	nulls[2] = terms->in_stock;
}
