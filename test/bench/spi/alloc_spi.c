/*-------------------------------------------------------------------------
 *
 * alloc_spi.c
 *	  allocate() by saved SPI plans, on the extension's own tables.
 *
 * For the benchmark only: it shows what direct table access is worth.  The
 * statements are those of the PL/pgSQL peer (see ../peer), each planned
 * once per session.
 *
 * Memory: everything is in SPI's procedure context, which SPI_finish() frees,
 * but for the plans, which live as long as the session, and the result.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(alloc_spi_allocate);

#define MAX_KEY_BYTES 255
#define MAX_PARAMETERS 5

#define ERRCODE_ALLOC_UNKNOWN_SKU	MAKE_SQLSTATE('S', 'K', '0', '0', '1')
#define ERRCODE_ALLOC_OTHER_QUANTITY MAKE_SQLSTATE('S', 'K', '0', '0', '3')

typedef struct Statement
{
	const char *sql;
	int			nparameters;
	Oid			types[MAX_PARAMETERS];
	SPIPlanPtr	plan;			/* NULL: not prepared in this session */
} Statement;

static Statement find_line = {
	"SELECT a.qty, b.ref"
	"  FROM alloc.allocation a"
	"  JOIN alloc.batch b USING (batch_id)"
	" WHERE a.orderid = $1 AND a.sku = $2",
	2, {TEXTOID, TEXTOID}
};

/* A row that had to be waited for is looked at again. */
static Statement lock_best_slot = {
	"SELECT batch_id, slot, ref"
	"  FROM alloc.slot"
	" WHERE sku = $1 AND available >= $2 AND NOT exhausted"
	" ORDER BY eta NULLS FIRST, batch_id, slot"
	" LIMIT 1"
	"   FOR UPDATE",
	2, {TEXTOID, INT8OID}
};

static Statement insert_line = {
	"INSERT INTO alloc.allocation (batch_id, event_id, qty, orderid, sku)"
	" VALUES ($1, nextval('alloc.event_id_seq'), $2, $3, $4)"
	" ON CONFLICT DO NOTHING"
	" RETURNING event_id",
	4, {INT8OID, INT8OID, TEXTOID, TEXTOID}
};

static Statement take_from_slot = {
	"UPDATE alloc.slot SET available = available - $3"
	" WHERE batch_id = $1 AND slot = $2",
	3, {INT8OID, INT4OID, INT8OID}
};

static Statement insert_allocated = {
	"INSERT INTO alloc.event"
	" (event_id, at, xact, relay, type, orderid, sku, qty, batchref)"
	" VALUES ($1, statement_timestamp(), pg_current_xact_id()::text::bigint,"
	"		  false, 'allocated', $2, $3, $4, $5)",
	5, {INT8OID, TEXTOID, TEXTOID, INT8OID, TEXTOID}
};

static Statement find_sku = {
	"SELECT FROM alloc.batch WHERE sku = $1 LIMIT 1",
	1, {TEXTOID}
};

static Statement insert_out_of_stock = {
	"INSERT INTO alloc.event (event_id, at, xact, relay, type, orderid, sku, qty)"
	" VALUES (nextval('alloc.event_id_seq'), statement_timestamp(),"
	"		  pg_current_xact_id()::text::bigint, false,"
	"		  'out_of_stock', $1, $2, $3)",
	3, {TEXTOID, TEXTOID, INT8OID}
};

/* The order line that a call is about. */
typedef struct Line
{
	Datum		orderid;
	Datum		sku;
	Datum		qty;
} Line;

static Datum key_argument(FunctionCallInfo fcinfo, int n, const char *name);
static Datum qty_argument(FunctionCallInfo fcinfo, int n);
static bool allocate(const Line *line, Datum *ref);
static bool allocated_before(const Line *line, Datum *ref);
static void record_out_of_stock(const Line *line);
static bool run(Statement *statement, Datum *parameters);
static Datum result_column(int column);

/*
 * alloc_spi.allocate(orderid text, sku text, qty bigint) returns text
 *		As alloc.allocate(), with the same rows written, but no NOTIFY.
 */
Datum
alloc_spi_allocate(PG_FUNCTION_ARGS)
{
	Line		line;
	Datum		ref;
	bool		served;

	line.orderid = key_argument(fcinfo, 0, "orderid");
	line.sku = key_argument(fcinfo, 1, "sku");
	line.qty = qty_argument(fcinfo, 2);

	SPI_connect();
	served = allocate(&line, &ref);
	if (served)
		ref = SPI_datumTransfer(ref, false, -1);
	SPI_finish();
	if (!served)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(ref);
}

static Datum
key_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	text	   *key;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	key = PG_GETARG_TEXT_PP(n);
	if (VARSIZE_ANY_EXHDR(key) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", name)));
	if (VARSIZE_ANY_EXHDR(key) > MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s is longer than %d bytes", name, MAX_KEY_BYTES)));
	return PointerGetDatum(key);
}

static Datum
qty_argument(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("qty must not be null")));
	if (PG_GETARG_INT64(n) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("qty must be positive")));
	return PG_GETARG_DATUM(n);
}

/*
 * Allocates the line and sets *ref, in SPI's memory; false: out of stock.
 */
static bool
allocate(const Line *line, Datum *ref)
{
	Datum		batch_id;
	Datum		slot;
	Datum		event_id;

	/* Again when another session has inserted the same line meanwhile. */
	do
	{
		if (allocated_before(line, ref))
			return true;
		if (!run(&lock_best_slot, (Datum[]) {line->sku, line->qty}))
		{
			record_out_of_stock(line);
			return false;
		}
		batch_id = result_column(1);
		slot = result_column(2);
		*ref = result_column(3);
	} while (!run(&insert_line, (Datum[]) {batch_id, line->qty,
				  line->orderid, line->sku}));
	event_id = result_column(1);

	run(&take_from_slot, (Datum[]) {batch_id, slot, line->qty});
	run(&insert_allocated, (Datum[]) {event_id, line->orderid, line->sku,
		line->qty, *ref});
	return true;
}

/*
 * True: the line is there, and *ref its batch.  Raises SK003 when it is there
 * with another quantity.
 */
static bool
allocated_before(const Line *line, Datum *ref)
{
	if (!run(&find_line, (Datum[]) {line->orderid, line->sku}))
		return false;
	if (DatumGetInt64(result_column(1)) != DatumGetInt64(line->qty))
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_OTHER_QUANTITY),
				 errmsg("order line exists with quantity " INT64_FORMAT,
						DatumGetInt64(result_column(1)))));
	*ref = result_column(2);
	return true;
}

static void
record_out_of_stock(const Line *line)
{
	if (!run(&find_sku, (Datum[]) {line->sku}))
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_UNKNOWN_SKU),
				 errmsg("unknown sku \"%s\"", TextDatumGetCString(line->sku))));
	run(&insert_out_of_stock,
		(Datum[]) {line->orderid, line->sku, line->qty});
}

/*
 * Runs a statement, planned on first use in the session; true: it found,
 * returned or changed a row.
 */
static bool
run(Statement *statement, Datum *parameters)
{
	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(statement->sql, statement->nparameters,
									   statement->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare: %s", statement->sql);
		statement->plan = plan;
	}
	if (SPI_execute_plan(statement->plan, parameters, NULL, false, 0) < 0)
		elog(ERROR, "could not execute: %s", statement->sql);
	return SPI_processed > 0;
}

/*
 * A column, never null, of the one row that the last statement gave.
 */
static Datum
result_column(int column)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column,
						 &isnull);
}
