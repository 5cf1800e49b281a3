/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The launcher: starts a relay for every database that has the extension.
 *
 * Whether a database has it can only be seen from within.  So each database is
 * given a relay once, which goes at once if there is nothing to relay; later
 * CREATE EXTENSION and the first commit of an event ask for one.
 *
 * A relay that ends by an error is started again after a second.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "relay.h"
#include "shared.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Milliseconds between looks for new databases, and between two starts. */
#define LOOK_INTERVAL 10000
#define START_INTERVAL 1000

/* A relay that was started. */
typedef struct StartedRelay
{
	Oid			database;
	TimestampTz at;
	BackgroundWorkerHandle *handle;
} StartedRelay;

static MemoryContext launcher_cxt;
static List *known_databases = NIL;
static List *started = NIL;

static void want_new_databases(void);
static List *list_databases(void);
static bool start_relays(void);
static bool start_relay(const AllocWantedRelay *wanted);
static bool is_gone(Oid database);
static void say_there_is_no_worker(Oid database);
static StartedRelay *find_started(Oid database);
static bool is_over(StartedRelay *relay);

/*
 * alloc_launcher_register
 *		When the library is loaded by the postmaster.
 */
void
alloc_launcher_register(void)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = 1
	};

	strlcpy(worker.bgw_name, "alloc launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "alloc launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "alloc", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "alloc_launcher_main", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/*
 * alloc_launcher_main
 *		The launcher's process.
 */
void
alloc_launcher_main(Datum arg)
{
	TimestampTz looked = 0;

	alloc_worker_begin("alloc launcher", InvalidOid);
	alloc_shared_begin_launcher();
	launcher_cxt = AllocSetContextCreate(TopMemoryContext, "alloc launcher",
										 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		bool		waiting;

		if (TimestampDifferenceExceeds(looked, now, LOOK_INTERVAL))
		{
			want_new_databases();
			looked = now;
		}
		waiting = start_relays();
		alloc_worker_sleep(waiting ? START_INTERVAL : LOOK_INTERVAL,
						   "AllocLauncherMain");
	}
}

/*
 * Wants a relay in each database that was not there at the last look.  Those
 * that must wait until others have found that they need none are looked at
 * again.
 */
static void
want_new_databases(void)
{
	List	   *databases;
	List	   *known = NIL;
	ListCell   *cell;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	databases = list_databases();
	foreach(cell, databases)
	{
		MemoryContext oldcxt = MemoryContextSwitchTo(launcher_cxt);

		if (list_member_oid(known_databases, lfirst_oid(cell)) ||
			alloc_shared_want_relay(lfirst_oid(cell)))
			known = lappend_oid(known, lfirst_oid(cell));
		MemoryContextSwitchTo(oldcxt);
	}
	list_free(databases);
	list_free(known_databases);
	known_databases = known;
	CommitTransactionCommand();
}

/*
 * The databases that allow connections, in the launcher's memory.
 */
static List *
list_databases(void)
{
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;
	List	   *databases = NIL;

	PushActiveSnapshot(GetTransactionSnapshot());
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database row = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext oldcxt;

		if (!row->datallowconn || row->datconnlimit == DATCONNLIMIT_INVALID_DB)
			continue;
		oldcxt = MemoryContextSwitchTo(launcher_cxt);
		databases = lappend_oid(databases, row->oid);
		MemoryContextSwitchTo(oldcxt);
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	PopActiveSnapshot();
	return databases;
}

/*
 * Starts the relays that are wanted.  True: some cannot be started yet.
 */
static bool
start_relays(void)
{
	MemoryContext oldcxt = MemoryContextSwitchTo(launcher_cxt);
	AllocWantedRelay *wanted;
	int			n = alloc_shared_relays_in_want(&wanted);
	bool		waiting = false;

	for (int i = 0; i < n; i++)
		if (!start_relay(&wanted[i]))
			waiting = true;
	pfree(wanted);
	MemoryContextSwitchTo(oldcxt);
	return waiting;
}

static bool
start_relay(const AllocWantedRelay *wanted)
{
	Oid			database = wanted->database;
	StartedRelay *relay = find_started(database);
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_main_arg = ObjectIdGetDatum(database),
		.bgw_notify_pid = MyProcPid
	};

	if (relay == NULL)
	{
		relay = palloc0(sizeof(StartedRelay));
		relay->database = database;
		started = lappend(started, relay);
	}
	if (!is_over(relay))
		return false;
	if (wanted->failed)
	{
		if (is_gone(database))
		{
			alloc_shared_unwant_relay(database);
			started = list_delete_ptr(started, relay);
			pfree(relay);
			return true;
		}
		if (!TimestampDifferenceExceeds(relay->at, GetCurrentTimestamp(),
										START_INTERVAL))
			return false;
	}
	strlcpy(worker.bgw_name, "alloc relay", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "alloc relay", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "alloc", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "alloc_relay_main", BGW_MAXLEN);
	if (!RegisterDynamicBackgroundWorker(&worker, &relay->handle))
	{
		say_there_is_no_worker(database);
		return false;
	}
	relay->at = GetCurrentTimestamp();
	return true;
}

/*
 * Was a database dropped?
 */
static bool
is_gone(Oid database)
{
	List	   *databases;
	bool		gone;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	databases = list_databases();
	gone = !list_member_oid(databases, database);
	list_free(databases);
	CommitTransactionCommand();
	MemoryContextSwitchTo(launcher_cxt);
	return gone;
}

/*
 * Once a minute at most.
 */
static void
say_there_is_no_worker(Oid database)
{
	static TimestampTz said = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(said, now, 60000))
		return;
	ereport(LOG,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no worker process is free for the relay of database %u",
					database),
			 errhint("Increase max_worker_processes: alloc needs one, and one for each database that has the extension.")));
	said = now;
}

static StartedRelay *
find_started(Oid database)
{
	ListCell   *cell;

	foreach(cell, started)
	{
		StartedRelay *relay = lfirst(cell);

		if (relay->database == database)
			return relay;
	}
	return NULL;
}

/*
 * Is there no process for it?
 */
static bool
is_over(StartedRelay *relay)
{
	pid_t		pid;

	if (relay->handle == NULL)
		return true;
	if (GetBackgroundWorkerPid(relay->handle, &pid) != BGWH_STOPPED)
		return false;
	pfree(relay->handle);
	relay->handle = NULL;
	return true;
}
