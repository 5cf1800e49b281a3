/*-------------------------------------------------------------------------
 *
 * table_unique.c
 *	  Insertion of a row that may be there already, where changes are decoded.
 *
 * An insertion that is taken back by a deletion costs nothing more when it
 * succeeds, but logical decoding tells of both, and a subscriber that has a row
 * with that key would fail at the first.  What INSERT ... ON CONFLICT does, an
 * insertion that is confirmed or killed by a record of its own, is not told
 * until it is confirmed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "compat.h"
#include "executor/executor.h"
#include "storage/lmgr.h"
#include "table.h"

/*
 * alloc_table_insert_speculatively
 *		alloc_table_insert_new() with wal_level = logical.
 */
bool
alloc_table_insert_speculatively(AllocTable *table, int index)
{
	bool		conflict = false;
	List	   *recheck;
	uint32		token;

	alloc_table_open_all_indexes(table);
	alloc_table_require_valid(table);
	token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
	table_tuple_insert_speculative(table->rel, table->row,
								   GetCurrentCommandId(true), 0, NULL, token);
	recheck = alloc_insert_index_tuples(table->rri, table->row, table->estate,
										&conflict, table->arbiters[index]);
	table_tuple_complete_speculative(table->rel, table->row, token, !conflict);
	SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	if (conflict)
	{
		ResetPerTupleExprContext(table->estate);
		list_free(recheck);
	}
	else
		alloc_table_after_insert(table, table->row, recheck);
	ExecClearTuple(table->row);
	return !conflict;
}
