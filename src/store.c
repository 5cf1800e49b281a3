/*-------------------------------------------------------------------------
 *
 * store.c
 *	  The repository: products, batches, slots, lines and events as rows.
 *
 * The only file that knows the tables of sql/10_tables.sql.  Commands call it
 * between alloc_store_begin() and alloc_store_end(); reads see the state of
 * the last alloc_store_look(), which in READ COMMITTED is a new snapshot and
 * in the stricter levels the transaction's own.
 *
 * Locks, and why single calls never deadlock with each other:
 *
 * - A key (of a line, a batch, a product) that is about to be inserted is
 *	 claimed by a heavyweight lock until its row is in the index.  Who holds a
 *	 claim waits for nobody, so that claims cannot be part of a cycle.
 * - A product's row is locked by commands that change its batches: add_batch
 *	 and change_batch_quantity of one sku take turns.
 * - Slots come next, in order of preference of their batches.  allocate() and
 *	 deallocate() have one slot, and nothing of the sku when they wait for it.
 * - Lines come last.  A line leaves a batch only by the hand of somebody who
 *	 has written a slot of that batch, so a line whose batch's slot was not
 *	 written since the last look has not moved either.
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
#include "claim.h"
#include "compat.h"
#include "miscadmin.h"
#include "store.h"
#include "table.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

enum
{
	PRODUCT, BATCH, SLOT, ALLOCATION, EVENT, NTABLES
};

/* Positions in AllocTable.index_names */
enum
{
	PRODUCT_SKU = 0,
	BATCH_PKEY = 0, BATCH_REF, BATCH_PREFERENCE,
	SLOT_PKEY = 0,
	ALLOCATION_LINE = 0, ALLOCATION_BATCH
};

static AllocTable tables[NTABLES] = {
	[PRODUCT] = {.name = "product",.index_names = {"product_sku"}},
	[BATCH] = {.name = "batch",.sequence = "batch_id_seq",
	.index_names = {"batch_pkey", "batch_ref", "batch_preference"}},
	[SLOT] = {.name = "slot",.index_names = {"slot_pkey"}},
	[ALLOCATION] = {.name = "allocation",
	.index_names = {"allocation_line", "allocation_batch"}},
	[EVENT] = {.name = "event",.sequence = "event_id_seq"}
};

/* Columns, from 0 */
enum
{
	PRODUCT_C_SKU
};
enum
{
	BATCH_C_ID, BATCH_C_PURCHASED, BATCH_C_ETA, BATCH_C_REF, BATCH_C_SKU
};
enum
{
	SLOT_C_BATCH, SLOT_C_AVAILABLE, SLOT_C_SHIPPED, SLOT_C_SLOT
};
enum
{
	LINE_C_BATCH, LINE_C_EVENT, LINE_C_QTY, LINE_C_EXPIRES, LINE_C_ORDERID,
	LINE_C_SKU
};
enum
{
	EVENT_C_ID, EVENT_C_AT, EVENT_C_QTY, EVENT_C_OLD_QTY, EVENT_C_ETA,
	EVENT_C_OLD_ETA, EVENT_C_TYPE, EVENT_C_SKU, EVENT_C_ORDERID,
	EVENT_C_BATCHREF
};

static bool in_command;
static int	command_nest_level;

static void forget_command(void);
static void at_xact_end(XactEvent event, void *arg);
static void at_subxact_end(SubXactEvent event, SubTransactionId my_subid,
						   SubTransactionId parent_subid, void *arg);
static void set_line_keys(ScanKey keys, const text *orderid, const text *sku);
static void set_line(TupleTableSlot *row, const AllocLine *line,
					 int64 batch_id, int64 event_id);
static void set_batch(TupleTableSlot *row, const AllocBatchRow *batch,
					  int64 purchased);
static void set_slot(TupleTableSlot *row, const AllocBatchRow *batch,
					 int64 available);
