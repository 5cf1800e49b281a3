/*-------------------------------------------------------------------------
 *
 * table_key.c
 *	  Direct access, continued: what scans look for.  See table.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "compat.h"
#include "table.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

/*
 * alloc_key_int8, alloc_key_int8_above, alloc_key_int8_up_to, alloc_key_int2,
 * alloc_key_date, alloc_key_time, alloc_key_null, alloc_key_text
 *		A scan key: column attno of the index (from 1) is equal to value, is
 *		above it, up to it, or on the side of it that the strategy says, or is
 *		NULL.
 */
void
alloc_key_int8(ScanKey key, AttrNumber attno, int64 value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(value));
}

void
alloc_key_int8_above(ScanKey key, AttrNumber attno, int64 value)
{
	ScanKeyInit(key, attno, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(value));
}

void
alloc_key_int8_up_to(ScanKey key, AttrNumber attno, int64 value)
{
	ScanKeyInit(key, attno, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(value));
}

void
alloc_key_int2(ScanKey key, AttrNumber attno, StrategyNumber strategy,
			   int16 value)
{
	RegProcedure compare = strategy == BTEqualStrategyNumber ? F_INT2EQ :
		strategy == BTLessStrategyNumber ? F_INT2LT : F_INT2GE;

	ScanKeyInit(key, attno, strategy, compare, Int16GetDatum(value));
}

void
alloc_key_date(ScanKey key, AttrNumber attno, DateADT value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_DATE_EQ,
				DateADTGetDatum(value));
}

void
alloc_key_time(ScanKey key, AttrNumber attno, StrategyNumber strategy,
			   TimestampTz value)
{
	RegProcedure compare = F_TIMESTAMPTZ_GT;

	if (strategy == BTLessStrategyNumber)
		compare = F_TIMESTAMPTZ_LT;
	else if (strategy == BTLessEqualStrategyNumber)
		compare = F_TIMESTAMPTZ_LE;
	else if (strategy == BTEqualStrategyNumber)
		compare = F_TIMESTAMPTZ_EQ;
	ScanKeyInit(key, attno, strategy, compare, TimestampTzGetDatum(value));
}

void
alloc_key_null(ScanKey key, AttrNumber attno)
{
	ScanKeyEntryInitialize(key, SK_ISNULL | SK_SEARCHNULL, attno,
						   InvalidStrategy, InvalidOid, InvalidOid,
						   InvalidOid, (Datum) 0);
}

void
alloc_key_text(ScanKey key, AttrNumber attno, const text *value)
{
	/* Equality of text is that of bytes in any collation a database has. */
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(value));
}
