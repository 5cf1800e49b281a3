/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Direct access to the extension's tables: scan, insert, update, delete,
 *	  without parser, planner and executor.
 *
 * The precedent is the logical replication worker (execReplication.c).  What
 * it keeps, this keeps: indexes (also those that a DBA added), CHECK and NOT
 * NULL constraints, WAL, row locks, predicate locks, AFTER ROW triggers
 * (foreign keys are such).  Rules and BEFORE triggers are not looked at.
 *
 * Memory: what a scan or a write needs is in the caller's context or in the
 * EState's per-tuple context, reset after each write; what is kept from one
 * command to the next, and how long, says table_cache.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "compat.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "table.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Bytes left on a page with busy rows at which it is pruned. */
#define PRUNE_BELOW (BLCKSZ / 8)

/* Transactions after which a row that nobody wrote counts as quiet. */
#define QUIET_AGE 4096

static bool next_unpruned(AllocTable *table, IndexScanDesc scan,
						  ScanDirection direction);
static HeapTupleHeader found_header(const AllocTable *table);
static void insert_heap_tuple(AllocTable *table);
static void finish_insert(AllocTable *table, List *recheck);
static void finish_update(AllocTable *table, ItemPointer old_tid,
						  AllocUpdateIndexes indexes);
static void begin_triggers(AllocTable *table);
static void end_triggers(AllocTable *table);

/*
 * alloc_table_nextval
 *		The next number of the table's sequence.
 */
int64
alloc_table_nextval(AllocTable *table)
{
	alloc_table_open(table);
	return nextval_internal(table->sequence_id, false);
}

/*
 * alloc_table_row
 *		Where to put the columns of a row that is to be inserted, or to be the
 *		new version of another one.
 */
TupleTableSlot *
alloc_table_row(AllocTable *table)
{
	alloc_table_open(table);
	return table->row;
}

/*
 * alloc_table_scan
 *		Begins a scan of the rows that the keys select, in the order of the
 *		index (a position in index_names).  To be ended by index_endscan().
 */
IndexScanDesc
alloc_table_scan(AllocTable *table, int index, Snapshot snapshot,
				 ScanKey keys, int nkeys)
{
	IndexScanDesc scan;

	alloc_table_open(table);
	scan = alloc_index_beginscan(table->rel,
								 alloc_table_open_index(table, table->index_at[index]),
								 snapshot, nkeys);
	index_rescan(scan, keys, nkeys, NULL, 0);
	return scan;
}

/*
 * alloc_table_next
 *		The next row, in table->found.  False: there is none.
 */
bool
alloc_table_next(AllocTable *table, IndexScanDesc scan, ScanDirection direction)
{
	bool		found;

	CHECK_FOR_INTERRUPTS();
	if (table->busy_pages && IsMVCCSnapshot(scan->xs_snapshot))
		found = next_unpruned(table, scan, direction);
	else
		found = index_getnext_slot(scan, direction, table->found);
	if (found)
		slot_getallattrs(table->found);
	return found;
}

/*
 * alloc_table_find
 *		The first row that the keys select in the active snapshot, in
 *		table->found.
 */
bool
alloc_table_find(AllocTable *table, int index, ScanKey keys, int nkeys)
{
	IndexScanDesc scan = alloc_table_scan(table, index, GetActiveSnapshot(),
										  keys, nkeys);
	bool		found = alloc_table_next(table, scan, ForwardScanDirection);

	/* The slot keeps its own pin. */
	index_endscan(scan);
	return found;
}

/*
 * alloc_table_probe
 *		Like alloc_table_find(), but in the newest state, uncommitted work of
 *		others included.
 *
 * If *busy is valid after it, that transaction is inserting, changing or
 * deleting the row, and only its end will tell whether there is one.
 */
bool
alloc_table_probe(AllocTable *table, int index, ScanKey keys, int nkeys,
				  TransactionId *busy)
{
	SnapshotData dirty;
	IndexScanDesc scan;
	bool		found;

	InitDirtySnapshot(dirty);
	scan = alloc_table_scan(table, index, &dirty, keys, nkeys);
	found = alloc_table_next(table, scan, ForwardScanDirection);
	*busy = InvalidTransactionId;
	if (found)
		*busy = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
	index_endscan(scan);
	return found;
}

/*
 * alloc_table_insert
 *		Inserts table->row.
 */
void
alloc_table_insert(AllocTable *table)
{
	insert_heap_tuple(table);
	finish_insert(table, alloc_insert_index_tuples(table->rri, table->row,
												   table->estate, NULL, NIL));
}

/*
 * alloc_table_insert_new
 *		Inserts table->row, unless a row with its key is there or about to be.
 *
 * The index, a position in index_names, is the unique one of the key.  False:
 * nothing is inserted.  Unlike an ordinary insertion it neither waits nor
 * raises 23505.  Of two that insert a key at the same time one succeeds.
 */
