/*-------------------------------------------------------------------------
 *
 * store.c
 *	  The repository: products, batches, slots, lines and events as rows.
 *
 * This file and its parts, store_*.c, are the only ones that know the tables
 * of sql/10_tables.sql; products are here.  Commands call it between
 * alloc_store_begin() and alloc_store_end(); reads see the state of the last
 * alloc_store_look(), which in READ COMMITTED is a new snapshot and in the
 * stricter levels the transaction's own.
 *
 * Locks, and why single calls never deadlock with each other:
 *
 * - A product's row is locked by commands that change its batches (add_batch
 *	 and change_batch_quantity of one sku take turns) and by whoever needs more
 *	 than one slot of the sku and waits for them.
 * - Slots come next.  allocate() and deallocate() take one slot, and have
 *	 nothing of the sku, not even a row lock, when they wait for it.
 * - Lines come last.  While all slots of a sku are locked, no line of it comes
 *	 or goes.
 * - Who needs several skus takes them in the order of their bytes.
 *
 * Of two identical calls one inserts the key.  The unique index tells the
 * other one, without an error, which gives back what it has taken, starts
 * over, and waits for the outcome.
 *
 * Who meets a row that has changed since the last look looks again and
 * starts over; under REPEATABLE READ and SERIALIZABLE that is error 40001.
 *
 * Memory: results are allocated in the caller's context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "store_private.h"
#include "utils/snapmgr.h"

AllocTable alloc_tables[NTABLES] = {
	[PRODUCT] = {
		.name = "product",
		.ncolumns = PRODUCT_NCOLUMNS,
		.index_names = {"product_sku"}
	},
	[BATCH] = {
		.name = "batch",
		.sequence = "batch_id_seq",
		.ncolumns = BATCH_NCOLUMNS,
		.index_names = {"batch_pkey", "batch_ref", "batch_preference"}
	},
	[SLOT] = {
		.name = "slot",
		.busy_pages = true,
		.ncolumns = SLOT_NCOLUMNS,
		.index_names = {"slot_pkey", "slot_preference"}
	},
	[ALLOCATION] = {
		.name = "allocation",
		.ncolumns = LINE_NCOLUMNS,
		.index_names = {"allocation_line"}
	},
	[HOLD] = {
		.name = "hold",
		.ncolumns = HOLD_NCOLUMNS,
		.index_names = {"hold_line", "hold_expiry", "hold_ended", "hold_due"}
	},
	[BACKORDER] = {
		.name = "backorder",
		.ncolumns = BACKORDER_NCOLUMNS,
		.index_names = {"backorder_line", "backorder_queue"}
	},
	[EVENT] = {
		.name = "event",
		.sequence = "event_id_seq",
		.ncolumns = EVENT_NCOLUMNS,
		.index_names = {"event_pkey", "event_sku"},
		.nrequired = 1
	},
	[SNAPSHOT] = {
		.name = "snapshot",
		.ncolumns = SNAPSHOT_NCOLUMNS,
		.index_names = {"snapshot_pkey"}
	},
	[SNAPSHOT_BATCH] = {
		.name = "snapshot_batch",
		.ncolumns = SNAPSHOT_BATCH_NCOLUMNS,
		.index_names = {"snapshot_batch_sku"}
	},
	[SNAPSHOT_LINE] = {
		.name = "snapshot_line",
		.ncolumns = SNAPSHOT_LINE_NCOLUMNS,
		.index_names = {"snapshot_line_batch"}
	},
	[ARCHIVE] = {
		.name = "archive",
		.ncolumns = ARCHIVE_NCOLUMNS,
		.index_names = {"archive_pkey"}
	},
	[ERA] = {
		.name = "era",
		.ncolumns = ERA_NCOLUMNS
	},
	[CONSUMER] = {
		.name = "consumer",
		.sequence = "consumer_id_seq",
		.ncolumns = CONSUMER_NCOLUMNS,
		.index_names = {"consumer_pkey", "consumer_name"}
	},
	[POSITION] = {
		.name = "position",
		.ncolumns = POSITION_NCOLUMNS,
		.index_names = {"position_pkey"}
	},
	[SUBSCRIPTION] = {
		.name = "subscription",
		.sequence = "subscription_id_seq",
		.ncolumns = SUBSCRIPTION_NCOLUMNS,
		.index_names = {"subscription_pkey", "subscription_handler"}
	},
	[DELIVERY] = {
		.name = "delivery",
		.sequence = "delivery_id_seq",
		.ncolumns = DELIVERY_NCOLUMNS,
		.index_names = {"delivery_pkey", "delivery_event", "delivery_due"}
	},
	[MESSAGE] = {
		.name = "message",
		.ncolumns = MESSAGE_NCOLUMNS,
		.index_names = {"message_id", "message_received_at"}
	}
};

static bool in_command;
static int	command_nest_level;

static void begin(const char *command, Snapshot snapshot);
static void end(void);
static void forget_command(void);
static void at_xact_end(XactEvent event, void *arg);
static void at_subxact_end(SubXactEvent event, SubTransactionId my_subid,
						   SubTransactionId parent_subid, void *arg);

/*
 * alloc_store_init
 *		Once per backend, when the library is loaded.
 */
