/*-------------------------------------------------------------------------
 *
 * gather.c
 *	  SQL-callable: the foreign data wrapper by which a router's views read the
 *	  partitions of a fleet.
 *
 * A foreign table names a function, its reader, which asks the partitions by
 * PL/Proxy, and the columns, its keys, that are the reader's arguments.  A
 * condition "key = value" on the table becomes the argument, any other is
 * looked at here; a key without a condition is NULL.  So the reader can go to
 * the one partition that has a sku.  It is called once for a scan, and what it
 * returns is kept in a tuplestore.
 *
 * Why not postgres_fdw, which is able to do more: it reads with one snapshot
 * for the whole local transaction, and somebody who has called allocate() would
 * not see what it did until he commits.
 *
 * Memory: the tuplestore, within work_mem, and the expressions live as long as
 * the scan, in the executor's per-query context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/explain.h"
#include "compat.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "router.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(alloc_gather_handler);

/* Rows that a scan is taken to give, with a condition on a key and without. */
#define ROWS_OF_KEY 10
#define ROWS_OF_ALL 10000
/* What it costs to ask. */
#define COST_OF_CALL 1000

/* A foreign table's options. */
typedef struct GatherTable
{
	char	   *reader;			/* a function, with its schema */
	List	   *keys;			/* of its arguments: names of columns */
} GatherTable;

/* A scan. */
typedef struct GatherScan
{
	char	   *query;
	int			nkeys;
	List	   *keys;			/* of integer: which of them have a value */
	List	   *values;			/* of ExprState: theirs */
	Oid			user;			/* as whom */
	Tuplestorestate *rows;		/* NULL: not read yet */
	TupleTableSlot *row;		/* one of them; the scan's own is of another kind */
} GatherScan;

static void get_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid table_id);
static void get_paths(PlannerInfo *root, RelOptInfo *rel, Oid table_id);
static ForeignScan *get_plan(PlannerInfo *root, RelOptInfo *rel, Oid table_id,
							 ForeignPath *path, List *tlist, List *clauses,
							 Plan *outer_plan);
static void begin_scan(ForeignScanState *node, int eflags);
static TupleTableSlot *next_row(ForeignScanState *node);
static void scan_again(ForeignScanState *node);
static void end_scan(ForeignScanState *node);
static void explain_scan(ForeignScanState *node, ExplainState *es);
static void get_table(Oid table_id, GatherTable *table);
static Expr *value_of_key(RelOptInfo *rel, AttrNumber column);
static bool is_same_key(OpExpr *condition, Index relid, AttrNumber column,
						Expr **value);
static char *make_query(const GatherTable *table);
static void read_rows(ForeignScanState *node, GatherScan *scan);
static void call_reader(const GatherScan *scan, const Datum *values, const char *nulls);

/*
 * alloc._gather_handler() returns fdw_handler
 *		For CREATE FOREIGN DATA WRAPPER.  Options of a foreign table: reader,
 *		a function with its schema, and keys, columns of type text with commas
 *		between them.
 */
Datum
alloc_gather_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = get_rel_size;
	routine->GetForeignPaths = get_paths;
	routine->GetForeignPlan = get_plan;
	routine->BeginForeignScan = begin_scan;
	routine->IterateForeignScan = next_row;
	routine->ReScanForeignScan = scan_again;
	routine->EndForeignScan = end_scan;
	routine->ExplainForeignScan = explain_scan;
	PG_RETURN_POINTER(routine);
}

static void
get_rel_size(PlannerInfo *root, RelOptInfo *rel, Oid table_id)
{
	GatherTable *table = palloc(sizeof(GatherTable));
	ListCell   *cell;

	get_table(table_id, table);
	rel->fdw_private = table;
	rel->rows = ROWS_OF_ALL;
	foreach(cell, table->keys)
		if (value_of_key(rel, get_attnum(table_id, strVal(lfirst(cell)))) != NULL)
			rel->rows = ROWS_OF_KEY;
}

static void
get_paths(PlannerInfo *root, RelOptInfo *rel, Oid table_id)
{
	add_path(rel, (Path *)
			 alloc_create_foreignscan_path(root, rel, rel->rows, COST_OF_CALL,
											COST_OF_CALL + rel->rows * cpu_tuple_cost));
}

/*
 * All conditions are looked at again here: what a key's value did to the rows
 * needs not be known.
 */
static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *rel, Oid table_id, ForeignPath *path,
		 List *tlist, List *clauses, Plan *outer_plan)
{
	GatherTable *table = rel->fdw_private;
	List	   *keys = NIL;
	List	   *values = NIL;
	ListCell   *cell;

	foreach(cell, table->keys)
	{
		Expr	   *value = value_of_key(rel, get_attnum(table_id, strVal(lfirst(cell))));

		if (value == NULL)
			continue;
		keys = lappend_int(keys, foreach_current_index(cell));
		values = lappend(values, value);
	}
	return make_foreignscan(tlist, extract_actual_clauses(clauses, false),
							rel->relid, values,
							list_make3(makeString(make_query(table)),
									   keys, table->keys),
							NIL, NIL, outer_plan);
}

static void
begin_scan(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	GatherScan *scan = palloc0(sizeof(GatherScan));

	node->fdw_state = scan;
	scan->query = strVal(linitial(plan->fdw_private));
	scan->keys = lsecond(plan->fdw_private);
	scan->nkeys = list_length(lthird(plan->fdw_private));
	scan->row = ExecInitExtraTupleSlot(node->ss.ps.state,
									   RelationGetDescr(node->ss.ss_currentRelation),
									   &TTSOpsMinimalTuple);
	scan->values = ExecInitExprList(plan->fdw_exprs, &node->ss.ps);
	scan->user = alloc_foreign_scan_user(node);
	if (!OidIsValid(scan->user))
		scan->user = GetUserId();
}

