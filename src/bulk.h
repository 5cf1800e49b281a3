/*-------------------------------------------------------------------------
 *
 * bulk.h
 *	  Allocation of many lines in one pass.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_BULK_H
#define ALLOC_BULK_H

#include "fmgr.h"
#include "store.h"
#include "utils/hsearch.h"

/* What becomes of a line. */
typedef enum AllocLineFate
{
	ALLOC_LINE_NOT_SERVED,		/* out of stock, or unknown sku */
	ALLOC_LINE_PLACED,
	ALLOC_LINE_THERE,			/* before this call, or earlier in it */
	ALLOC_LINE_HELD,			/* likewise, to be confirmed */
	ALLOC_LINE_NOT_TAKEN,		/* could be served, but the call gave up */
	ALLOC_LINE_WAITS			/* not served, and waits for stock */
} AllocLineFate;

/* A line, and what becomes of it. */
typedef struct AllocBulkLine
{
	AllocLine	line;
	struct AllocBulkLine *next; /* of the same sku, in the order of the call */
	AllocLineFate fate;
	struct BulkBatch *batch;	/* of one that is placed */
	const text *ref;			/* of the batch; NULL: it has none */
	int64		qty_there;		/* of one that is there */
	AllocLineRow *held;			/* one that is held */
	ItemPointerData tid;		/* of one that was there before this call */
} AllocBulkLine;

/* The lines: the caller sets lines, nlines, careful and rest_waits. */
typedef struct AllocBulk
{
	AllocBulkLine *lines;
	size_t		nlines;
	struct BulkSku **skus;		/* in the order of their bytes */
	size_t		nskus;
	bool		careful;		/* look for each line before it is placed */
	bool		rest_waits;		/* lines that cannot be served wait */
	HTAB	   *placed;			/* lines by key, where they are looked for */
} AllocBulk;

/* What an attempt came to. */
typedef enum AllocBulkOutcome
{
	ALLOC_BULK_DONE,
	ALLOC_BULK_AGAIN,			/* roll it back, and try again with care */
	ALLOC_BULK_GIVEN_UP			/* roll it back, and write what is left */
} AllocBulkOutcome;

typedef AllocBulkOutcome (*AllocBulkWork) (AllocBulk *bulk);

extern AllocBulkOutcome alloc_bulk_allocate(AllocBulk *bulk);
extern bool alloc_bulk_plan(AllocBulk *bulk);
extern bool alloc_bulk_give_up(AllocBulk *bulk);
extern bool alloc_bulk_write(AllocBulk *bulk);

extern void alloc_bulk_begin_lines(AllocBulk *bulk);
extern void alloc_bulk_settle(AllocBulk *bulk);
extern bool alloc_bulk_is_there(AllocBulk *bulk, AllocBulkLine *line);
extern void alloc_bulk_remember(AllocBulk *bulk, AllocBulkLine *line);
extern bool alloc_bulk_keep_whole(const AllocBulk *bulk);

extern void alloc_bulk_run(AllocBulk *bulk, const char *command,
						   AllocBulkWork work);
extern void alloc_bulk_read(AllocBulk *bulk, FunctionCallInfo fcinfo, int n,
							const text *orderid);

#endif							/* ALLOC_BULK_H */
