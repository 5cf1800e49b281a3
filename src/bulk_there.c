/*-------------------------------------------------------------------------
 *
 * bulk_there.c
 *	  Which lines of a bulk call are there already.  See bulk.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "bulk.h"
#include "common/hashfn.h"
#include "compat.h"
#include "miscadmin.h"
#include "utils/memutils.h"

static uint32 hash_line(const void *key, Size size);
static int	match_line(const void *a, const void *b, Size size);

/*
 * alloc_bulk_begin_lines
 *		Before the first of the others: no line of this call is there yet.
 */
void
alloc_bulk_begin_lines(AllocBulk *bulk)
{
	HASHCTL		control = {
		.keysize = sizeof(AllocBulkLine *),
		.entrysize = sizeof(AllocBulkLine *),
		.hash = hash_line,
		.match = match_line,
		.hcxt = CurrentMemoryContext
	};

	bulk->placed = hash_create("alloc placed lines",
							   Min(bulk->nlines, ALLOC_HASH_ENTRIES), &control,
							   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE |
							   HASH_CONTEXT);
}

/*
 * alloc_bulk_settle
 *		Waits for whoever is at work on one of the lines, with nothing locked.
 */
void
alloc_bulk_settle(AllocBulk *bulk)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "alloc scratch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcxt = MemoryContextSwitchTo(scratch);

	for (size_t i = 0; i < bulk->nlines; i++)
	{
		AllocLineRow there;
		AllocWaitingRow waiting;

		CHECK_FOR_INTERRUPTS();
		(void) alloc_store_settle_line(&bulk->lines[i].line, &there);
		(void) alloc_store_settle_waiting(&bulk->lines[i].line, &waiting);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(oldcxt);
	MemoryContextDelete(scratch);
	alloc_store_look();
}

/*
 * alloc_bulk_is_there
 *		Is a line there, from before this call or from earlier in it?  Its fate
 *		says so then.
 */
bool
alloc_bulk_is_there(AllocBulk *bulk, AllocBulkLine *line)
{
	AllocBulkLine  **earlier = hash_search(bulk->placed, &line, HASH_FIND, NULL);
	AllocLineRow there;
	AllocBatchRow batch;

	if (earlier != NULL)
	{
		line->qty_there = (*earlier)->line.qty;
		line->ref = (*earlier)->ref;
	}
	else if (alloc_store_find_line(line->line.orderid, line->line.sku, &there))
	{
		alloc_store_get_batch(there.batch_id, &batch);
		line->qty_there = there.line.qty;
		line->ref = batch.ref;
		line->tid = there.tid;
		if (there.line.expires_at != 0)
		{
			line->fate = ALLOC_LINE_HELD;
			line->held = palloc_object(AllocLineRow);
			*line->held = there;
			alloc_bulk_remember(bulk, line);
			return true;
		}
	}
	else
		return false;
	line->fate = ALLOC_LINE_THERE;
	return true;
}

/*
 * alloc_bulk_keep_whole
 *		After planning: when some lines were there and others are about to be
 *		added, those stay.  False: one of them may be gone; to be rolled back,
 *		and done again with care.
 *
 * Such a line was seen before the stock of others was waited for, and if its
 * own sku has no stock, nothing of it was locked.  To wait here, with stock
 * locked, could be a deadlock.  No line is there twice: no two are of one sku.
 */
bool
alloc_bulk_keep_whole(const AllocBulk *bulk)
{
	bool		adds = false;

	for (size_t i = 0; i < bulk->nlines && !adds; i++)
		adds = bulk->lines[i].fate != ALLOC_LINE_THERE;
	for (size_t i = 0; i < bulk->nlines && adds; i++)
	{
		const AllocBulkLine *line = &bulk->lines[i];

		CHECK_FOR_INTERRUPTS();
		if (line->fate == ALLOC_LINE_THERE &&
			!alloc_store_try_keep_line(&line->tid))
			return false;
	}
	return true;
}

/*
 * alloc_bulk_remember
 *		A line that will be there for those after it in this call.
 */
void
alloc_bulk_remember(AllocBulk *bulk, AllocBulkLine *line)
{
	(void) hash_search(bulk->placed, &line, HASH_ENTER, NULL);
}

static uint32
hash_line(const void *key, Size size)
{
	const AllocBulkLine *line = *(AllocBulkLine *const *) key;

	return hash_combine(alloc_hash_key(line->line.orderid),
						alloc_hash_key(line->line.sku));
}

static int
match_line(const void *a, const void *b, Size size)
{
	const AllocBulkLine *line_a = *(AllocBulkLine *const *) a;
	const AllocBulkLine *line_b = *(AllocBulkLine *const *) b;
	int			order = alloc_compare_keys(line_a->line.orderid,
										   line_b->line.orderid);

	return order != 0 ? order :
		alloc_compare_keys(line_a->line.sku, line_b->line.sku);
}
