/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  What the extension's background workers have in common.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "compat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "relay.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

/* Settings of a database or a role that are not meant for the workers. */
static const char *const settings[][2] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	ALLOC_TRANSACTION_TIMEOUT
};

/*
 * What a worker that was told to end says to the postmaster: 0, not to start
 * it again.
 */
static int	exit_code;

/*
 * alloc_worker_begin
 *		To be called first in a worker: connects to a database, or, when it is
 *		invalid, to the shared catalogs only, which is the launcher: there is
 *		always one.
 */
void
alloc_worker_begin(const char *name, Oid database)
{
	exit_code = OidIsValid(database) ? 0 : 1;
	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	if (OidIsValid(database))
		BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	else
		BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_USERSET,
						PGC_S_OVERRIDE);
	SetConfigOption("application_name", name, PGC_USERSET, PGC_S_OVERRIDE);
	pgstat_report_appname(name);
}

/*
 * alloc_worker_lock_extension
 *		Keeps the extension from being dropped before the end of the
 *		transaction.  False: this database has none.
 */
bool
alloc_worker_lock_extension(void)
{
	for (;;)
	{
		Oid			extension = get_extension_oid("alloc", true);

		if (!OidIsValid(extension))
			return false;
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		if (get_extension_oid("alloc", true) == extension)
			return true;
		UnlockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	}
}

/*
 * alloc_worker_sleep
 *		Waits until somebody sets our latch, or time has passed; then obeys.
 */
void
alloc_worker_sleep(long milliseconds, const char *wait_event)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 milliseconds, alloc_wait_event(wait_event));
	ResetLatch(MyLatch);
	alloc_worker_obey();
}

/*
 * alloc_worker_obey
 *		Obeys a shutdown, which says nothing to the log, and a reload.  To be
 *		called out of any transaction.
 */
void
alloc_worker_obey(void)
{
	if (ProcDiePending)
		proc_exit(exit_code);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}
