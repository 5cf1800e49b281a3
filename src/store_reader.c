/*-------------------------------------------------------------------------
 *
 * store_reader.c
 *	  The repository's part about readers of the log: consumers, the relay and
 *	  handlers, and how far they have come.  See store.c.
 *
 * A reader's row in table position is locked while it reads, so that two who
 * read for the same consumer take turns.  Then a snapshot is taken, and what
 * it sees that the one of the batch before did not see is the next batch.
 *
 * Memory: what a reader's position points to is in the context that was
 * current when the reader was locked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "miscadmin.h"
#include "store_private.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* The relay's consumer_id: no sequence gives it. */
#define RELAY_ID 0

static const char *const kind_names[] = {
	[ALLOC_READER_CONSUMER] = "consumer",
	[ALLOC_READER_RELAY] = "relay",
	[ALLOC_READER_HANDLER] = "handler"
};

static bool give_event(const char *type, AllocEventTaker take, void *arg);
static int64 last_event_id(void);
static void set_reader_keys(ScanKey keys, AllocReaderKind kind,
							const text *name);
static bool find_position(int64 consumer_id, AllocReader *reader);
static bool lock_row(AllocTable *table, ItemPointerData *tid);
static void read_position(AllocReader *reader);
static void set_position(const AllocReader *reader);
static AllocMark next_mark(void);
static void see_now(AllocSeen *now);
static int64 widen(TransactionId xid, FullTransactionId next);
static int	compare_int8(const void *a, const void *b);
static AllocSeen get_seen(int xmax, int open);
static Datum open_array(const AllocSeen *seen);
static int64 *get_int8_array(int column, int *n);

/*
 * alloc_store_find_reader
 */
bool
alloc_store_find_reader(AllocReaderKind kind, const text *name,
						int64 *consumer_id)
{
	AllocTable *table = &alloc_tables[CONSUMER];
	ScanKeyData keys[2];

	set_reader_keys(keys, kind, name);
	if (!alloc_table_find(table, CONSUMER_NAME, keys, 2))
		return false;
	*consumer_id = DatumGetInt64(alloc_row_get(table, CONSUMER_C_ID));
	return true;
}

/*
 * alloc_store_create_reader
 *		Creates a reader that begins with what commits from now on, or with
 *		all events there are.  False: one with this name is there.
 */
bool
alloc_store_create_reader(AllocReaderKind kind, const text *name,
						  bool from_now, int64 *consumer_id)
{
	AllocTable *table = &alloc_tables[CONSUMER];
	TupleTableSlot *row;
	ScanKeyData keys[2];
	AllocReader reader = {0};

	if (!from_now)
		alloc_store_keep_log();
	set_reader_keys(keys, kind, name);
	if (alloc_store_settle_key(table, CONSUMER_NAME, keys, 2))
		return false;
	reader.consumer_id = kind == ALLOC_READER_RELAY ? RELAY_ID :
		alloc_table_nextval(table);
	row = alloc_table_row(table);
	alloc_row_set(row, CONSUMER_C_ID, Int64GetDatum(reader.consumer_id));
	alloc_row_set_text(row, CONSUMER_C_KIND, cstring_to_text(kind_names[kind]));
	alloc_row_set_text(row, CONSUMER_C_NAME, name);
	if (!alloc_table_insert_new(table, CONSUMER_NAME))
		return false;

	alloc_position_init(&reader.position);
	if (from_now)
	{
		AllocMark	mark = next_mark();
		AllocSeen	now;

		see_now(&now);
		alloc_position_begin_now(&reader.position, &now, mark);
	}
	set_position(&reader);
	alloc_table_insert(&alloc_tables[POSITION]);
	*consumer_id = reader.consumer_id;
	return true;
}

/*
 * alloc_store_drop_reader
 *		Waits for one who is reading.  False: there is none of this name.
 */
