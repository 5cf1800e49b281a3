/*-------------------------------------------------------------------------
 *
 * planner.h
 *	  Which batch serves which line, and which lines leave a batch.
 *
 * The functional core: values in, decisions out.  Nothing here allocates,
 * reads a clock, raises an error or knows of PostgreSQL; callers own all
 * memory.  The rules are those of "Architecture Patterns with Python",
 * chapters 1 (allocate) and 9 (change_batch_quantity), and DESIGN section 2.
 *
 * Quantities are units of stock, 0 to 2^63-1, unless said otherwise.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_PLANNER_H
#define ALLOC_PLANNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A batch as the planner sees it. */
typedef struct AllocPlanBatch
{
	int64_t		batch_id;		/* grows in the order of add_batch() */
	int64_t		available;		/* units that no line has */
	int32_t		eta;			/* day of arrival; any scale that grows */
	bool		in_stock;		/* arrived: eta means nothing */
} AllocPlanBatch;

/* A line that looks for a batch, and the batch found. */
typedef struct AllocPlanLine
{
	int64_t		qty;			/* units, more than 0 */
	ptrdiff_t	batch;			/* out: index of a batch, or ALLOC_NO_BATCH */
} AllocPlanLine;

#define ALLOC_NO_BATCH ((ptrdiff_t) -1)

extern int	alloc_plan_preference(const AllocPlanBatch *a,
								  const AllocPlanBatch *b);
extern bool alloc_plan_serves(const AllocPlanBatch *batch, int64_t qty);
extern ptrdiff_t alloc_plan_line(const AllocPlanBatch *batches, size_t nbatches,
								 int64_t qty);
extern void alloc_plan_lines(AllocPlanBatch *batches, size_t nbatches,
							 AllocPlanLine *lines, size_t nlines);
extern ptrdiff_t alloc_plan_take(AllocPlanBatch *batches, size_t nbatches,
								 int64_t qty);
extern int64_t alloc_plan_deficit(int64_t purchased, int64_t available,
								  int64_t new_purchased);
extern int64_t alloc_plan_shed(int64_t deficit, int64_t qty);

#endif							/* ALLOC_PLANNER_H */
