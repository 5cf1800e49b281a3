/*-------------------------------------------------------------------------
 *
 * dispatch.c
 *	  In the relay: which asynchronous handlers have something to do, and a
 *	  worker for each.
 *
 * Each handler has a worker of its own, so that one that sleeps or fails is
 * nobody else's trouble.  There are alloc.handler_workers of them at the same
 * time at most; handlers that wait for one take turns.
 *
 * Memory: "alloc dispatch" has what the relay knows of the handlers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "handler.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "relay.h"
#include "shared.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Milliseconds between two starts of a worker that did not end by itself. */
#define START_INTERVAL 1000

/* An asynchronous handler. */
typedef struct Handler
{
	int64		subscription;
	char	   *event_type;
	bool		pending;		/* it has, or may have, something to do */
	TimestampTz not_before;		/* no worker is started until then */
	BackgroundWorkerHandle *worker; /* NULL: none was started */
} Handler;

static MemoryContext dispatch_cxt;
static List *handlers;
static uint32 version;			/* of the subscriptions; 0: none is known */

static void load_handlers(void);
static Handler *find_handler(int64 subscription);
static void bury_workers(void);
static long note_due(void);
static long start_workers(long delay);
static bool is_at_work(Handler *handler);
static bool start_worker(Handler *handler);

/*
 * alloc_dispatch_note_event
 *		The relay has read an event of this type.
 */
void
alloc_dispatch_note_event(const char *type)
{
	ListCell   *cell;

	foreach(cell, handlers)
	{
		Handler    *handler = lfirst(cell);

		if (strcmp(handler->event_type, type) == 0)
			handler->pending = true;
	}
}

/*
 * alloc_dispatch
 *		Gives workers to the handlers that need one.  To be called out of any
 *		transaction; returns after how many milliseconds to call it again.
 */
long
alloc_dispatch(long delay)
{
	long		due;

	bury_workers();
	if (handlers == NIL && version != 0 &&
		version == alloc_store_subscriptions_version())
		return delay;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (alloc_worker_lock_extension())
	{
		alloc_store_begin("the relay");
		if (version == 0 || version != alloc_store_subscriptions_version())
			load_handlers();
		due = handlers == NIL ? delay : note_due();
		delay = Min(delay, due);
		alloc_store_end();
	}
	CommitTransactionCommand();
	return start_workers(delay);
}

/*
 * The subscriptions as they are now; each may have missed something.
 */
static void
load_handlers(void)
{
	List	   *old = handlers;
	List	   *subscriptions;
	ListCell   *cell;
	MemoryContext oldcxt;

	if (dispatch_cxt == NULL)
		dispatch_cxt = AllocSetContextCreate(TopMemoryContext, "alloc dispatch",
											 ALLOCSET_SMALL_SIZES);
	subscriptions = alloc_store_subscriptions();
	version = alloc_store_subscriptions_version();
	oldcxt = MemoryContextSwitchTo(dispatch_cxt);
	handlers = NIL;
	foreach(cell, subscriptions)
	{
		const AllocSubscription *subscription = lfirst(cell);
		Handler    *handler;
		ListCell   *known;

		if (subscription->sync)
			continue;
		handler = palloc0(sizeof(Handler));
		foreach(known, old)
			if (((Handler *) lfirst(known))->subscription == subscription->id)
				*handler = *(Handler *) lfirst(known);
		handler->subscription = subscription->id;
		handler->event_type = pstrdup(subscription->event_type);
		handler->pending = true;
		handlers = lappend(handlers, handler);
	}
	/* Workers whose subscription is gone are to see it. */
	foreach(cell, old)
		(void) alloc_shared_want_handler(((Handler *) lfirst(cell))->subscription);
	list_free(old);
	MemoryContextSwitchTo(oldcxt);
}

static Handler *
find_handler(int64 subscription)
{
	ListCell   *cell;

	foreach(cell, handlers)
	{
		Handler    *handler = lfirst(cell);

		if (handler->subscription == subscription)
			return handler;
	}
	return NULL;
}

/*
 * Workers that have ended: what one was called with when it did counts as
 * failed, or it would end the next one as well.
 */
static void
bury_workers(void)
{
	AllocDeadHandler dead;

	while (alloc_shared_dead_handler(&dead))
	{
		Handler    *handler = find_handler(dead.subscription);

		if (handler == NULL)
			continue;
		if (dead.more || dead.failed)
			handler->pending = true;
		if (dead.failed)
			handler->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
															  START_INTERVAL);
		if (dead.running != 0)
			alloc_handler_record_failure(dead.subscription, dead.running,
										 "the worker that ran the handler was terminated");
	}
}

/*
 * What is to be tried again by now; returns the time to the next.
 */
static long
note_due(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long		delay = LONG_MAX;
	ListCell   *cell;

	foreach(cell, handlers)
	{
		Handler    *handler = lfirst(cell);
		AllocDelivery delivery;

		if (!alloc_store_next_delivery(handler->subscription, &delivery))
			continue;
		if (delivery.next_at <= now)
			handler->pending = true;
		else
			delay = Min(delay, TimestampDifferenceMilliseconds(now, delivery.next_at) + 1);
	}
	return delay;
}

/*
 * The handler that is served goes to the end of the list: those that did not
 * get a worker come first the next time.
 */
static long
start_workers(long delay)
{
	TimestampTz now = GetCurrentTimestamp();
	int			at_work = 0;
	int			others;
	int			n = list_length(handlers);
	bool		crowded = false;
	ListCell   *cell;

	foreach(cell, handlers)
		at_work += is_at_work(lfirst(cell));
	others = alloc_shared_handlers_at_work();
	at_work = Max(at_work, others);
	for (int i = 0, looked = 0; looked < n; looked++)
	{
		Handler    *handler = list_nth(handlers, i);
		MemoryContext oldcxt;

		if (!handler->pending)
		{
			i++;
			continue;
		}
		if (alloc_shared_want_handler(handler->subscription))
		{
			handler->pending = false;
			i++;
			continue;
		}
		if (is_at_work(handler) || now < handler->not_before ||
			(crowded |= at_work >= alloc_handler_workers ||
			 !start_worker(handler)))
		{
			delay = Min(delay, START_INTERVAL);
			i++;
			continue;
		}
		at_work++;
		handler->pending = false;
		oldcxt = MemoryContextSwitchTo(dispatch_cxt);
		handlers = lappend(list_delete_nth_cell(handlers, i), handler);
		MemoryContextSwitchTo(oldcxt);
	}
	alloc_shared_set_crowded(crowded);
	return delay;
}

/*
 * Is there a process for it?
 */
static bool
is_at_work(Handler *handler)
{
	pid_t		pid;

	if (handler->worker == NULL)
		return false;
	if (GetBackgroundWorkerPid(handler->worker, &pid) != BGWH_STOPPED)
		return true;
	pfree(handler->worker);
	handler->worker = NULL;
	return false;
}

static bool
start_worker(Handler *handler)
{
	MemoryContext oldcxt = MemoryContextSwitchTo(dispatch_cxt);
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId),
		.bgw_notify_pid = MyProcPid
	};
	bool		started;

	strlcpy(worker.bgw_name, "alloc handler", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "alloc handler", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "alloc", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "alloc_handler_main", BGW_MAXLEN);
	memcpy(worker.bgw_extra, &handler->subscription, sizeof(int64));
	started = RegisterDynamicBackgroundWorker(&worker, &handler->worker);
	MemoryContextSwitchTo(oldcxt);
	return started;
}
