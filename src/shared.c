/*-------------------------------------------------------------------------
 *
 * shared.c
 *	  What the processes of a server know of each other: which relay serves
 *	  which database.
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

/* A database, and its relay if there is one. */
typedef struct SharedRelay
{
	Oid			database;		/* invalid: the entry is free */
	bool		wanted;			/* to be started when there is none */
	bool		failed;			/* the last one did not end by itself */
	pid_t		pid;			/* 0: there is none */
	Latch	   *latch;
	pid_t		paused_by;		/* 0: by nobody */
} SharedRelay;

typedef struct SharedState
{
	LWLock	   *lock;
	Latch	   *launcher_latch; /* NULL: there is no launcher */
	SharedRelay relays[FLEXIBLE_ARRAY_MEMBER];
} SharedState;

static SharedState *shared;
static int	nrelays;
static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

static Size shared_size(void);
static void request_shmem(void);
static void startup_shmem(void);
static SharedRelay *find_relay(Oid database);
static SharedRelay *find_or_add_relay(Oid database);
static void forget_if_unused(SharedRelay *relay);
static bool is_paused(SharedRelay *relay);
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
	return shared != NULL;
}

/*
 * alloc_shared_want_relay
 *		Lets the launcher start a relay for a database, if it has none.
 */
void
alloc_shared_want_relay(Oid database)
{
	SharedRelay *relay;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_or_add_relay(database);
	if (relay != NULL)
		relay->wanted = true;
	LWLockRelease(shared->lock);
	wake_launcher();
}

/*
 * alloc_shared_wake_relay
 *		After a commit: there may be something for the relay of this database.
 */
void
alloc_shared_wake_relay(void)
{
	SharedRelay *relay = find_relay(MyDatabaseId);
	Latch	   *latch = relay ? relay->latch : NULL;

	if (latch != NULL)
		SetLatch(latch);
	else if (relay == NULL || !relay->wanted)
		alloc_shared_want_relay(MyDatabaseId);
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

	*wanted = palloc_array(AllocWantedRelay, nrelays);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < nrelays; i++)
	{
		SharedRelay *relay = &shared->relays[i];

		if (!OidIsValid(relay->database) || !relay->wanted ||
			relay->pid != 0 || is_paused(relay))
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
	SharedRelay *relay;
	bool		ours;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_or_add_relay(database);
	ours = relay != NULL && relay->pid == 0 && !is_paused(relay);
	if (ours)
	{
		relay->pid = MyProcPid;
		relay->latch = MyLatch;
		relay->wanted = true;
		relay->failed = true;
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
	SharedRelay *relay;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	relay = find_relay(database);
	if (relay != NULL)
	{
		relay->wanted = false;
		relay->failed = false;
		forget_if_unused(relay);
	}
	LWLockRelease(shared->lock);
}

/*
 * alloc_shared_pause
 *		Ends the relay of a database, which is to be without connections, and
 *		lets none start before alloc_shared_resume() or the end of this
 *		process.
 */
void
alloc_shared_pause(Oid database)
{
	for (int waited = 0; waited < PATIENCE; waited += LOOK_INTERVAL)
	{
		SharedRelay *relay;
		pid_t		pid = 0;

		LWLockAcquire(shared->lock, LW_EXCLUSIVE);
		relay = find_or_add_relay(database);
		if (relay != NULL)
		{
			relay->paused_by = MyProcPid;
			pid = relay->pid;
		}
		LWLockRelease(shared->lock);
		if (pid == 0)
			return;
		kill(pid, SIGTERM);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_INTERVAL, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
alloc_shared_resume(Oid database)
{
	SharedRelay *relay;

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
 * There cannot be more relays than worker processes.
 */
static Size
shared_size(void)
{
	return add_size(offsetof(SharedState, relays),
					mul_size(max_worker_processes, sizeof(SharedRelay)));
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
	nrelays = max_worker_processes;
	shared = ShmemInitStruct("alloc", shared_size(), &found);
	if (!found)
	{
		memset(shared, 0, shared_size());
		shared->lock = &GetNamedLWLockTranche("alloc")->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

static SharedRelay *
find_relay(Oid database)
{
	for (int i = 0; i < nrelays; i++)
		if (shared->relays[i].database == database)
			return &shared->relays[i];
	return NULL;
}

/*
 * NULL: there are too many.
 */
static SharedRelay *
find_or_add_relay(Oid database)
{
	SharedRelay *relay = find_relay(database);

	if (relay == NULL && (relay = find_relay(InvalidOid)) != NULL)
	{
		memset(relay, 0, sizeof(*relay));
		relay->database = database;
	}
	return relay;
}

static void
forget_if_unused(SharedRelay *relay)
{
	if (!relay->wanted && relay->pid == 0 && relay->paused_by == 0)
		relay->database = InvalidOid;
}

/*
 * A pause ends with the process that began it.
 */
static bool
is_paused(SharedRelay *relay)
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
	SharedRelay *relay;

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
