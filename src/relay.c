/*-------------------------------------------------------------------------
 *
 * relay.c
 *	  The relay: a background worker in each database that has the extension,
 *	  which sends what has been committed by NOTIFY.
 *
 * It is a reader of the log like any other: what a snapshot sees that the one
 * before did not see is sent, in causal order, and the position moves in the
 * transaction that sends.  A command only marks its events, and wakes the
 * relay after its commit; so nothing that befalls the relay (listeners that do
 * not listen, a full queue, an error) befalls a command.
 *
 * That transaction need not wait for its WAL: what a crash takes back of it is
 * the position, after the listeners have lost their connections.
 *
 * Besides it ends holds that are over (sweep.c), whether or not anything is to
 * be sent.
 *
 * Events of an era before are not sent: a restore is not news.
 *
 * The extension itself is locked first in each transaction, so DROP EXTENSION
 * waits for the relay or the relay for it, and neither for both.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "compat.h"
#include "event.h"
#include "handler.h"
#include "message.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "relay.h"
#include "shared.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Events that one transaction of the relay sends at most. */
#define BATCH_SIZE 1000

/*
 * Milliseconds: between two batches, so that one is worth a transaction; after
 * which to look although nobody said that there is something; between two
 * sweeps of messages; after an error, and the most of it when errors go on.
 */
#define NAP 10
#define LOOK_INTERVAL 5000
#define SWEEP_INTERVAL 60000
#define ERROR_DELAY 1000
#define MAX_ERROR_DELAY 10000

/* After which the relay gives up waiting for a lock, and tries again. */
#define LOCK_TIMEOUT_MS "1000"

/* What was read and sent in one transaction. */
typedef struct Sent
{
	int64		era;
	int64		n;				/* events that were sent */
} Sent;

static bool work_noted;
static bool has_work;			/* there is, or may be, something to send */
static TimestampTz looked;		/* when the last batch was read */
static long error_delay;		/* 0: the last time there was none */

static void wake_relay(XactEvent event, void *arg);
static bool note_work(void);
static long relay_once(void);
static void send_batch(void);
static void make_room(void);
static void leave(void);
static void sweep_messages(void);
static long recover(void);
static bool relay_batch(void);
static void send_event(const AllocEventRow *event, void *arg);
static void nap(TimestampTz since);

/*
 * alloc_relay_init
 *		Once per backend, when the library is loaded.
 */
void
alloc_relay_init(void)
{
	RegisterXactCallback(wake_relay, NULL);
}

/*
 * alloc_relay_note_work
 *		This transaction, when it commits, leaves something for the relay.
 */
void
alloc_relay_note_work(void)
{
	work_noted = alloc_shared_available();
}

static void
wake_relay(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && work_noted)
		alloc_shared_wake_relay();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		work_noted = false;
}

/*
 * alloc_relay_main
 *		The process of a relay; its argument is the database.
 */
void
alloc_relay_main(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	volatile long delay;
	volatile bool failed;

	if (!alloc_shared_begin_relay(database))
		proc_exit(0);
	alloc_worker_begin("alloc relay", database);
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	/* Nobody's open transaction is to hold back what others have sent. */
	SetConfigOption("lock_timeout", LOCK_TIMEOUT_MS, PGC_USERSET, PGC_S_OVERRIDE);
	for (;;)
	{
		TimestampTz began = GetCurrentTimestamp();
		MemoryContext oldcxt = CurrentMemoryContext;

		failed = false;
		PG_TRY();
		{
			delay = relay_once();
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(oldcxt);
			delay = recover();
			failed = true;
		}
		PG_END_TRY();
		alloc_worker_obey();
		if (delay > 0)
		{
			if (failed || !note_work())
				alloc_worker_sleep(delay, "AllocRelayMain");
			nap(began);
		}
	}
}

/*
 * Is there something to send, as far as we were told?
 */
static bool
note_work(void)
{
	if (alloc_shared_relay_has_work())
		has_work = true;
	return has_work;
}

/*
 * Does what there is to do; returns for how long to wait for more.
 *
 * Sending comes first.  When nobody has said that there is something we look
 * now and then, less often than for holds, because it is a transaction that
 * writes.
 */
