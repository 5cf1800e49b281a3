/*-------------------------------------------------------------------------
 *
 * router.c
 *	  SQL-callable: what a router does itself: it tells a partition's error in
 *	  the partition's words, and reads a feed as its caller.
 *
 * The rest of a router is SQL and PL/pgSQL, sql/65_router.sql and after.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "feed.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "router.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(alloc_raise_remote);
PG_FUNCTION_INFO_V1(alloc_fleet_sync_batches);

static void require_argument(FunctionCallInfo fcinfo, int i, const char *name);
static void make_columns(const AllocFeed *feed, Datum *columns);
static Datum make_array(Datum *values, bool *nulls, size_t n, Oid type);
static Oid	owner_of(Oid function_id);
static void sync_fleet(ReturnSetInfo *result, const Datum *arguments);
static void tell_own_words(ErrorData *error);
static char *after(char *string, const char *prefix);
static char *said_remotely(char *message);
static char *own_words(char *message);
static int	code_of(const char *sqlstate, char *message);

/*
 * alloc._raise_remote(sqlstate text, message text, detail text, hint text)
 * returns void
 *		Raises an error that PL/Proxy reported again, in the words of the
 *		partition.  One of the connection is 08006.
 *
 * PL/Proxy says "allocate(4): [p0] REMOTE ERROR: unknown sku", see its main.c.
 */
Datum
alloc_raise_remote(PG_FUNCTION_ARGS)
{
	char	   *message = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *detail = text_to_cstring(PG_GETARG_TEXT_PP(2));
	char	   *hint = text_to_cstring(PG_GETARG_TEXT_PP(3));
	int			code = code_of(text_to_cstring(PG_GETARG_TEXT_PP(0)), message);

	detail = after(detail, "Remote detail: ");
	hint = after(hint, "Remote hint: ");
	ereport(ERROR,
			(errcode(code),
			 errmsg_internal("%s", own_words(message)),
			 detail[0] != '\0' ? errdetail_internal("%s", detail) : 0,
			 hint[0] != '\0' ? errhint("%s", hint) :
			 code == ERRCODE_CONNECTION_FAILURE ?
			 errhint("What was called may have been done or not: call it again.") : 0));
	PG_RETURN_VOID();
}

/*
 * alloc_router_query
 *		Puts what a query returns into a tuplestore.  An error is told in the
 *		words of the partition that had it.
 */
void
alloc_router_query(const char *query, ParamListInfo params, bool read_only,
				   Tuplestorestate *rows)
{
	MemoryContext cxt = CurrentMemoryContext;
	DestReceiver *dest = CreateDestReceiver(DestTuplestore);
	SPIExecuteOptions options = {
		.params = params,
		.read_only = read_only,
		.dest = dest
	};

	SetTuplestoreDestReceiverParams(dest, rows, GetMemoryChunkContext(rows),
									true, NULL, NULL);
	PG_TRY();
	{
		int			result;

		SPI_connect();
		result = SPI_execute_extended(query, &options);
		if (result != SPI_OK_SELECT)
			elog(ERROR, "SPI_execute_extended failed: %s",
				 SPI_result_code_string(result));
		SPI_finish();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		tell_own_words(error);
		ReThrowError(error);
	}
	PG_END_TRY();
	dest->rDestroy(dest);
}

/*
 * Makes an error that PL/Proxy reported what the partition said.
 */
static void
tell_own_words(ErrorData *error)
{
	error->sqlerrcode = code_of(unpack_sql_state(error->sqlerrcode),
								error->message);
	error->message = own_words(error->message);
	if (error->detail != NULL)
		error->detail = after(error->detail, "Remote detail: ");
	if (error->hint != NULL)
		error->hint = after(error->hint, "Remote hint: ");
}

/*
 * alloc._fleet_sync_batches(source regclass, dry_run boolean)
 * returns setof (action text, ref text, sku text, old_qty bigint,
 *				  new_qty bigint, old_eta date, new_eta date)
 *		sync_batches() of a router.  Its caller must be able to read the feed;
 *		what goes to the partitions is the business of the function's owner.
 *
 * Errors: those of alloc_feed_read(); 22004; 22023 (rows that are bad); those
 * of the partitions.
 */
