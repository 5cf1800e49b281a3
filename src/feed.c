/*-------------------------------------------------------------------------
 *
 * feed.c
 *	  A feed of batches: the rows of any table, and what is wrong with them.
 *
 * The source is read by SPI as the caller, who needs SELECT on it, a thousand
 * rows at a time.  Its columns are looked at first, so that nothing in the
 * query depends on the caller's search_path.
 *
 * Rows are numbered as they come.  A bad one does not end the reading: all are
 * counted, and the first are told.
 *
 * Memory: the feed's context has about 100 bytes for each row, its keys
 * included; SPI's own has a thousand rows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/relation.h"
#include "argument.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "feed.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* Rows that are read at a time, and flaws that a message tells. */
#define ROWS_AT_A_TIME 1000
#define MAX_FLAWS_TOLD 10

/* Columns of the query, from 1. */
enum
{
	FEED_REF = 1, FEED_SKU, FEED_QTY, FEED_ETA
};

static const char *const column_names[] = {NULL, "ref", "sku", "qty", "eta"};

static char *make_query(AllocFeed *feed);
static void require_column(Relation rel, int column);
static bool is_type_of(int column, Oid type);
static SPIPlanPtr prepare(const char *query);
static void read_row(AllocFeed *feed, HeapTuple tuple, TupleDesc desc);
static bool check_key(AllocFeed *feed, HeapTuple tuple, TupleDesc desc,
					  int column, const text **key);
static bool read_qty(HeapTuple tuple, TupleDesc desc, int64 *qty);
static void add_row(AllocFeed *feed, const AllocPlanTerms *terms,
					const text *ref, const text *sku);

/*
 * alloc_feed_read
 *		The rows of a table, view or foreign table, in no order, and their
 *		flaws.  The feed has its context already, and nothing else.
 *
 * now: as they are, and not as the statement sees them, which began earlier.
 * Errors: 42P01, 42703 and 42804 (a column is missing, or has another type),
 * 42501, and whatever the source raises.
 */
void
alloc_feed_read(AllocFeed *feed, Oid source, bool now)
{
	MemoryContext oldcxt = MemoryContextSwitchTo(feed->cxt);
	char	   *query;
	SPIPlanPtr	plan;
	Portal		portal;

	feed->source = source;
	feed->room = 64;
	feed->rows = palloc_array(AllocPlanFeedRow, feed->room);
	initStringInfo(&feed->flaws);
	query = make_query(feed);
	MemoryContextSwitchTo(oldcxt);

	SPI_connect();
	plan = prepare(query);
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, !now);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, ROWS_AT_A_TIME);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			CHECK_FOR_INTERRUPTS();
			read_row(feed, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
}

/*
 * alloc_feed_flaw
 *		Notes what is wrong with a row, whose number is given.
 */
void
alloc_feed_flaw(AllocFeed *feed, size_t row, const char *format,...)
{
	if (feed->nflaws++ >= MAX_FLAWS_TOLD)
		return;
	if (feed->flaws.len > 0)
		appendStringInfoChar(&feed->flaws, '\n');
	appendStringInfo(&feed->flaws, "Row %zu: ", row);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&feed->flaws, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&feed->flaws, needed);
	}
}

/*
 * alloc_feed_require_sound
 *		Raises 22023 when there is a flaw, with the first of them.
 */
void
alloc_feed_require_sound(const AllocFeed *feed)
{
	StringInfoData more;

	if (feed->nflaws == 0)
		return;
	initStringInfo(&more);
	if (feed->nflaws > MAX_FLAWS_TOLD)
		appendStringInfo(&more, "\nAnd %zu more.",
						 feed->nflaws - MAX_FLAWS_TOLD);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg_plural("feed \"%s\" has %zu flaw",
						   "feed \"%s\" has %zu flaws",
						   feed->nflaws, feed->name, feed->nflaws),
			 errdetail_internal("%s%s", feed->flaws.data, more.data),
			 errhint("Nothing was changed. Rows are numbered as they were read.")));
}

/*
 * alloc_feed_text
 *		A key as text.
 */
text *
alloc_feed_text(const AllocPlanKey *key)
{
	return cstring_to_text_with_len(key->bytes, (int) key->length);
}

static char *
make_query(AllocFeed *feed)
{
	Relation	rel = try_relation_open(feed->source, AccessShareLock);
	char	   *name;

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", feed->source)));
	feed->name = pstrdup(RelationGetRelationName(rel));
	for (int column = FEED_REF; column <= FEED_ETA; column++)
		require_column(rel, column);
	name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  feed->name);
	relation_close(rel, NoLock);
	return psprintf("SELECT f.ref, f.sku, f.qty, f.eta FROM %s AS f", name);
}

