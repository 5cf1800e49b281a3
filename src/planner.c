/*-------------------------------------------------------------------------
 *
 * planner.c
 *	  Which batch serves which line, which lines leave a batch, and what a
 *	  feed changes.
 *
 * Pure C, standard headers only: see planner.h.  The caller holds whatever
 * locks make its numbers true; the planner only decides.
 *
 *-------------------------------------------------------------------------
 */
#include "planner.h"

#include <string.h>

static int	compare_heads(const AllocPlanSync *sync);
static bool is_repeated(const AllocPlanSync *sync);
static void start_action(AllocPlanAction *action, AllocPlanActionKind kind,
						 const AllocPlanPresent *batch);
static bool plan_new(AllocPlanSync *sync, AllocPlanAction *action);
static bool plan_missing(AllocPlanSync *sync, AllocPlanAction *action);
static bool plan_known(AllocPlanSync *sync, AllocPlanAction *action);
static bool plan_other_qty(AllocPlanSync *sync, AllocPlanAction *action);
static bool plan_other_eta(AllocPlanSync *sync, AllocPlanAction *action);
static void set_eta(AllocPlanTerms *terms, const AllocPlanTerms *from);

/*
 * alloc_plan_preference
 *		Order of preference: in stock, then the earliest day of arrival, then
 *		the batch that was added first.
 *
 * Returns less than 0 when a is preferred to b, more than 0 when b is, and 0
 * only for the same batch.
 */
int
alloc_plan_preference(const AllocPlanBatch *a, const AllocPlanBatch *b)
{
	if (a->in_stock != b->in_stock)
		return a->in_stock ? -1 : 1;
	if (!a->in_stock && a->eta != b->eta)
		return a->eta < b->eta ? -1 : 1;
	if (a->batch_id != b->batch_id)
		return a->batch_id < b->batch_id ? -1 : 1;
	return 0;
}

/*
 * alloc_plan_serves
 *		Can the batch serve a line of qty units?  A line is never split.
 */
bool
alloc_plan_serves(const AllocPlanBatch *batch, int64_t qty)
{
	return batch->available >= qty;
}

/*
 * alloc_plan_line
 *		The preferred batch among those that can serve a line of qty units.
 *
 * The batches may come in any order.  Returns the index of the batch, or
 * ALLOC_NO_BATCH when the line is out of stock.
 */
ptrdiff_t
alloc_plan_line(const AllocPlanBatch *batches, size_t nbatches, int64_t qty)
{
	ptrdiff_t	best = ALLOC_NO_BATCH;

	for (size_t i = 0; i < nbatches; i++)
	{
		if (!alloc_plan_serves(&batches[i], qty))
			continue;
		if (best == ALLOC_NO_BATCH ||
			alloc_plan_preference(&batches[i], &batches[best]) < 0)
			best = (ptrdiff_t) i;
	}
	return best;
}

/*
 * alloc_plan_lines
 *		Places lines one after the other, in the order in which they stand.
 *
 * Each line's batch is set; what it takes is subtracted from that batch's
 * available units, so that the lines after it see what is left.
 */
void
alloc_plan_lines(AllocPlanBatch *batches, size_t nbatches,
				 AllocPlanLine *lines, size_t nlines)
{
	for (size_t i = 0; i < nlines; i++)
		lines[i].batch = alloc_plan_take(batches, nbatches, lines[i].qty);
}

/*
 * alloc_plan_take
 *		Like alloc_plan_line(); what the line takes is subtracted from the
 *		available units of its batch.
 */
ptrdiff_t
alloc_plan_take(AllocPlanBatch *batches, size_t nbatches, int64_t qty)
{
	ptrdiff_t	batch = alloc_plan_line(batches, nbatches, qty);

	if (batch != ALLOC_NO_BATCH)
		batches[batch].available -= qty;
	return batch;
}

