/*-------------------------------------------------------------------------
 *
 * table_entry.c
 *	  Direct access, continued: index entries without their rows, and the
 *	  state of sequences.  See table.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "commands/sequence.h"
#include "compat.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "table.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * alloc_table_scan_entries
 *		Like alloc_table_scan() with the active snapshot, of entries: the row
 *		of one is read only when it is asked for.
 */
IndexScanDesc
alloc_table_scan_entries(AllocTable *table, int index, ScanKey keys, int nkeys)
{
	IndexScanDesc scan;

	alloc_table_open(table);
	scan = alloc_index_beginscan(table->rel,
								 alloc_table_open_index(table, table->index_at[index]),
								 GetActiveSnapshot(), nkeys);
	scan->xs_want_itup = true;
	index_rescan(scan, keys, nkeys, NULL, 0);
	return scan;
}

/*
 * alloc_table_next_entry
 *		False: there is none.
 */
bool
alloc_table_next_entry(IndexScanDesc scan)
{
	CHECK_FOR_INTERRUPTS();
	return index_getnext_tid(scan, ForwardScanDirection) != NULL;
}

/*
 * alloc_table_entry_int8
 *		A column (from 1) of the entry that was found; it cannot be NULL.
 */
int64
alloc_table_entry_int8(IndexScanDesc scan, AttrNumber attno)
{
	bool		isnull;
	Datum		value = index_getattr(scan->xs_itup, attno, scan->xs_itupdesc,
									  &isnull);

	if (isnull)
		elog(ERROR, "column %d of an entry of \"%s\" is null", attno,
			 RelationGetRelationName(scan->indexRelation));
	return DatumGetInt64(value);
}

/*
 * alloc_table_entry_row
 *		The row of the entry, in table->found.  False: the snapshot does not
 *		see it.
 */
bool
alloc_table_entry_row(AllocTable *table, IndexScanDesc scan)
{
	bool		found;

	do
		found = index_fetch_heap(scan, table->found);
	while (!found && scan->xs_heap_continue);
	if (found)
		slot_getallattrs(table->found);
	return found;
}

/*
 * alloc_table_lastval
 *		The number that the table's sequence gave last, to whomever; 0: none.
 */
int64
alloc_table_lastval(AllocTable *table)
{
	Relation	sequence;
	Buffer		buffer;
	Page		page;
	HeapTupleHeader row;
	Form_pg_sequence_data state;
	int64		last;

	alloc_table_open(table);
	sequence = relation_open(table->sequence_id, AccessShareLock);
	buffer = ReadBuffer(sequence, 0);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	row = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	state = (Form_pg_sequence_data) ((char *) row + row->t_hoff);
	last = state->is_called ? state->last_value : 0;
	UnlockReleaseBuffer(buffer);
	relation_close(sequence, NoLock);
	return last;
}
