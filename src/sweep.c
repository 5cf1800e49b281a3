/*-------------------------------------------------------------------------
 *
 * sweep.c
 *	  In the relay: holds that are over are ended, so that who listens hears
 *	  of it though nobody needs the stock.
 *
 * Nothing but that depends on it: see command_hold.c.  So it may leave any
 * hold for later, and it never waits for anybody.  A batch's product, slots
 * and holds are locked if they are free at once.  What a table's lock or a
 * client's line could make us wait for ends by a short timeout.
 *
 * Each second there is a turn: it reads in the order of their ends the holds
 * that are over, and ends those of one batch after the other, each in a
 * transaction of its own, so many at a time.  In between the relay sends what
 * there is to send.  A turn begins where the one before found something that it
 * could not end, or a while ago, because a hold may be over when its
 * transaction commits; once in a while it begins with the first one.
 *
 * Synchronous handlers are somebody's functions, for which the relay has no
 * time: what they would have to be called with is left to the commands.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "command.h"
#include "handler.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "relay.h"
#include "share.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * Milliseconds: between two turns; after which the relay may send again; that
 * a turn looks back; between two that look at all holds.
 */
#define TURN_INTERVAL 1000
#define SLICE 5
#define LOOK_BACK 60000
#define FULL_INTERVAL 60000

/* Batches that one look finds, and holds that one transaction ends at most. */
#define MAX_BATCHES 100
#define MAX_HOLDS 200

/* So many batches with errors are passed by until all is looked at again. */
#define MAX_FAILED 10

#define LOCK_TIMEOUT_MS "10"

/* What has become of the holds of a batch. */
typedef enum Outcome
{
	DONE,						/* none is over any more */
	AGAIN,						/* there are others */
	LEFT,						/* somebody is at work on them */
	FAILED
} Outcome;

/* The turn, while there is one. */
static bool in_turn;
static TimestampTz began_at;
static AllocDue place;			/* up to which holds were read */
static bool more;				/* there may be others behind it */
static AllocDue due[MAX_BATCHES];
static size_t ndue;
static size_t ndone;
static TimestampTz left_since;	/* where the next turn is to begin */

static TimestampTz full_at;		/* when one looked at all holds */
static int64 failed[MAX_FAILED];
static int	nfailed;

static bool has_passed(TimestampTz since, TimestampTz now, int milliseconds);
static void begin_turn(TimestampTz now);
static void go_on(void);
static Outcome attempt(Outcome (*step) (void));
static Outcome recover(void);
static Outcome look(void);
static Outcome sweep(void);
static Outcome end_holds(int64 batch_id);
static size_t end_free_holds(AllocBatchRow *batch, const AllocHoldRow *holds,
							 size_t n);
static bool has_failed(int64 batch_id);

/*
 * alloc_sweep
 *		Ends holds that are over, for a short while.  To be called out of any
 *		transaction; returns after how many milliseconds to call it again.
 */
long
alloc_sweep(void)
{
	TimestampTz began = GetCurrentTimestamp();
	TimestampTz now = began;

	if (!in_turn && has_passed(began_at, now, TURN_INTERVAL))
		begin_turn(now);
	while (in_turn && !has_passed(began, now, SLICE))
	{
		CHECK_FOR_INTERRUPTS();
		go_on();
		now = GetCurrentTimestamp();
	}
	if (in_turn || has_passed(began_at, now, TURN_INTERVAL))
		return 0;
	return TURN_INTERVAL - TimestampDifferenceMilliseconds(began_at, now);
}

/*
 * Also when the clock was put back.
 */
static bool
has_passed(TimestampTz since, TimestampTz now, int milliseconds)
{
	return now < since || TimestampDifferenceExceeds(since, now, milliseconds);
}

static void
begin_turn(TimestampTz now)
{
	began_at = now;
	if (has_passed(full_at, now, FULL_INTERVAL))
	{
		full_at = now;
		left_since = DT_NOBEGIN;
		nfailed = 0;
	}
	if (nfailed == MAX_FAILED)
		return;
	pgstat_report_activity(STATE_RUNNING, "ending holds");
	place.expires_at = left_since;
	place.batch_id = PG_INT64_MIN;
	left_since = TimestampTzPlusMilliseconds(now, -LOOK_BACK);
	ndue = ndone = 0;
	more = true;
	in_turn = true;
}

/*
 * The next step of the turn, or its end.
 */
