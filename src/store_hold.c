/*-------------------------------------------------------------------------
 *
 * store_hold.c
 *	  The repository's part about holds: lines that end by themselves.  See
 *	  store.c.
 *
 * A line that is held has a row in table hold as well, which is locked before
 * the line itself: whoever confirms, extends, releases, moves or ends it meets
 * the others there.  It stays, marked, when the hold has ended.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "common/int.h"
#include "compat.h"
#include "share.h"
#include "store_private.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Holds that are read at most to find a batch that has some which are over. */
#define HOLDS_READ 10

static void set_keys(ScanKey keys, const text *orderid, const text *sku);
static void set_hold(const AllocHoldRow *hold);
static size_t collect_holds(IndexScanDesc scan, size_t max,
							AllocHoldRow **holds);
static IndexScanDesc scan_expired(int64 batch_id, TimestampTz now);
static IndexScanDesc scan_due(const AllocDue *place, StrategyNumber side,
							  TimestampTz now);
static bool is_among(int64 batch_id, const AllocDue *due, size_t n);
static void read_hold(AllocHoldRow *hold);
static bool update_hold(const AllocHoldRow *hold);

/*
 * alloc_store_find_hold
 *		The hold of an order line, or the mark that it has ended.
 */
bool
alloc_store_find_hold(const text *orderid, const text *sku,
					  AllocHoldRow *hold)
{
	ScanKeyData keys[2];

	set_keys(keys, orderid, sku);
	if (!alloc_table_find(&alloc_tables[HOLD], HOLD_LINE, keys, 2))
		return false;
	read_hold(hold);
	return true;
}

/*
 * alloc_store_holds_of_order
 *		The holds of an order, those that have ended too, in the order of their
 *		skus' bytes; of skus that are served here.  Returns how many, and them
 *		in *holds.
 */
size_t
alloc_store_holds_of_order(const text *orderid, AllocHoldRow **holds)
{
	ScanKeyData key;
	size_t		n;
	size_t		served = 0;

	alloc_key_text(&key, 1, orderid);
	n = collect_holds(alloc_table_scan(&alloc_tables[HOLD], HOLD_LINE,
									   GetActiveSnapshot(), &key, 1),
					  SIZE_MAX, holds);
	for (size_t i = 0; i < n; i++)
		if (alloc_share_serves((*holds)[i].line.sku))
			(*holds)[served++] = (*holds)[i];
	return served;
}

/*
 * alloc_store_expired_holds
 *		The holds of a batch that are over at a moment and have not been ended.
 *		Returns how many, and them in *holds.
 */
size_t
alloc_store_expired_holds(int64 batch_id, TimestampTz now,
						  AllocHoldRow **holds)
{
	return collect_holds(scan_expired(batch_id, now), SIZE_MAX, holds);
}

/*
 * alloc_store_some_expired_holds
 *		Likewise, those that ended first, up to max.
 */
size_t
alloc_store_some_expired_holds(int64 batch_id, TimestampTz now, size_t max,
							   AllocHoldRow **holds)
{
	return collect_holds(scan_expired(batch_id, now), max, holds);
}

/*
 * alloc_store_due_batches
 *		The batches, up to max, that have holds which are over at a moment and
 *		have not been ended; of skus that are served here.  Returns how many,
 *		and them in due, each with the end of the first.
 *
 * The holds are read in the order of their ends, from behind a place on, which
 * moves.  *more: there may be others behind it, because max batches were found
 * or so many holds read that it is enough for now.
 */
size_t
alloc_store_due_batches(AllocDue *place, TimestampTz now, AllocDue *due,
						size_t max, bool *more)
{
	AllocTable *table = &alloc_tables[HOLD];
	const StrategyNumber sides[] = {
		BTEqualStrategyNumber, BTGreaterStrategyNumber
	};
	AllocDue	from = *place;
	size_t		n = 0;
	size_t		nread = 0;

	*more = false;
	for (int i = 0; i < lengthof(sides) && !*more; i++)
	{
		IndexScanDesc scan = scan_due(&from, sides[i], now);

		while (!*more && alloc_table_next(table, scan, ForwardScanDirection))
		{
			place->expires_at = alloc_row_get_time(table, HOLD_C_EXPIRES);
			place->batch_id = DatumGetInt64(alloc_row_get(table, HOLD_C_BATCH));
			if (alloc_share_serves(DatumGetTextPP(alloc_row_get(table, HOLD_C_SKU))) &&
				!is_among(place->batch_id, due, n))
				due[n++] = *place;
			*more = n == max || ++nread == max * HOLDS_READ;
		}
		index_endscan(scan);
	}
	return n;
}