static void read_line(AllocLineRow *row);
static void read_batch(AllocBatchRow *batch);
static void read_slots(AllocBatchRow *batch);
static bool adjust_slot(const AllocBatchRow *batch, int64 delta, bool wait);
static void require_unchanged(TM_Result result, const char *what);
static void raise_serialization_failure(void);
static void set_null(TupleTableSlot *row, int column);
static void set_value(TupleTableSlot *row, int column, Datum value);
static void set_text(TupleTableSlot *row, int column, const text *value);
static void set_nullable(TupleTableSlot *row, int column, NullableDatum value);
static Datum get_value(AllocTable *table, int column);

/*
 * alloc_store_init
 *		Once per backend, when the library is loaded.
 */
void
alloc_store_init(void)
{
	alloc_table_init(tables, NTABLES);
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
	if (in_command)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("%s cannot be called while another alloc command is at work",
						command),
				 errhint("A trigger on a table of the extension must not call its commands.")));
	PushActiveSnapshot(GetTransactionSnapshot());
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
	for (int i = 0; i < NTABLES; i++)
		alloc_table_close(&tables[i]);
	PopActiveSnapshot();
	CommandCounterIncrement();
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
		if (tables[i].rel != NULL)
			alloc_table_forget(&tables[i]);
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

/* ---- lines ---- */

/*
 * alloc_store_find_line
 *		The line of an order, if a batch serves it.
 */
bool
alloc_store_find_line(const text *orderid, const text *sku, AllocLineRow *row)
{
	ScanKeyData keys[2];

	set_line_keys(keys, orderid, sku);
	if (!alloc_table_find(&tables[ALLOCATION], ALLOCATION_LINE, keys, 2))
		return false;
	read_line(row);
	return true;
}

/*
 * alloc_store_claim_line
 *		The line, if it is there (true); otherwise the right to insert it
 *		(false), until alloc_store_unclaim_line().
 *
 * Waits for the end of a transaction that is about to insert or delete it.
 */
bool
alloc_store_claim_line(const AllocLine *line, AllocLineRow *row)
{
	ScanKeyData keys[2];

	set_line_keys(keys, line->orderid, line->sku);
	if (!alloc_claim_key(&tables[ALLOCATION], ALLOCATION_LINE, keys, 2))
		return false;
	read_line(row);
	/* The line may be newer than the last look: so may be its batch. */
	alloc_store_look();
	return true;
}

void
alloc_store_unclaim_line(const AllocLine *line)
{
	ScanKeyData keys[2];

	set_line_keys(keys, line->orderid, line->sku);
	alloc_unclaim_key(&tables[ALLOCATION], ALLOCATION_LINE, keys, 2);
}

/*
 * alloc_store_insert_line
 *		Records that a batch serves a line, which has been claimed.
 */
void
alloc_store_insert_line(const AllocLine *line, int64 batch_id, int64 event_id)
{
	AllocTable *table = &tables[ALLOCATION];

	set_line(alloc_table_row(table), line, batch_id, event_id);
	alloc_table_insert(table);
}

/*
 * alloc_store_move_line
 *		Gives a line another batch.
 *
 * All slots of the old one are locked by the caller.  The claim is for those
 * who probe for the line meanwhile: an index entry that moves while it is
 * uncommitted may be missed without it.
 */
void
alloc_store_move_line(const AllocLineRow *row, int64 batch_id, int64 event_id)
{
	AllocTable *table = &tables[ALLOCATION];
	ItemPointerData tid = row->tid;
	ScanKeyData keys[2];

	set_line_keys(keys, row->line.orderid, row->line.sku);
	alloc_claim_present_key(table, ALLOCATION_LINE, keys, 2);
	set_line(alloc_table_row(table), &row->line, batch_id, event_id);
	require_unchanged(alloc_table_update(table, &tid, true), table->name);
	alloc_unclaim_key(table, ALLOCATION_LINE, keys, 2);
}

/*
 * alloc_store_delete_line
 *		Takes a line off.  The caller has written a slot of its batch.
 */
void
alloc_store_delete_line(const AllocLineRow *row)
{
	ItemPointerData tid = row->tid;

	require_unchanged(alloc_table_delete(&tables[ALLOCATION], &tid),
					  tables[ALLOCATION].name);
}

