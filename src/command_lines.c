/*-------------------------------------------------------------------------
 *
 * command_lines.c
 *	  allocate_lines(): many lines in one call, the bulk path.
 *
 * bulk.c does the work.  Where that finds that a line is there after all, what
 * it did is undone, and it does it again with care: so each attempt is a
 * subtransaction.
 *
 * Memory: "alloc lines" has the lines, about 100 bytes each, and the array is
 * the caller's; "alloc attempt" has what is known of the skus, about 700 bytes
 * each, and is made anew for each attempt.  The result is a tuplestore, which
 * goes to disk beyond work_mem.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "argument.h"
#include "bulk.h"
#include "catalog/pg_type.h"
#include "command.h"
#include "fmgr.h"
#include "funcapi.h"
#include "handler.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(alloc_allocate_lines);

static void read_lines(ArrayType *array, AllocBulk *bulk);
static void read_line(HeapTupleHeader header, TupleDesc desc,
					  AllocBulkLine *line);
static void tell_line(void *arg);
static bool attempt(AllocBulk *bulk);
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
	MemoryContext attempt_cxt;
	MemoryContext oldcxt;
	AllocBulk	bulk = {0};

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("lines must not be null")));
	InitMaterializedSRF(fcinfo, 0);
	lines_cxt = AllocSetContextCreate(CurrentMemoryContext, "alloc lines",
									  ALLOCSET_DEFAULT_SIZES);
	attempt_cxt = AllocSetContextCreate(lines_cxt, "alloc attempt",
										ALLOCSET_DEFAULT_SIZES);
	oldcxt = MemoryContextSwitchTo(lines_cxt);
	read_lines(PG_GETARG_ARRAYTYPE_P(0), &bulk);

	MemoryContextSwitchTo(attempt_cxt);
	while (!attempt(&bulk))
	{
		MemoryContextReset(attempt_cxt);
		bulk.careful = true;
	}
	return_lines(&bulk, (ReturnSetInfo *) fcinfo->resultinfo);
	alloc_handler_run_noted();
	MemoryContextSwitchTo(oldcxt);
	MemoryContextDelete(lines_cxt);
	return (Datum) 0;
}

/*
 * The array as lines, which point into it.
 */
static void
read_lines(ArrayType *array, AllocBulk *bulk)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(ARR_ELEMTYPE(array), -1);
	ArrayIterator elements = array_create_iterator(array, 0, NULL);
	ErrorContextCallback context = {
		.callback = tell_line,
		.arg = &bulk->nlines,
		.previous = error_context_stack
	};
	Datum		element;
	bool		isnull;

	if (desc->natts != 3 ||
		TupleDescAttr(desc, 0)->atttypid != TEXTOID ||
		TupleDescAttr(desc, 1)->atttypid != TEXTOID ||
		TupleDescAttr(desc, 2)->atttypid != INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("type alloc.order_line does not have the attributes that it was created with")));
	bulk->lines = palloc_extended(ArrayGetNItems(ARR_NDIM(array),
												 ARR_DIMS(array)) * sizeof(AllocBulkLine),
								  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	error_context_stack = &context;
	while (array_iterate(elements, &element, &isnull))
	{
		CHECK_FOR_INTERRUPTS();
		if (isnull)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("an order line must not be null")));
		read_line(DatumGetHeapTupleHeader(element), desc,
				  &bulk->lines[bulk->nlines]);
		bulk->nlines++;
	}
	error_context_stack = context.previous;
	array_free_iterator(elements);
	ReleaseTupleDesc(desc);
}

static void
read_line(HeapTupleHeader header, TupleDesc desc, AllocBulkLine *line)
{
	HeapTupleData tuple;
	Datum		values[3];
	bool		nulls[3];

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, values, nulls);
	line->line.orderid = alloc_check_key(values[0], nulls[0], "orderid");
	line->line.sku = alloc_check_key(values[1], nulls[1], "sku");
	line->line.qty = alloc_check_qty(values[2], nulls[2], 1);
}

static void
tell_line(void *arg)
{
	errcontext("element %zu of the lines", *(size_t *) arg + 1);
}

/*
 * One attempt, in a subtransaction.  False: it was rolled back, because some
 * line is there or about to be.
 */
static bool
attempt(AllocBulk *bulk)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	bool		done;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		alloc_command_begin("allocate_lines()");
		done = alloc_bulk_allocate(bulk);
		alloc_store_end();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		ReThrowError(error);
	}
	PG_END_TRY();
	if (done)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return done;
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
