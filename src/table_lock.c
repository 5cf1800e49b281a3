/*-------------------------------------------------------------------------
 *
 * table_lock.c
 *	  Locks on rows, and waiting for those who have them.  See table.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "storage/lmgr.h"
#include "table.h"
#include "utils/snapmgr.h"

static TM_Result lock(AllocTable *table, ItemPointer tid, LockTupleMode mode,
					  LockWaitPolicy policy, uint8 flags);

/*
 * alloc_table_wait
 *		Waits for the end of a transaction that is at work on the row at tid,
 *		behind those who wait for the row already.
 *
 * The caller stays at the head of the row's queue, so that it can try before
 * the next one, until alloc_table_leave_queue() or the end of the command.
 */
void
alloc_table_wait(AllocTable *table, const ItemPointerData *tid,
				 TransactionId xid)
{
	alloc_table_open(table);
	alloc_table_leave_queue(table);
	table->queue = *tid;
	LockTuple(table->rel, &table->queue, ExclusiveLock);
	table->in_queue = true;
	XactLockTableWait(xid, table->rel, &table->queue, XLTW_Update);
}

/*
 * alloc_table_leave_queue
 *		To be called before waiting for anything else.
 */
void
alloc_table_leave_queue(AllocTable *table)
{
	if (table->in_queue)
		UnlockTuple(table->rel, &table->queue, ExclusiveLock);
	table->in_queue = false;
}

/*
 * alloc_table_lock
 *		Locks the row at tid in its newest version, waiting for whoever has
 *		it.  What the row says then is for a new snapshot to read.
 *
 * TM_Updated, TM_Deleted: the transaction has one snapshot only, and the row
 * has changed since; or the row is gone.
 */
TM_Result
alloc_table_lock(AllocTable *table, ItemPointer tid)
{
	ItemPointerData newest = *tid;
	uint8		flags = TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS;

	if (!IsolationUsesXactSnapshot())
		flags |= TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
	return lock(table, &newest, LockTupleNoKeyExclusive, LockWaitBlock, flags);
}

/*
 * alloc_table_lock_version
 *		Likewise, but a row that has changed since the active snapshot is left
 *		alone, which is TM_Updated or TM_Deleted.
 */
TM_Result
alloc_table_lock_version(AllocTable *table, ItemPointer tid)
{
	return lock(table, tid, LockTupleNoKeyExclusive, LockWaitBlock,
				TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS);
}

/*
 * alloc_table_try_lock
 *		Locks the row at tid, which the active snapshot sees, without waiting.
 *
 * False: somebody has it, or has changed it since.
 */
bool
alloc_table_try_lock(AllocTable *table, ItemPointer tid)
{
	return lock(table, tid, LockTupleNoKeyExclusive, LockWaitSkip, 0) == TM_Ok;
}

/*
 * alloc_table_try_keep
 *		Likewise, but others may do so as well, or change what is no part of
 *		the row's key.
 */
bool
alloc_table_try_keep(AllocTable *table, ItemPointer tid)
{
	return lock(table, tid, LockTupleKeyShare, LockWaitSkip, 0) == TM_Ok;
}

static TM_Result
lock(AllocTable *table, ItemPointer tid, LockTupleMode mode,
	 LockWaitPolicy policy, uint8 flags)
{
	TM_FailureData failure;
	TM_Result	result;

	alloc_table_open(table);
	ExecClearTuple(table->found);
	result = table_tuple_lock(table->rel, tid, GetActiveSnapshot(),
							  table->found, GetCurrentCommandId(false), mode,
							  policy, flags, &failure);
	ExecClearTuple(table->found);
	return result;
}
