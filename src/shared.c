/*-------------------------------------------------------------------------
 *
 * shared.c
 *	  What the processes of a server know of each other: which relay serves
 *	  which database, and which worker which handler.
 *
 * There is shared memory only where the library is in
 * shared_preload_libraries; nothing else may be called where
 * alloc_shared_available() says no.
 *
 * Locks: the list is written under its LWLock.  A commit that wakes the relay
 * reads it without: a latch is that of a PGPROC, which never goes away, so the
 * worst that comes of an old entry is that somebody wakes for nothing, or, if
 * the relay is just starting, that it is not woken, and then it looks by
 * itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "miscadmin.h"
#include "shared_private.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/wait_event.h"

/* Milliseconds between two looks, and how long a relay has to go. */
#define LOOK_INTERVAL 10
#define PATIENCE 5000

AllocSharedState *alloc_shared;
int			alloc_shared_nworkers;

static AllocSharedWorker *own_relay;
static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

static Size shared_size(void);
static void request_shmem(void);
static void startup_shmem(void);
static bool terminate_workers(Oid database);
static void forget_handlers(Oid database);
static void forget_if_unused(AllocSharedWorker *relay);
static void wake_launcher(void);
static void forget_launcher(int code, Datum arg);
static void forget_relay(int code, Datum arg);

/*
 * alloc_shared_init
 *		When the library is loaded by the postmaster.
 */
void
alloc_shared_init(void)
{
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

bool
alloc_shared_available(void)
{
	return alloc_shared != NULL;
}

/*
 * alloc_shared_want_relay
 *		Lets the launcher start a relay for a database, if it has none.  False:
 *		there are too many that want one.
 */
bool
alloc_shared_want_relay(Oid database)
{
	AllocSharedWorker *relay;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	relay = alloc_shared_add_worker(database, 0);
	if (relay != NULL)
		relay->wanted = true;
	LWLockRelease(alloc_shared->lock);
	wake_launcher();
	return relay != NULL;
}

/*
 * alloc_shared_wake_relay
 *		After a commit: there may be something for the relay of this database.
 */
void
alloc_shared_wake_relay(void)
{
	AllocSharedWorker *relay = alloc_shared_find_relay(MyDatabaseId);
	Latch	   *latch = relay ? relay->latch : NULL;

	if (latch != NULL)
	{
		relay->work = true;
		SetLatch(latch);
	}
	else if (relay == NULL || !relay->wanted)
		(void) alloc_shared_want_relay(MyDatabaseId);
}

/*
 * alloc_shared_relay_has_work
 *		In the relay: has it been woken since it asked last?
 *
 * The latch alone does not tell: who waits for a lock resets it.
 */
bool
alloc_shared_relay_has_work(void)
{
	bool		work = own_relay->work;

	own_relay->work = false;
	pg_memory_barrier();
	return work;
}

/*
 * alloc_shared_begin_launcher
 *		This process is the launcher, to its end.
 */
void
alloc_shared_begin_launcher(void)
{
	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	alloc_shared->launcher_latch = MyLatch;
	LWLockRelease(alloc_shared->lock);
	before_shmem_exit(forget_launcher, (Datum) 0);
}

/*
 * alloc_shared_relays_in_want
 *		The databases that want a relay, have none, and may have one.
 */
int
alloc_shared_relays_in_want(AllocWantedRelay **wanted)
{
	int			n = 0;

	*wanted = palloc_array(AllocWantedRelay, alloc_shared_nworkers);
	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < alloc_shared_nworkers; i++)
	{
		AllocSharedWorker *relay = &alloc_shared->workers[i];

		if (!OidIsValid(relay->database) || relay->subscription != 0 ||
			!relay->wanted || relay->pid != 0 || alloc_shared_is_paused(relay))
			continue;
		(*wanted)[n].database = relay->database;
		(*wanted)[n].failed = relay->failed;
		n++;
	}
	LWLockRelease(alloc_shared->lock);
	return n;
}

/*
 * alloc_shared_begin_relay
 *		This process is the relay of a database, to its end.  False: there is
 *		one, or there must be none now.
 */
bool
alloc_shared_begin_relay(Oid database)
{
	AllocSharedWorker *relay;
	bool		ours;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	relay = alloc_shared_add_worker(database, 0);
	ours = relay != NULL && relay->pid == 0 && !alloc_shared_is_paused(relay);
	if (ours)
	{
		relay->pid = MyProcPid;
		relay->latch = MyLatch;
		relay->wanted = true;
		relay->failed = true;
		own_relay = relay;
	}
	LWLockRelease(alloc_shared->lock);
	if (ours)
		before_shmem_exit(forget_relay, ObjectIdGetDatum(database));
	return ours;
}

/*
 * alloc_shared_unwant_relay
 *		Nothing in a database wants a relay, or the database is gone.
 */
void
alloc_shared_unwant_relay(Oid database)
{
	AllocSharedWorker *relay;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	relay = alloc_shared_find_relay(database);
	if (relay != NULL)
	{
		relay->wanted = false;
		relay->failed = false;
		relay->latch = NULL;
		forget_if_unused(relay);
	}
	forget_handlers(database);
	LWLockRelease(alloc_shared->lock);
}

