/*-------------------------------------------------------------------------
 *
 * argument.c
 *	  Arguments of SQL functions: checked on their way in, compared, shown in
 *	  messages.
 *
 * The rules and SQLSTATEs are those of DESIGN section 2, for every function.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "argument.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "planner.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"

/* A longer key is cut when a message shows it. */
#define MAX_SHOWN_BYTES 64

static uint32 hash_entry(const void *key, Size size);
static int	match_entry(const void *a, const void *b, Size size);
static text *first_bytes(Datum key);

/*
 * alloc_arg_key
 *		Argument n (from 0), a text key of 1 to 255 bytes.
 *
 * Raises 22004 when it is NULL, 22023 when empty, 22001 when too long.  A key
 * that is too long is not even read in whole.
 */
text *
alloc_arg_key(FunctionCallInfo fcinfo, int n, const char *name)
{
	return alloc_check_key(PG_GETARG_DATUM(n), PG_ARGISNULL(n), name);
}

/*
 * alloc_check_key
 *		Likewise, a key that comes in another way.
 */
text *
alloc_check_key(Datum key, bool isnull, const char *name)
{
	Size		length;

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	length = toast_raw_datum_size(key) - VARHDRSZ;
	if (length == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty: \"\"", name),
				 errhint("Keys are 1 to %d bytes long.", ALLOC_MAX_KEY_BYTES)));
	if (length > ALLOC_MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s is too long: \"%s\"",
						name, alloc_show(first_bytes(key))),
				 errdetail("It has %zu bytes.", length),
				 errhint("Keys are 1 to %d bytes long.", ALLOC_MAX_KEY_BYTES)));
	return DatumGetTextPP(key);
}

/*
 * alloc_arg_qty
 *		Argument n (from 0), a quantity of at least so many units.
 *
 * Raises 22004 when it is NULL, 22023 when it is less.
 */
int64
alloc_arg_qty(FunctionCallInfo fcinfo, int n, int64 least)
{
	return alloc_check_qty(PG_GETARG_DATUM(n), PG_ARGISNULL(n), least);
}

/*
 * alloc_check_qty
 *		Likewise, a quantity that comes in another way.
 */
int64
alloc_check_qty(Datum value, bool isnull, int64 least)
{
	int64		qty;

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("qty must not be null")));
	qty = DatumGetInt64(value);
	if (qty < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("qty must be at least " INT64_FORMAT ": " INT64_FORMAT,
						least, qty)));
	return qty;
}

/*
 * alloc_arg_end
 *		The moment at which something ends that lasts, from the beginning of the
 *		client's statement, for the interval that is argument n (from 0).
 *
 * Raises 22004 when it is NULL, 22023 unless it is more than 0 and at most 1000
 * years.
 */
TimestampTz
alloc_arg_end(FunctionCallInfo fcinfo, int n, const char *name)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	Interval	none = {0};
	Interval	longest = {.month = 1000 * MONTHS_PER_YEAR};
	Datum		ttl = PG_GETARG_DATUM(n);

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	if (DatumGetBool(DirectFunctionCall2(interval_gt, ttl,
										 IntervalPGetDatum(&none))) &&
		DatumGetBool(DirectFunctionCall2(interval_le, ttl,
										 IntervalPGetDatum(&longest))))
	{
		TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
																  TimestampTzGetDatum(now),
																  ttl));

		if (end > now)
			return end;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must be more than 0 and at most 1000 years, not \"%s\"",
					name,
					DatumGetCString(DirectFunctionCall1(interval_out, ttl)))));
}

/*
 * alloc_compare_keys
 *		The order of two keys' bytes: less than, equal to or greater than 0.
 */
int
alloc_compare_keys(const text *a, const text *b)
{
	AllocPlanKey key_a = {VARDATA_ANY(a), VARSIZE_ANY_EXHDR(a)};
	AllocPlanKey key_b = {VARDATA_ANY(b), VARSIZE_ANY_EXHDR(b)};

	return alloc_plan_compare_keys(&key_a, &key_b);
}

/*
 * alloc_same_key
 *		Are two keys the same bytes?
 */
bool
alloc_same_key(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/*
 * alloc_hash_key
 */
uint32
alloc_hash_key(const text *key)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(key),
					  VARSIZE_ANY_EXHDR(key));
}

/*
 * alloc_hash_by_key
 *		A hash table, in the current memory context, for about n entries, each
 *		of which begins with a pointer to its key.
 */
HTAB *
alloc_hash_by_key(const char *name, Size entrysize, size_t n)
{
	HASHCTL		control = {
		.keysize = sizeof(const text *),
		.entrysize = entrysize,
		.hash = hash_entry,
		.match = match_entry,
		.hcxt = CurrentMemoryContext
	};

	return hash_create(name, (long) Min(n, ALLOC_HASH_ENTRIES), &control,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE |
					   HASH_CONTEXT);
}

static uint32
hash_entry(const void *key, Size size)
{
	return alloc_hash_key(*(const text *const *) key);
}

static int
match_entry(const void *a, const void *b, Size size)
{
	return !alloc_same_key(*(const text *const *) a, *(const text *const *) b);
}

/*
 * alloc_show
 *		A key as a message shows it: whole, or its beginning and "...".
 */
const char *
alloc_show(const text *key)
{
	int			length = VARSIZE_ANY_EXHDR(key);
	int			shown = length;

	if (length > MAX_SHOWN_BYTES)
		shown = pg_mbcliplen(VARDATA_ANY(key), length, MAX_SHOWN_BYTES);
	return psprintf("%.*s%s", shown, VARDATA_ANY(key),
					shown < length ? "..." : "");
}

/*
 * alloc_show_date
 *		A date as a message shows it, in ISO 8601.
 */
const char *
alloc_show_date(DateADT date)
{
	char		buf[MAXDATELEN + 1];

	JsonEncodeDateTime(buf, DateADTGetDatum(date), DATEOID, NULL);
	return pstrdup(buf);
}

/*
 * The beginning of a key, a byte longer than a message shows at most.
 */
static text *
first_bytes(Datum key)
{
	return (text *) pg_detoast_datum_slice((struct varlena *) DatumGetPointer(key),
										   0, MAX_SHOWN_BYTES + MAX_MULTIBYTE_CHAR_LEN);
}
