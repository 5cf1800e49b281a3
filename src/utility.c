/*-------------------------------------------------------------------------
 *
 * utility.c
 *	  Utility commands that the background workers have to know of.
 *
 * CREATE EXTENSION and DROP EXTENSION start and end the relay, COMMIT PREPARED
 * brings it work.  A database that is to be dropped, renamed, moved or copied
 * must be without connections, so its relay has to go for so long.  With a
 * database its counters go.
 *
 * Only where the library is in shared_preload_libraries.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "relay.h"
#include "shared.h"
#include "stat.h"
#include "tcop/utility.h"
#include "utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"

static ProcessUtility_hook_type process_utility_inside;

static void process_utility(PlannedStmt *pstmt, const char *query,
							bool read_only_tree,
							ProcessUtilityContext context,
							ParamListInfo params, QueryEnvironment *environment,
							DestReceiver *dest, QueryCompletion *completion);
static bool brings_work(const Node *statement);
static const char *database_without_connections(const Node *statement);
static bool may_create_databases(Oid role);
static const char *option_of(List *options, const char *name,
							 const char *otherwise);

/*
 * alloc_utility_init
 *		When the library is loaded by the postmaster.
 */
void
alloc_utility_init(void)
{
	process_utility_inside = ProcessUtility_hook ? ProcessUtility_hook :
		standard_ProcessUtility;
	ProcessUtility_hook = process_utility;
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest,
				QueryCompletion *completion)
{
	const Node *statement = pstmt->utilityStmt;
	volatile bool work = brings_work(statement);
	const char *name = database_without_connections(statement);
	Oid			database = name ? get_database_oid(name, true) : InvalidOid;

	/* Who will be refused must not disturb the relay. */
	if (OidIsValid(database) && !superuser() &&
		!may_create_databases(GetUserId()) && !alloc_owns_database(database))
		database = InvalidOid;
	PG_TRY();
	{
		if (OidIsValid(database))
			alloc_shared_pause(database);
		(*process_utility_inside) (pstmt, query, read_only_tree, context,
								   params, environment, dest, completion);
	}
	PG_FINALLY();
	{
		if (OidIsValid(database))
			alloc_shared_resume(database);
	}
	PG_END_TRY();
	if (OidIsValid(database) && IsA(statement, DropdbStmt))
	{
		alloc_shared_unwant_relay(database);
		alloc_stat_forget(database);
	}
	if (work)
		alloc_relay_note_work();
}

/*
 * Is there something for the relay when the statement has been committed?
 */
static bool
brings_work(const Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_TransactionStmt:
			return ((const TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED;
		case T_CreateExtensionStmt:
			return strcmp(((const CreateExtensionStmt *) statement)->extname, "alloc") == 0;
		case T_DropStmt:
			return ((const DropStmt *) statement)->removeType == OBJECT_EXTENSION;
		default:
			return false;
	}
}

/*
 * The database to which nobody may be connected while the statement runs.
 */
static const char *
database_without_connections(const Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((const DropdbStmt *) statement)->dbname;
		case T_CreatedbStmt:
			return option_of(((const CreatedbStmt *) statement)->options,
							 "template", "template1");
		case T_AlterDatabaseStmt:
			if (option_of(((const AlterDatabaseStmt *) statement)->options,
						  "tablespace", NULL) == NULL)
				return NULL;
			return ((const AlterDatabaseStmt *) statement)->dbname;
		case T_RenameStmt:
			if (((const RenameStmt *) statement)->renameType != OBJECT_DATABASE)
				return NULL;
			return ((const RenameStmt *) statement)->subname;
		default:
			return NULL;
	}
}

static const char *
option_of(List *options, const char *name, const char *otherwise)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return otherwise;
}

static bool
may_create_databases(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		may = false;

	if (HeapTupleIsValid(tuple))
	{
		may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}
