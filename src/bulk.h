/*-------------------------------------------------------------------------
 *
 * bulk.h
 *	  Allocation of many lines in one pass.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_BULK_H
#define ALLOC_BULK_H

#include "store.h"
#include "utils/hsearch.h"

/* What becomes of a line. */
typedef enum AllocLineFate
{
	ALLOC_LINE_NOT_SERVED,		/* out of stock, or unknown sku */
	ALLOC_LINE_PLACED,
	ALLOC_LINE_THERE			/* before this call, or earlier in it */
} AllocLineFate;

/* A line, and what becomes of it. */
typedef struct AllocBulkLine
{
	AllocLine	line;
	struct AllocBulkLine *next; /* of the same sku, in the order of the call */
	AllocLineFate fate;
	struct BulkBatch *batch;	/* of one that is placed */
	const text *ref;			/* of the batch, unless it is not served */
	int64		qty_there;		/* of one that is there */
} AllocBulkLine;

/* The lines: the caller sets lines, nlines and careful. */
typedef struct AllocBulk
{
	AllocBulkLine *lines;
	size_t		nlines;
	struct BulkSku **skus;		/* in the order of their bytes */
	size_t		nskus;
	bool		careful;		/* look for each line before it is placed */
	HTAB	   *placed;			/* lines by key, where they are looked for */
} AllocBulk;

extern bool alloc_bulk_allocate(AllocBulk *bulk);

#endif							/* ALLOC_BULK_H */