bool
alloc_table_insert_new(AllocTable *table, int index)
{
	bool		conflict = false;
	List	   *recheck;

	if (RelationIsLogicallyLogged(table->rel))
		return alloc_table_insert_speculatively(table, index);
	insert_heap_tuple(table);
	recheck = alloc_insert_index_tuples(table->rri, table->row, table->estate,
										&conflict, table->arbiters[index]);
	if (conflict)
	{
		ItemPointerData tid = table->row->tts_tid;

		/* A command does not see, let alone delete, what it inserts. */
		CommandCounterIncrement();
		simple_table_tuple_delete(table->rel, &tid, GetActiveSnapshot());
		ResetPerTupleExprContext(table->estate);
		ExecClearTuple(table->row);
		list_free(recheck);
		return false;
	}
	finish_insert(table, recheck);
	return true;
}

/*
 * alloc_table_update
 *		Makes table->row the new version of the row at tid, unless another
 *		transaction has changed it since the active snapshot; waits for one
 *		that is about to.
 *
 * Returns TM_Ok; or TM_Updated or TM_Deleted when another one has, and then
 * nothing is locked.
 */
TM_Result
alloc_table_update(AllocTable *table, ItemPointer tid)
{
	TM_FailureData failure;
	LockTupleMode mode;
	AllocUpdateIndexes indexes;
	TM_Result	result;

	alloc_table_open(table);
	alloc_table_require_valid(table);
	result = table_tuple_update(table->rel, tid, table->row,
								GetCurrentCommandId(true),
								GetActiveSnapshot(), InvalidSnapshot,
								true, &failure, &mode, &indexes);
	if (result == TM_SelfModified)
		elog(ERROR, "row of \"%s\" updated twice by one command", table->name);
	if (result == TM_Ok)
		finish_update(table, tid, indexes);
	ResetPerTupleExprContext(table->estate);
	ExecClearTuple(table->row);
	return result;
}

/*
 * alloc_table_delete
 *		Deletes the row at tid, unless another transaction has changed it
 *		since the active snapshot; waits for one that is about to.
 */
TM_Result
alloc_table_delete(AllocTable *table, ItemPointer tid)
{
	TM_FailureData failure;
	TM_Result	result;

	alloc_table_open(table);
	result = table_tuple_delete(table->rel, tid, GetCurrentCommandId(true),
								GetActiveSnapshot(), InvalidSnapshot,
								true, &failure, false);
	if (result == TM_SelfModified)
		elog(ERROR, "row of \"%s\" deleted twice by one command", table->name);
	if (result == TM_Ok && table->rri->ri_TrigDesc)
	{
		begin_triggers(table);
		ExecARDeleteTriggers(table->estate, table->rri, tid, NULL, NULL, false);
		end_triggers(table);
	}
	return result;
}

/*
 * alloc_table_found_busy
 *		The transaction that was at work on the row that a scan found when the
 *		active snapshot was taken, or came after it, if it is another one; else
 *		an invalid one.
 *
 * A look at the tuple's header without a lock: the answer may be old when the
 * caller gets it.  It costs no WAL and no write, as a lock would.
 */
TransactionId
alloc_table_found_busy(const AllocTable *table)
{
	HeapTupleHeader header = found_header(table);
	uint16		infomask = header->t_infomask;
	TransactionId xmax = HeapTupleHeaderGetRawXmax(header);

	/* Several at once: that is rare, and may include ourselves. */
	if ((infomask & (HEAP_XMAX_INVALID | HEAP_XMAX_IS_MULTI)) ||
		!TransactionIdIsValid(xmax) ||
		TransactionIdIsCurrentTransactionId(xmax) ||
		!XidInMVCCSnapshot(xmax, GetActiveSnapshot()))
		return InvalidTransactionId;
	return xmax;
}

/*
 * alloc_table_found_ours
 *		Was the row that a scan found written by this transaction?
 */
bool
alloc_table_found_ours(const AllocTable *table)
{
	return TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(found_header(table)));
}

/*
 * alloc_table_found_quiet
 *		Has nobody written the row that a scan found for many transactions?
 */
bool
alloc_table_found_quiet(const AllocTable *table)
{
	TransactionId xmin = HeapTupleHeaderGetXmin(found_header(table));

	return !TransactionIdIsNormal(xmin) ||
		(int32) (GetActiveSnapshot()->xmax - xmin) > QUIET_AGE;
}

static HeapTupleHeader
found_header(const AllocTable *table)
{
	return ((HeapTupleTableSlot *) table->found)->tuple->t_data;
}

/*
 * alloc_table_scan_all, alloc_table_next_of_all
 *		The rows that the keys (about columns of the table) select, without an
 *		index and in no order.  To be ended by table_endscan().
 */
TableScanDesc
alloc_table_scan_all(AllocTable *table, ScanKey keys, int nkeys)
{
	alloc_table_open(table);
	/* From the first block on: who changes rows takes them in one order. */
	return table_beginscan_strat(table->rel, GetActiveSnapshot(), nkeys, keys,
								 true, false);
}

