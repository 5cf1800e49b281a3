/*-------------------------------------------------------------------------
 *
 * handler_worker.c
 *	  The process of an asynchronous handler.
 *
 * The handler is a reader of the log.  For each event of its type there is a
 * transaction of its own, in which the position moves and the handler is
 * called: it has happened when that commits, exactly once.  Where it fails,
 * another transaction moves the position and records the failure, to be tried
 * again later.
 *
 * A batch is begun in a transaction before, so that the event that comes next
 * is the same for whoever looks.
 *
 * The session's user and the current user are the role that subscribed, until
 * the transaction has ended: also what waits for the commit, like deferred
 * triggers, runs as that role.  It cannot become another one.  A role has no
 * process in common with another, so no setting, temporary table or prepared
 * statement of one is met by the other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "compat.h"
#include "event.h"
#include "handler.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "relay.h"
#include "shared.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/*
 * Milliseconds: after which an idle worker ends, after which a busy one lets
 * those who wait have its place, and that a handler has which does not obey its
 * timeout.
 */
#define IDLE_TIME 5000
#define TURN_TIME 2000
#define GRACE_TIME 1000

/* The event that a handler is to be called with. */
typedef struct Task
{
	AllocSubscription subscription;
	bool		is_retry;
	AllocDelivery delivery;		/* of a retry */
	int64		event_id;
	Jsonb	   *event;			/* NULL: it is no longer in the log */
} Task;

static int64 subscription_id;
static TimeoutId grace_timeout;

static void terminate_handler(void);
static void end(void);
static bool wait_for_work(void);
static bool serve(void);
static bool begin_batch(void);
static bool find_task(Task *task);
static bool find_retry(Task *task);
static bool find_next(Task *task);
static void keep_event(const AllocEventRow *event, void *arg);
static void run_task(Task *task);
static void become(Oid role);
static void become_ourselves(void);
static bool begin_transaction(AllocSubscription *subscription);
static void record_failure(int64 id, int64 event_id, const char *message);
static void skip_event(int64 id, int64 event_id);
static TimestampTz next_try(int64 attempts);

/*
 * alloc_handler_main
 *		The process of a handler.  Its argument is the database, bgw_extra has
 *		the subscription.
 */
void
alloc_handler_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	TimestampTz began;

	memcpy(&subscription_id, MyBgworkerEntry->bgw_extra, sizeof(int64));
	if (!alloc_shared_begin_handler(database, subscription_id))
		proc_exit(0);
	alloc_worker_begin("alloc handler", database);
	grace_timeout = RegisterTimeout(USER_TIMEOUT, terminate_handler);
	began = GetCurrentTimestamp();
	while (serve() || wait_for_work())
	{
		alloc_worker_obey();
		if (alloc_shared_is_crowded() &&
			TimestampDifferenceExceeds(began, GetCurrentTimestamp(), TURN_TIME))
		{
			alloc_shared_end_handler(true);
			proc_exit(0);
		}
	}
	end();
}

static void
end(void)
{
	alloc_shared_end_handler(false);
	proc_exit(0);
}

/*
 * False: there has been nothing to do for so long that others may have the
 * worker's place.
 */
static bool
wait_for_work(void)
{
	TimestampTz began = GetCurrentTimestamp();

	pgstat_report_stat(true);
	while (!alloc_shared_handler_is_wanted())
	{
		if (alloc_shared_is_crowded() ||
			TimestampDifferenceExceeds(began, GetCurrentTimestamp(), IDLE_TIME))
			return false;
		alloc_worker_sleep(IDLE_TIME, "AllocHandlerMain");
	}
	return true;
}

/*
 * A handler that caught the cancellation and went on.
 */
static void
terminate_handler(void)
{
	kill(MyProcPid, SIGTERM);
}

/*
 * Calls the handler once.  False: there is nothing to do.
 */