static void
go_on(void)
{
	if (ndone < ndue)
	{
		const AllocDue *batch = &due[ndone];
		Outcome		outcome;

		outcome = has_failed(batch->batch_id) ? DONE : attempt(sweep);
		if (outcome == LEFT)
			left_since = Min(left_since, batch->expires_at);
		else if (outcome == FAILED)
			failed[nfailed++] = batch->batch_id;
		if (outcome != AGAIN)
			ndone++;
		in_turn = nfailed < MAX_FAILED;
	}
	else if (!more)
		in_turn = false;
	else if (attempt(look) == FAILED)
	{
		nfailed = MAX_FAILED;
		in_turn = false;
	}
}

/*
 * Runs a step in a transaction.  LEFT: there was something to wait for, or
 * the step caused what a synchronous handler is to be called with, and was
 * undone.
 */
static Outcome
attempt(Outcome (*step) (void))
{
	MemoryContext oldcxt = CurrentMemoryContext;
	volatile Outcome outcome = DONE;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		(void) set_config_option("lock_timeout", LOCK_TIMEOUT_MS, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
								 false);
		if (alloc_worker_lock_extension())
		{
			alloc_command_begin("the relay");
			outcome = step();
			alloc_store_end();
		}
		if (alloc_handler_has_noted())
		{
			outcome = LEFT;
			AbortCurrentTransaction();
		}
		else
			CommitTransactionCommand();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcxt);
		outcome = recover();
	}
	PG_END_TRY();
	return outcome;
}

/*
 * After an error: to the log, unless it says that there is something to wait
 * for.
 */
static Outcome
recover(void)
{
	Outcome		outcome = FAILED;

	HOLD_INTERRUPTS();
	if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE)
		outcome = LEFT;
	else
		EmitErrorReport();
	if (geterrcode() == ERRCODE_QUERY_CANCELED)
		outcome = LEFT;
	AbortCurrentTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	return outcome;
}

/*
 * Finds batches that have holds which are over.
 */
static Outcome
look(void)
{
	ndue = ndone = 0;
	more = false;
	if (!alloc_handler_is_sync("hold_expired"))
		ndue = alloc_store_due_batches(&place,
									   GetCurrentStatementStartTimestamp(),
									   due, MAX_BATCHES, &more);
	return DONE;
}

/*
 * Ends holds of the batch whose turn it is.
 */
static Outcome
sweep(void)
{
	return end_holds(due[ndone].batch_id);
}

static Outcome
end_holds(int64 batch_id)
{
	TimestampTz now = GetCurrentStatementStartTimestamp();
	AllocBatchRow batch;
	AllocHoldRow *holds;
	AllocChain	lines;
	size_t		n;
	size_t		ended;

	/* Whoever needed the units may have ended them by now. */
	if (alloc_store_some_expired_holds(batch_id, now, 1, &holds) == 0)
		return DONE;
	alloc_store_get_batch(batch_id, &batch);
	/* Since the look it may have gone to another partition. */
	if (!alloc_share_serves(batch.sku))
		return DONE;
	if (!alloc_store_try_lock_product(batch.sku))
		return LEFT;
	alloc_store_look();
	if (!alloc_store_try_lock_slots(&batch))
		return LEFT;
	alloc_store_look();
	lines = alloc_store_lines(&batch);
	n = alloc_store_some_expired_holds(batch_id, now, MAX_HOLDS, &holds);
	ended = end_free_holds(&batch, holds, n);
	if (ended > 0)
	{
		alloc_store_look();
		alloc_save_swept(&batch, &lines, (int64) ended);
	}
	if (ended < n)
		return LEFT;
	return n == MAX_HOLDS ? AGAIN : DONE;
}

/*
 * Ends those of the holds of a batch, whose slots are locked, that nobody is
 * at work on; returns how many.
 */
static size_t
end_free_holds(AllocBatchRow *batch, const AllocHoldRow *holds, size_t n)
{
	size_t		ended = 0;

	for (size_t i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (alloc_store_try_lock_hold(&holds[i]) &&
			alloc_end_hold(batch, &holds[i]))
		{
			batch->plan.available += holds[i].line.qty;
			ended++;
		}
	}
	return ended;
}

static bool
has_failed(int64 batch_id)
{
	for (int i = 0; i < nfailed; i++)
		if (failed[i] == batch_id)
			return true;
	return false;
}