/*
 * alloc_store_newest_lines
 *		The lines that leave a batch which lacks deficit units (more than 0),
 *		newest first.
 *
 * Reads those and no others.  Returns how many, and them in *rows.
 */
size_t
alloc_store_newest_lines(int64 batch_id, int64 deficit, AllocLineRow **rows)
{
	AllocTable *table = &tables[ALLOCATION];
	ScanKeyData key;
	IndexScanDesc scan;
	size_t		n = 0;
	size_t		room = 16;

	*rows = palloc_array(AllocLineRow, room);
	alloc_key_int8(&key, 1, batch_id);
	scan = alloc_table_scan(table, ALLOCATION_BATCH, GetActiveSnapshot(),
							&key, 1);
	while (deficit > 0 && alloc_table_next(table, scan, BackwardScanDirection))
	{
		if (n == room)
		{
			room *= 2;
			*rows = repalloc_huge(*rows, room * sizeof(AllocLineRow));
		}
		read_line(&(*rows)[n]);
		deficit = alloc_plan_shed(deficit, (*rows)[n].line.qty);
		n++;
	}
	index_endscan(scan);
	if (deficit > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the slots of batch " INT64_FORMAT " account for more allocated units than its lines have",
						batch_id)));
	return n;
}

/* ---- batches and slots ---- */

/*
 * alloc_store_find_batch
 *		The batch of a reference, with its slots.
 */
bool
alloc_store_find_batch(const text *ref, AllocBatchRow *batch)
{
	ScanKeyData key;

	alloc_key_text(&key, 1, ref);
	if (!alloc_table_find(&tables[BATCH], BATCH_REF, &key, 1))
		return false;
	read_batch(batch);
	read_slots(batch);
	return true;
}

/*
 * alloc_store_claim_ref
 *		The batch of a reference, without its slots, if it is there (true);
 *		otherwise the right to insert it (false), until
 *		alloc_store_unclaim_ref().
 */
bool
alloc_store_claim_ref(const text *ref, AllocBatchRow *batch)
{
	ScanKeyData key;

	alloc_key_text(&key, 1, ref);
	if (!alloc_claim_key(&tables[BATCH], BATCH_REF, &key, 1))
		return false;
	read_batch(batch);
	return true;
}

void
alloc_store_unclaim_ref(const text *ref)
{
	ScanKeyData key;

	alloc_key_text(&key, 1, ref);
	alloc_unclaim_key(&tables[BATCH], BATCH_REF, &key, 1);
}

/*
 * alloc_store_get_batch
 *		The batch that a line names.
 */
void
alloc_store_get_batch(int64 batch_id, AllocBatchRow *batch)
{
	ScanKeyData key;

	alloc_key_int8(&key, 1, batch_id);
	if (!alloc_table_find(&tables[BATCH], BATCH_PKEY, &key, 1))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("batch " INT64_FORMAT " does not exist", batch_id),
				 errdetail("An order line says that this batch serves it.")));
	read_batch(batch);
	read_slots(batch);
}

/*
 * alloc_store_best_batch
 *		The preferred batch of a sku that can serve a line of qty units.
 *
 * Reads no further than that batch.  *known_sku tells whether the sku has a
 * batch at all.
 */
bool
alloc_store_best_batch(const text *sku, int64 qty, AllocBatchRow *batch,
					   bool *known_sku)
{
	AllocTable *table = &tables[BATCH];
	ScanKeyData key;
	IndexScanDesc scan;
	bool		found = false;

	*known_sku = false;
	alloc_key_text(&key, 1, sku);
	scan = alloc_table_scan(table, BATCH_PREFERENCE, GetActiveSnapshot(),
							&key, 1);
	while (!found && alloc_table_next(table, scan, ForwardScanDirection))
	{
		*known_sku = true;
		batch->plan.batch_id = DatumGetInt64(get_value(table, BATCH_C_ID));
		read_slots(batch);
		found = alloc_plan_serves(&batch->plan, qty);
	}
	if (found)
		read_batch(batch);
	index_endscan(scan);
	return found;
}

/*
 * alloc_store_batches
 *		All batches of a sku, with their slots, in order of preference.
 *
 * Returns how many, and them in *batches.
 */
