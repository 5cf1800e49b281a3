/*-------------------------------------------------------------------------
 *
 * command_ship.c
 *	  ship(): stock leaves the warehouse, and its lines with it;
 *	  purge_shipped() forgets them.
 *
 * A line that was shipped keeps its row, so that it stays known; its units are
 * shipped instead of allocated.  It locks as deallocate() does: one slot of the
 * batch, with nothing of the sku locked while it waits, then the line.
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

PG_FUNCTION_INFO_V1(alloc_ship);
PG_FUNCTION_INFO_V1(alloc_purge_shipped);

static int64 ship_order(const text *orderid);
static bool ship_line(const text *orderid, const text *sku);

/*
 * alloc.ship(orderid text, sku text DEFAULT NULL) returns bigint
 *		The stock of an order's line has left, or that of all its lines;
 *		returns how many lines.
 *
 * Lines that are not allocated, or were shipped before, do not count.
 * Errors: 22004 (orderid), 22023, 22001, 40001; 55000 (a line is only held),
 * SK005 (its hold is over).  Source: DESIGN section 2.
 */
Datum
alloc_ship(PG_FUNCTION_ARGS)
{
	text	   *orderid = alloc_arg_key(fcinfo, 0, "orderid");
	text	   *sku = PG_ARGISNULL(1) ? NULL : alloc_arg_key(fcinfo, 1, "sku");
	int64		shipped;

	alloc_command_begin("ship()");
	if (sku != NULL)
		alloc_share_require(sku);
	alloc_require_no_holds(orderid, sku);
	shipped = sku == NULL ? ship_order(orderid) : ship_line(orderid, sku);
	alloc_stat_count(ALLOC_STAT_SHIP);
	alloc_command_end();
	PG_RETURN_INT64(shipped);
}

/*
 * alloc.purge_shipped(before timestamptz) returns bigint
 *		Forgets the lines that were shipped before that moment; returns how
 *		many.  Then allocate() takes such a line for a new one.  Forgets as
 *		well which holds ended before it: then confirm() does not know of them.
 *
 * Error: 22004.  Source: DESIGN section 2.
 */
Datum
alloc_purge_shipped(PG_FUNCTION_ARGS)
{
	int64		purged;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("before must not be null")));
	alloc_command_begin("purge_shipped()");
	purged = alloc_store_purge_shipped(PG_GETARG_TIMESTAMPTZ(0));
	alloc_store_forget_ended_holds(PG_GETARG_TIMESTAMPTZ(0), PG_INT64_MAX);
	alloc_stat_count(ALLOC_STAT_PURGE_SHIPPED);
	alloc_command_end();
	PG_RETURN_INT64(purged);
}

/*
 * Lines in the order of their skus, in which all who need several take them.
 */
static int64
ship_order(const text *orderid)
{
	const text **skus;
	size_t		n = alloc_store_skus_of_order(orderid, &skus);
	int64		shipped = 0;

	for (size_t i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		shipped += ship_line(orderid, skus[i]);
	}
	return shipped;
}

/*
 * False: the line is not there, or was shipped.
 */
static bool
ship_line(const text *orderid, const text *sku)
{
	AllocLineRow line;

	while (alloc_store_find_line(orderid, sku, &line) && line.shipped_at == 0)
	{
		AllocBatchRow batch;
		AllocSlotRow slot;
		int64		event_id;

		alloc_require_not_held(&line.line);
		alloc_store_get_batch(line.batch_id, &batch);
		alloc_store_any_slot(&batch, &slot);
		if (TransactionIdIsValid(slot.busy))
		{
			alloc_store_wait_slot(&slot);
			continue;
		}
		if (!alloc_store_ship(&batch, &slot, line.line.qty))
		{
			alloc_store_look();
			continue;
		}
		event_id = alloc_store_next_event_id();
		if (alloc_store_mark_shipped(&line, event_id))
		{
			alloc_event_shipped(event_id, &line.line, batch.ref);
			alloc_store_forget_end(orderid, sku);
			return true;
		}
		alloc_store_undo(&batch, &slot);
	}
	return false;
}
