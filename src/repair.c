/*-------------------------------------------------------------------------
 *
 * repair.c
 *	  SQL-callable: what the functions of sql/4*.sql need of the store.
 *
 * check(), repair(), rebuild(), snapshot_log() and archive_events() are sets
 * against sets, which PostgreSQL does well, with bounded memory.  Here is what
 * SQL cannot do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "command.h"
#include "event.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(alloc_require_key);
PG_FUNCTION_INFO_V1(alloc_require_writable);
PG_FUNCTION_INFO_V1(alloc_listed_qty);
PG_FUNCTION_INFO_V1(alloc_settle_log);
PG_FUNCTION_INFO_V1(alloc_begin_era);
PG_FUNCTION_INFO_V1(alloc_record_repair);

static const text *optional_key(FunctionCallInfo fcinfo, int n,
								const char *name);
static NullableDatum optional_qty(FunctionCallInfo fcinfo, int n);

/*
 * alloc._require_key(key text, name text) returns void
 *		Raises 22004, 22023 or 22001 unless key is 1 to 255 bytes.
 */
Datum
alloc_require_key(PG_FUNCTION_ARGS)
{
	(void) alloc_arg_key(fcinfo, 0, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/*
 * alloc._require_writable(command text) returns void
 *		Raises 25006, which names the command, in a read-only transaction and
 *		on a standby.  It takes no locks, so that stronger ones can follow.
 */
Datum
alloc_require_writable(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/*
 * alloc._listed_qty(batch_id bigint, enough bigint) returns bigint
 *		Units of the lines to which the list of a batch's lines leads; it ends
 *		when there are enough.
 */
Datum
alloc_listed_qty(PG_FUNCTION_ARGS)
{
	AllocBatchRow batch;
	int64		listed;

	alloc_store_begin_query("listed_qty()");
	alloc_store_get_batch(PG_GETARG_INT64(0), &batch);
	alloc_store_read_slots(&batch);
	listed = alloc_store_listed_qty(&batch, PG_GETARG_INT64(1));
	alloc_store_end_query();
	PG_RETURN_INT64(listed);
}

/*
 * alloc._settle_log() returns bigint
 *		Waits until every event up to the last one is committed, rolled back or
 *		our own, and returns its id.
 */
Datum
alloc_settle_log(PG_FUNCTION_ARGS)
{
	int64		last;

	alloc_store_begin("settle_log()");
	last = alloc_store_settle_log();
	alloc_store_end();
	PG_RETURN_INT64(last);
}

/*
 * alloc._begin_era(above bigint) returns void
 *		Makes the era of the transactions to come greater than this one (NULL:
 *		any will do).
 */
Datum
alloc_begin_era(PG_FUNCTION_ARGS)
{
	alloc_store_begin("begin_era()");
	if (!PG_ARGISNULL(0))
		alloc_store_begin_era(PG_GETARG_INT64(0));
	alloc_store_end();
	PG_RETURN_VOID();
}

/*
 * alloc._record_repair(sku text, batchref text, orderid text, qty bigint,
 * old_qty bigint) returns void
 *		Appends an event of type repaired: a product, or a batch or its slots
 *		with batchref, or an order line with orderid, was made equal to the
 *		log.  qty and old_qty: units purchased, available or allocated, now
 *		and before; NULL where there was no row.
 */
Datum
alloc_record_repair(PG_FUNCTION_ARGS)
{
	const text *sku = alloc_arg_key(fcinfo, 0, "sku");
	const text *batchref = optional_key(fcinfo, 1, "batchref");
	const text *orderid = optional_key(fcinfo, 2, "orderid");

	alloc_command_begin("repair()");
	alloc_event_repaired(sku, batchref, orderid, optional_qty(fcinfo, 3),
						 optional_qty(fcinfo, 4));
	alloc_command_end();
	PG_RETURN_VOID();
}

static const text *
optional_key(FunctionCallInfo fcinfo, int n, const char *name)
{
	return PG_ARGISNULL(n) ? NULL : alloc_arg_key(fcinfo, n, name);
}

static NullableDatum
optional_qty(FunctionCallInfo fcinfo, int n)
{
	NullableDatum qty = {PG_GETARG_DATUM(n), PG_ARGISNULL(n)};

	return qty;
}