bool
alloc_store_drop_reader(AllocReaderKind kind, const text *name)
{
	AllocTable *table = &alloc_tables[CONSUMER];
	AllocReader reader;
	int64		consumer_id;
	ScanKeyData keys[2];
	ItemPointerData tid;

	set_reader_keys(keys, kind, name);
	for (;;)
	{
		if (!alloc_store_find_reader(kind, name, &consumer_id))
			return false;
		tid = table->found->tts_tid;
		if (alloc_store_is_unchanged(alloc_table_delete(table, &tid)))
			break;
		alloc_store_look();
	}
	if (alloc_store_lock_reader(consumer_id, &reader))
		alloc_store_require_unchanged(alloc_table_delete(&alloc_tables[POSITION],
														 &reader.tid),
									  &alloc_tables[POSITION]);
	return true;
}

/*
 * alloc_store_lock_reader
 *		Waits for whoever reads for this consumer, then reads its position.
 *		False: it has none, because it was dropped.
 */
bool
alloc_store_lock_reader(int64 consumer_id, AllocReader *reader)
{
	while (find_position(consumer_id, reader))
	{
		int64		moved = reader->moved;
		bool		locked = lock_row(&alloc_tables[POSITION], &reader->tid);

		alloc_store_look();
		if (locked && find_position(consumer_id, reader) &&
			reader->moved == moved)
			return true;
	}
	return false;
}

/*
 * alloc_store_read_batch
 *		Gives the reader up to max of the events in its batch that it has not
 *		had, only those of a type if there is one; returns how many.
 *
 * The batch ends when there are no more.
 */
int64
alloc_store_read_batch(AllocReader *reader, const char *type, int64 max,
					   AllocEventTaker take, void *arg)
{
	AllocTable *table = &alloc_tables[EVENT];
	AllocPosition *position = &reader->position;
	MemoryContext event_cxt;
	IndexScanDesc scan;
	ScanKeyData key;
	int64		given = 0;

	if (!position->in_batch)
		return 0;
	event_cxt = AllocSetContextCreate(CurrentMemoryContext, "alloc event",
									  ALLOCSET_SMALL_SIZES);
	alloc_key_int8_above(&key, 1, position->cursor);
	scan = alloc_table_scan_entries(table, EVENT_PKEY, &key, 1);
	while (given < max)
	{
		int64		event_id;

		if (!alloc_table_next_entry(scan) ||
			(event_id = alloc_table_entry_int8(scan, 1)) > position->end)
		{
			alloc_position_end_batch(position);
			break;
		}
		if (alloc_position_wants(position, event_id,
								 alloc_table_entry_int8(scan, 2)) &&
			alloc_table_entry_row(table, scan))
		{
			MemoryContext oldcxt = MemoryContextSwitchTo(event_cxt);

			if (give_event(type, take, arg))
			{
				position->last_event_id = event_id;
				given++;
			}
			MemoryContextSwitchTo(oldcxt);
			MemoryContextReset(event_cxt);
		}
		position->cursor = event_id;
	}
	index_endscan(scan);
	MemoryContextDelete(event_cxt);
	return given;
}

/*
 * Gives the event that was found, if it has the type.
 */
static bool
give_event(const char *type, AllocEventTaker take, void *arg)
{
	AllocEventRow event;

	alloc_store_read_event(&event);
	if (type != NULL && strcmp(event.type, type) != 0)
		return false;
	take(&event, arg);
	return true;
}

/*
 * alloc_store_next_batch
 *		Begins the batch of what has been committed since the last one began.
 *		False: nothing has.
 */
bool
alloc_store_next_batch(AllocReader *reader)
{
	AllocMark	mark = next_mark();
	AllocSeen	now;

	see_now(&now);
	return alloc_position_begin_batch(&reader->position, &now, mark,
									  last_event_id());
}

/*
 * The last event that there may be in a batch.  In the middle of a restore the
 * log is there before its sequence has been set.
 */
