/*-------------------------------------------------------------------------
 *
 * command_hold.c
 *	  hold(), confirm(), release(), extend_hold(): allocations that end by
 *	  themselves, and what is done about those that have.
 *
 * A hold is an order line like any other, with a moment at which it ends.  It
 * needs nobody to end it: whoever finds too little stock and a slot that says
 * that holds of its batch may be over takes their lines off, with the product
 * and the batch's slots locked, and looks again.  What is over is decided by
 * the moment at which the client's statement began.  That listeners hear of it
 * soon is the relay's doing: see sweep.c.
 *
 * Locks: as in store.c; a line that is held is reached through its row in
 * table hold, which is locked first.  confirm() and extend_hold() need no
 * slot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "command.h"
#include "event.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "share.h"
#include "stat.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(alloc_hold);
PG_FUNCTION_INFO_V1(alloc_confirm);
PG_FUNCTION_INFO_V1(alloc_release);
PG_FUNCTION_INFO_V1(alloc_extend_hold);

/*
 * For so long it is known that a hold has ended.  Whoever ends some forgets a
 * few more, so that the table does not grow.
 */
#define HOLD_MEMORY (7 * USECS_PER_DAY)

/* Setting alloc.max_holds_per_order; -1: any number. */
int			alloc_max_holds_per_order;

static int64 confirm(const text *orderid);
static bool confirm_hold(const AllocHoldRow *hold);
static void write_confirmed(const AllocLineRow *row, const AllocHoldRow *hold);
static int64 release(const text *orderid);
static bool release_line(const text *orderid, const text *sku);
static int64 extend(const text *orderid, TimestampTz expires_at);
static bool extend_hold(const AllocHoldRow *hold, TimestampTz expires_at);
static size_t look_at_rest(const AllocHoldRow *changed, AllocHoldRow **rest);
static size_t live_holds(const text *orderid, const text *from,
						 AllocHoldRow **holds);
static void hold_is_over(const AllocLine *line);
static bool is_current(const AllocLineRow *row);
static void get_held_line(const AllocHoldRow *hold, AllocLineRow *row);
static void sweep_batch(AllocBatchRow *batch);

/*
 * alloc.hold(orderid text, sku text, qty bigint, ttl interval) returns text
 *		Like allocate(), for as long as ttl (more than 0) from the beginning of
 *		the statement; then the line is not allocated any more.
 *
 * The same line again, held or allocated: its batch, and it stays as it is.
 * Errors: those of allocate(); 22023 (ttl is more than 1000 years); 53400 (the
 * order has alloc.max_holds_per_order holds).  Source: DESIGN section 2.
 */