/*
 * alloc_plan_deficit
 *		What a batch lacks when its purchased quantity becomes new_purchased.
 *
 * What is not available is shipped or allocated, and needs units.  Returns
 * by how many units the lines of the batch are too many; 0 or less when they
 * fit, and then minus the result is what will be available.
 */
int64_t
alloc_plan_deficit(int64_t purchased, int64_t available, int64_t new_purchased)
{
	return (purchased - available) - new_purchased;
}

/*
 * alloc_plan_shed
 *		Lets the next line, of qty units, leave a batch that lacks deficit
 *		units (more than 0).
 *
 * Lines are to be offered newest first, until the result is not positive:
 * then the rest fits, and minus the result is available.
 */
int64_t
alloc_plan_shed(int64_t deficit, int64_t qty)
{
	return deficit - qty;
}

/*
 * alloc_plan_compare_keys
 *		The order of two keys' bytes: less than, equal to or greater than 0.
 */
int
alloc_plan_compare_keys(const AllocPlanKey *a, const AllocPlanKey *b)
{
	size_t		common = a->length < b->length ? a->length : b->length;
	int			order = common == 0 ? 0 : memcmp(a->bytes, b->bytes, common);

	if (order != 0)
		return order;
	return a->length < b->length ? -1 : a->length > b->length;
}

/*
 * alloc_plan_compare_feed, alloc_plan_compare_present
 *		The order in which the planner wants them: by ref; rows of the same ref
 *		by their number.
 */
int
alloc_plan_compare_feed(const AllocPlanFeedRow *a, const AllocPlanFeedRow *b)
{
	int			order = alloc_plan_compare_keys(&a->ref, &b->ref);

	if (order != 0)
		return order;
	return a->number < b->number ? -1 : a->number > b->number;
}

int
alloc_plan_compare_present(const AllocPlanPresent *a,
						   const AllocPlanPresent *b)
{
	return alloc_plan_compare_keys(&a->ref, &b->ref);
}

/*
 * alloc_plan_compare_actions
 *		The order in which actions are to be carried out: by sku, then kind,
 *		then ref.
 *
 * Skus come in the order in which all who need several lock them.  A line
 * never leaves its sku, so within one all stock comes, and has its day, before
 * lines have to look for it.
 */
int
alloc_plan_compare_actions(const AllocPlanAction *a, const AllocPlanAction *b)
{
	int			order = alloc_plan_compare_keys(&a->sku, &b->sku);

	if (order != 0)
		return order;
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	return alloc_plan_compare_keys(&a->ref, &b->ref);
}

/*
 * alloc_plan_next_action
 *		The next thing to be done to make the batches equal to the feed, or the
 *		next reason to refuse the feed.  False: there is none.
 *
 * In the order of refs: the caller sorts them.  A row may have two, one of its
 * quantity and one of its day of arrival.  What a batch has before and after
 * each is told for the sorted order.  A feed below what was shipped is planned
 * like any other.
 */
bool
alloc_plan_next_action(AllocPlanSync *sync, AllocPlanAction *action)
{
	while (sync->row < sync->nfeed || sync->batch < sync->npresent)
	{
		int			order = compare_heads(sync);
		bool		found;

		if (order < 0)
			found = plan_new(sync, action);
		else if (order > 0)
			found = plan_missing(sync, action);
		else
			found = plan_known(sync, action);
		if (found)
			return true;
	}
	return false;
}

/*
 * Less than 0: the next row has no batch; greater: the next batch has no row.
 */
static int
compare_heads(const AllocPlanSync *sync)
{
	if (sync->batch == sync->npresent)
		return -1;
	if (sync->row == sync->nfeed)
		return 1;
	return alloc_plan_compare_keys(&sync->feed[sync->row].ref,
								   &sync->present[sync->batch].ref);
}

/*
 * A row whose ref was in the row before is new as well: its batch was passed.
 */
