/*-------------------------------------------------------------------------
 *
 * planner.h
 *	  Which batch serves which line, which lines leave a batch, and what a
 *	  feed changes.
 *
 * The functional core: values in, decisions out.  Nothing here allocates,
 * reads a clock, raises an error or knows of PostgreSQL; callers own all
 * memory.  The rules are those of "Architecture Patterns with Python",
 * chapters 1 (allocate) and 9 (change_batch_quantity), and DESIGN section 2
 * (sync_batches).
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

/* A key, compared by its bytes. */
typedef struct AllocPlanKey
{
	const char *bytes;
	size_t		length;
} AllocPlanKey;

/* What a feed says of a batch, or what the batch has. */
typedef struct AllocPlanTerms
{
	int64_t		qty;			/* purchased */
	int32_t		eta;			/* as in AllocPlanBatch */
	bool		in_stock;
} AllocPlanTerms;

/* A row of a feed. */
typedef struct AllocPlanFeedRow
{
	AllocPlanKey ref;
	AllocPlanKey sku;
	AllocPlanTerms terms;
	size_t		number;			/* of the row, from 1 */
} AllocPlanFeedRow;

/* A batch that is there, with or without the feed. */
typedef struct AllocPlanPresent
{
	AllocPlanKey ref;
	AllocPlanKey sku;
	AllocPlanTerms terms;
	int64_t		shipped;
} AllocPlanPresent;

/*
 * What is to be done, in the order in which it is to be done for one sku; or
 * why the feed must be refused.
 */
typedef enum AllocPlanActionKind
{
	ALLOC_ACTION_CREATE,
	ALLOC_ACTION_GROW,
	ALLOC_ACTION_ETA,
	ALLOC_ACTION_SHRINK,
	ALLOC_ACTION_RETIRE,		/* not in the feed: down to what was shipped */
	ALLOC_REFUSE_TWICE,			/* the ref is in an earlier row as well */
	ALLOC_REFUSE_SKU			/* the batch has another sku */
} AllocPlanActionKind;

typedef struct AllocPlanAction
{
	AllocPlanActionKind kind;
	AllocPlanKey ref;
	AllocPlanKey sku;			/* of the batch, not of a row to be refused */
	AllocPlanTerms before;		/* means nothing for ALLOC_ACTION_CREATE */
	AllocPlanTerms after;
	int64_t		shipped;
	size_t		number;			/* of the feed's row; 0: none */
} AllocPlanAction;

/*
 * A feed and what is there, each sorted by its comparison below.  The planner
 * keeps where it is in row, batch and qty_done, which begin with 0 and false.
 */
typedef struct AllocPlanSync
{
	const AllocPlanFeedRow *feed;
	size_t		nfeed;
	const AllocPlanPresent *present;
	size_t		npresent;
	size_t		row;
	size_t		batch;
	bool		qty_done;
} AllocPlanSync;

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

extern int	alloc_plan_compare_keys(const AllocPlanKey *a,
									const AllocPlanKey *b);
extern int	alloc_plan_compare_feed(const AllocPlanFeedRow *a,
									const AllocPlanFeedRow *b);
extern int	alloc_plan_compare_present(const AllocPlanPresent *a,
									   const AllocPlanPresent *b);
extern int	alloc_plan_compare_actions(const AllocPlanAction *a,
									   const AllocPlanAction *b);
extern bool alloc_plan_next_action(AllocPlanSync *sync,
								   AllocPlanAction *action);

#endif							/* ALLOC_PLANNER_H */
