/*-------------------------------------------------------------------------
 *
 * query.c
 *	  SQL-callable queries.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "event.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(alloc_event_payload);

static NullableDatum get_column(HeapTupleHeader row, const char *name);
static Datum get_required(HeapTupleHeader row, const char *name);
static const text *get_text(HeapTupleHeader row, const char *name);

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
	event.traceparent = get_text(row, "traceparent");

	PG_RETURN_JSONB_P(alloc_event_jsonb(&event));
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
