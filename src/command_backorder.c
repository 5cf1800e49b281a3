/*-------------------------------------------------------------------------
 *
 * command_backorder.c
 *	  Order lines that wait for stock, and what serves them: whoever frees or
 *	  brings units of a batch.
 *
 * No waiting line fits into what any batch has.  So when a batch gets units
 * only that batch can serve lines, and it does so at once: first come first
 * served, and a line too large for what is there is passed over.
 *
 * For this to hold nobody may free units unseen while a line is put into the
 * queue, or the queue is looked at.  A line is put there with the product
 * renewed and all slots of the sku locked, and then all of them say that lines
 * wait.  Who frees units and writes a slot that says so does it with the
 * product and all slots of the batch locked; who writes one that does not, as
 * long as nobody has changed it, knows that nobody waits.
 *
 * Locks come in the order of all commands: product, slots, lines, and the
 * places in the queue last.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "argument.h"
#include "command.h"
#include "event.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "share.h"
#include "stat.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(alloc_cancel_backorder);

static bool cancel(const text *orderid, const text *sku);
static text *free_and_serve(const AllocLineRow *row);
static bool lock_batch_of_line(const AllocLineRow *row, AllocLineRow *line,
							   AllocBatchRow *batch);
static bool take_line_off(const AllocLineRow *row);
static bool serve_line(const AllocWaitingRow *row, const AllocBatchRow *batch,
					   AllocChain *chain);
static bool settle_served(const AllocWaitingRow *row);
static void require_same_waiting_qty(const AllocLine *line,
									 const AllocWaitingRow *row);

/*
 * alloc.cancel_backorder(orderid text, sku text) returns boolean
 *		Takes a line that waits for stock out of the queue; false: it does not
 *		wait.
 *
 * Errors: 22004, 22023, 22001, 40001.  Source: DESIGN section 2, Backorders.
 */
Datum
alloc_cancel_backorder(PG_FUNCTION_ARGS)
{
	text	   *orderid = alloc_arg_key(fcinfo, 0, "orderid");
	text	   *sku = alloc_arg_key(fcinfo, 1, "sku");
	bool		waited;

	alloc_command_begin("cancel_backorder()");
	alloc_share_require(sku);
	waited = cancel(orderid, sku);
	alloc_stat_count(ALLOC_STAT_CANCEL_BACKORDER);
	alloc_command_end();
	PG_RETURN_BOOL(waited);
}

static bool
cancel(const text *orderid, const text *sku)
{
	AllocWaitingRow row;

	while (alloc_store_find_waiting(orderid, sku, &row))
	{
		if (alloc_store_delete_waiting(&row))
		{
			alloc_event_deallocated(&row.line, NULL);
			return true;
		}
		alloc_store_look();
	}
	return false;
}

/* ---- units are freed or brought ---- */

/*
 * alloc_try_free
 *		Frees a line that a batch serves, or holds, and serves the lines that
 *		wait for its units; returns the reference of the batch.  NULL: look
 *		again, and go on with the same *nobody_waits, which begins as false.
 *
 * As long as nobody waits it takes one slot, and has nothing of the sku locked
 * while it waits for that.
 */
text *
alloc_try_free(const AllocLineRow *row, bool *nobody_waits)
{
	AllocBatchRow batch;
	AllocSlotRow slot;

	alloc_store_get_batch(row->batch_id, &batch);
	alloc_store_any_slot(&batch, &slot);
	if (slot.waiting && !*nobody_waits)
		return free_and_serve(row);
	if (TransactionIdIsValid(slot.busy))
	{
		alloc_store_wait_slot(&slot);
		/* With one snapshot it is as it was, and ours. */
		*nobody_waits |= IsolationUsesXactSnapshot();
	}
	else if (!alloc_store_give(&batch, &slot, row->line.qty))
		alloc_store_look();
	else if (take_line_off(row))
	{
		alloc_event_deallocated(&row->line, batch.ref);
		return batch.ref;
	}
	else
	{
		/* Having a slot that says so, we keep it so. */
		*nobody_waits = true;
		alloc_store_undo(&batch, &slot);
	}
	return NULL;
}

/*
 * Likewise, with the product and all slots of the batch locked.
 */
static text *
free_and_serve(const AllocLineRow *row)
{
	AllocLineRow line;
	AllocBatchRow batch = {0};

	alloc_store_lock_product(row->line.sku);
	alloc_store_look();
	alloc_sweep_product(row->line.sku);
	if (!lock_batch_of_line(row, &line, &batch))
		return NULL;
	if (!take_line_off(&line))
	{
		alloc_store_look();
		return NULL;
	}
	alloc_event_deallocated(&line.line, batch.ref);
	alloc_give_and_serve(&batch, line.line.qty);
	return batch.ref;
}