void
alloc_store_init(void)
{
	alloc_table_init(alloc_tables, NTABLES);
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
}

/*
 * alloc_store_begin
 *		Begins a command; its name is for messages.
 *
 * Raises 25006 in a read-only transaction and on a standby.
 */
void
alloc_store_begin(const char *command)
{
	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
	begin(command, GetTransactionSnapshot());
}

/*
 * alloc_store_begin_query
 *		Begins a query, which sees what the statement that calls it sees, and
 *		writes nothing.
 */
void
alloc_store_begin_query(const char *query)
{
	begin(query, GetActiveSnapshot());
	alloc_table_read_only(true);
}

static void
begin(const char *command, Snapshot snapshot)
{
	if (in_command)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("%s cannot be called while another alloc command is at work",
						command),
				 errhint("A trigger on a table of the extension must not call its commands.")));
	PushActiveSnapshot(snapshot);
	command_nest_level = GetCurrentTransactionNestLevel();
	in_command = true;
}

/*
 * alloc_store_end
 *		Ends the command, and makes its work visible to the next one.
 */
void
alloc_store_end(void)
{
	end();
	CommandCounterIncrement();
}

/*
 * alloc_store_end_query
 */
void
alloc_store_end_query(void)
{
	end();
	alloc_table_read_only(false);
}

static void
end(void)
{
	for (int i = 0; i < NTABLES; i++)
		if (alloc_tables[i].rel != NULL)
			alloc_table_close(&alloc_tables[i]);
	PopActiveSnapshot();
	in_command = false;
}

/*
 * alloc_store_look
 *		Looks at the state as it is now: the command's own work, and, in READ
 *		COMMITTED, what others have committed since the last look.
 */
