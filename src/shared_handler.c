/*-------------------------------------------------------------------------
 *
 * shared_handler.c
 *	  What the processes of a server know of each other, continued: which
 *	  worker calls which handler.  See shared.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "miscadmin.h"
#include "shared_private.h"
#include "storage/ipc.h"
#include "storage/proc.h"

static AllocSharedWorker *own_handler;

static void forget_handler(int code, Datum arg);

/*
 * alloc_shared_want_handler
 *		There may be something to do for a handler of this database.  True: it
 *		has a worker, which knows.
 */
bool
alloc_shared_want_handler(int64 subscription)
{
	AllocSharedWorker *worker;
	bool		served = false;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	worker = alloc_shared_find_worker(MyDatabaseId, subscription);
	if (worker != NULL && worker->latch != NULL)
	{
		worker->wanted = true;
		SetLatch(worker->latch);
		served = true;
	}
	LWLockRelease(alloc_shared->lock);
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
	AllocSharedWorker *relay;
	AllocSharedWorker *worker;
	bool		ours;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	relay = alloc_shared_find_relay(database);
	worker = alloc_shared_add_worker(database, subscription);
	ours = worker != NULL && worker->pid == 0 &&
		(relay == NULL || !alloc_shared_is_paused(relay));
	if (ours)
	{
		worker->pid = MyProcPid;
		worker->latch = MyLatch;
		worker->running = 0;
		worker->wanted = false;
		worker->failed = true;
		own_handler = worker;
	}
	LWLockRelease(alloc_shared->lock);
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

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	wanted = own_handler->wanted;
	own_handler->wanted = false;
	LWLockRelease(alloc_shared->lock);
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
	AllocSharedWorker *relay;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	relay = alloc_shared_find_relay(MyDatabaseId);
	if (relay != NULL && relay->crowded != crowded)
	{
		relay->crowded = crowded;
		if (crowded)
			alloc_shared_wake_handlers(MyDatabaseId);
	}
	LWLockRelease(alloc_shared->lock);
}

/*
 * alloc_shared_is_crowded
 *		Do handlers wait for a worker, or is there no relay that could wake one?
 */
bool
alloc_shared_is_crowded(void)
{
	AllocSharedWorker *relay;
	bool		crowded;

	LWLockAcquire(alloc_shared->lock, LW_SHARED);
	relay = alloc_shared_find_relay(MyDatabaseId);
	crowded = relay == NULL || relay->crowded;
	LWLockRelease(alloc_shared->lock);
	return crowded;
}

/*
 * alloc_shared_handlers_at_work
 *		How many handlers of this database have a worker.
 */
int
alloc_shared_handlers_at_work(void)
{
	int			n = 0;

	LWLockAcquire(alloc_shared->lock, LW_SHARED);
	for (int i = 0; i < alloc_shared_nworkers; i++)
		n += alloc_shared->workers[i].database == MyDatabaseId &&
			alloc_shared->workers[i].subscription != 0 &&
			alloc_shared->workers[i].pid != 0;
	LWLockRelease(alloc_shared->lock);
	return n;
}

/*
 * alloc_shared_end_handler
 *		This worker is about to end by itself; more: it leaves something to do.
 */
void
alloc_shared_end_handler(bool more)
{
	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	own_handler->failed = false;
	own_handler->wanted |= more;
	LWLockRelease(alloc_shared->lock);
}

/*
 * alloc_shared_dead_handler
 *		A handler of this database whose worker has ended; each is told once.
 */
bool
alloc_shared_dead_handler(AllocDeadHandler *handler)
{
	bool		found = false;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < alloc_shared_nworkers && !found; i++)
	{
		AllocSharedWorker *worker = &alloc_shared->workers[i];

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
	LWLockRelease(alloc_shared->lock);
	return found;
}

/*
 * What is left is for alloc_shared_dead_handler().
 */
static void
forget_handler(int code, Datum arg)
{
	AllocSharedWorker *relay;

	LWLockAcquire(alloc_shared->lock, LW_EXCLUSIVE);
	own_handler->pid = 0;
	own_handler->latch = NULL;
	relay = alloc_shared_find_relay(own_handler->database);
	if (relay == NULL || !relay->wanted)
		own_handler->database = InvalidOid;
	else if (relay->latch != NULL)
	{
		relay->work = true;
		SetLatch(relay->latch);
	}
	LWLockRelease(alloc_shared->lock);
}