static int64
last_event_id(void)
{
	AllocTable *table = &alloc_tables[EVENT];
	IndexScanDesc scan = alloc_table_scan(table, EVENT_PKEY,
										  GetActiveSnapshot(), NULL, 0);
	int64		last = alloc_store_last_event_id();

	if (alloc_table_next(table, scan, BackwardScanDirection))
		last = Max(last, DatumGetInt64(alloc_row_get(table, EVENT_C_ID)));
	index_endscan(scan);
	return last;
}

/*
 * alloc_store_move_reader
 *		Records the position of a reader that is locked.
 */
void
alloc_store_move_reader(AllocReader *reader)
{
	reader->moved++;
	reader->position.last_fetch_at = GetCurrentTimestamp();
	set_position(reader);
	alloc_store_require_unchanged(alloc_table_update(&alloc_tables[POSITION],
													 &reader->tid),
								  &alloc_tables[POSITION]);
}

static void
set_reader_keys(ScanKey keys, AllocReaderKind kind, const text *name)
{
	alloc_key_text(&keys[0], 1, name);
	alloc_key_text(&keys[1], 2, cstring_to_text(kind_names[kind]));
}

/*
 * The newest version of a position: the first from the end of the index.
 */
static bool
find_position(int64 consumer_id, AllocReader *reader)
{
	AllocTable *table = &alloc_tables[POSITION];
	IndexScanDesc scan;
	ScanKeyData key;
	bool		found;

	alloc_key_int8(&key, 1, consumer_id);
	scan = alloc_table_scan(table, POSITION_PKEY, GetActiveSnapshot(), &key, 1);
	found = alloc_table_next(table, scan, BackwardScanDirection);
	index_endscan(scan);
	if (found)
	{
		reader->consumer_id = consumer_id;
		read_position(reader);
	}
	return found;
}

static bool
lock_row(AllocTable *table, ItemPointerData *tid)
{
	return alloc_store_is_unchanged(alloc_table_lock(table, tid));
}

static void
read_position(AllocReader *reader)
{
	const AllocTable *table = &alloc_tables[POSITION];
	const bool *isnull = table->found->tts_isnull;
	AllocPosition *position = &reader->position;
	int			n;

	reader->tid = table->found->tts_tid;
	reader->moved = DatumGetInt64(alloc_row_get(table, POSITION_C_MOVED));
	alloc_position_init(position);
	position->seen = get_seen(POSITION_C_SEEN_XMAX, POSITION_C_SEEN_OPEN);
	position->in_batch = !isnull[POSITION_C_UPTO_XMAX];
	if (position->in_batch)
	{
		position->upto = get_seen(POSITION_C_UPTO_XMAX, POSITION_C_UPTO_OPEN);
		position->cursor = DatumGetInt64(alloc_row_get(table, POSITION_C_GIVEN_TO));
		position->end = DatumGetInt64(alloc_row_get(table, POSITION_C_BATCH_END));
	}
	if (!isnull[POSITION_C_LAST_EVENT])
		position->last_event_id = DatumGetInt64(alloc_row_get(table, POSITION_C_LAST_EVENT));
	if (!isnull[POSITION_C_LAST_FETCH])
		position->last_fetch_at = DatumGetTimestampTz(alloc_row_get(table, POSITION_C_LAST_FETCH));
	position->marks = (AllocMark *) get_int8_array(POSITION_C_MARKS, &n);
	position->nmarks = n / 2;
	if (n < 2 || n % 2 != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("position of consumer " INT64_FORMAT " has %d marks",
						reader->consumer_id, n)));
}

/*
 * Makes the position the row to be written.
 */