Datum
alloc_fleet_sync_batches(PG_FUNCTION_ARGS)
{
	AllocFeed	feed = {0};
	Datum		arguments[5];
	Oid			user;
	int			context;

	PreventCommandIfReadOnly("sync_batches()");
	require_argument(fcinfo, 0, "source");
	require_argument(fcinfo, 1, "dry_run");
	InitMaterializedSRF(fcinfo, 0);
	feed.cxt = AllocSetContextCreate(CurrentMemoryContext, "alloc feed",
									 ALLOCSET_DEFAULT_SIZES);
	alloc_feed_read(&feed, PG_GETARG_OID(0), true);
	alloc_feed_require_sound(&feed);
	make_columns(&feed, arguments);
	arguments[4] = PG_GETARG_DATUM(1);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner_of(fcinfo->flinfo->fn_oid),
						   context | SECURITY_LOCAL_USERID_CHANGE);
	sync_fleet((ReturnSetInfo *) fcinfo->resultinfo, arguments);
	SetUserIdAndSecContext(user, context);
	MemoryContextDelete(feed.cxt);
	return (Datum) 0;
}

static void
require_argument(FunctionCallInfo fcinfo, int i, const char *name)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/*
 * The rows of a feed as arrays: refs, skus, quantities, days of arrival.
 */
static void
make_columns(const AllocFeed *feed, Datum *columns)
{
	Datum	   *values[4];
	bool	   *nulls = palloc0(sizeof(bool) * (feed->n + 1));

	for (int i = 0; i < 4; i++)
		values[i] = palloc(sizeof(Datum) * (feed->n + 1));
	for (size_t i = 0; i < feed->n; i++)
	{
		const AllocPlanFeedRow *row = &feed->rows[i];

		CHECK_FOR_INTERRUPTS();
		values[0][i] = PointerGetDatum(alloc_feed_text(&row->ref));
		values[1][i] = PointerGetDatum(alloc_feed_text(&row->sku));
		values[2][i] = Int64GetDatum(row->terms.qty);
		values[3][i] = DateADTGetDatum(row->terms.eta);
		nulls[i] = row->terms.in_stock;
	}
	columns[0] = make_array(values[0], NULL, feed->n, TEXTOID);
	columns[1] = make_array(values[1], NULL, feed->n, TEXTOID);
	columns[2] = make_array(values[2], NULL, feed->n, INT8OID);
	columns[3] = make_array(values[3], nulls, feed->n, DATEOID);
}

static Datum
make_array(Datum *values, bool *nulls, size_t n, Oid type)
{
	int16		length;
	bool		by_value;
	char		align;
	int			size = (int) n;
	int			first = 1;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return PointerGetDatum(construct_md_array(values, nulls, 1, &size, &first,
											  type, length, by_value, align));
}

static Oid
owner_of(Oid function_id)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function_id));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function_id);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return owner;
}

static void
sync_fleet(ReturnSetInfo *result, const Datum *arguments)
{
	static const Oid types[] = {TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, DATEARRAYOID, BOOLOID};
	ParamListInfo params = makeParamList(lengthof(types));

	for (int i = 0; i < params->numParams; i++)
	{
		params->params[i].value = arguments[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = types[i];
	}
	alloc_router_query("SELECT * FROM alloc._sync_fleet($1, $2, $3, $4, $5)",
					   params, false, result->setResult);
}

static char *
after(char *string, const char *prefix)
{
	return strncmp(string, prefix, strlen(prefix)) == 0 ?
		string + strlen(prefix) : string;
}

/*
 * What follows "function(n): [database] REMOTE ", if that is there: the severity
 * and the words of the partition.
 */
static char *
said_remotely(char *message)
{
	char	   *rest = strstr(message, "): [");

	rest = rest == NULL ? NULL : strstr(rest, "] REMOTE ");
	return rest == NULL ? NULL : rest + strlen("] REMOTE ");
}

static char *
own_words(char *message)
{
	char	   *said = said_remotely(message);
	char	   *colon = said == NULL ? NULL : strstr(said, ": ");

	return colon == NULL ? message : colon + 2;
}

/*
 * Errors of PL/Proxy itself are XX000; but for those of its use, which the
 * router's own functions do not make, they are about connections.  So is a
 * FATAL one of a partition: it has ended its session, not ours.
 */
static int
code_of(const char *sqlstate, char *message)
{
	const char *said = said_remotely(message);

	if (said != NULL && strncmp(said, "FATAL: ", 7) == 0)
		return ERRCODE_CONNECTION_FAILURE;
	if (strcmp(sqlstate, "XX000") == 0 &&
		(strncmp(message, "PL/Proxy function ", 18) == 0 ||
		 (said != NULL && strncmp(said, "(null)", 6) == 0)))
		return ERRCODE_CONNECTION_FAILURE;
	return MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3],
						 sqlstate[4]);
}
