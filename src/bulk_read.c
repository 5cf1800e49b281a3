/*-------------------------------------------------------------------------
 *
 * bulk_read.c
 *	  From an array of alloc.order_line to the lines of a bulk.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "argument.h"
#include "bulk.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

static void require_own_type(TupleDesc desc);
static void read_line(HeapTupleHeader header, TupleDesc desc,
					  const text *orderid, AllocBulkLine *line);
static void require_same_order(const text *orderid, const text *of_order);
static void tell_line(void *arg);

/*
 * alloc_bulk_read
 *		Sets the lines, which point into the array that is argument n (from 0).
 *		orderid: of all of them, which need not repeat it; NULL: each has its
 *		own.
 *
 * Raises 22004 when the array or an element is NULL, 22023 when a line is of
 * another order, and what alloc_check_key() and alloc_check_qty() have.
 */
void
alloc_bulk_read(AllocBulk *bulk, FunctionCallInfo fcinfo, int n,
				const text *orderid)
{
	ArrayType  *array;
	TupleDesc	desc;
	ArrayIterator elements;
	ErrorContextCallback context = {
		.callback = tell_line,
		.arg = &bulk->nlines,
		.previous = error_context_stack
	};
	Datum		element;
	bool		isnull;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("lines must not be null")));
	array = PG_GETARG_ARRAYTYPE_P(n);
	desc = lookup_rowtype_tupdesc(ARR_ELEMTYPE(array), -1);
	require_own_type(desc);
	elements = array_create_iterator(array, 0, NULL);
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
		read_line(DatumGetHeapTupleHeader(element), desc, orderid,
				  &bulk->lines[bulk->nlines]);
		bulk->nlines++;
	}
	error_context_stack = context.previous;
	array_free_iterator(elements);
	ReleaseTupleDesc(desc);
}

static void
require_own_type(TupleDesc desc)
{
	if (desc->natts != 3 ||
		TupleDescAttr(desc, 0)->atttypid != TEXTOID ||
		TupleDescAttr(desc, 1)->atttypid != TEXTOID ||
		TupleDescAttr(desc, 2)->atttypid != INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("type alloc.order_line does not have the attributes that it was created with")));
}

static void
read_line(HeapTupleHeader header, TupleDesc desc, const text *orderid,
		  AllocBulkLine *line)
{
	HeapTupleData tuple;
	Datum		values[3];
	bool		nulls[3];

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, values, nulls);
	if (orderid != NULL && nulls[0])
		line->line.orderid = orderid;
	else
		line->line.orderid = alloc_check_key(values[0], nulls[0], "orderid");
	if (orderid != NULL)
		require_same_order(line->line.orderid, orderid);
	line->line.sku = alloc_check_key(values[1], nulls[1], "sku");
	line->line.qty = alloc_check_qty(values[2], nulls[2], 1);
}

static void
require_same_order(const text *orderid, const text *of_order)
{
	if (!alloc_same_key(orderid, of_order))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a line of order \"%s\" has orderid \"%s\"",
						alloc_show(of_order), alloc_show(orderid)),
				 errhint("The orderid of a line is that of its order, or null.")));
}

static void
tell_line(void *arg)
{
	errcontext("element %zu of the lines", *(size_t *) arg + 1);
}
