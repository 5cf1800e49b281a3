/*-------------------------------------------------------------------------
 *
 * position.c
 *	  How far a reader of the log has come: snapshots, not event ids.
 *
 * Transactions commit in another order than they draw event ids.  So an id
 * does not tell what a reader has had; the transactions that had ended when it
 * read do.  It is the idea of PgQ's ticks, but each reader has its own.
 *
 * Where to look for the events of a transaction that was open then, and has
 * ended since?  Before a transaction draws its first event id it has its
 * transaction id, so whoever notes the last event id and, after it, the next
 * transaction id knows: transactions from that one on have events above that
 * id.  Such marks are kept for as long as an open transaction needs them.  So
 * one that stays open for an hour costs the readers nothing while it does, and
 * one look at the hour's index entries when it ends.
 *
 * Nothing here knows tables, snapshots or locks: see store_consumer.c.
 *
 * Memory: what grows is made anew in the current context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "position.h"

static const AllocMark *mark_of(const AllocPosition *position, int64 xact);
static void add_mark(AllocPosition *position, AllocMark mark);
static void forget_marks(AllocPosition *position);

/*
 * alloc_seen_has
 *		Has the transaction ended?
 */
bool
alloc_seen_has(const AllocSeen *seen, int64 xact)
{
	int			low = 0;
	int			high = seen->nopen;

	if (xact >= seen->xmax)
		return false;
	if (high == 0 || xact < seen->open[0])
		return true;
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (seen->open[middle] == xact)
			return false;
		if (seen->open[middle] < xact)
			low = middle + 1;
		else
			high = middle;
	}
	return true;
}

/*
 * alloc_position_init
 *		The position of one that has had nothing.
 */
void
alloc_position_init(AllocPosition *position)
{
	memset(position, 0, sizeof(*position));
	position->marks = palloc0(sizeof(AllocMark));
	position->nmarks = 1;
}

/*
 * alloc_position_begin_now
 *		Makes it that of one that has had all there is now.  mark was taken
 *		before now.
 */
void
alloc_position_begin_now(AllocPosition *position, const AllocSeen *now,
						 AllocMark mark)
{
	position->seen = *now;
	add_mark(position, mark);
	forget_marks(position);
}

/*
 * alloc_position_begin_batch
 *		Begins the batch of the transactions that have ended by now.
 *
 * mark was taken before now, and the last event id, end, after it.  False:
 * none has ended since the last batch, and nothing has changed.
 */
bool
alloc_position_begin_batch(AllocPosition *position, const AllocSeen *now,
						   AllocMark mark, int64 end)
{
	int64		oldest = PG_INT64_MAX;

	Assert(!position->in_batch);
	for (int i = 0; i < position->seen.nopen && oldest == PG_INT64_MAX; i++)
		if (alloc_seen_has(now, position->seen.open[i]))
			oldest = position->seen.open[i];
	if (oldest == PG_INT64_MAX && position->seen.xmax < now->xmax)
		oldest = position->seen.xmax;
	if (oldest == PG_INT64_MAX)
		return false;
	position->in_batch = true;
	position->upto = *now;
	position->cursor = mark_of(position, oldest)->event_id;
	position->end = end;
	add_mark(position, mark);
	return true;
}

/*
 * alloc_position_end_batch
 *		All of the batch has been given.
 */
void
alloc_position_end_batch(AllocPosition *position)
{
	Assert(position->in_batch);
	position->seen = position->upto;
	position->in_batch = false;
	forget_marks(position);
}

/*
 * alloc_position_wants
 *		Is an event, with an id above the cursor, in the batch?
 */
bool
alloc_position_wants(const AllocPosition *position, int64 event_id, int64 xact)
{
	return event_id <= position->end &&
		alloc_seen_has(&position->upto, xact) &&
		!alloc_seen_has(&position->seen, xact);
}

/*
 * alloc_position_had
 *		Has an event been given?
 */
bool
alloc_position_had(const AllocPosition *position, int64 event_id, int64 xact)
{
	if (alloc_seen_has(&position->seen, xact))
		return true;
	return position->in_batch && event_id <= position->cursor &&
		alloc_seen_has(&position->upto, xact);
}

/*
 * The newest mark that holds for a transaction.
 */
static const AllocMark *
mark_of(const AllocPosition *position, int64 xact)
{
	int			i = position->nmarks - 1;

	while (i > 0 && position->marks[i].xact > xact)
		i--;
	return &position->marks[i];
}

static void
add_mark(AllocPosition *position, AllocMark mark)
{
	AllocMark  *last = &position->marks[position->nmarks - 1];

	if (last->xact == mark.xact)
	{
		last->event_id = Max(last->event_id, mark.event_id);
		return;
	}
	position->marks = repalloc_array(position->marks, AllocMark,
									 position->nmarks + 1);
	position->marks[position->nmarks++] = mark;
}

/*
 * Keeps the newest mark of each transaction that may still bring events: the
 * open ones, and those from xmax on.
 */
static void
forget_marks(AllocPosition *position)
{
	const AllocSeen *seen = &position->seen;
	int			kept = 0;
	int			next = 0;

	for (int i = 0; i < position->nmarks; i++)
	{
		int64		until = i + 1 < position->nmarks ?
			position->marks[i + 1].xact : PG_INT64_MAX;

		while (next < seen->nopen && seen->open[next] < position->marks[i].xact)
			next++;
		if (seen->xmax < until ||
			(next < seen->nopen && seen->open[next] < until))
			position->marks[kept++] = position->marks[i];
	}
	position->nmarks = kept;
}