/*
 * alloc_shared_pause
 *		Ends the workers of a database, which is to be without connections, and
 *		lets none start before alloc_shared_resume() or the end of this
 *		process.
 */
void
alloc_shared_pause(Oid database)
{
	for (int waited = 0; waited < PATIENCE; waited += LOOK_INTERVAL)
	{
		AllocSharedWorker *relay;
		bool		any;

		LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
		relay = alloc_shared_add_worker(database, 0);
		if (relay != NULL)
			relay->paused_by = MyProcPid;
		any = terminate_workers(database);
		LWLockRelease(alloc_shared->lock);
		if (!any)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_INTERVAL, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
alloc_shared_resume(Oid database)
{
	AllocSharedWorker *relay;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	relay = alloc_shared_find_relay(database);
	if (relay != NULL && relay->paused_by == MyProcPid)
	{
		relay->paused_by = 0;
		forget_if_unused(relay);
	}
	LWLockRelease(alloc_shared->lock);
	wake_launcher();
}

/*
 * There cannot be more workers than worker processes; as many more may be
 * wanted.
 */
static Size
shared_size(void)
{
	return add_size(offsetof(AllocSharedState, workers),
					mul_size(mul_size(2, max_worker_processes),
							 sizeof(AllocSharedWorker)));
}

static void
request_shmem(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("alloc", 1);
}

static void
startup_shmem(void)
{
	bool		found;

	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	alloc_shared_nworkers = 2 * max_worker_processes;
	alloc_shared = ShmemInitStruct("alloc", shared_size(), &found);
	if (!found)
	{
		memset(alloc_shared, 0, shared_size());
		alloc_shared->lock = &GetNamedLWLockTranche("alloc")->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

AllocSharedWorker *
alloc_shared_find_relay(Oid database)
{
	return alloc_shared_find_worker(database, 0);
}

AllocSharedWorker *
alloc_shared_find_worker(Oid database, int64 subscription)
{
	for (int i = 0; i < alloc_shared_nworkers; i++)
		if (alloc_shared->workers[i].database == database &&
			alloc_shared->workers[i].subscription == subscription)
			return &alloc_shared->workers[i];
	return NULL;
}

/*
 * NULL: there are too many.
 */
AllocSharedWorker *
alloc_shared_add_worker(Oid database, int64 subscription)
{
	AllocSharedWorker *worker = alloc_shared_find_worker(database, subscription);

	for (int i = 0; worker == NULL && i < alloc_shared_nworkers; i++)
	{
		if (OidIsValid(alloc_shared->workers[i].database))
			continue;
		worker = &alloc_shared->workers[i];
		memset(worker, 0, sizeof(*worker));
		worker->database = database;
		worker->subscription = subscription;
	}
	return worker;
}

/*
 * Asks the workers of a database to end; returns whether there are any.
 */
static bool
terminate_workers(Oid database)
{
	bool		any = false;

	for (int i = 0; i < alloc_shared_nworkers; i++)
	{
		if (alloc_shared->workers[i].database != database ||
			alloc_shared->workers[i].pid == 0)
			continue;
		kill(alloc_shared->workers[i].pid, SIGTERM);
		any = true;
	}
	return any;
}

void
alloc_shared_wake_handlers(Oid database)
{
	for (int i = 0; i < alloc_shared_nworkers; i++)
		if (alloc_shared->workers[i].database == database &&
			alloc_shared->workers[i].subscription != 0 &&
			alloc_shared->workers[i].latch != NULL)
			SetLatch(alloc_shared->workers[i].latch);
}

/*
 * The workers of a database end, if there are any; those that have ended are
 * not told.
 */
static void
forget_handlers(Oid database)
{
	for (int i = 0; i < alloc_shared_nworkers; i++)
		if (alloc_shared->workers[i].database == database &&
			alloc_shared->workers[i].subscription != 0 &&
			alloc_shared->workers[i].pid == 0)
			alloc_shared->workers[i].database = InvalidOid;
	alloc_shared_wake_handlers(database);
}

static void
forget_if_unused(AllocSharedWorker *relay)
{
	if (!relay->wanted && relay->pid == 0 && relay->paused_by == 0)
		relay->database = InvalidOid;
}

/*
 * A pause ends with the process that began it.
 */
bool
alloc_shared_is_paused(AllocSharedWorker *relay)
{
	if (relay->paused_by != 0 && BackendPidGetProc(relay->paused_by) == NULL)
		relay->paused_by = 0;
	return relay->paused_by != 0;
}

static void
wake_launcher(void)
{
	Latch	   *latch = alloc_shared->launcher_latch;

	if (latch != NULL)
		SetLatch(latch);
}

static void
forget_launcher(int code, Datum arg)
{
	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	alloc_shared->launcher_latch = NULL;
	LWLockRelease(alloc_shared->lock);
}

static void
forget_relay(int code, Datum arg)
{
	AllocSharedWorker *relay;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	relay = alloc_shared_find_relay(DatumGetObjectId(arg));
	if (relay != NULL && relay->pid == MyProcPid)
	{
		relay->pid = 0;
		relay->latch = NULL;
		forget_if_unused(relay);
	}
	LWLockRelease(alloc_shared->lock);
	wake_launcher();
}
