/*-------------------------------------------------------------------------
 *
 * store_row.c
 *	  The repository's part about columns: values into a row that is to be
 *	  written, and out of one that was found.  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "store_private.h"
#include "utils/timestamp.h"

void
alloc_row_set_null(TupleTableSlot *row, int column)
{
	row->tts_isnull[column] = true;
}

void
alloc_row_set(TupleTableSlot *row, int column, Datum value)
{
	row->tts_isnull[column] = false;
	row->tts_values[column] = value;
}

void
alloc_row_set_text(TupleTableSlot *row, int column, const text *value)
{
	if (value == NULL)
		alloc_row_set_null(row, column);
	else
		alloc_row_set(row, column, PointerGetDatum(value));
}

void
alloc_row_set_nullable(TupleTableSlot *row, int column, NullableDatum value)
{
	if (value.isnull)
		alloc_row_set_null(row, column);
	else
		alloc_row_set(row, column, value.value);
}

/*
 * The day of arrival of a batch.
 */
void
alloc_row_set_eta(TupleTableSlot *row, int column, const AllocPlanBatch *plan)
{
	if (plan->in_stock)
		alloc_row_set_null(row, column);
	else
		alloc_row_set(row, column, DateADTGetDatum(plan->eta));
}

void
alloc_row_get_eta(const AllocTable *table, int column, AllocPlanBatch *plan)
{
	plan->in_stock = table->found->tts_isnull[column];
	plan->eta = plan->in_stock ? 0 :
		DatumGetDateADT(alloc_row_get(table, column));
}

/*
 * A moment; 0: NULL.
 */
void
alloc_row_set_time(TupleTableSlot *row, int column, TimestampTz value)
{
	if (value == 0)
		alloc_row_set_null(row, column);
	else
		alloc_row_set(row, column, TimestampTzGetDatum(value));
}

TimestampTz
alloc_row_get_time(const AllocTable *table, int column)
{
	return table->found->tts_isnull[column] ? 0 :
		DatumGetTimestampTz(table->found->tts_values[column]);
}

/*
 * The earlier of two moments that may be missing.
 */
TimestampTz
alloc_earlier_moment(TimestampTz a, TimestampTz b)
{
	if (a == 0 || b == 0)
		return a == 0 ? b : a;
	return Min(a, b);
}

/*
 * Where a list of lines goes on.
 */
void
alloc_row_set_chain(TupleTableSlot *row, int newest, int merged,
					const AllocChain *chain)
{
	if (chain->newest == 0)
		alloc_row_set_null(row, newest);
	else
		alloc_row_set(row, newest, Int64GetDatum(chain->newest));
	if (chain->merged == NULL)
		alloc_row_set_null(row, merged);
	else
		alloc_row_set(row, merged, PointerGetDatum(chain->merged));
}

AllocChain
alloc_row_get_chain(const AllocTable *table, int newest, int merged)
{
	const TupleTableSlot *found = table->found;
	AllocChain	chain = {0};

	if (!found->tts_isnull[newest])
		chain.newest = DatumGetInt64(found->tts_values[newest]);
	if (!found->tts_isnull[merged])
		chain.merged = DatumGetArrayTypePCopy(found->tts_values[merged]);
	return chain;
}

/*
 * A column of the row that a scan found.
 */
Datum
alloc_row_get(const AllocTable *table, int column)
{
	if (table->found->tts_isnull[column])
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column %d of a row of \"alloc.%s\" is null",
						column + 1, table->name)));
	return table->found->tts_values[column];
}

/*
 * The same of a column that may be NULL.
 */
NullableDatum
alloc_row_get_nullable(const AllocTable *table, int column)
{
	NullableDatum result = {
		table->found->tts_values[column], table->found->tts_isnull[column]
	};

	return result;
}

const text *
alloc_row_get_text(const AllocTable *table, int column)
{
	if (table->found->tts_isnull[column])
		return NULL;
	return DatumGetTextPP(table->found->tts_values[column]);
}

/*
 * bigint[], which cannot have NULLs.
 */
Datum
alloc_int8_array(const int64 *values, int n)
{
	Datum	   *datums = palloc_array(Datum, n + 1);
	ArrayType  *array;

	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum(values[i]);
	array = construct_array(datums, n, INT8OID, sizeof(int64),
							FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	pfree(datums);
	return PointerGetDatum(array);
}

int64 *
alloc_array_int8(ArrayType *array, int *n)
{
	Datum	   *datums;
	int64	   *values;

	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &datums, NULL, n);
	values = palloc_array(int64, *n + 1);
	for (int i = 0; i < *n; i++)
		values[i] = DatumGetInt64(datums[i]);
	pfree(datums);
	return values;
}