/*
 * Locks all slots of the batch that serves a line, or holds it.  False: none
 * does any more.
 *
 * Before they were locked the line may have gone, and come back elsewhere.
 */
static bool
lock_batch_of_line(const AllocLineRow *row, AllocLineRow *line,
				   AllocBatchRow *batch)
{
	bool		held = row->line.expires_at != 0;

	while (alloc_store_find_line(row->line.orderid, row->line.sku, line) &&
		   line->shipped_at == 0 && held == (line->line.expires_at != 0))
	{
		if (line->batch_id == batch->plan.batch_id)
			return true;
		alloc_store_get_batch(line->batch_id, batch);
		alloc_store_lock_slots(batch);
	}
	return false;
}

/*
 * False: somebody else was faster.
 */
static bool
take_line_off(const AllocLineRow *row)
{
	AllocHoldRow hold;

	if (row->line.expires_at != 0 &&
		!(alloc_find_hold_of(row, &hold) && alloc_store_delete_hold(&hold)))
		return false;
	return alloc_store_delete_line(row);
}

/*
 * alloc_serve_from_new
 *		Serves waiting lines from a new batch, whose product is locked.
 */
void
alloc_serve_from_new(const text *ref, const text *sku)
{
	AllocBatchRow batch;

	if (!alloc_store_anybody_waits(sku))
		return;
	alloc_store_look();
	alloc_require_batch(ref, &batch);
	alloc_store_lock_slots(&batch);
	alloc_give_and_serve(&batch, 0);
}

/*
 * alloc_give_and_serve
 *		Gives qty units to a batch whose product and slots are locked, and
 *		serves waiting lines.
 */
void
alloc_give_and_serve(AllocBatchRow *batch, int64 qty)
{
	AllocChain	chain = alloc_store_lines(batch);

	batch->plan.available += qty;
	if (alloc_serve_waiting(batch, &chain))
		alloc_store_save_slots(batch, &chain);
	else
		alloc_store_give_locked(batch, qty);
}

/*
 * alloc_serve_waiting
 *		Serves waiting lines from what a batch has available.  Its product and
 *		all of its slots are locked and were read, and nothing of them has been
 *		written since.  The chain is that of its lines.  True: lines were
 *		served, or the slots did not say rightly whether lines wait; then they
 *		are to be saved.
 */
bool
alloc_serve_waiting(AllocBatchRow *batch, AllocChain *chain)
{
	MemoryContext line_cxt = AllocSetContextCreate(CurrentMemoryContext,
												   "alloc waiting line",
												   ALLOCSET_SMALL_SIZES);
	AllocQueue *queue = alloc_store_open_queue(batch->sku,
											   batch->plan.available);
	AllocWaitingRow row;
	bool		served = false;

	while (alloc_store_next_waiting(queue, batch->plan.available, &row))
	{
		MemoryContext oldcxt = MemoryContextSwitchTo(line_cxt);

		CHECK_FOR_INTERRUPTS();
		if (serve_line(&row, batch, chain))
		{
			batch->plan.available -= row.line.qty;
			served = true;
		}
		MemoryContextSwitchTo(oldcxt);
		MemoryContextReset(line_cxt);
	}
	alloc_store_close_queue(queue);
	MemoryContextDelete(line_cxt);
	alloc_store_look();
	return alloc_mark_slots(batch, alloc_store_anybody_waits(batch->sku)) ||
		served;
}

/*
 * False: the line does not wait any more.
 *
 * The line comes before its place in the queue, as for allocate(): who has the
 * line waits for nobody but those who cancel.
 */
static bool
serve_line(const AllocWaitingRow *row, const AllocBatchRow *batch,
		   AllocChain *chain)
{
	int64		event_id = alloc_store_next_event_id();
	AllocLineRow own;

	while (!alloc_store_insert_line(&row->line, batch->plan.batch_id, event_id))
		if (settle_served(row))
			return false;
	if (!alloc_store_delete_waiting(row))
	{
		alloc_store_look();
		if (!alloc_store_find_line(row->line.orderid, row->line.sku, &own) ||
			!alloc_store_delete_line(&own))
			elog(ERROR, "our own line of batch \"%s\" is gone",
				 alloc_show(batch->ref));
		alloc_store_look();
		return false;
	}
	alloc_event_allocated(event_id, &row->line, batch->ref, chain);
	alloc_stat_count(ALLOC_STAT_BACKORDERS_SERVED);
	chain->newest = event_id;
	chain->merged = NULL;
	return true;
}