bool
alloc_table_next_of_all(AllocTable *table, TableScanDesc scan)
{
	bool		found;

	CHECK_FOR_INTERRUPTS();
	found = table_scan_getnextslot(scan, ForwardScanDirection, table->found);
	if (found)
		slot_getallattrs(table->found);
	return found;
}

/*
 * index_getnext_slot() of a table in which each transaction leaves a dead
 * version on some page.
 *
 * The heap's own way is to prune a page whenever it is read with less free
 * than the fillfactor reserves: here that would be in every transaction, for
 * a tuple each, with a WAL record each.  So it is done only when the reserve
 * is nearly used up.  Otherwise this is heapam_index_fetch_tuple().
 */
static bool
next_unpruned(AllocTable *table, IndexScanDesc scan, ScanDirection direction)
{
	TupleTableSlot *slot = table->found;
	HeapTuple	tuple = &((BufferHeapTupleTableSlot *) slot)->base.tupdata;
	ItemPointer next;

	while ((next = index_getnext_tid(scan, direction)) != NULL)
	{
		ItemPointerData tid = *next;
		Buffer		buffer;
		bool		all_dead;
		bool		found;

		ExecClearTuple(slot);
		buffer = ReadBuffer(table->rel, ItemPointerGetBlockNumber(&tid));
		if (PageGetHeapFreeSpace(BufferGetPage(buffer)) < PRUNE_BELOW)
			heap_page_prune_opt(table->rel, buffer);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		found = heap_hot_search_buffer(&tid, table->rel, buffer,
									   scan->xs_snapshot, tuple, &all_dead,
									   true);
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		if (found)
		{
			tuple->t_tableOid = slot->tts_tableOid = table->relid;
			ExecStorePinnedBufferHeapTuple(tuple, slot, buffer);
			return true;
		}
		ReleaseBuffer(buffer);
		scan->kill_prior_tuple = all_dead && !scan->xactStartedInRecovery;
	}
	return false;
}

/*
 * The parts of an insertion: table->row in the heap, then its index entries,
 * then what follows them.
 */
static void
insert_heap_tuple(AllocTable *table)
{
	TupleTableSlot *row = table->row;
	HeapTuple	tuple;

	alloc_table_open_all_indexes(table);
	alloc_table_require_valid(table);
	/* simple_table_tuple_insert() would leave it to be taken apart again. */
	tuple = heap_form_tuple(row->tts_tupleDescriptor, row->tts_values,
							row->tts_isnull);
	simple_heap_insert(table->rel, tuple);
	row->tts_tableOid = table->relid;
	row->tts_tid = tuple->t_self;
	heap_freetuple(tuple);
}

static void
finish_insert(AllocTable *table, List *recheck)
{
	alloc_table_after_insert(table, table->row, recheck);
	ExecClearTuple(table->row);
}

/*
 * alloc_table_require_valid
 *		Raises 23514 or 23502 when table->row, whose columns are set, breaks a
 *		constraint.
 */
void
alloc_table_require_valid(AllocTable *table)
{
	ExecStoreVirtualTuple(table->row);
	if (table->rel->rd_att->constr)
		ExecConstraints(table->rri, table->row, table->estate);
}

/*
 * alloc_table_after_insert
 *		What follows a row that is in the heap and in the indexes.
 */
void
alloc_table_after_insert(AllocTable *table, TupleTableSlot *row, List *recheck)
{
	if (table->rri->ri_TrigDesc)
	{
		begin_triggers(table);
		ExecARInsertTriggers(table->estate, table->rri, row, recheck, NULL);
		end_triggers(table);
	}
	list_free(recheck);
	ResetPerTupleExprContext(table->estate);
}

/*
 * What follows a new version of a row.
 */
static void
finish_update(AllocTable *table, ItemPointer old_tid,
			  AllocUpdateIndexes indexes)
{
	List	   *recheck = NIL;

	if (alloc_update_needs_indexes(indexes))
	{
		alloc_table_open_all_indexes(table);
		recheck = alloc_update_index_tuples(table->rri, table->row,
											table->estate, indexes);
	}
	if (table->rri->ri_TrigDesc)
	{
		begin_triggers(table);
		ExecARUpdateTriggers(table->estate, table->rri, NULL, NULL, old_tid,
							 NULL, table->row, recheck, NULL, false);
		end_triggers(table);
	}
	list_free(recheck);
}

/*
 * AFTER ROW triggers of one row fire at once: that is all the "query" there
 * is.
 */
static void
begin_triggers(AllocTable *table)
{
	AfterTriggerBeginQuery();
}

static void
end_triggers(AllocTable *table)
{
	AfterTriggerEndQuery(table->estate);
	/*
	 * Their slots pin the relation's row type, and what their functions cache
	 * is in the caller's context: neither may outlive the command.
	 */
	memset(table->rri->ri_TrigFunctions, 0,
		   table->rri->ri_TrigDesc->numtriggers * sizeof(FmgrInfo));
	ExecResetTupleTable(table->estate->es_tupleTable, true);
	table->estate->es_tupleTable = NIL;
	table->rri->ri_TrigOldSlot = NULL;
	table->rri->ri_TrigNewSlot = NULL;
}