static bool
plan_new(AllocPlanSync *sync, AllocPlanAction *action)
{
	const AllocPlanFeedRow *row = &sync->feed[sync->row];

	*action = (AllocPlanAction)
	{
		.kind = is_repeated(sync) ? ALLOC_REFUSE_TWICE : ALLOC_ACTION_CREATE,
			.ref = row->ref,.sku = row->sku,.after = row->terms,
			.number = row->number
	};
	sync->row++;
	return true;
}

static bool
is_repeated(const AllocPlanSync *sync)
{
	const AllocPlanFeedRow *row = &sync->feed[sync->row];

	return sync->row > 0 &&
		alloc_plan_compare_keys(&row[-1].ref, &row->ref) == 0;
}

static bool
plan_missing(AllocPlanSync *sync, AllocPlanAction *action)
{
	const AllocPlanPresent *batch = &sync->present[sync->batch++];

	if (batch->terms.qty <= batch->shipped)
		return false;
	start_action(action, ALLOC_ACTION_RETIRE, batch);
	action->after.qty = batch->shipped;
	return true;
}

/*
 * First what is to be done about the quantity, then, in a second call if there
 * was something, about the day of arrival.
 */
static bool
plan_known(AllocPlanSync *sync, AllocPlanAction *action)
{
	const AllocPlanFeedRow *row = &sync->feed[sync->row];
	const AllocPlanPresent *batch = &sync->present[sync->batch];
	bool		other_sku = alloc_plan_compare_keys(&row->sku,
													&batch->sku) != 0;
	bool		found;

	if (!other_sku && !sync->qty_done)
	{
		sync->qty_done = true;
		if (plan_other_qty(sync, action))
			return true;
	}
	if (other_sku)
	{
		start_action(action, ALLOC_REFUSE_SKU, batch);
		action->number = row->number;
		found = true;
	}
	else
		found = plan_other_eta(sync, action);
	sync->qty_done = false;
	sync->row++;
	sync->batch++;
	return found;
}

static void
start_action(AllocPlanAction *action, AllocPlanActionKind kind,
			 const AllocPlanPresent *batch)
{
	*action = (AllocPlanAction)
	{
		.kind = kind,.ref = batch->ref,.sku = batch->sku,
			.before = batch->terms,.after = batch->terms,
			.shipped = batch->shipped
	};
}

/*
 * A batch shrinks when it has its new day of arrival already.
 */
static bool
plan_other_qty(AllocPlanSync *sync, AllocPlanAction *action)
{
	const AllocPlanFeedRow *row = &sync->feed[sync->row];
	const AllocPlanPresent *batch = &sync->present[sync->batch];

	if (row->terms.qty == batch->terms.qty)
		return false;
	start_action(action, ALLOC_ACTION_GROW, batch);
	action->number = row->number;
	action->after.qty = row->terms.qty;
	if (row->terms.qty < batch->terms.qty)
	{
		action->kind = ALLOC_ACTION_SHRINK;
		set_eta(&action->before, &row->terms);
		set_eta(&action->after, &row->terms);
	}
	return true;
}

/*
 * ... and has grown by then.
 */
static bool
plan_other_eta(AllocPlanSync *sync, AllocPlanAction *action)
{
	const AllocPlanFeedRow *row = &sync->feed[sync->row];
	const AllocPlanPresent *batch = &sync->present[sync->batch];

	if (row->terms.in_stock == batch->terms.in_stock &&
		(row->terms.in_stock || row->terms.eta == batch->terms.eta))
		return false;
	start_action(action, ALLOC_ACTION_ETA, batch);
	action->number = row->number;
	if (row->terms.qty > batch->terms.qty)
		action->before.qty = action->after.qty = row->terms.qty;
	set_eta(&action->after, &row->terms);
	return true;
}

static void
set_eta(AllocPlanTerms *terms, const AllocPlanTerms *from)
{
	terms->in_stock = from->in_stock;
	terms->eta = from->eta;
}
