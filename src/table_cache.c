/*-------------------------------------------------------------------------
 *
 * table_cache.c
 *	  What is kept of the extension's tables from one command to the next.
 *
 * Each table has a memory context "alloc table" below CacheMemoryContext with
 * all that is worth keeping: the compiled CHECK expressions (in the EState),
 * the IndexInfos, the slots.  A relcache invalidation marks it stale, and it
 * is made anew when the table is opened next.
 *
 * Locks: RowExclusiveLock on tables and indexes, or AccessShareLock for a query,
 * kept to the end of the transaction as usual.  A relcache entry is held only
 * from the first use in a command to alloc_table_close(); after an error the
 * resource owner has released it, and alloc_table_forget() drops what pointed
 * to it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "compat.h"
#include "executor/executor.h"
#include "storage/lmgr.h"
#include "table.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

static AllocTable *all_tables;
static int	nall_tables;
static LOCKMODE lock_mode = RowExclusiveLock;

static void table_invalidated(Datum arg, Oid relid);
static void build_cache(AllocTable *table);
static RangeTblEntry *make_range_table_entry(AllocTable *table);
static void build_index_cache(AllocTable *table);
static void forget_insertions(Relation index, IndexInfo *info);

/*
 * alloc_table_init
 *		Tells which tables there are.  Once per backend.
 */
void
alloc_table_init(AllocTable *tables, int ntables)
{
	all_tables = tables;
	nall_tables = ntables;
	CacheRegisterRelcacheCallback(table_invalidated, (Datum) 0);
}

/*
 * alloc_table_read_only
 *		Whether tables that are opened from now on will be read only: then they
 *		can be on a standby.
 */
void
alloc_table_read_only(bool read_only)
{
	lock_mode = read_only ? AccessShareLock : RowExclusiveLock;
}

/*
 * alloc_table_close
 *		Ends a command's use of a table.  Locks stay.
 */
void
alloc_table_close(AllocTable *table)
{
	ResultRelInfo *rri = table->rri;

	if (table->rel == NULL)
		return;

	alloc_table_leave_queue(table);
	ExecClearTuple(table->found);
	ExecClearTuple(table->row);
	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		Relation	index = rri->ri_IndexRelationDescs[i];

		if (index == NULL)
			continue;
		forget_insertions(index, rri->ri_IndexRelationInfo[i]);
		index_close(index, NoLock);
		rri->ri_IndexRelationDescs[i] = NULL;
	}
	table_close(table->rel, NoLock);
	table->rel = NULL;
	table->buffer = NULL;
	rri->ri_RelationDesc = NULL;
}

/*
 * What an index method keeps from one insertion to the next, as BRIN and GIN
 * do, points into the index's relcache entry: so it must not outlive the
 * command, which has the index open.
 */
static void
forget_insertions(Relation index, IndexInfo *info)
{
	if (info->ii_AmCache == NULL)
		return;
	alloc_index_insert_cleanup(index, info);
	info->ii_AmCache = NULL;
	MemoryContextReset(info->ii_Context);
}

/*
 * alloc_table_forget
 *		After an error: drops all that is cached, without touching relations
 *		and buffers, which the resource owner has released already.
 */
void
alloc_table_forget(AllocTable *table)
{
	table->rel = NULL;
	table->buffer = NULL;
	table->in_queue = false;
	if (table->cxt != NULL)
		MemoryContextDelete(table->cxt);
	table->cxt = NULL;
}

/*
 * Relcache callback: the definition of relation relid, or of every one when
 * it is invalid, may have changed.
 */
static void
table_invalidated(Datum arg, Oid relid)
{
	for (int i = 0; i < nall_tables; i++)
	{
		AllocTable *table = &all_tables[i];
		bool		concerned = !OidIsValid(relid) || relid == table->relid;

		if (table->cxt == NULL || table->stale)
			continue;
		for (int j = 0; !concerned && j < table->rri->ri_NumIndices; j++)
			concerned = relid == table->index_ids[j];
		table->stale = concerned;
	}
}

/*
 * alloc_table_version
 *		A number that is the same for as long as the table is known to be the
 *		one that it was; 0: it may have changed.
 */
uint32
alloc_table_version(const AllocTable *table)
{
	return table->cxt == NULL || table->stale ? 0 : table->version;
}

/*
 * Opens a table for the rest of the command, if it is not open.
 *
 * Taking the lock may tell of a change to the table, and even of its end
 * (DROP EXTENSION, and then CREATE EXTENSION), so what is cached is looked at
 * after that, as AcquireExecutorLocks() and its caller do with a saved plan.
 */
void
alloc_table_open(AllocTable *table)
{
	while (table->rel == NULL)
	{
		if (table->cxt == NULL || table->stale)
			build_cache(table);
		LockRelationOid(table->relid, lock_mode);
		if (table->stale)
			UnlockRelationOid(table->relid, lock_mode);
		else
			table->rel = table_open(table->relid, NoLock);
		table->rri->ri_RelationDesc = table->rel;
	}
}

