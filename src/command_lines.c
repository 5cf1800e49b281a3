/*-------------------------------------------------------------------------
 *
 * command_lines.c
 *	  allocate_lines(): many lines in one call, the bulk path.
 *
 * bulk.c does the work, in attempts (bulk_run.c).
 *
 * Memory: "alloc lines" has the lines, about 100 bytes each; the array is the
 * caller's.  The result is a tuplestore, which goes to disk beyond work_mem.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "bulk.h"
#include "fmgr.h"
#include "funcapi.h"
#include "handler.h"
#include "miscadmin.h"
#include "stat.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(alloc_allocate_lines);

static void return_lines(const AllocBulk *bulk, ReturnSetInfo *result);

/*
 * alloc.allocate_lines(lines alloc.order_line[])
 * returns setof (orderid, sku, qty, batchref)
 *		Gives each line the best batch, as allocate() called for each in turn
 *		would; one row for each line, in the order of the array, batchref NULL:
 *		out of stock.
 *
 * An error in one line is an error of the call, and nothing is allocated.
 * Errors: those of allocate(), and 22004 when the array or an element is NULL.
 * Source: DESIGN section 2; the book, chapter 1 (allocate).
 */
Datum
alloc_allocate_lines(PG_FUNCTION_ARGS)
{
	MemoryContext lines_cxt;
	MemoryContext oldcxt;
	AllocBulk	bulk = {0};

	InitMaterializedSRF(fcinfo, 0);
	lines_cxt = AllocSetContextCreate(CurrentMemoryContext, "alloc lines",
									  ALLOCSET_DEFAULT_SIZES);
	oldcxt = MemoryContextSwitchTo(lines_cxt);
	alloc_bulk_read(&bulk, fcinfo, 0, NULL);
	alloc_bulk_run(&bulk, "allocate_lines()", alloc_bulk_allocate);
	alloc_stat_count(ALLOC_STAT_ALLOCATE_LINES);
	return_lines(&bulk, (ReturnSetInfo *) fcinfo->resultinfo);
	alloc_handler_run_noted();
	MemoryContextSwitchTo(oldcxt);
	MemoryContextDelete(lines_cxt);
	return (Datum) 0;
}

static void
return_lines(const AllocBulk *bulk, ReturnSetInfo *result)
{
	for (size_t i = 0; i < bulk->nlines; i++)
	{
		const AllocBulkLine *line = &bulk->lines[i];
		Datum		values[4];
		bool		nulls[4] = {0};

		CHECK_FOR_INTERRUPTS();
		values[0] = PointerGetDatum(line->line.orderid);
		values[1] = PointerGetDatum(line->line.sku);
		values[2] = Int64GetDatum(line->line.qty);
		values[3] = PointerGetDatum(line->ref);
		nulls[3] = line->ref == NULL;
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
}