/*
 * alloc_store_expired_qty
 *		The units that they have.
 */
int64
alloc_store_expired_qty(int64 batch_id, TimestampTz now)
{
	AllocTable *table = &alloc_tables[HOLD];
	IndexScanDesc scan = scan_expired(batch_id, now);
	int64		qty = 0;

	while (alloc_table_next(table, scan, ForwardScanDirection))
		if (pg_add_s64_overflow(qty,
								DatumGetInt64(alloc_row_get(table, HOLD_C_QTY)),
								&qty))
			qty = PG_INT64_MAX;
	index_endscan(scan);
	return qty;
}

/*
 * alloc_store_next_expiry
 *		When the next hold of a batch will be over; 0: there is none.
 */
TimestampTz
alloc_store_next_expiry(int64 batch_id)
{
	AllocTable *table = &alloc_tables[HOLD];
	ScanKeyData key;

	alloc_key_int8(&key, 1, batch_id);
	if (!alloc_table_find(table, HOLD_EXPIRY, &key, 1))
		return 0;
	return alloc_row_get_time(table, HOLD_C_EXPIRES);
}

/*
 * alloc_store_may_have_more_holds
 *		May an order have more than n holds?  By the index alone, in which those
 *		that have ended or gone may be, too.
 */
bool
alloc_store_may_have_more_holds(const text *orderid, int64 n)
{
	ScanKeyData key;
	IndexScanDesc scan;

	alloc_key_text(&key, 1, orderid);
	scan = alloc_table_scan_entries(&alloc_tables[HOLD], HOLD_LINE, &key, 1);
	while (n >= 0 && alloc_table_next_entry(scan))
		n--;
	index_endscan(scan);
	return n < 0;
}

/*
 * alloc_store_count_holds
 *		How many lines of an order are held at a moment, in the newest state,
 *		uncommitted work of others included; of skus that are served here.
 */
int64
alloc_store_count_holds(const text *orderid, TimestampTz now)
{
	AllocTable *table = &alloc_tables[HOLD];
	const text *last = NULL;
	SnapshotData dirty;
	ScanKeyData key;
	IndexScanDesc scan;
	int64		n = 0;

	InitDirtySnapshot(dirty);
	alloc_key_text(&key, 1, orderid);
	scan = alloc_table_scan(table, HOLD_LINE, &dirty, &key, 1);
	while (alloc_table_next(table, scan, ForwardScanDirection))
	{
		const text *sku;

		if (DatumGetBool(alloc_row_get(table, HOLD_C_ENDED)) ||
			alloc_row_get_time(table, HOLD_C_EXPIRES) <= now)
			continue;
		/* Of one that is being changed there are two versions. */
		sku = DatumGetTextPCopy(alloc_row_get(table, HOLD_C_SKU));
		if (!alloc_share_serves(sku))
			continue;
		if (last == NULL || !alloc_same_key(last, sku))
			n++;
		last = sku;
	}
	index_endscan(scan);
	return n;
}

/*
 * alloc_store_insert_hold
 *		Records until when a line, which this command has inserted, is held.
 *		The mark of one that has ended is replaced.
 */
void
alloc_store_insert_hold(const AllocLine *line, const AllocBatchRow *batch)
{
	AllocTable *table = &alloc_tables[HOLD];
	AllocHoldRow hold = {
		.line = *line,
		.batch_id = batch->plan.batch_id,
		.batchref = batch->ref
	};
	ScanKeyData keys[2];

	set_keys(keys, line->orderid, line->sku);
	for (;;)
	{
		set_hold(&hold);
		if (alloc_table_insert_new(table, HOLD_LINE))
			return;
		if (alloc_store_settle_key(table, HOLD_LINE, keys, 2))
		{
			hold.tid = table->found->tts_tid;
			if (update_hold(&hold))
				return;
			alloc_store_look();
		}
	}
}

/*
 * alloc_store_end_hold
 *		Marks a hold as ended at a moment, or at its own end if that came
 *		first.  False, as for the next ones: somebody else was faster; look
 *		again.
 */
bool
alloc_store_end_hold(const AllocHoldRow *hold, TimestampTz now)
{
	AllocHoldRow ended = *hold;

	ended.ended = true;
	ended.line.expires_at = Min(hold->line.expires_at, now);
	return update_hold(&ended);
}

/*
 * alloc_store_extend_hold
 *		Gives a hold another end.
 */