Datum
alloc_hold(PG_FUNCTION_ARGS)
{
	AllocLine	line = {0};
	text	   *ref;

	line.orderid = alloc_arg_key(fcinfo, 0, "orderid");
	line.sku = alloc_arg_key(fcinfo, 1, "sku");
	line.qty = alloc_arg_qty(fcinfo, 2, 1);
	line.expires_at = alloc_arg_end(fcinfo, 3, "ttl");

	alloc_command_begin("hold()");
	alloc_share_require(line.sku);
	ref = alloc_place(&line);
	alloc_stat_count(ALLOC_STAT_HOLD);
	alloc_command_end();
	if (ref == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(ref);
}

/*
 * alloc.confirm(orderid text) returns bigint
 *		The lines of the order that are held are allocated for good; returns
 *		how many.
 *
 * Errors: 22004, 22023, 22001, 40001; SK005 (a hold of the order is over;
 * then none is confirmed).  Source: DESIGN section 2.
 */
Datum
alloc_confirm(PG_FUNCTION_ARGS)
{
	text	   *orderid = alloc_arg_key(fcinfo, 0, "orderid");
	int64		confirmed;

	alloc_command_begin("confirm()");
	confirmed = confirm(orderid);
	alloc_stat_count(ALLOC_STAT_CONFIRM);
	alloc_command_end();
	PG_RETURN_INT64(confirmed);
}

/*
 * alloc.release(orderid text) returns bigint
 *		Frees the lines of the order that are held; returns how many.  Those
 *		that are allocated for good stay.
 *
 * Errors: 22004, 22023, 22001, 40001.  Source: DESIGN section 2.
 */
Datum
alloc_release(PG_FUNCTION_ARGS)
{
	text	   *orderid = alloc_arg_key(fcinfo, 0, "orderid");
	int64		released;

	alloc_command_begin("release()");
	released = release(orderid);
	alloc_stat_count(ALLOC_STAT_RELEASE);
	alloc_command_end();
	PG_RETURN_INT64(released);
}

/*
 * alloc.extend_hold(orderid text, ttl interval) returns bigint
 *		The holds of the order last for ttl (more than 0) from the beginning of
 *		the statement, if they do not last longer anyway; returns how many
 *		there are.
 *
 * Errors: 22004, 22023, 22001, 40001; SK005 (a hold of the order is over; then
 * none is extended).  Source: DESIGN section 2.
 */
Datum
alloc_extend_hold(PG_FUNCTION_ARGS)
{
	text	   *orderid = alloc_arg_key(fcinfo, 0, "orderid");
	TimestampTz expires_at = alloc_arg_end(fcinfo, 1, "ttl");
	int64		extended;

	alloc_command_begin("extend_hold()");
	extended = extend(orderid, expires_at);
	alloc_stat_count(ALLOC_STAT_EXTEND_HOLD);
	alloc_command_end();
	PG_RETURN_INT64(extended);
}

/*
 * alloc_is_over
 *		Was a line held until a moment that has come?
 */
bool
alloc_is_over(const AllocLine *line)
{
	return line->expires_at != 0 &&
		line->expires_at <= GetCurrentStatementStartTimestamp();
}

/*
 * alloc_confirm_line
 *		Makes a line that is held one that is allocated for good.  False:
 *		somebody else was faster; look again.
 */
bool
alloc_confirm_line(const AllocLineRow *row)
{
	AllocHoldRow hold;

	if (!is_current(row) || !alloc_find_hold_of(row, &hold) ||
		!alloc_store_delete_hold(&hold))
	{
		alloc_store_look();
		return false;
	}
	write_confirmed(row, &hold);
	return true;
}

/*
 * alloc_find_hold_of
 *		The hold of a line that is held.  False: the line has changed since it
 *		was read.  Raises XX001 when there is none.
 */
bool
alloc_find_hold_of(const AllocLineRow *row, AllocHoldRow *hold)
{
	if (alloc_store_find_hold(row->line.orderid, row->line.sku, hold) &&
		!hold->ended)
		return true;
	if (!is_current(row))
		return false;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("order line (\"%s\", \"%s\") has no hold",
					alloc_show(row->line.orderid), alloc_show(row->line.sku)),
			 errdetail("It says that it is held."),
			 errhint("check() tells what is wrong, and repair() mends it.")));
}

/*
 * Is a line, in what the last look saw, as it was read?
 */
static bool
is_current(const AllocLineRow *row)
{
	AllocLineRow now;

	return alloc_store_find_line(row->line.orderid, row->line.sku, &now) &&
		ItemPointerEquals(&now.tid, unconstify(ItemPointerData *, &row->tid));
}

/*
 * alloc_require_no_holds
 *		Raises an error when an order, or its line of a sku, has holds: 55000
 *		while they last, SK005 when they are over.  A line that has come after
 *		its hold was over counts as any other.
 */
void
alloc_require_no_holds(const text *orderid, const text *sku)
{
	AllocHoldRow *holds;
	size_t		n = alloc_store_holds_of_order(orderid, &holds);

	for (size_t i = 0; i < n; i++)
	{
		const AllocLine *line = &holds[i].line;
		AllocLineRow row;

		if (sku != NULL && !alloc_same_key(sku, line->sku))
			continue;
		if (holds[i].ended &&
			alloc_store_find_line(line->orderid, line->sku, &row))
			continue;
		if (holds[i].ended || alloc_is_over(line))
			hold_is_over(line);
		alloc_require_not_held(line);
	}
}

/*
 * alloc_require_not_held
 *		Raises 55000 when a line is held, SK005 when its hold is over.
 */
void
alloc_require_not_held(const AllocLine *line)
{
	if (line->expires_at == 0)
		return;
	if (alloc_is_over(line))
		hold_is_over(line);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("order line (\"%s\", \"%s\") is only held",
					alloc_show(line->orderid), alloc_show(line->sku)),
			 errdetail("It is held until %s.",
					   timestamptz_to_str(line->expires_at)),
			 errhint("Call confirm() first.")));
}

/*
 * alloc_sweep_sku
 *		Takes off all lines of a sku whose holds are over, and looks.  To be
 *		called with nothing of the sku locked.
 */