size_t
alloc_store_batches(const text *sku, AllocBatchRow **batches)
{
	AllocTable *table = &tables[BATCH];
	ScanKeyData key;
	IndexScanDesc scan;
	size_t		n = 0;
	size_t		room = 16;

	*batches = palloc_array(AllocBatchRow, room);
	alloc_key_text(&key, 1, sku);
	scan = alloc_table_scan(table, BATCH_PREFERENCE, GetActiveSnapshot(),
							&key, 1);
	while (alloc_table_next(table, scan, ForwardScanDirection))
	{
		if (n == room)
		{
			room *= 2;
			*batches = repalloc_huge(*batches, room * sizeof(AllocBatchRow));
		}
		read_batch(&(*batches)[n]);
		read_slots(&(*batches)[n]);
		n++;
	}
	index_endscan(scan);
	return n;
}

/*
 * alloc_store_insert_batch
 *		A new batch with one slot that has all of its units.  Its reference
 *		has been claimed, its product locked.
 */
void
alloc_store_insert_batch(const AllocBatchRow *batch)
{
	AllocBatchRow numbered = *batch;

	numbered.plan.batch_id = alloc_table_nextval(&tables[BATCH]);
	set_batch(alloc_table_row(&tables[BATCH]), &numbered, batch->purchased);
	alloc_table_insert(&tables[BATCH]);
	set_slot(alloc_table_row(&tables[SLOT]), &numbered, batch->purchased);
	alloc_table_insert(&tables[SLOT]);
}

/*
 * alloc_store_set_purchased
 *		Changes the purchased quantity, of a batch whose product is locked.
 */
void
alloc_store_set_purchased(const AllocBatchRow *batch, int64 purchased)
{
	AllocTable *table = &tables[BATCH];
	ItemPointerData tid = batch->tid;

	set_batch(alloc_table_row(table), batch, purchased);
	require_unchanged(alloc_table_update(table, &tid, true), table->name);
}

/*
 * alloc_store_lock_slots
 *		Locks the slots of a batch, waiting for whoever has them.  To be
 *		followed by a look.
 */
void
alloc_store_lock_slots(const AllocBatchRow *batch)
{
	ItemPointerData tid = batch->slot_tid;

	require_unchanged(alloc_table_lock(&tables[SLOT], &tid),
					  tables[SLOT].name);
}

/*
 * alloc_store_take
 *		Takes qty units, which the last look saw available, from a batch.
 *
 * Does not wait.  False: somebody has the slot, or has changed it.  Then
 * there is alloc_store_wait_slots().
 */
bool
alloc_store_take(const AllocBatchRow *batch, int64 qty)
{
	return adjust_slot(batch, -qty, false);
}

/*
 * alloc_store_give
 *		Gives qty units back to a batch, waiting for whoever has its slot.
 *
 * False: it has changed; look again.
 */
bool
alloc_store_give(const AllocBatchRow *batch, int64 qty)
{
	return adjust_slot(batch, qty, true);
}

/*
 * alloc_store_wait_slots
 *		Waits until nobody else has the slots of a batch, and looks again.
 */
void
alloc_store_wait_slots(const AllocBatchRow *batch)
{
	ItemPointerData tid = batch->slot_tid;

	if (alloc_table_wait(&tables[SLOT], &tid) != TM_Ok &&
		IsolationUsesXactSnapshot())
		raise_serialization_failure();
	alloc_store_look();
}

/*
 * alloc_store_set_available
 *		Changes the available units of a batch whose slots are locked.
 */
void
alloc_store_set_available(const AllocBatchRow *batch, int64 available)
{
	if (!adjust_slot(batch, available - batch->plan.available, true))
		elog(ERROR, "slot of batch " INT64_FORMAT " changed under lock",
			 batch->plan.batch_id);
}

/* ---- products ---- */

/*
 * alloc_store_lock_product
 *		Locks a product, waiting for whoever has it.  To be followed by a
 *		look.  False: there is no such product.
 */
