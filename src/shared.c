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
#include "shared.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/wait_event.h"

/* Milliseconds between two looks, and how long a relay has to go. */
#define LOOK_INTERVAL 10
#define PATIENCE 5000

/* What is to be served, and its worker if there is one. */
typedef struct SharedWorker
{
	Oid			database;		/* invalid: the entry is free */
	int64		subscription;	/* 0: the relay */
	bool		wanted;			/* there is, or may be, something to do */
	bool		failed;			/* the last one did not end by itself */
	pid_t		pid;			/* 0: there is none */
	Latch	   *latch;
	volatile bool work;			/* of a relay: somebody has committed events */
	pid_t		paused_by;		/* of a relay; 0: by nobody */
	bool		crowded;		/* of a relay: handlers wait for a worker */
	int64		running;		/* of a handler: the event that it handles */
} SharedWorker;

typedef struct SharedState
{
	LWLock	   *lock;
	Latch	   *launcher_latch; /* NULL: there is no launcher */
	SharedWorker workers[FLEXIBLE_ARRAY_MEMBER];
} SharedState;

static SharedState *shared;
static int	nworkers;
static SharedWorker *own_relay;
static SharedWorker *own_handler;
static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

static Size shared_size(void);
static void request_shmem(void);
static void startup_shmem(void);
static SharedWorker *find_relay(Oid database);
static SharedWorker *find_worker(Oid database, int64 subscription);
static SharedWorker *find_or_add_worker(Oid database, int64 subscription);
static bool terminate_workers(Oid database);
static void wake_handlers(Oid database);
static void forget_if_unused(SharedWorker *relay);
static bool is_paused(SharedWorker *relay);
static void wake_launcher(void);
static void forget_launcher(int code, Datum arg);
static void forget_relay(int code, Datum arg);
static void forget_handler(int code, Datum arg);

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
	return shared != NULL;
}

/*
 * alloc_shared_want_relay
 *		Lets the launcher start a relay for a database, if it has none.  False:
 *		there are too many that want one.
 */
bool
alloc_shared_want_relay(Oid database)
{
	SharedWorker *relay;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_or_add_worker(database, 0);
	if (relay != NULL)
		relay->wanted = true;
	LWLockRelease(shared->lock);
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
	SharedWorker *relay = find_relay(MyDatabaseId);
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
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher_latch = MyLatch;
	LWLockRelease(shared->lock);
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

	*wanted = palloc_array(AllocWantedRelay, nworkers);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < nworkers; i++)
	{
		SharedWorker *relay = &shared->workers[i];

		if (!OidIsValid(relay->database) || relay->subscription != 0 ||
			!relay->wanted || relay->pid != 0 || is_paused(relay))
			continue;
		(*wanted)[n].database = relay->database;
		(*wanted)[n].failed = relay->failed;
		n++;
	}
	LWLockRelease(shared->lock);
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
	SharedWorker *relay;
	bool		ours;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_or_add_worker(database, 0);
	ours = relay != NULL && relay->pid == 0 && !is_paused(relay);
	if (ours)
	{
		relay->pid = MyProcPid;
		relay->latch = MyLatch;
		relay->wanted = true;
		relay->failed = true;
		own_relay = relay;
	}
	LWLockRelease(shared->lock);
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
	SharedWorker *relay;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_relay(database);
	if (relay != NULL)
	{
		relay->wanted = false;
		relay->failed = false;
		relay->latch = NULL;
		forget_if_unused(relay);
		wake_handlers(database);
	}
	LWLockRelease(shared->lock);
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
		SharedWorker *relay;
		bool		any;

		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		relay = find_or_add_worker(database, 0);
		if (relay != NULL)
			relay->paused_by = MyProcPid;
		any = terminate_workers(database);
		LWLockRelease(shared->lock);
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
	SharedWorker *relay;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_relay(database);
	if (relay != NULL && relay->paused_by == MyProcPid)
	{
		relay->paused_by = 0;
		forget_if_unused(relay);
	}
	LWLockRelease(shared->lock);
	wake_launcher();
}

/*
 * alloc_shared_want_handler
 *		There may be something to do for a handler of this database.  True: it
 *		has a worker, which knows.
 */
bool
alloc_shared_want_handler(int64 subscription)
{
	SharedWorker *worker;
	bool		served = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	worker = find_worker(MyDatabaseId, subscription);
	if (worker != NULL && worker->latch != NULL)
	{
		worker->wanted = true;
		SetLatch(worker->latch);
		served = true;
	}
	LWLockRelease(shared->lock);
	return served;
}

/*
 * alloc_shared_begin_handler
 *		This process is the worker of a handler, to its end.  False: there is
 *		one, or there must be none now.
 */
bool
alloc_shared_begin_handler(Oid database, int64 subscription)
{
	SharedWorker *relay;
	SharedWorker *worker;
	bool		ours;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_relay(database);
	worker = find_or_add_worker(database, subscription);
	ours = worker != NULL && worker->pid == 0 &&
		(relay == NULL || !is_paused(relay));
	if (ours)
	{
		worker->pid = MyProcPid;
		worker->latch = MyLatch;
		worker->running = 0;
		worker->wanted = false;
		worker->failed = true;
		own_handler = worker;
	}
	LWLockRelease(shared->lock);
	if (ours)
		before_shmem_exit(forget_handler, (Datum) 0);
	return ours;
}

/*
 * alloc_shared_handler_runs
 *		This worker calls its handler with an event; 0: it no longer does.
 */
void
alloc_shared_handler_runs(int64 event_id)
{
	own_handler->running = event_id;
}