void
alloc_sweep_sku(const text *sku)
{
	alloc_store_lock_product(sku);
	alloc_store_look();
	alloc_sweep_product(sku);
}

/*
 * alloc_sweep_product
 *		Likewise, of a product that is locked.
 */
void
alloc_sweep_product(const text *sku)
{
	AllocBatchRow *batches;
	size_t		n = alloc_store_batches_to_sweep(sku, &batches);

	if (n == 0)
		return;
	for (size_t i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		alloc_store_lock_slots(&batches[i]);
		sweep_batch(&batches[i]);
	}
	alloc_store_look();
}

/*
 * alloc_require_hold_room
 *		Raises 53400 when an order, with a hold that this command has inserted,
 *		has more of them than it may have.  Those that others are inserting at
 *		the moment count as well.
 */
void
alloc_require_hold_room(const text *orderid)
{
	int64		holds;

	if (alloc_max_holds_per_order < 0 ||
		!alloc_store_may_have_more_holds(orderid, alloc_max_holds_per_order))
		return;
	holds = alloc_store_count_holds(orderid, GetCurrentStatementStartTimestamp());
	if (holds > alloc_max_holds_per_order)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("order \"%s\" may not have another hold",
						alloc_show(orderid)),
				 errdetail("It has " INT64_FORMAT " of them, and the setting alloc.max_holds_per_order is %d.",
						   holds - 1, alloc_max_holds_per_order),
				 errhint("Confirm or release them first.")));
}

static int64
confirm(const text *orderid)
{
	AllocHoldRow *holds;
	size_t		n = live_holds(orderid, NULL, &holds);
	int64		confirmed = 0;

	while (n > 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (confirm_hold(holds))
		{
			confirmed++;
			holds++;
			n--;
		}
		else
			n = look_at_rest(holds, &holds);
	}
	return confirmed;
}

/*
 * False: it has changed.
 */
static bool
confirm_hold(const AllocHoldRow *hold)
{
	AllocLineRow row;

	if (!alloc_store_delete_hold(hold))
		return false;
	get_held_line(hold, &row);
	write_confirmed(&row, hold);
	return true;
}

static void
write_confirmed(const AllocLineRow *row, const AllocHoldRow *hold)
{
	AllocLineRow confirmed = *row;

	confirmed.line.expires_at = 0;
	alloc_store_rewrite_line(&confirmed);
	alloc_event_confirmed(row, hold->batchref);
}

static int64
release(const text *orderid)
{
	AllocHoldRow *holds;
	size_t		n = alloc_store_holds_of_order(orderid, &holds);
	int64		released = 0;

	for (size_t i = 0; i < n; i++)
	{
		const text *sku = holds[i].line.sku;

		CHECK_FOR_INTERRUPTS();
		released += release_line(orderid, sku);
		alloc_store_look();
		alloc_store_forget_end(orderid, sku);
	}
	return released;
}

/*
 * False: the line is not held any more.
 */
static bool
release_line(const text *orderid, const text *sku)
{
	AllocLineRow row;
	bool		nobody_waits = false;

	while (alloc_store_find_line(orderid, sku, &row) &&
		   row.line.expires_at != 0)
	{
		if (alloc_is_over(&row.line))
			alloc_sweep_sku(sku);
		else if (alloc_try_free(&row, &nobody_waits) != NULL)
			return true;
	}
	return false;
}

static int64
extend(const text *orderid, TimestampTz expires_at)
{
	AllocHoldRow *holds;
	size_t		n = live_holds(orderid, NULL, &holds);
	int64		extended = 0;

	while (n > 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (extend_hold(holds, expires_at))
		{
			extended++;
			holds++;
			n--;
		}
		else
			n = look_at_rest(holds, &holds);
	}
	return extended;
}

/*
 * One that lasts longer is only locked.  False: it has changed.
 *
 * The slot from which it was taken goes on saying that it may be over at its
 * former end, which is no worse than a look in vain.
 */
static bool
extend_hold(const AllocHoldRow *hold, TimestampTz expires_at)
{
	AllocLineRow row;

	if (hold->line.expires_at >= expires_at)
		return alloc_store_lock_hold(hold);
	if (!alloc_store_extend_hold(hold, expires_at))
		return false;
	get_held_line(hold, &row);
	row.line.expires_at = expires_at;
	alloc_store_rewrite_line(&row);
	alloc_event_extended(&row, hold->batchref);
	return true;
}

