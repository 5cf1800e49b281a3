/*-------------------------------------------------------------------------
 *
 * planner.c
 *	  Which batch serves which line, and which lines leave a batch.
 *
 * Pure C, standard headers only: see planner.h.  The caller holds whatever
 * locks make its numbers true; the planner only decides.
 *
 *-------------------------------------------------------------------------
 */
#include "planner.h"

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