bool
alloc_store_lock_product(const text *sku)
{
	AllocTable *table = &tables[PRODUCT];
	ItemPointerData tid;
	ScanKeyData key;

	alloc_key_text(&key, 1, sku);
	if (!alloc_table_find(table, PRODUCT_SKU, &key, 1))
		return false;
	tid = table->found->tts_tid;
	require_unchanged(alloc_table_lock(table, &tid), table->name);
	return true;
}

/*
 * alloc_store_create_product
 *		Creates a product unless it is there.  It is not locked then.
 */
void
alloc_store_create_product(const text *sku)
{
	AllocTable *table = &tables[PRODUCT];
	ScanKeyData key;

	alloc_key_text(&key, 1, sku);
	if (alloc_claim_key(table, PRODUCT_SKU, &key, 1))
		return;
	set_text(alloc_table_row(table), PRODUCT_C_SKU, sku);
	alloc_table_insert(table);
	alloc_unclaim_key(table, PRODUCT_SKU, &key, 1);
}

/* ---- the log ---- */

/*
 * alloc_store_next_event_id
 *		To be drawn when the locks are held, so that the order of ids is the
 *		order of causes.
 */
int64
alloc_store_next_event_id(void)
{
	return alloc_table_nextval(&tables[EVENT]);
}

void
alloc_store_insert_event(const AllocEventRow *event)
{
	TupleTableSlot *row = alloc_table_row(&tables[EVENT]);
	text	   *type = cstring_to_text(event->type);

	set_value(row, EVENT_C_ID, Int64GetDatum(event->event_id));
	set_value(row, EVENT_C_AT, TimestampTzGetDatum(event->at));
	set_nullable(row, EVENT_C_QTY, event->qty);
	set_nullable(row, EVENT_C_OLD_QTY, event->old_qty);
	set_nullable(row, EVENT_C_ETA, event->eta);
	set_nullable(row, EVENT_C_OLD_ETA, event->old_eta);
	set_text(row, EVENT_C_TYPE, type);
	set_text(row, EVENT_C_SKU, event->sku);
	set_text(row, EVENT_C_ORDERID, event->orderid);
	set_text(row, EVENT_C_BATCHREF, event->batchref);
	alloc_table_insert(&tables[EVENT]);
	pfree(type);
}

/* ---- rows ---- */

static void
set_line_keys(ScanKey keys, const text *orderid, const text *sku)
{
	alloc_key_text(&keys[0], 1, orderid);
	alloc_key_text(&keys[1], 2, sku);
}

static void
set_line(TupleTableSlot *row, const AllocLine *line, int64 batch_id,
		 int64 event_id)
{
	set_value(row, LINE_C_BATCH, Int64GetDatum(batch_id));
	set_value(row, LINE_C_EVENT, Int64GetDatum(event_id));
	set_value(row, LINE_C_QTY, Int64GetDatum(line->qty));
	set_null(row, LINE_C_EXPIRES);
	set_text(row, LINE_C_ORDERID, line->orderid);
	set_text(row, LINE_C_SKU, line->sku);
}

static void
set_batch(TupleTableSlot *row, const AllocBatchRow *batch, int64 purchased)
{
	set_value(row, BATCH_C_ID, Int64GetDatum(batch->plan.batch_id));
	set_value(row, BATCH_C_PURCHASED, Int64GetDatum(purchased));
	if (batch->plan.in_stock)
		set_null(row, BATCH_C_ETA);
	else
		set_value(row, BATCH_C_ETA, DateADTGetDatum(batch->plan.eta));
	set_text(row, BATCH_C_REF, batch->ref);
	set_text(row, BATCH_C_SKU, batch->sku);
}

static void
set_slot(TupleTableSlot *row, const AllocBatchRow *batch, int64 available)
{
	set_value(row, SLOT_C_BATCH, Int64GetDatum(batch->plan.batch_id));
	set_value(row, SLOT_C_AVAILABLE, Int64GetDatum(available));
	set_value(row, SLOT_C_SHIPPED, Int64GetDatum(batch->shipped));
	set_value(row, SLOT_C_SLOT, Int32GetDatum(batch->slot));
}

/*
 * The line that a scan found.
 */