void
alloc_store_look(void)
{
	CommandCounterIncrement();
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * After an error: the tables' relations and buffers, and the snapshot, have
 * been given back by others.
 */
static void
forget_command(void)
{
	for (int i = 0; i < NTABLES; i++)
		if (alloc_tables[i].rel != NULL)
			alloc_table_forget(&alloc_tables[i]);
	alloc_table_read_only(false);
	in_command = false;
}

static void
at_xact_end(XactEvent event, void *arg)
{
	if (in_command && event == XACT_EVENT_ABORT)
		forget_command();
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId my_subid,
			   SubTransactionId parent_subid, void *arg)
{
	if (in_command && event == SUBXACT_EVENT_ABORT_SUB &&
		GetCurrentTransactionNestLevel() <= command_nest_level)
		forget_command();
}

/* ---- products ---- */

/*
 * alloc_store_product_exists
 */
bool
alloc_store_product_exists(const text *sku)
{
	ScanKeyData key;

	alloc_key_text(&key, 1, sku);
	return alloc_table_find(&alloc_tables[PRODUCT], PRODUCT_SKU, &key, 1);
}

/*
 * alloc_store_renew_product
 *		Locks a product to change its batches, waiting for whoever has it.  To
 *		be followed by a look.  False: there is no such product.
 *
 * The lock is a new version of the row, not a mark on the old one: what the
 * batches of a sku add up to is decided under it, and a transaction whose
 * snapshot is older must not decide again on what it sees.  One new version in a
 * transaction is enough, and each look walks past those before it.
 */
bool
alloc_store_renew_product(const text *sku)
{
	AllocTable *table = &alloc_tables[PRODUCT];

	while (alloc_store_product_exists(sku))
	{
		ItemPointerData tid = table->found->tts_tid;

		if (alloc_table_found_ours(table))
			return true;
		alloc_row_set_text(alloc_table_row(table), PRODUCT_C_SKU, sku);
		if (alloc_store_is_unchanged(alloc_table_update(table, &tid)))
			return true;
		alloc_store_look();
	}
	return false;
}

/*
 * alloc_store_lock_product
 *		Locks a product, which exists, to take from several of its slots.  To
 *		be followed by a look.
 */
void
alloc_store_lock_product(const text *sku)
{
	AllocTable *table = &alloc_tables[PRODUCT];

	alloc_table_leave_queue(&alloc_tables[SLOT]);
	while (alloc_store_product_exists(sku))
	{
		ItemPointerData tid = table->found->tts_tid;

		if (alloc_store_is_unchanged(alloc_table_lock(table, &tid)))
			return;
		alloc_store_look();
	}
}

/*
 * alloc_store_try_lock_product
 *		Likewise, without waiting.  False: somebody has it, or has changed it
 *		since the last look.
 */
bool
alloc_store_try_lock_product(const text *sku)
{
	AllocTable *table = &alloc_tables[PRODUCT];
	ItemPointerData tid;

	if (!alloc_store_product_exists(sku))
		return false;
	tid = table->found->tts_tid;
	return alloc_table_try_lock(table, &tid);
}

/*
 * alloc_store_create_product
 *		Creates a product unless it is there, or somebody else is faster.  To
 *		be followed by a look.
 */
void
alloc_store_create_product(const text *sku)
{
	AllocTable *table = &alloc_tables[PRODUCT];
	ScanKeyData key;

	alloc_key_text(&key, 1, sku);
	if (alloc_store_settle_key(table, PRODUCT_SKU, &key, 1))
		return;
	alloc_row_set_text(alloc_table_row(table), PRODUCT_C_SKU, sku);
	(void) alloc_table_insert_new(table, PRODUCT_SKU);
}

/* ---- keys ---- */

/*
 * alloc_store_settle_key
 *		Is there a row with these keys of a unique index, committed or our
 *		own?  If so, it is in table->found.
 *
 * Waits for transactions that are inserting or deleting it.  Raises 40001
 * when there is one that the transaction's snapshot does not see.
 */
bool
alloc_store_settle_key(AllocTable *table, int index, ScanKey keys, int nkeys)
{
	for (;;)
	{
		ItemPointerData tid;
		TransactionId busy;

		/* The transaction's snapshot decides, and predicate locks are due. */
		if (IsolationUsesXactSnapshot() &&
			alloc_table_find(table, index, keys, nkeys))
			return true;
		if (!alloc_table_probe(table, index, keys, nkeys, &busy))
		{
			/*
			 * A row that moves while a probe is under way may be missed: its
			 * old version is dead by then, and the index entry of the new one
			 * came too late.  A snapshot does not miss it.
			 */
			alloc_store_look();
			if (!alloc_table_find(table, index, keys, nkeys))
				return false;
			continue;
		}
		if (!TransactionIdIsValid(busy))
		{
			if (IsolationUsesXactSnapshot())
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("could not serialize access due to concurrent insert"),
						 errhint("Run the transaction again.")));
			return true;
		}
		tid = table->found->tts_tid;
		alloc_table_leave_queue(&alloc_tables[SLOT]);
		XactLockTableWait(busy, table->rel, &tid, XLTW_InsertIndexUnique);
		alloc_store_look();
	}
}

/* ---- rows ---- */

/*
 * What an operation on a row says of others' work since the last look.
 * Raises 40001 when the transaction cannot look again.
 */
bool
alloc_store_is_unchanged(TM_Result result)
{
	if ((result == TM_Updated || result == TM_Deleted) &&
		IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update"),
				 errhint("Run the transaction again.")));
	return result == TM_Ok;
}

/*
 * A row that locks on others protect cannot have changed since the last
 * look, unless the transaction looks with its own snapshot only.
 */
void
alloc_store_require_unchanged(TM_Result result, const AllocTable *table)
{
	if (!alloc_store_is_unchanged(result))
		elog(ERROR, "row of \"%s\" changed under lock", table->name);
}
