/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Differences between PostgreSQL 15, 16, 17 and 18.
 *
 * The only file that looks at PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_COMPAT_H
#define ALLOC_COMPAT_H

#include "access/genam.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "nodes/tidbitmap.h"
#include "parser/parse_relation.h"

#if PG_VERSION_NUM < 150000
#error "alloc needs PostgreSQL 15 or later"
#endif

/* What postgres.h had up to 15. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* What commands/explain.h had up to 17. */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/* Which indexes an update has to maintain: a flag became an enum in 16. */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes AllocUpdateIndexes;
#define alloc_update_needs_indexes(u) ((u) != TU_None)
#define alloc_update_index_tuples(rri, row, estate, which) \
	ExecInsertIndexTuples(rri, row, estate, true, false, NULL, NIL, \
						  (which) == TU_Summarizing)
#define alloc_insert_index_tuples(rri, row, estate, conflict, arbiters) \
	ExecInsertIndexTuples(rri, row, estate, false, (conflict) != NULL, \
						  conflict, arbiters, false)
#else
typedef bool AllocUpdateIndexes;
#define alloc_update_needs_indexes(u) (u)
#define alloc_update_index_tuples(rri, row, estate, which) \
	ExecInsertIndexTuples(rri, row, estate, true, false, NULL, NIL)
#define alloc_insert_index_tuples(rri, row, estate, conflict, arbiters) \
	ExecInsertIndexTuples(rri, row, estate, false, (conflict) != NULL, \
						  conflict, arbiters)
#endif

/* Which columns an update sets moved out of the range table entry in 16. */
#if PG_VERSION_NUM >= 160000
static inline void
alloc_init_range_table(EState *estate, RangeTblEntry *rte, Bitmapset *updated)
{
	List	   *permissions = NIL;

	addRTEPermissionInfo(&permissions, rte)->updatedCols = updated;
#if PG_VERSION_NUM >= 180000
	ExecInitRangeTable(estate, list_make1(rte), permissions,
					   bms_make_singleton(1));
#else
	ExecInitRangeTable(estate, list_make1(rte), permissions);
#endif
}
#else
static inline void
alloc_init_range_table(EState *estate, RangeTblEntry *rte, Bitmapset *updated)
{
	rte->updatedCols = updated;
	ExecInitRangeTable(estate, list_make1(rte));
}
#endif

/* 18 counts index searches for EXPLAIN, which we have no use for. */
#if PG_VERSION_NUM >= 180000
#define alloc_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#define alloc_index_beginscan_bitmap(index, snapshot, nkeys) \
	index_beginscan_bitmap(index, snapshot, NULL, nkeys)
#else
#define alloc_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#define alloc_index_beginscan_bitmap(index, snapshot, nkeys) \
	index_beginscan_bitmap(index, snapshot, nkeys)
#endif

/* The blocks of a bitmap: 18 has another iterator, which returns by value. */
#if PG_VERSION_NUM >= 180000
typedef TBMPrivateIterator AllocBitmapIterator;
#define alloc_bitmap_begin(bitmap) tbm_begin_private_iterate(bitmap)
#define alloc_bitmap_end(blocks) tbm_end_private_iterate(blocks)
static inline bool
alloc_bitmap_next(AllocBitmapIterator *blocks, BlockNumber *block)
{
	TBMIterateResult result;

	if (!tbm_private_iterate(blocks, &result))
		return false;
	*block = result.blockno;
	return true;
}
#else
typedef TBMIterator AllocBitmapIterator;
#define alloc_bitmap_begin(bitmap) tbm_begin_iterate(bitmap)
#define alloc_bitmap_end(blocks) tbm_end_iterate(blocks)
static inline bool
alloc_bitmap_next(AllocBitmapIterator *blocks, BlockNumber *block)
{
	TBMIterateResult *result = tbm_iterate(blocks);

	if (result == NULL)
		return false;
	*block = result->blockno;
	return true;
}
#endif

/* A process's place, below MaxBackends: 17 gave it a type and a name. */
#if PG_VERSION_NUM >= 170000
#define alloc_proc_number() MyProcNumber
#else
#define alloc_proc_number() (MyProc->pgprocno)
#endif

/* 17 lets an index method end what it keeps between insertions. */
#if PG_VERSION_NUM >= 170000
#define alloc_index_insert_cleanup(index, info) index_insert_cleanup(index, info)
#else
#define alloc_index_insert_cleanup(index, info) ((void) 0)
#endif

/* 17 has one timeout more. */
#if PG_VERSION_NUM >= 170000
#define ALLOC_TRANSACTION_TIMEOUT {"transaction_timeout", "0"}
#else
#define ALLOC_TRANSACTION_TIMEOUT {"statement_timeout", "0"}
#endif

/* 17 lets an extension name what its processes wait for. */
#if PG_VERSION_NUM >= 170000
#define alloc_wait_event(name) WaitEventExtensionNew(name)
#else
#define alloc_wait_event(name) PG_WAIT_EXTENSION
#endif

/* Rights: one function for all kinds of objects since 16. */
#if PG_VERSION_NUM >= 160000
#define alloc_may_execute(function, role) \
	(object_aclcheck(ProcedureRelationId, function, role, ACL_EXECUTE) == ACLCHECK_OK)
#define alloc_owns_database(database) \
	object_ownercheck(DatabaseRelationId, database, GetUserId())
#else
#define alloc_may_execute(function, role) \
	(pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK)
#define alloc_owns_database(database) \
	pg_database_ownercheck(database, GetUserId())
#endif

/* 16 brought these, and later minor releases of 15. */
#ifndef palloc_array
#define palloc_array(type, count) ((type *) palloc(sizeof(type) * (count)))
#define palloc0_array(type, count) ((type *) palloc0(sizeof(type) * (count)))
#define repalloc_array(pointer, type, count) \
	((type *) repalloc(pointer, sizeof(type) * (count)))
#endif

/* What is joined by a foreign scan's path came in 17, disabled nodes in 18. */
#if PG_VERSION_NUM >= 180000
#define alloc_create_foreignscan_path(root, rel, rows, startup, total) \
	create_foreignscan_path(root, rel, NULL, rows, 0, startup, total, NIL, \
							(rel)->lateral_relids, NULL, NIL, NIL)
#elif PG_VERSION_NUM >= 170000
#define alloc_create_foreignscan_path(root, rel, rows, startup, total) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, \
							(rel)->lateral_relids, NULL, NIL, NIL)
#else
#define alloc_create_foreignscan_path(root, rel, rows, startup, total) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, NIL, \
							(rel)->lateral_relids, NULL, NIL)
#endif

/* As whom a foreign table is read: in the plan since 16. */
#if PG_VERSION_NUM >= 160000
#define alloc_foreign_scan_user(node) \
	(((ForeignScan *) (node)->ss.ps.plan)->checkAsUser)
#else
#define alloc_foreign_scan_user(node) \
	(exec_rt_fetch(((ForeignScan *) (node)->ss.ps.plan)->scan.scanrelid, \
				   (node)->ss.ps.state)->checkAsUser)
#endif

#endif							/* ALLOC_COMPAT_H */