bool
alloc_store_extend_hold(const AllocHoldRow *hold, TimestampTz expires_at)
{
	AllocHoldRow extended = *hold;

	extended.line.expires_at = expires_at;
	return update_hold(&extended);
}

/*
 * alloc_store_move_hold
 *		Gives it another batch.
 */
bool
alloc_store_move_hold(const AllocHoldRow *hold, const AllocBatchRow *batch)
{
	AllocHoldRow moved = *hold;

	moved.batch_id = batch->plan.batch_id;
	moved.batchref = batch->ref;
	return update_hold(&moved);
}

/*
 * alloc_store_lock_hold
 *		Keeps others from it.
 */
bool
alloc_store_lock_hold(const AllocHoldRow *hold)
{
	ItemPointerData tid = hold->tid;

	return alloc_store_is_unchanged(alloc_table_lock_version(&alloc_tables[HOLD],
															 &tid));
}

/*
 * alloc_store_try_lock_hold
 *		Likewise, without waiting.  False: somebody has it, or has changed it
 *		since the last look.
 */
bool
alloc_store_try_lock_hold(const AllocHoldRow *hold)
{
	ItemPointerData tid = hold->tid;

	return alloc_table_try_lock(&alloc_tables[HOLD], &tid);
}

/*
 * alloc_store_delete_hold
 *		Forgets it, or that it has ended.
 */
bool
alloc_store_delete_hold(const AllocHoldRow *hold)
{
	ItemPointerData tid = hold->tid;

	return alloc_store_is_unchanged(alloc_table_delete(&alloc_tables[HOLD],
													   &tid));
}

/*
 * alloc_store_forget_end
 *		Forgets that the hold of a line has ended, unless somebody is at work
 *		on that.
 */
void
alloc_store_forget_end(const text *orderid, const text *sku)
{
	AllocHoldRow mark;

	if (alloc_store_find_hold(orderid, sku, &mark) && mark.ended &&
		alloc_table_try_lock(&alloc_tables[HOLD], &mark.tid))
		(void) alloc_store_delete_hold(&mark);
}

/*
 * alloc_store_forget_ended_holds
 *		Forgets holds that ended before a moment, the oldest first, up to max
 *		of them; those that somebody is at work on are left, and those of skus
 *		that are not served here.
 */
void
alloc_store_forget_ended_holds(TimestampTz before, int64 max)
{
	AllocTable *table = &alloc_tables[HOLD];
	ScanKeyData key;
	IndexScanDesc scan;

	alloc_key_time(&key, 1, BTLessStrategyNumber, before);
	scan = alloc_table_scan(table, HOLD_ENDED, GetActiveSnapshot(), &key, 1);
	while (max-- > 0 && alloc_table_next(table, scan, ForwardScanDirection))
	{
		ItemPointerData tid = table->found->tts_tid;

		if (alloc_share_serves(DatumGetTextPP(alloc_row_get(table, HOLD_C_SKU))) &&
			alloc_table_try_lock(table, &tid))
			(void) alloc_store_is_unchanged(alloc_table_delete(table, &tid));
	}
	index_endscan(scan);
}

/*
 * alloc_store_batches_to_sweep
 *		The batches of a sku of which holds may be over, by their slots, in
 *		order of preference.  Returns how many, and them in *batches: plan but
 *		for available, ref, sku.
 */
size_t
alloc_store_batches_to_sweep(const text *sku, AllocBatchRow **batches)
{
	AllocTable *table = &alloc_tables[SLOT];
	TimestampTz now = GetCurrentStatementStartTimestamp();
	ScanKeyData key;
	IndexScanDesc scan;
	size_t		n = 0;
	size_t		room = 4;

	*batches = palloc_array(AllocBatchRow, room);
	alloc_key_text(&key, 1, sku);
	scan = alloc_table_scan(table, SLOT_PREFERENCE, GetActiveSnapshot(),
							&key, 1);
	while (alloc_table_next(table, scan, ForwardScanDirection))
	{
		TimestampTz hold_until = alloc_row_get_time(table, SLOT_C_HOLD_UNTIL);
		AllocBatchRow batch = {0};

		batch.plan.batch_id = DatumGetInt64(alloc_row_get(table, SLOT_C_BATCH));
		if (hold_until == 0 || hold_until > now ||
			(n > 0 && (*batches)[n - 1].plan.batch_id == batch.plan.batch_id))
			continue;
		if (n == room)
		{
			room *= 2;
			*batches = repalloc_huge(*batches, room * sizeof(AllocBatchRow));
		}
		alloc_row_get_eta(table, SLOT_C_ETA, &batch.plan);
		batch.ref = DatumGetTextPCopy(alloc_row_get(table, SLOT_C_REF));
		batch.sku = DatumGetTextPCopy(alloc_row_get(table, SLOT_C_SKU));
		(*batches)[n++] = batch;
	}
	index_endscan(scan);
	return n;
}