/*
 * A row that comes from a file is in memory that lasts until the next one is
 * asked for: so it is copied and let go.
 */
static TupleTableSlot *
next_row(ForeignScanState *node)
{
	GatherScan *scan = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;

	if (scan->rows == NULL)
		read_rows(node, scan);
	if (!tuplestore_gettupleslot(scan->rows, true, false, scan->row))
		return ExecClearTuple(slot);
	ExecCopySlot(slot, scan->row);
	ExecClearTuple(scan->row);
	return slot;
}

/*
 * A parameter that has changed may be a key's value.
 */
static void
scan_again(ForeignScanState *node)
{
	GatherScan *scan = node->fdw_state;

	if (scan->rows == NULL)
		return;
	if (node->ss.ps.chgParam == NULL)
		tuplestore_rescan(scan->rows);
	else
		end_scan(node);
}

static void
end_scan(ForeignScanState *node)
{
	GatherScan *scan = node->fdw_state;

	if (scan == NULL || scan->rows == NULL)
		return;
	tuplestore_end(scan->rows);
	scan->rows = NULL;
}

static void
explain_scan(ForeignScanState *node, ExplainState *es)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	List	   *names = lthird(plan->fdw_private);
	List	   *known = NIL;
	ListCell   *cell;

	foreach(cell, (List *) lsecond(plan->fdw_private))
		known = lappend(known, strVal(list_nth(names, lfirst_int(cell))));
	ExplainPropertyList("Keys Sent", known, es);
}

static void
get_table(Oid table_id, GatherTable *table)
{
	ListCell   *cell;
	List	   *names = NIL;

	*table = (GatherTable) {0};
	foreach(cell, GetForeignTable(table_id)->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, "reader") == 0)
			table->reader = defGetString(option);
		else if (strcmp(option->defname, "keys") == 0 &&
				 !SplitIdentifierString(pstrdup(defGetString(option)), ',', &names))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					 errmsg("invalid list of keys \"%s\"", defGetString(option))));
	}
	if (table->reader == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("foreign table \"%s\" has no reader", get_rel_name(table_id))));
	foreach(cell, names)
		table->keys = lappend(table->keys, makeString(lfirst(cell)));
}

/*
 * The value that a condition on the table demands of a column; NULL: none does.
 */
static Expr *
value_of_key(RelOptInfo *rel, AttrNumber column)
{
	ListCell   *cell;

	foreach(cell, rel->baserestrictinfo)
	{
		Expr	   *clause = lfirst_node(RestrictInfo, cell)->clause;
		Expr	   *value;

		if (IsA(clause, OpExpr) &&
			is_same_key((OpExpr *) clause, rel->relid, column, &value))
			return value;
	}
	return NULL;
}

/*
 * Is the condition "column = value", or the other way round?  A column of
 * another type of string has a RelabelType around it.  Where other keys are
 * equal as well, by the collation, the value does not tell where they are.
 */
static bool
is_same_key(OpExpr *condition, Index relid, AttrNumber column, Expr **value)
{
	if (condition->opno != TextEqualOperator ||
		!OidIsValid(condition->inputcollid) ||
		!get_collation_isdeterministic(condition->inputcollid))
		return false;
	for (int side = 0; side < 2; side++)
	{
		Node	   *var = strip_implicit_coercions(list_nth(condition->args, side));
		Node	   *other = list_nth(condition->args, 1 - side);

		if (IsA(var, Var) && ((Var *) var)->varno == relid &&
			((Var *) var)->varattno == column && ((Var *) var)->varlevelsup == 0 &&
			!contain_var_clause(other) && !contain_volatile_functions(other))
		{
			*value = (Expr *) other;
			return true;
		}
	}
	return false;
}

static char *
make_query(const GatherTable *table)
{
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfo(&query, "SELECT * FROM %s(", table->reader);
	for (int i = 1; i <= list_length(table->keys); i++)
		appendStringInfo(&query, "%s$%d", i > 1 ? ", " : "", i);
	appendStringInfoChar(&query, ')');
	return query.data;
}

/*
 * A key that must be equal to NULL has no row.
 */
static void
read_rows(ForeignScanState *node, GatherScan *scan)
{
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	MemoryContext oldcxt = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);
	Datum	   *values = palloc0(sizeof(Datum) * (scan->nkeys + 1));
	char	   *nulls = palloc0(scan->nkeys + 2);
	bool		none = false;
	ListCell   *key;
	ListCell   *value;

	scan->rows = tuplestore_begin_heap(false, false, work_mem);
	MemoryContextSwitchTo(oldcxt);
	memset(nulls, 'n', scan->nkeys);
	forboth(key, scan->keys, value, scan->values)
	{
		bool		isnull;
		int			i = lfirst_int(key);

		values[i] = ExecEvalExprSwitchContext(lfirst(value), econtext, &isnull);
		nulls[i] = ' ';
		none = none || isnull;
	}
	if (!none)
		call_reader(scan, values, nulls);
}

/*
 * As the owner of the view, whose table this is, or whoever reads the table.
 */
static void
call_reader(const GatherScan *scan, const Datum *values, const char *nulls)
{
	ParamListInfo params = makeParamList(scan->nkeys);
	Oid			user;
	int			context;

	for (int i = 0; i < scan->nkeys; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = nulls[i] == 'n';
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = TEXTOID;
	}
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(scan->user, context | SECURITY_LOCAL_USERID_CHANGE);
	alloc_router_query(scan->query, params, true, scan->rows);
	SetUserIdAndSecContext(user, context);
}