static bool
serve(void)
{
	MemoryContext oldcxt = CurrentMemoryContext;
	volatile bool served = true;
	volatile int64 running = 0;

	PG_TRY();
	{
		Task		task = {0};

		if (!find_task(&task))
			served = false;
		else
		{
			running = task.event_id;
			run_task(&task);
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;
		char	   *message;

		MemoryContextSwitchTo(oldcxt);
		error = CopyErrorData();
		message = psprintf("%s: %s", unpack_sql_state(error->sqlerrcode),
						   error->message);
		disable_timeout(STATEMENT_TIMEOUT, false);
		disable_timeout(grace_timeout, false);
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		QueryCancelPending = false;
		become_ourselves();
		alloc_shared_handler_runs(0);
		if (running == 0)
			proc_exit(1);
		record_failure(subscription_id, running, message);
		FreeErrorData(error);
		pfree(message);
	}
	PG_END_TRY();
	return served;
}

/*
 * What is to be done next, in a transaction that is left open for it.  False:
 * nothing, and the transaction has ended.
 */
static bool
find_task(Task *task)
{
	if (!begin_transaction(&task->subscription))
		end();
	if (find_retry(task) || find_next(task))
	{
		alloc_store_end();
		return true;
	}
	alloc_store_end();
	CommitTransactionCommand();
	if (!begin_batch())
		return false;
	if (!begin_transaction(&task->subscription))
		end();
	if (find_next(task))
	{
		alloc_store_end();
		return true;
	}
	alloc_store_end();
	CommitTransactionCommand();
	return false;
}

/*
 * Begins the next batch of the handler's reader.  False: there is nothing new.
 */
static bool
begin_batch(void)
{
	AllocSubscription subscription;
	AllocReader reader;
	bool		begun;

	if (!begin_transaction(&subscription))
		end();
	begun = alloc_store_lock_handler(subscription_id, &reader) &&
		!reader.position.in_batch && alloc_store_next_batch(&reader);
	if (begun)
		alloc_store_move_reader(&reader);
	alloc_store_end();
	CommitTransactionCommand();
	return begun;
}

static bool
find_retry(Task *task)
{
	AllocEventRow event;

	if (!alloc_store_next_delivery(subscription_id, &task->delivery) ||
		task->delivery.next_at > GetCurrentTimestamp())
		return false;
	task->is_retry = true;
	task->event_id = task->delivery.event_id;
	if (!alloc_store_delete_delivery(&task->delivery))
		return false;
	if (alloc_store_find_event(task->event_id, &event))
		keep_event(&event, task);
	return true;
}

/*
 * The next event of the batch; the position moves past it.
 */
static bool
find_next(Task *task)
{
	AllocReader reader;
	bool		found;

	if (!alloc_store_lock_handler(subscription_id, &reader) ||
		!reader.position.in_batch)
		return false;
	found = alloc_store_read_batch(&reader, task->subscription.event_type, 1,
								   keep_event, task) == 1;
	alloc_store_move_reader(&reader);
	return found;
}

static void
keep_event(const AllocEventRow *event, void *arg)
{
	Task	   *task = arg;
	MemoryContext oldcxt = MemoryContextSwitchTo(CurTransactionContext);

	task->event_id = event->event_id;
	task->event = alloc_event_jsonb(event);
	MemoryContextSwitchTo(oldcxt);
}

/*
 * Calls the handler, and ends the transaction, as its role.
 */
static void
run_task(Task *task)
{
	pgstat_report_activity(STATE_RUNNING, task->subscription.handler);
	alloc_shared_handler_runs(task->event_id);
	if (task->event != NULL)
	{
		if (alloc_handler_timeout > 0)
		{
			enable_timeout_after(STATEMENT_TIMEOUT, alloc_handler_timeout);
			enable_timeout_after(grace_timeout,
								 alloc_handler_timeout + GRACE_TIME);
		}
		become(task->subscription.role);
		alloc_handler_call(&task->subscription, task->event_id, task->event);
	}
	CommitTransactionCommand();
	disable_timeout(STATEMENT_TIMEOUT, false);
	disable_timeout(grace_timeout, false);
	become_ourselves();
	alloc_shared_handler_runs(0);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * The role that subscribed, in all that a function can ask for.
 */
static void
become(Oid role)
{
	SetSessionAuthorization(role, superuser_arg(role));
	SetUserIdAndSecContext(role, SECURITY_LOCAL_USERID_CHANGE);
}

static void
become_ourselves(void)
{
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	SetSessionAuthorization(BOOTSTRAP_SUPERUSERID, true);
}

/*
 * Begins a transaction, and the use of the store.  False: the subscription is
 * gone, or the extension.
 */
static bool
begin_transaction(AllocSubscription *subscription)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (!alloc_worker_lock_extension())
		return false;
	alloc_store_begin("a handler");
	return alloc_store_find_subscription(subscription_id, subscription);
}

/*
 * alloc_handler_record_failure
 *		In the relay: a worker ended while it called a handler.
 */
void
alloc_handler_record_failure(int64 id, int64 event_id, const char *message)
{
	record_failure(id, event_id, message);
}

/*
 * In a transaction of its own: the handler failed on an event.
 */
static void
record_failure(int64 id, int64 event_id, const char *message)
{
	AllocSubscription subscription;
	AllocDelivery delivery;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (!alloc_worker_lock_extension())
	{
		CommitTransactionCommand();
		return;
	}
	alloc_store_begin("a handler");
	if (alloc_store_find_subscription(id, &subscription))
	{
		bool		again = alloc_store_find_delivery(id, event_id, &delivery);

		if (!again)
		{
			skip_event(id, event_id);
			delivery.subscription_id = id;
			delivery.event_id = event_id;
			delivery.attempts = 0;
			delivery.handler = subscription.handler;
		}
		delivery.attempts++;
		delivery.at = GetCurrentTimestamp();
		delivery.next_at = next_try(delivery.attempts);
		delivery.last_error = message;
		if (!again)
			alloc_store_insert_delivery(&delivery);
		else
			(void) alloc_store_update_delivery(&delivery);
		/* It has to know when to try again. */
		alloc_relay_note_work();
	}
	alloc_store_end();
	CommitTransactionCommand();
}

/*
 * Moves the position past the event that comes next.
 */
static void
skip_event(int64 id, int64 event_id)
{
	AllocSubscription subscription;
	AllocReader reader;
	Task		task = {0};

	if (!alloc_store_find_subscription(id, &subscription) ||
		!alloc_store_lock_handler(id, &reader))
		return;
	if (alloc_store_read_batch(&reader, subscription.event_type, 1, keep_event,
							   &task) != 1 || task.event_id != event_id)
		elog(ERROR, "event " INT64_FORMAT " is not the next one of subscription " INT64_FORMAT,
			 event_id, id);
	alloc_store_move_reader(&reader);
}

/*
 * When to try again after so many attempts: later and later; 0: never.
 */
static TimestampTz
next_try(int64 attempts)
{
	int64		delay = alloc_handler_retry_delay;

	if (attempts > alloc_handler_retries)
		return 0;
	for (int64 i = 1; i < attempts && delay < INT_MAX; i++)
		delay *= 2;
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
}
