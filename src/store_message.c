/*-------------------------------------------------------------------------
 *
 * store_message.c
 *	  The repository's part about messages that handle() was given with an id.
 *	  See store.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "miscadmin.h"
#include "store_private.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* For each message that a sweep may delete it looks at so many. */
#define LOOKS_PER_MESSAGE 16

/*
 * Where the next sweep of this session begins: behind what was deleted, which
 * is in the index for some time yet; or at the oldest, after one that found
 * nothing.
 */
static TimestampTz swept_to = DT_NOBEGIN;

static void set_message(const AllocMessageRow *message);
static void read_message(AllocMessageRow *message);
static bool sweep_found(AllocTable *table);

/*
 * alloc_store_add_message
 *		Records that a message is at work, unless there is one with its id:
 *		then that one is in *there, with its answer, and the result is false.
 *
 * Waits for the outcome of one that is at work.  Raises 40001 when there is
 * one that the transaction's snapshot does not see.
 */
bool
alloc_store_add_message(const AllocMessageRow *message, AllocMessageRow *there)
{
	AllocTable *table = &alloc_tables[MESSAGE];
	ScanKeyData key;

	alloc_key_text(&key, 1, message->message_id);
	for (;;)
	{
		if (alloc_store_settle_key(table, MESSAGE_ID, &key, 1))
		{
			read_message(there);
			return false;
		}
		set_message(message);
		if (alloc_table_insert_new(table, MESSAGE_ID))
			return true;
		alloc_store_look();
	}
}

/*
 * alloc_store_answer_message
 *		Records the answer to a message that this transaction has added.
 */
void
alloc_store_answer_message(const AllocMessageRow *message)
{
	AllocTable *table = &alloc_tables[MESSAGE];
	ScanKeyData key;
	ItemPointerData tid;

	alloc_key_text(&key, 1, message->message_id);
	if (!alloc_table_find(table, MESSAGE_ID, &key, 1))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a row of \"alloc.%s\" is gone while its message is at work",
						table->name)));
	tid = table->found->tts_tid;
	set_message(message);
	alloc_store_require_unchanged(alloc_table_update(table, &tid), table);
}

/*
 * alloc_store_sweep_messages
 *		Forgets up to max of the messages that were received before a moment,
 *		the oldest first; returns how many.
 *
 * Those that somebody is at work on are passed by: it neither waits nor fails
 * with 40001.  So its snapshot is none that takes predicate locks.
 *
 * It does not look far: what cannot be removed for good, because an old
 * transaction might see it, need not be deleted before it can.
 */
int64
alloc_store_sweep_messages(TimestampTz before, int max)
{
	AllocTable *table = &alloc_tables[MESSAGE];
	int64		looks = (int64) max * LOOKS_PER_MESSAGE;
	int64		deleted = 0;
	IndexScanDesc scan;
	ScanKeyData keys[2];

	alloc_key_time(&keys[0], 1, BTGreaterStrategyNumber, swept_to);
	alloc_key_time(&keys[1], 1, BTLessStrategyNumber, before);
	scan = alloc_table_scan(table, MESSAGE_RECEIVED_AT, SnapshotSelf, keys, 2);
	while (deleted < max && looks-- > 0 && alloc_table_next_entry(scan))
		if (alloc_table_entry_row(table, scan) && sweep_found(table))
			deleted++;
	index_endscan(scan);
	if (deleted == 0)
		swept_to = DT_NOBEGIN;
	return deleted;
}

/*
 * Deletes the message that a scan found, unless somebody has it.
 */
static bool
sweep_found(AllocTable *table)
{
	ItemPointerData tid = table->found->tts_tid;
	TimestampTz received_at =
		DatumGetTimestampTz(alloc_row_get(table, MESSAGE_C_RECEIVED_AT));

	/* What the header says costs less than an attempt to lock. */
	if (TransactionIdIsValid(alloc_table_found_busy(table)) ||
		!alloc_table_try_lock(table, &tid) ||
		alloc_table_delete(table, &tid) != TM_Ok)
		return false;
	swept_to = received_at;
	return true;
}

/*
 * Makes the message the row to be written.
 */
static void
set_message(const AllocMessageRow *message)
{
	TupleTableSlot *row = alloc_table_row(&alloc_tables[MESSAGE]);

	alloc_row_set_text(row, MESSAGE_C_ID, message->message_id);
	alloc_row_set(row, MESSAGE_C_RECEIVED_AT,
				  TimestampTzGetDatum(message->received_at));
	alloc_row_set(row, MESSAGE_C_BODY_HASH, PointerGetDatum(message->body_hash));
	if (message->answer == NULL)
		alloc_row_set_null(row, MESSAGE_C_ANSWER);
	else
		alloc_row_set(row, MESSAGE_C_ANSWER, JsonbPGetDatum(message->answer));
}

/*
 * The message that a scan found, in the current memory context.
 */
static void
read_message(AllocMessageRow *message)
{
	const AllocTable *table = &alloc_tables[MESSAGE];

	message->message_id =
		DatumGetTextPCopy(alloc_row_get(table, MESSAGE_C_ID));
	message->received_at =
		DatumGetTimestampTz(alloc_row_get(table, MESSAGE_C_RECEIVED_AT));
	message->body_hash =
		DatumGetByteaPCopy(alloc_row_get(table, MESSAGE_C_BODY_HASH));
	message->answer =
		DatumGetJsonbPCopy(alloc_row_get(table, MESSAGE_C_ANSWER));
}
