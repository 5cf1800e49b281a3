/*-------------------------------------------------------------------------
 *
 * query.c
 *	  SQL-callable queries.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "command.h"
#include "event.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "share.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(alloc_event_payload);
PG_FUNCTION_INFO_V1(alloc_available_to_promise);
PG_FUNCTION_INFO_V1(alloc_promise);

static size_t read_stock(const text *sku, AllocBatchRow **batches);
static int64 expired_qty(const AllocBatchRow *batch);
static void return_promise(ReturnSetInfo *result, const AllocBatchRow *batch);

static NullableDatum get_column(HeapTupleHeader row, const char *name);
static Datum get_required(HeapTupleHeader row, const char *name);
static const text *get_text(HeapTupleHeader row, const char *name);
static TimestampTz get_moment(HeapTupleHeader row, const char *name);

/*
 * alloc_event_payload(event alloc.event) returns jsonb
 *		A row of the log as the JSON that NOTIFY sends: DESIGN section 3.
 *
 * Error: 22004 when event_id, at or type is NULL.
 */
Datum
alloc_event_payload(PG_FUNCTION_ARGS)
{
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(0);
	AllocEventRow event = {0};

	event.event_id = DatumGetInt64(get_required(row, "event_id"));
	event.at = DatumGetTimestampTz(get_required(row, "at"));
	event.type = TextDatumGetCString(get_required(row, "type"));
	event.sku = get_text(row, "sku");
	event.orderid = get_text(row, "orderid");
	event.batchref = get_text(row, "batchref");
	event.qty = get_column(row, "qty");
	event.old_qty = get_column(row, "old_qty");
	event.eta = get_column(row, "eta");
	event.old_eta = get_column(row, "old_eta");
	event.expires_at = get_moment(row, "expires_at");
	event.traceparent = get_text(row, "traceparent");

	PG_RETURN_JSONB_P(alloc_event_jsonb(&event));
}

/*
 * alloc.available_to_promise(sku text, by date DEFAULT NULL) returns bigint
 *		Units that are available in batches that have arrived by a day, those
 *		in the warehouse included; NULL: in all batches.
 *
 * Errors: 22004 (sku), 22023, 22001, SK001 (unknown sku).  Source: DESIGN
 * section 2.
 */
Datum
alloc_available_to_promise(PG_FUNCTION_ARGS)
{
	text	   *sku = alloc_arg_key(fcinfo, 0, "sku");
	bool		any_day = PG_ARGISNULL(1);
	DateADT		by = any_day ? 0 : PG_GETARG_DATEADT(1);
	AllocBatchRow *batches;
	int64		available = 0;
	size_t		n;

	alloc_store_begin_query("available_to_promise()");
	n = read_stock(sku, &batches);
	for (size_t i = 0; i < n; i++)
		if (any_day || batches[i].plan.in_stock || batches[i].plan.eta <= by)
			available += batches[i].plan.available;
	alloc_store_end_query();
	PG_RETURN_INT64(available);
}

/*
 * alloc.promise(sku text, qty bigint) returns setof (batchref, eta)
 *		The batch that allocate() would choose now for a line of qty units (1
 *		or more); no row: it would be out of stock.
 *
 * Errors: 22004, 22023, 22001, SK001 (unknown sku).  Source: the book, chapter
 * 1 (the allocation's preference).
 */
Datum
alloc_promise(PG_FUNCTION_ARGS)
{
	text	   *sku = alloc_arg_key(fcinfo, 0, "sku");
	AllocPlanLine line = {.qty = alloc_arg_qty(fcinfo, 1, 1)};
	AllocPlanBatch *plan;
	AllocBatchRow *batches;
	size_t		n;

	InitMaterializedSRF(fcinfo, 0);
	alloc_store_begin_query("promise()");
	n = read_stock(sku, &batches);
	plan = palloc_array(AllocPlanBatch, n + 1);
	for (size_t i = 0; i < n; i++)
		plan[i] = batches[i].plan;
	alloc_plan_lines(plan, n, &line, 1);
	alloc_store_end_query();
	if (line.batch != ALLOC_NO_BATCH)
		return_promise((ReturnSetInfo *) fcinfo->resultinfo,
					   &batches[line.batch]);
	return (Datum) 0;
}

/*
 * The batches of a sku in order of preference, with what they have.
 */
static size_t
read_stock(const text *sku, AllocBatchRow **batches)
{
	size_t		n;

	alloc_share_require(sku);
	n = alloc_store_batches(sku, batches);
	if (n == 0 && !alloc_store_product_exists(sku))
		alloc_unknown_sku(sku);
	for (size_t i = 0; i < n; i++)
	{
		AllocBatchRow *batch = &(*batches)[i];

		alloc_store_read_slots(batch);
		batch->plan.available += expired_qty(batch);
	}
	return n;
}

/*
 * Units that are free by the clock, though nobody has ended their holds.
 */
static int64
expired_qty(const AllocBatchRow *batch)
{
	for (size_t i = 0; i < batch->nslots; i++)
		if (alloc_store_may_be_over(&batch->slots[i]))
			return alloc_store_expired_qty(batch->plan.batch_id,
										   GetCurrentStatementStartTimestamp());
	return 0;
}

static void
return_promise(ReturnSetInfo *result, const AllocBatchRow *batch)
{
	Datum		values[2] = {PointerGetDatum(batch->ref), DateADTGetDatum(batch->plan.eta)};
	bool		nulls[2] = {false, batch->plan.in_stock};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static NullableDatum
get_column(HeapTupleHeader row, const char *name)
{
	NullableDatum result;

	result.value = GetAttributeByName(row, name, &result.isnull);
	return result;
}

static Datum
get_required(HeapTupleHeader row, const char *name)
{
	NullableDatum value = get_column(row, name);

	if (value.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s of an event must not be null", name)));
	return value.value;
}

static const text *
get_text(HeapTupleHeader row, const char *name)
{
	NullableDatum value = get_column(row, name);

	return value.isnull ? NULL : DatumGetTextPP(value.value);
}

static TimestampTz
get_moment(HeapTupleHeader row, const char *name)
{
	NullableDatum value = get_column(row, name);

	return value.isnull ? 0 : DatumGetTimestampTz(value.value);
}
