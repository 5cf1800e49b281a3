/*-------------------------------------------------------------------------
 *
 * table_buffer.c
 *	  Insertion of many rows into one of the extension's tables.
 *
 * The precedent is COPY: rows are collected, put into the heap by pages, and
 * then into the indexes one by one.
 *
 * Memory: the buffer and its rows are in the context in which it was begun,
 * no more of them than BUFFERED_ROWS or BUFFERED_BYTES.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/xact.h"
#include "compat.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "table.h"

#define BUFFERED_ROWS 1000
#define BUFFERED_BYTES 65536

typedef struct AllocRowBuffer
{
	int			index;			/* position in index_names, or -1 */
	int			nrows;
	Size		bytes;
	MemoryContext cxt;			/* of the rows */
	TupleTableSlot *rows[BUFFERED_ROWS];
} AllocRowBuffer;

static bool write_rows(AllocTable *table);
static bool write_index_entries(AllocTable *table, TupleTableSlot *row);

/*
 * alloc_table_begin_buffer
 *		From now on rows are collected.  index: as in alloc_table_insert_new(),
 *		or -1 when a row that is there is an error like any other.
 */
void
alloc_table_begin_buffer(AllocTable *table, int index)
{
	alloc_table_open_all_indexes(table);
	table->buffer = palloc0(sizeof(AllocRowBuffer));
	table->buffer->index = index;
	table->buffer->cxt = CurrentMemoryContext;
}

/*
 * alloc_table_buffer_row
 *		Inserts table->row, now or later.  False: a row with its key, or with
 *		that of one before, is there or about to be; the transaction or
 *		subtransaction cannot go on.
 */
bool
alloc_table_buffer_row(AllocTable *table)
{
	AllocRowBuffer *buffer = table->buffer;
	TupleTableSlot **row = &buffer->rows[buffer->nrows];
	TupleDesc	desc = table->row->tts_tupleDescriptor;
	MemoryContext oldcxt;

	alloc_table_require_valid(table);
	oldcxt = MemoryContextSwitchTo(buffer->cxt);
	if (*row == NULL)
		*row = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	ExecStoreHeapTuple(heap_form_tuple(desc, table->row->tts_values,
									   table->row->tts_isnull),
					   *row, true);
	MemoryContextSwitchTo(oldcxt);
	ExecClearTuple(table->row);
	ResetPerTupleExprContext(table->estate);
	buffer->nrows++;
	buffer->bytes += ((HeapTupleTableSlot *) *row)->tuple->t_len;
	if (buffer->nrows < BUFFERED_ROWS && buffer->bytes < BUFFERED_BYTES)
		return true;
	return write_rows(table);
}

/*
 * alloc_table_end_buffer
 *		Inserts what is left.  False: as alloc_table_buffer_row().
 */
bool
alloc_table_end_buffer(AllocTable *table)
{
	AllocRowBuffer *buffer = table->buffer;
	bool		all_new = write_rows(table);

	for (int i = 0; i < BUFFERED_ROWS && buffer->rows[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(buffer->rows[i]);
	table->buffer = NULL;
	pfree(buffer);
	return all_new;
}

static bool
write_rows(AllocTable *table)
{
	AllocRowBuffer *buffer = table->buffer;
	MemoryContext per_tuple = GetPerTupleMemoryContext(table->estate);
	MemoryContext oldcxt = MemoryContextSwitchTo(per_tuple);
	bool		all_new = true;

	if (buffer->nrows > 0)
		table_multi_insert(table->rel, buffer->rows, buffer->nrows,
						   GetCurrentCommandId(true), 0, NULL);
	MemoryContextSwitchTo(oldcxt);
	ResetPerTupleExprContext(table->estate);
	for (int i = 0; all_new && i < buffer->nrows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		all_new = write_index_entries(table, buffer->rows[i]);
	}
	for (int i = 0; i < buffer->nrows; i++)
		ExecClearTuple(buffer->rows[i]);
	buffer->nrows = 0;
	buffer->bytes = 0;
	return all_new;
}

static bool
write_index_entries(AllocTable *table, TupleTableSlot *row)
{
	bool		conflict = false;
	List	   *recheck;
	int			index = table->buffer->index;

	recheck = alloc_insert_index_tuples(table->rri, row, table->estate,
										index >= 0 ? &conflict : NULL,
										index >= 0 ? table->arbiters[index] : NIL);
	if (conflict)
		return false;
	alloc_table_after_insert(table, row, recheck);
	return true;
}
