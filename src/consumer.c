/*-------------------------------------------------------------------------
 *
 * consumer.c
 *	  SQL-callable: durable readers of the log.
 *
 * A consumer has every committed event exactly once: its position moves in
 * the transaction that takes the events.  The position is a snapshot, the idea
 * of PgQ; how that works is in position.c and store_reader.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "event.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(alloc_create_consumer);
PG_FUNCTION_INFO_V1(alloc_drop_consumer);
PG_FUNCTION_INFO_V1(alloc_fetch_events);
PG_FUNCTION_INFO_V1(alloc_was_given);

static bool begins_now(FunctionCallInfo fcinfo, int n);
static void unknown_consumer(const text *name);
static void lock_consumer(const text *name, AllocReader *reader);
static void fetch_events(const text *name, int64 max, ReturnSetInfo *result);
static void return_event(const AllocEventRow *event, void *arg);

/*
 * alloc.create_consumer(name text, start text DEFAULT 'now') returns void
 *		Creates a reader of the log.  start: 'now', the first event is the
 *		first that commits after this; 'beginning', it is the oldest there is.
 *
 * Errors: 22004, 22023 (another start, an empty name), 22001 (a name of more
 * than 255 bytes), 42710 (there is one of this name).
 */
Datum
alloc_create_consumer(PG_FUNCTION_ARGS)
{
	text	   *name = alloc_arg_key(fcinfo, 0, "name");
	bool		from_now = begins_now(fcinfo, 1);
	int64		consumer_id;

	alloc_store_begin("create_consumer()");
	if (!alloc_store_create_reader(ALLOC_READER_CONSUMER, name, from_now,
								   &consumer_id))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer \"%s\" already exists", alloc_show(name))));
	alloc_store_end();
	PG_RETURN_VOID();
}

/*
 * alloc.drop_consumer(name text) returns void
 *		Waits for one who is fetching.
 *
 * Errors: 22004, 22023, 22001, 42704 (there is none of this name).
 */
Datum
alloc_drop_consumer(PG_FUNCTION_ARGS)
{
	text	   *name = alloc_arg_key(fcinfo, 0, "name");

	alloc_store_begin("drop_consumer()");
	if (!alloc_store_drop_reader(ALLOC_READER_CONSUMER, name))
		unknown_consumer(name);
	alloc_store_end();
	PG_RETURN_VOID();
}

/*
 * alloc.fetch_events(consumer text, max_events int DEFAULT 1000)
 * returns setof (event_id, at, type, sku, orderid, batchref, qty, payload)
 *		The next events for a consumer, at most so many (1 or more), in causal
 *		order.  They count as had when the caller's transaction commits.
 *
 * Two who fetch for one consumer take turns.  Errors: 22004, 22023, 22001,
 * 42704 (unknown consumer), 40001 (under REPEATABLE READ and SERIALIZABLE,
 * when somebody else has fetched).  Source: DESIGN section 3; PgQ's batches.
 */
Datum
alloc_fetch_events(PG_FUNCTION_ARGS)
{
	text	   *name = alloc_arg_key(fcinfo, 0, "consumer");

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("max_events must not be null")));
	if (PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_events %d is not positive", PG_GETARG_INT32(1))));
	InitMaterializedSRF(fcinfo, 0);
	alloc_store_begin("fetch_events()");
	fetch_events(name, PG_GETARG_INT32(1),
				 (ReturnSetInfo *) fcinfo->resultinfo);
	alloc_store_end();
	return (Datum) 0;
}

/*
 * alloc.was_given(seen_xmax bigint, seen_open bigint[], upto_xmax bigint,
 * upto_open bigint[], given_to bigint, event_id bigint, xact bigint)
 * returns boolean
 *		Has a reader at this position had this event?  For views; not STRICT,
 *		because a reader that is in no batch has no upto.
 */
Datum
alloc_was_given(PG_FUNCTION_ARGS)
{
	AllocPosition position = {0};

	for (int i = 0; i < 7; i++)
		if (PG_ARGISNULL(i) && (i < 2 || i > 4))
			PG_RETURN_NULL();
	position.seen.xmax = PG_GETARG_INT64(0);
	position.seen.open = alloc_array_int8(PG_GETARG_ARRAYTYPE_P(1),
										  &position.seen.nopen);
	position.in_batch = !PG_ARGISNULL(2) && !PG_ARGISNULL(3) && !PG_ARGISNULL(4);
	if (position.in_batch)
	{
		position.upto.xmax = PG_GETARG_INT64(2);
		position.upto.open = alloc_array_int8(PG_GETARG_ARRAYTYPE_P(3),
											  &position.upto.nopen);
		position.cursor = PG_GETARG_INT64(4);
	}
	PG_RETURN_BOOL(alloc_position_had(&position, PG_GETARG_INT64(5),
									  PG_GETARG_INT64(6)));
}

static bool
begins_now(FunctionCallInfo fcinfo, int n)
{
	char	   *start;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("start must not be null")));
	start = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (strcmp(start, "now") == 0)
		return true;
	if (strcmp(start, "beginning") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start \"%s\" is neither \"now\" nor \"beginning\"",
						alloc_show(PG_GETARG_TEXT_PP(n)))));
	return false;
}

static void
unknown_consumer(const text *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("unknown consumer \"%s\"", alloc_show(name)),
			 errhint("Create it with create_consumer().")));
}

/*
 * While it is waited for, the consumer may be dropped, and one of the same
 * name be created.
 */
static void
lock_consumer(const text *name, AllocReader *reader)
{
	int64		consumer_id;
	int64		gone = 0;

	do
	{
		if (!alloc_store_find_reader(ALLOC_READER_CONSUMER, name, &consumer_id) ||
			consumer_id == gone)
			unknown_consumer(name);
		gone = consumer_id;
	} while (!alloc_store_lock_reader(consumer_id, reader));
}

/*
 * What is left of the batch, then what was committed since it began.
 */
static void
fetch_events(const text *name, int64 max, ReturnSetInfo *result)
{
	AllocReader reader;
	int64		given;

	lock_consumer(name, &reader);
	given = alloc_store_read_batch(&reader, NULL, max, return_event, result);
	if (given < max && alloc_store_next_batch(&reader))
		(void) alloc_store_read_batch(&reader, NULL, max - given, return_event,
									  result);
	alloc_store_move_reader(&reader);
}

/*
 * A row like those of view events.
 */
static void
return_event(const AllocEventRow *event, void *arg)
{
	ReturnSetInfo *result = arg;
	Datum		values[8];
	bool		nulls[8] = {0};

	values[0] = Int64GetDatum(event->event_id);
	values[1] = TimestampTzGetDatum(event->at);
	values[2] = CStringGetTextDatum(event->type);
	values[3] = PointerGetDatum(event->sku);
	values[4] = PointerGetDatum(event->orderid);
	nulls[4] = event->orderid == NULL;
	values[5] = PointerGetDatum(event->batchref);
	nulls[5] = event->batchref == NULL;
	values[6] = event->qty.value;
	nulls[6] = event->qty.isnull;
	values[7] = JsonbPGetDatum(alloc_event_jsonb(event));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}