static void
read_line(AllocLineRow *row)
{
	AllocTable *table = &tables[ALLOCATION];

	row->batch_id = DatumGetInt64(get_value(table, LINE_C_BATCH));
	row->event_id = DatumGetInt64(get_value(table, LINE_C_EVENT));
	row->line.qty = DatumGetInt64(get_value(table, LINE_C_QTY));
	row->line.orderid = DatumGetTextPCopy(get_value(table, LINE_C_ORDERID));
	row->line.sku = DatumGetTextPCopy(get_value(table, LINE_C_SKU));
	row->tid = table->found->tts_tid;
}

/*
 * The batch that a scan found, but for its slots.
 */
static void
read_batch(AllocBatchRow *batch)
{
	AllocTable *table = &tables[BATCH];

	batch->plan.batch_id = DatumGetInt64(get_value(table, BATCH_C_ID));
	batch->plan.in_stock = table->found->tts_isnull[BATCH_C_ETA];
	batch->plan.eta = batch->plan.in_stock ? 0 :
		DatumGetDateADT(get_value(table, BATCH_C_ETA));
	batch->purchased = DatumGetInt64(get_value(table, BATCH_C_PURCHASED));
	batch->ref = DatumGetTextPCopy(get_value(table, BATCH_C_REF));
	batch->sku = DatumGetTextPCopy(get_value(table, BATCH_C_SKU));
	batch->tid = table->found->tts_tid;
}

/*
 * The slot of a batch.
 */
static void
read_slots(AllocBatchRow *batch)
{
	AllocTable *table = &tables[SLOT];
	ScanKeyData key;

	alloc_key_int8(&key, 1, batch->plan.batch_id);
	if (!alloc_table_find(table, SLOT_PKEY, &key, 1))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("batch " INT64_FORMAT " has no slot",
						batch->plan.batch_id)));
	batch->plan.available = DatumGetInt64(get_value(table, SLOT_C_AVAILABLE));
	batch->shipped = DatumGetInt64(get_value(table, SLOT_C_SHIPPED));
	batch->slot = DatumGetInt32(get_value(table, SLOT_C_SLOT));
	batch->slot_tid = table->found->tts_tid;
}

/*
 * Adds delta units to the slot of a batch.  False: it has changed since the
 * last look, or, without waiting, somebody may be about to.
 */
static bool
adjust_slot(const AllocBatchRow *batch, int64 delta, bool wait)
{
	AllocTable *table = &tables[SLOT];
	ItemPointerData tid = batch->slot_tid;
	TM_Result	result;

	set_slot(alloc_table_row(table), batch, batch->plan.available + delta);
	result = alloc_table_update(table, &tid, wait);
	if (result != TM_Ok && result != TM_BeingModified &&
		IsolationUsesXactSnapshot())
		raise_serialization_failure();
	return result == TM_Ok;
}

/*
 * A row that locks on others protect cannot have changed since the last
 * look, unless the transaction looks with its own snapshot only.
 */
static void
require_unchanged(TM_Result result, const char *what)
{
	if (result == TM_Ok)
		return;
	if (IsolationUsesXactSnapshot())
		raise_serialization_failure();
	elog(ERROR, "row of \"%s\" changed under lock", what);
}

static void
raise_serialization_failure(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent update"),
			 errhint("Run the transaction again.")));
}

static void
set_null(TupleTableSlot *row, int column)
{
	row->tts_isnull[column] = true;
}

static void
set_value(TupleTableSlot *row, int column, Datum value)
{
	row->tts_isnull[column] = false;
	row->tts_values[column] = value;
}

static void
set_text(TupleTableSlot *row, int column, const text *value)
{
	if (value == NULL)
		set_null(row, column);
	else
		set_value(row, column, PointerGetDatum(value));
}

static void
set_nullable(TupleTableSlot *row, int column, NullableDatum value)
{
	if (value.isnull)
		set_null(row, column);
	else
		set_value(row, column, value.value);
}

/*
 * A column of the row that a scan found.
 */
static Datum
get_value(AllocTable *table, int column)
{
	if (table->found->tts_isnull[column])
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column %d of a row of \"alloc.%s\" is null",
						column + 1, table->name)));
	return table->found->tts_values[column];
}