/*
 * alloc_shared_handler_is_wanted
 *		Was this worker woken since it asked last?
 */
bool
alloc_shared_handler_is_wanted(void)
{
	bool		wanted;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	wanted = own_handler->wanted;
	own_handler->wanted = false;
	LWLockRelease(shared->lock);
	return wanted;
}

/*
 * alloc_shared_set_crowded
 *		In the relay: do handlers wait for a worker?  Then those that have one
 *		and do not need it, or have had it for long, are to let it go.
 */
void
alloc_shared_set_crowded(bool crowded)
{
	SharedWorker *relay;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_relay(MyDatabaseId);
	if (relay != NULL && relay->crowded != crowded)
	{
		relay->crowded = crowded;
		if (crowded)
			wake_handlers(MyDatabaseId);
	}
	LWLockRelease(shared->lock);
}

/*
 * alloc_shared_is_crowded
 *		Do handlers wait for a worker, or is there no relay that could wake one?
 */
bool
alloc_shared_is_crowded(void)
{
	SharedWorker *relay;
	bool		crowded;

	LWLockAcquire(shared->lock, LW_SHARED);
	relay = find_relay(MyDatabaseId);
	crowded = relay == NULL || relay->crowded;
	LWLockRelease(shared->lock);
	return crowded;
}

/*
 * alloc_shared_end_handler
 *		This worker is about to end by itself; more: it leaves something to do.
 */
void
alloc_shared_end_handler(bool more)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	own_handler->failed = false;
	own_handler->wanted |= more;
	LWLockRelease(shared->lock);
}

/*
 * alloc_shared_dead_handler
 *		A handler of this database whose worker has ended; each is told once.
 */
bool
alloc_shared_dead_handler(AllocDeadHandler *handler)
{
	bool		found = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < nworkers && !found; i++)
	{
		SharedWorker *worker = &shared->workers[i];

		if (worker->database != MyDatabaseId || worker->subscription == 0 ||
			worker->pid != 0)
			continue;
		handler->subscription = worker->subscription;
		handler->running = worker->running;
		handler->more = worker->wanted;
		handler->failed = worker->failed;
		worker->database = InvalidOid;
		found = true;
	}
	LWLockRelease(shared->lock);
	return found;
}

/*
 * There cannot be more workers than worker processes; as many more may be
 * wanted.
 */
static Size
shared_size(void)
{
	return add_size(offsetof(SharedState, workers),
					mul_size(mul_size(2, max_worker_processes),
							 sizeof(SharedWorker)));
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
	nworkers = 2 * max_worker_processes;
	shared = ShmemInitStruct("alloc", shared_size(), &found);
	if (!found)
	{
		memset(shared, 0, shared_size());
		shared->lock = &GetNamedLWLockTranche("alloc")->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

static SharedWorker *
find_relay(Oid database)
{
	return find_worker(database, 0);
}

static SharedWorker *
find_worker(Oid database, int64 subscription)
{
	for (int i = 0; i < nworkers; i++)
		if (shared->workers[i].database == database &&
			shared->workers[i].subscription == subscription)
			return &shared->workers[i];
	return NULL;
}

/*
 * NULL: there are too many.
 */
static SharedWorker *
find_or_add_worker(Oid database, int64 subscription)
{
	SharedWorker *worker = find_worker(database, subscription);

	for (int i = 0; worker == NULL && i < nworkers; i++)
	{
		if (OidIsValid(shared->workers[i].database))
			continue;
		worker = &shared->workers[i];
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

	for (int i = 0; i < nworkers; i++)
	{
		if (shared->workers[i].database != database ||
			shared->workers[i].pid == 0)
			continue;
		kill(shared->workers[i].pid, SIGTERM);
		any = true;
	}
	return any;
}

static void
wake_handlers(Oid database)
{
	for (int i = 0; i < nworkers; i++)
		if (shared->workers[i].database == database &&
			shared->workers[i].subscription != 0 &&
			shared->workers[i].latch != NULL)
			SetLatch(shared->workers[i].latch);
}

static void
forget_if_unused(SharedWorker *relay)
{
	if (!relay->wanted && relay->pid == 0 && relay->paused_by == 0)
		relay->database = InvalidOid;
}

/*
 * A pause ends with the process that began it.
 */
static bool
is_paused(SharedWorker *relay)
{
	if (relay->paused_by != 0 && BackendPidGetProc(relay->paused_by) == NULL)
		relay->paused_by = 0;
	return relay->paused_by != 0;
}

static void
wake_launcher(void)
{
	Latch	   *latch = shared->launcher_latch;

	if (latch != NULL)
		SetLatch(latch);
}

static void
forget_launcher(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	shared->launcher_latch = NULL;
	LWLockRelease(shared->lock);
}

static void
forget_relay(int code, Datum arg)
{
	SharedWorker *relay;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_relay(DatumGetObjectId(arg));
	if (relay != NULL && relay->pid == MyProcPid)
	{
		relay->pid = 0;
		relay->latch = NULL;
		forget_if_unused(relay);
	}
	LWLockRelease(shared->lock);
	wake_launcher();
}

/*
 * What is left is for alloc_shared_dead_handler().
 */
static void
forget_handler(int code, Datum arg)
{
	SharedWorker *relay;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	own_handler->pid = 0;
	own_handler->latch = NULL;
	relay = find_relay(own_handler->database);
	if (relay != NULL && relay->latch != NULL)
		SetLatch(relay->latch);
	LWLockRelease(shared->lock);
}