/*
 * Somebody has got a waiting line from another batch, or is about to: then it
 * does not wait any more.  False: he was rolled back.
 */
static bool
settle_served(const AllocWaitingRow *row)
{
	AllocLineRow there;
	AllocWaitingRow left;

	if (!alloc_store_settle_line(&row->line, &there))
		return false;
	if (alloc_store_find_waiting(row->line.orderid, row->line.sku, &left))
		(void) alloc_store_delete_waiting(&left);
	return true;
}

/*
 * alloc_mark_slots
 *		The slots of a batch as they are to be saved: they say whether lines
 *		wait.  False: they do already.
 */
bool
alloc_mark_slots(AllocBatchRow *batch, bool waiting)
{
	bool		changed = false;

	for (size_t i = 0; i < batch->nslots; i++)
	{
		changed |= batch->slots[i].waiting != waiting;
		batch->slots[i].waiting = waiting;
	}
	return changed;
}

/* ---- a line that waits gets a batch otherwise ---- */

/*
 * alloc_leave_queue
 *		A line that has got a batch does not wait any more.  Raises SK003 when
 *		it waits with another quantity.
 */
void
alloc_leave_queue(const AllocLine *line)
{
	AllocWaitingRow row;

	while (alloc_store_settle_waiting(line, &row))
	{
		require_same_waiting_qty(line, &row);
		if (alloc_store_delete_waiting(&row))
			break;
		alloc_store_look();
	}
}

/*
 * alloc_leave_queue_now
 *		Likewise, but waits for nobody.  False: somebody is at work on it.
 */
bool
alloc_leave_queue_now(const AllocLine *line)
{
	AllocWaitingRow row;
	bool		busy;

	if (!alloc_store_claim_waiting(line, &row, &busy))
		return true;
	if (busy)
		return false;
	require_same_waiting_qty(line, &row);
	return alloc_store_delete_waiting(&row);
}

/*
 * alloc_require_not_waiting_otherwise
 *		Raises SK003 when a line that is out of stock waits with another
 *		quantity.
 */
void
alloc_require_not_waiting_otherwise(const AllocLine *line)
{
	AllocWaitingRow row;

	if (alloc_store_find_waiting(line->orderid, line->sku, &row))
		require_same_waiting_qty(line, &row);
}

/*
 * alloc_waits_otherwise
 *		Does a line wait with another quantity?
 */
bool
alloc_waits_otherwise(const AllocLine *line)
{
	AllocWaitingRow row;

	return alloc_store_find_waiting(line->orderid, line->sku, &row) &&
		row.line.qty != line->qty;
}

static void
require_same_waiting_qty(const AllocLine *line, const AllocWaitingRow *row)
{
	if (row->line.qty != line->qty)
		ereport(ERROR,
				(errcode(ERRCODE_ALLOC_OTHER_QUANTITY),
				 errmsg("order line (\"%s\", \"%s\") exists with quantity " INT64_FORMAT ", not " INT64_FORMAT,
						alloc_show(line->orderid), alloc_show(line->sku),
						row->line.qty, line->qty),
				 errdetail("It waits for stock."),
				 errhint("Call cancel_backorder() first to change the quantity of a line that waits.")));
}

/* ---- a line begins to wait ---- */

/*
 * alloc_wait_for_stock
 *		A line that no batch can serve waits, if it does not already, with this
 *		quantity.  The product was renewed and all slots of the sku are locked,
 *		and still to be marked.
 */
void
alloc_wait_for_stock(const AllocLine *line)
{
	AllocWaitingRow row;

	if (!alloc_store_find_waiting(line->orderid, line->sku, &row))
		alloc_queue_line(line);
}

/*
 * alloc_queue_line
 *		A line that no batch can serve begins to wait.  The product was
 *		renewed, all slots of the sku are locked and were read; they are still
 *		to be marked.
 *
 * A place in the queue that it has already, by somebody's own hand, is given
 * up.
 */
void
alloc_queue_line(const AllocLine *line)
{
	AllocWaitingRow row;
	int64		event_id;

	alloc_event_out_of_stock(line);
	event_id = alloc_store_next_event_id();
	while (!alloc_store_insert_waiting(line, event_id))
	{
		if (alloc_store_settle_waiting(line, &row))
			(void) alloc_store_delete_waiting(&row);
		alloc_store_look();
	}
	alloc_event_backordered(event_id, line);
}