static void
set_position(const AllocReader *reader)
{
	TupleTableSlot *row = alloc_table_row(&alloc_tables[POSITION]);
	const AllocPosition *position = &reader->position;
	const NullableDatum null = {0, true};
	NullableDatum last_event = null;
	NullableDatum last_fetch = null;

	alloc_row_set(row, POSITION_C_CONSUMER, Int64GetDatum(reader->consumer_id));
	alloc_row_set(row, POSITION_C_MOVED, Int64GetDatum(reader->moved));
	alloc_row_set(row, POSITION_C_SEEN_XMAX, Int64GetDatum(position->seen.xmax));
	alloc_row_set(row, POSITION_C_SEEN_OPEN, open_array(&position->seen));
	alloc_row_set_null(row, POSITION_C_UPTO_XMAX);
	alloc_row_set_null(row, POSITION_C_UPTO_OPEN);
	alloc_row_set_null(row, POSITION_C_GIVEN_TO);
	alloc_row_set_null(row, POSITION_C_BATCH_END);
	if (position->in_batch)
	{
		alloc_row_set(row, POSITION_C_UPTO_XMAX, Int64GetDatum(position->upto.xmax));
		alloc_row_set(row, POSITION_C_UPTO_OPEN, open_array(&position->upto));
		alloc_row_set(row, POSITION_C_GIVEN_TO, Int64GetDatum(position->cursor));
		alloc_row_set(row, POSITION_C_BATCH_END, Int64GetDatum(position->end));
	}
	if (position->last_event_id != 0)
		last_event = (NullableDatum) {Int64GetDatum(position->last_event_id), false};
	if (position->last_fetch_at != 0)
		last_fetch = (NullableDatum) {TimestampTzGetDatum(position->last_fetch_at), false};
	alloc_row_set_nullable(row, POSITION_C_LAST_EVENT, last_event);
	alloc_row_set_nullable(row, POSITION_C_LAST_FETCH, last_fetch);
	alloc_row_set(row, POSITION_C_MARKS,
				  alloc_int8_array((const int64 *) position->marks,
								   position->nmarks * 2));
}

/*
 * The order of the two matters: see position.c.
 */
static AllocMark
next_mark(void)
{
	AllocMark	mark;

	mark.event_id = alloc_store_last_event_id();
	mark.xact = alloc_store_era() |
		(int64) U64FromFullTransactionId(ReadNextFullTransactionId());
	return mark;
}

/*
 * What the active snapshot sees, but for our own transaction: that has not
 * been committed.
 */
static void
see_now(AllocSeen *now)
{
	Snapshot	snapshot = GetActiveSnapshot();
	FullTransactionId next = ReadNextFullTransactionId();
	FullTransactionId own = GetTopFullTransactionIdIfAny();
	int64		era = alloc_store_era();

	now->xmax = era | widen(snapshot->xmax, next);
	now->open = palloc_array(int64, snapshot->xcnt + 1);
	now->nopen = 0;
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		now->open[now->nopen++] = era | widen(snapshot->xip[i], next);
	if (FullTransactionIdIsValid(own) &&
		(era | (int64) U64FromFullTransactionId(own)) < now->xmax)
		now->open[now->nopen++] = era | (int64) U64FromFullTransactionId(own);
	qsort(now->open, now->nopen, sizeof(int64), compare_int8);
}

/*
 * A transaction id with its epoch; it is not above the next one.
 */
static int64
widen(TransactionId xid, FullTransactionId next)
{
	return (int64) U64FromFullTransactionId(next) -
		(uint32) (XidFromFullTransactionId(next) - xid);
}

static int
compare_int8(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

static AllocSeen
get_seen(int xmax, int open)
{
	AllocSeen	seen;

	seen.xmax = DatumGetInt64(alloc_row_get(&alloc_tables[POSITION], xmax));
	seen.open = get_int8_array(open, &seen.nopen);
	return seen;
}

static Datum
open_array(const AllocSeen *seen)
{
	return alloc_int8_array(seen->open, seen->nopen);
}

static int64 *
get_int8_array(int column, int *n)
{
	ArrayType  *array = DatumGetArrayTypeP(alloc_row_get(&alloc_tables[POSITION],
														 column));

	return alloc_array_int8(array, n);
}