static long
relay_once(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long		delay;

	if (note_work() || now < looked ||
		TimestampDifferenceExceeds(looked, now, LOOK_INTERVAL))
	{
		looked = now;
		send_batch();
	}
	sweep_messages();
	delay = alloc_sweep();
	delay = alloc_dispatch(has_work ? 0 : delay);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	return delay;
}

static void
send_batch(void)
{
	has_work = false;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (!alloc_worker_lock_extension())
	{
		CommitTransactionCommand();
		leave();
	}
	pgstat_report_activity(STATE_RUNNING, "sending events");
	if (error_delay > 0)
		make_room();
	has_work = relay_batch();
	CommitTransactionCommand();
	error_delay = 0;
}

/*
 * After an error, which may be that the queue of notifications is full.
 *
 * It stays so when the listener that was behind has read all: PostgreSQL moves
 * the queue's end on when notifications are added, and none can be.  But to
 * tell how full it is it looks where the end is now (async.c).
 */
static void
make_room(void)
{
	(void) DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0);
}

/*
 * Ends, because there is no extension; unless it has been created since, by
 * somebody who took us for its relay.
 */
static void
leave(void)
{
	alloc_shared_unwant_relay(MyDatabaseId);
	StartTransactionCommand();
	if (alloc_worker_lock_extension())
		(void) alloc_shared_want_relay(MyDatabaseId);
	CommitTransactionCommand();
	proc_exit(0);
}

/*
 * Once a minute: forgets the messages that handle() need not know any more.
 */
static void
sweep_messages(void)
{
	static TimestampTz swept = 0;
	TimestampTz now = GetCurrentTimestamp();
	int64		n;

	if (!TimestampDifferenceExceeds(swept, now, SWEEP_INTERVAL))
		return;
	swept = now;
	do
	{
		CHECK_FOR_INTERRUPTS();
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		if (!alloc_worker_lock_extension())
			n = 0;
		else
		{
			alloc_store_begin("the relay");
			n = alloc_store_sweep_messages(now - alloc_message_retention * USECS_PER_SEC,
										   BATCH_SIZE);
			alloc_store_end();
		}
		CommitTransactionCommand();
	} while (n > 0);
}

/*
 * After an error: to the log, then on, but not at once.
 */
static long
recover(void)
{
	HOLD_INTERRUPTS();
	EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	pgstat_report_activity(STATE_IDLE, NULL);
	has_work = true;
	error_delay = Min(Max(error_delay * 2, ERROR_DELAY), MAX_ERROR_DELAY);
	return error_delay;
}

/*
 * True: there may be more at once.
 */
static bool
relay_batch(void)
{
	const text *name = cstring_to_text("relay");
	AllocReader reader;
	Sent		sent = {0};
	int64		consumer_id;
	int64		read = 0;

	alloc_store_begin("the relay");
	while (!alloc_store_find_reader(ALLOC_READER_RELAY, name, &consumer_id))
	{
		(void) alloc_store_create_reader(ALLOC_READER_RELAY, name, false,
										 &consumer_id);
		alloc_store_look();
	}
	if (alloc_store_lock_reader(consumer_id, &reader))
	{
		bool		moved = reader.position.in_batch;

		sent.era = alloc_store_era();
		if (!reader.position.in_batch)
			moved = alloc_store_next_batch(&reader);
		read = alloc_store_read_batch(&reader, NULL, BATCH_SIZE, send_event,
									  &sent);
		if (moved)
			alloc_store_move_reader(&reader);
	}
	alloc_store_end();
	return read == BATCH_SIZE;
}

static void
send_event(const AllocEventRow *event, void *arg)
{
	Sent	   *sent = arg;

	alloc_dispatch_note_event(event->type);
	if (!event->relay || event->xact < sent->era)
		return;
	alloc_event_send(event);
	sent->n++;
}

/*
 * Waits until a while has passed since the last batch was begun.  Commits do
 * not end this wait, and need not try.
 */
static void
nap(TimestampTz since)
{
	long		passed = TimestampDifferenceMilliseconds(since,
														 GetCurrentTimestamp());

	if (passed < NAP)
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 NAP - passed, PG_WAIT_EXTENSION);
	alloc_worker_obey();
}