static void
set_keys(ScanKey keys, const text *orderid, const text *sku)
{
	alloc_key_text(&keys[0], 1, orderid);
	alloc_key_text(&keys[1], 2, sku);
}

static void
set_hold(const AllocHoldRow *hold)
{
	TupleTableSlot *row = alloc_table_row(&alloc_tables[HOLD]);
	const AllocLine *line = &hold->line;

	alloc_row_set(row, HOLD_C_BATCH, Int64GetDatum(hold->batch_id));
	alloc_row_set(row, HOLD_C_QTY, Int64GetDatum(line->qty));
	alloc_row_set(row, HOLD_C_EXPIRES, TimestampTzGetDatum(line->expires_at));
	alloc_row_set(row, HOLD_C_ENDED, BoolGetDatum(hold->ended));
	alloc_row_set_text(row, HOLD_C_ORDERID, line->orderid);
	alloc_row_set_text(row, HOLD_C_SKU, line->sku);
	alloc_row_set_text(row, HOLD_C_BATCHREF, hold->batchref);
}

/*
 * The first that a scan finds, up to max.  Ends the scan.
 */
static size_t
collect_holds(IndexScanDesc scan, size_t max, AllocHoldRow **holds)
{
	size_t		n = 0;
	size_t		room = 8;

	*holds = palloc_array(AllocHoldRow, room);
	while (n < max &&
		   alloc_table_next(&alloc_tables[HOLD], scan, ForwardScanDirection))
	{
		if (n == room)
		{
			room *= 2;
			*holds = repalloc_huge(*holds, room * sizeof(AllocHoldRow));
		}
		read_hold(&(*holds)[n++]);
	}
	index_endscan(scan);
	return n;
}

static IndexScanDesc
scan_expired(int64 batch_id, TimestampTz now)
{
	ScanKeyData keys[2];

	alloc_key_int8(&keys[0], 1, batch_id);
	alloc_key_time(&keys[1], 2, BTLessEqualStrategyNumber, now);
	return alloc_table_scan(&alloc_tables[HOLD], HOLD_EXPIRY,
							GetActiveSnapshot(), keys, 2);
}

/*
 * A scan of the holds that are over at a moment: those of later batches that
 * end with the one at a place, or those that end after it.
 */
static IndexScanDesc
scan_due(const AllocDue *place, StrategyNumber side, TimestampTz now)
{
	ScanKeyData keys[2];

	alloc_key_time(&keys[0], 1, side, place->expires_at);
	if (side == BTEqualStrategyNumber)
		alloc_key_int8_above(&keys[1], 2, place->batch_id);
	else
		alloc_key_time(&keys[1], 1, BTLessEqualStrategyNumber, now);
	return alloc_table_scan(&alloc_tables[HOLD], HOLD_DUE,
							GetActiveSnapshot(), keys, lengthof(keys));
}

static bool
is_among(int64 batch_id, const AllocDue *due, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (due[i].batch_id == batch_id)
			return true;
	return false;
}

/*
 * The hold that a scan found.
 */
static void
read_hold(AllocHoldRow *hold)
{
	AllocTable *table = &alloc_tables[HOLD];

	hold->batch_id = DatumGetInt64(alloc_row_get(table, HOLD_C_BATCH));
	hold->ended = DatumGetBool(alloc_row_get(table, HOLD_C_ENDED));
	hold->line.qty = DatumGetInt64(alloc_row_get(table, HOLD_C_QTY));
	hold->line.expires_at =
		DatumGetTimestampTz(alloc_row_get(table, HOLD_C_EXPIRES));
	hold->line.orderid = DatumGetTextPCopy(alloc_row_get(table, HOLD_C_ORDERID));
	hold->line.sku = DatumGetTextPCopy(alloc_row_get(table, HOLD_C_SKU));
	hold->batchref = DatumGetTextPCopy(alloc_row_get(table, HOLD_C_BATCHREF));
	hold->tid = table->found->tts_tid;
}

static bool
update_hold(const AllocHoldRow *hold)
{
	ItemPointerData tid = hold->tid;

	set_hold(hold);
	return alloc_store_is_unchanged(alloc_table_update(&alloc_tables[HOLD],
													   &tid));
}