/*
 * The holds of an order from one on that has changed.  All who need several
 * take them in the order of their skus: what has come before it is left.
 */
static size_t
look_at_rest(const AllocHoldRow *changed, AllocHoldRow **rest)
{
	alloc_store_look();
	return live_holds(changed->line.orderid, changed->line.sku, rest);
}

/*
 * The holds of an order, from one of a sku on if that is not NULL.  Raises
 * SK005 when one of them is over.
 */
static size_t
live_holds(const text *orderid, const text *from, AllocHoldRow **holds)
{
	size_t		n = alloc_store_holds_of_order(orderid, holds);
	size_t		live = 0;

	for (size_t i = 0; i < n; i++)
	{
		const AllocHoldRow *hold = &(*holds)[i];
		AllocLineRow row;

		if (from != NULL && alloc_compare_keys(hold->line.sku, from) < 0)
			continue;
		if (!hold->ended)
		{
			if (alloc_is_over(&hold->line))
				hold_is_over(&hold->line);
			(*holds)[live++] = *hold;
		}
		else if (!alloc_store_find_line(orderid, hold->line.sku, &row))
			hold_is_over(&hold->line);
	}
	return live;
}

static void
hold_is_over(const AllocLine *line)
{
	ereport(ERROR,
			(errcode(ERRCODE_ALLOC_HOLD_EXPIRED),
			 errmsg("the hold of order line (\"%s\", \"%s\") has expired",
					alloc_show(line->orderid), alloc_show(line->sku)),
			 errdetail("It ended at %s.",
					   timestamptz_to_str(line->expires_at)),
			 errhint("Hold or allocate the line again, or release() the order.")));
}

/*
 * The line of a hold that is locked.
 */
static void
get_held_line(const AllocHoldRow *hold, AllocLineRow *row)
{
	if (!alloc_store_find_line(hold->line.orderid, hold->line.sku, row))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the line of the hold (\"%s\", \"%s\") does not exist",
						alloc_show(hold->line.orderid),
						alloc_show(hold->line.sku)),
				 errhint("check() tells what is wrong, and repair() mends it.")));
}

/*
 * Takes off the lines of a batch whose holds are over, and serves those that
 * wait; its slots are locked and were read.
 */
static void
sweep_batch(AllocBatchRow *batch)
{
	AllocChain	lines = alloc_store_lines(batch);
	TimestampTz now = GetCurrentStatementStartTimestamp();
	AllocHoldRow *holds;
	int64		ended = 0;
	size_t		n;

	/* One that somebody was at work on is looked at again. */
	while ((n = alloc_store_expired_holds(batch->plan.batch_id, now,
										  &holds)) > 0)
	{
		for (size_t i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			if (alloc_end_hold(batch, &holds[i]))
			{
				batch->plan.available += holds[i].line.qty;
				ended++;
			}
		}
		alloc_store_look();
	}
	alloc_save_swept(batch, &lines, ended);
}

/*
 * alloc_save_swept
 *		Writes the slots of a batch, all of them locked, after so many holds of
 *		it were ended; lines is where the list of its lines begins.
 */
void
alloc_save_swept(AllocBatchRow *batch, AllocChain *lines, int64 ended)
{
	for (size_t i = 1; i < batch->nslots; i++)
		batch->slots[i].hold_until = 0;
	batch->slots[0].hold_until =
		alloc_store_next_expiry(batch->plan.batch_id);
	(void) alloc_serve_waiting(batch, lines);
	alloc_store_save_slots(batch, lines);
	alloc_store_forget_ended_holds(GetCurrentStatementStartTimestamp() - HOLD_MEMORY,
								   2 * ended);
}

/*
 * alloc_end_hold
 *		Takes off the line of a hold that is over.  False: somebody else was
 *		faster.
 */
bool
alloc_end_hold(const AllocBatchRow *batch, const AllocHoldRow *hold)
{
	AllocLineRow row;

	if (!alloc_store_end_hold(hold, GetCurrentStatementStartTimestamp()))
		return false;
	get_held_line(hold, &row);
	if (!alloc_store_delete_line(&row))
		elog(ERROR, "the line of a hold of batch \"%s\" has gone under lock",
			 alloc_show(batch->ref));
	alloc_event_hold_expired(&row.line, batch->ref);
	return true;
}