/*
 * Makes all that is kept of a table from one command to the next.
 */
static void
build_cache(AllocTable *table)
{
	MemoryContext oldcxt;
	Oid			nsp;
	Bitmapset  *columns = NULL;
	TupleDesc	desc;

	alloc_table_forget(table);
	/* Waiting for the lock may be waiting for its end. */
	do
	{
		nsp = get_namespace_oid("alloc", true);
		table->relid = get_relname_relid(table->name, nsp);
		if (!OidIsValid(table->relid))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table \"alloc.%s\" does not exist", table->name),
					 errhint("Install the extension with CREATE EXTENSION alloc.")));
		table->rel = try_table_open(table->relid, lock_mode);
	} while (table->rel == NULL);
	if (table->sequence)
		table->sequence_id = get_relname_relid(table->sequence, nsp);
	if (RelationGetNumberOfAttributes(table->rel) != table->ncolumns)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"alloc.%s\" does not have the columns that it was created with",
						table->name),
				 errhint("Keep columns of your own in tables of your own.")));
	table->cxt = AllocSetContextCreate(CacheMemoryContext, "alloc table",
									   ALLOCSET_SMALL_SIZES);
	table->stale = false;
	table->version++;
	oldcxt = MemoryContextSwitchTo(table->cxt);
	desc = CreateTupleDescCopy(RelationGetDescr(table->rel));
	table->estate = CreateExecutorState();
	MemoryContextSetParent(table->estate->es_query_cxt, table->cxt);
	/* Our updates set all columns: triggers may be for some of them only. */
	for (int i = 1; i <= table->ncolumns; i++)
		columns = bms_add_member(columns,
								 i - FirstLowInvalidHeapAttributeNumber);
	alloc_init_range_table(table->estate, make_range_table_entry(table),
						   columns);
	table->rri = makeNode(ResultRelInfo);
	InitResultRelInfo(table->rri, table->rel, 1, NULL, 0);
	/* where the trigger manager looks for it */
	table->estate->es_opened_result_relations = list_make1(table->rri);
	/* A virtual one would be copied to be written, and then made a tuple. */
	table->row = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	table->found = MakeSingleTupleTableSlot(desc,
											table_slot_callbacks(table->rel));
	build_index_cache(table);
	MemoryContextSwitchTo(oldcxt);
	alloc_table_close(table);
}

/*
 * The table in the range table of its EState.
 */
static RangeTblEntry *
make_range_table_entry(AllocTable *table)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_RELATION;
	rte->relid = table->relid;
	rte->relkind = RELKIND_RELATION;
	rte->rellockmode = RowExclusiveLock;
	return rte;
}

/*
 * The part of it about the table's indexes, in the current memory context.
 */
static void
build_index_cache(AllocTable *table)
{
	ResultRelInfo *rri = table->rri;
	List	   *ids = RelationGetIndexList(table->rel);
	int			n = list_length(ids);

	table->index_ids = palloc_array(Oid, n + 1);
	rri->ri_IndexRelationDescs = palloc0_array(Relation, n + 1);
	rri->ri_IndexRelationInfo = palloc0_array(IndexInfo *, n + 1);
	rri->ri_NumIndices = n;
	for (int i = 0; i < n; i++)
	{
		table->index_ids[i] = list_nth_oid(ids, i);
		rri->ri_IndexRelationInfo[i] = BuildIndexInfo(alloc_table_open_index(table, i));
		rri->ri_IndexRelationInfo[i]->ii_Context =
			AllocSetContextCreate(CurrentMemoryContext, "alloc index insert",
								  ALLOCSET_SMALL_SIZES);
	}
	for (int j = 0; j < ALLOC_MAX_NAMED_INDEXES; j++)
	{
		table->index_at[j] = -1;
		table->arbiters[j] = NIL;
		for (int i = 0; table->index_names[j] && i < n; i++)
			if (strcmp(RelationGetRelationName(rri->ri_IndexRelationDescs[i]),
					   table->index_names[j]) == 0)
			{
				table->index_at[j] = i;
				table->arbiters[j] = list_make1_oid(table->index_ids[i]);
			}
		if (table->index_names[j] && table->index_at[j] < 0 &&
			(table->nrequired == 0 || j < table->nrequired))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("index \"alloc.%s\" does not exist",
							table->index_names[j]),
					 errhint("An index of the extension was dropped or renamed; restore it.")));
	}
}

/*
 * The index at a position in index_ids, opened if it is not.
 */
Relation
alloc_table_open_index(AllocTable *table, int at)
{
	Relation   *index = &table->rri->ri_IndexRelationDescs[at];

	if (*index == NULL)
		*index = index_open(table->index_ids[at], lock_mode);
	return *index;
}

void
alloc_table_open_all_indexes(AllocTable *table)
{
	alloc_table_open(table);
	for (int i = 0; i < table->rri->ri_NumIndices; i++)
		(void) alloc_table_open_index(table, i);
}