static void
require_column(Relation rel, int column)
{
	const char *name = column_names[column];
	AttrNumber	attno = get_attnum(RelationGetRelid(rel), name);
	Form_pg_attribute attr;

	if (attno == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("feed \"%s\" has no column \"%s\"",
						RelationGetRelationName(rel), name),
				 errhint("A feed has the columns ref text, sku text, qty bigint and eta date. A view can rename and convert them.")));
	attr = TupleDescAttr(RelationGetDescr(rel), attno - 1);
	if (!is_type_of(column, getBaseType(attr->atttypid)))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of feed \"%s\" is of type %s",
						name, RelationGetRelationName(rel),
						format_type_be(attr->atttypid)),
				 errhint("A feed has the columns ref text, sku text, qty bigint and eta date. A view can rename and convert them.")));
}

static bool
is_type_of(int column, Oid type)
{
	switch (column)
	{
		case FEED_QTY:
			return type == INT8OID || type == INT4OID || type == INT2OID;
		case FEED_ETA:
			return type == DATEOID;
		default:
			return type == TEXTOID || type == VARCHAROID;
	}
}

static SPIPlanPtr
prepare(const char *query)
{
	SPIPlanPtr	plan = SPI_prepare(query, 0, NULL);

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s",
			 SPI_result_code_string(SPI_result));
	return plan;
}

/*
 * A row with a bad quantity is kept for its keys: they may have flaws, too.
 */
static void
read_row(AllocFeed *feed, HeapTuple tuple, TupleDesc desc)
{
	AllocPlanTerms terms = {0};
	const text *ref = NULL;
	const text *sku = NULL;
	bool		good_ref;
	bool		good_sku;
	Datum		eta;

	feed->nread++;
	good_ref = check_key(feed, tuple, desc, FEED_REF, &ref);
	good_sku = check_key(feed, tuple, desc, FEED_SKU, &sku);
	if (!read_qty(tuple, desc, &terms.qty))
		alloc_feed_flaw(feed, feed->nread, "qty is null.");
	else if (terms.qty < 0)
		alloc_feed_flaw(feed, feed->nread, "qty is " INT64_FORMAT ".",
						terms.qty);
	eta = SPI_getbinval(tuple, desc, FEED_ETA, &terms.in_stock);
	terms.eta = terms.in_stock ? 0 : DatumGetDateADT(eta);
	if (good_ref && good_sku)
		add_row(feed, &terms, ref, sku);
}

/*
 * A key that is too long is not even read in whole.
 */
static bool
check_key(AllocFeed *feed, HeapTuple tuple, TupleDesc desc, int column,
		  const text **key)
{
	const char *name = column_names[column];
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, desc, column, &isnull);
	Size		length = isnull ? 0 : toast_raw_datum_size(value) - VARHDRSZ;

	if (isnull)
		alloc_feed_flaw(feed, feed->nread, "%s is null.", name);
	else if (length == 0)
		alloc_feed_flaw(feed, feed->nread, "%s is empty.", name);
	else if (length > ALLOC_MAX_KEY_BYTES)
		alloc_feed_flaw(feed, feed->nread,
						"%s has %zu bytes, more than %d.", name, length,
						ALLOC_MAX_KEY_BYTES);
	else
	{
		*key = DatumGetTextPP(value);
		return true;
	}
	return false;
}

/*
 * False: it is NULL.
 */
static bool
read_qty(HeapTuple tuple, TupleDesc desc, int64 *qty)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, desc, FEED_QTY, &isnull);

	if (isnull)
		return false;
	switch (getBaseType(SPI_gettypeid(desc, FEED_QTY)))
	{
		case INT2OID:
			*qty = DatumGetInt16(value);
			break;
		case INT4OID:
			*qty = DatumGetInt32(value);
			break;
		default:
			*qty = DatumGetInt64(value);
	}
	return true;
}

static void
add_row(AllocFeed *feed, const AllocPlanTerms *terms, const text *ref,
		const text *sku)
{
	AllocPlanFeedRow *row;
	char	   *keys;

	if (feed->n == feed->room)
	{
		feed->room *= 2;
		feed->rows = repalloc_huge(feed->rows,
								   feed->room * sizeof(AllocPlanFeedRow));
	}
	row = &feed->rows[feed->n++];
	row->ref.length = VARSIZE_ANY_EXHDR(ref);
	row->sku.length = VARSIZE_ANY_EXHDR(sku);
	keys = MemoryContextAlloc(feed->cxt, row->ref.length + row->sku.length);
	row->ref.bytes = keys;
	row->sku.bytes = keys + row->ref.length;
	memcpy(keys, VARDATA_ANY(ref), row->ref.length);
	memcpy(keys + row->ref.length, VARDATA_ANY(sku), row->sku.length);
	row->terms = *terms;
	row->number = feed->nread;
}
