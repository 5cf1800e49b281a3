/*-------------------------------------------------------------------------
 *
 * store.h
 *	  The repository: products, batches, slots, lines and events as rows.
 *
 * Functions work on the state that the last alloc_store_look() saw, and
 * between alloc_store_begin() and alloc_store_end() only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_STORE_H
#define ALLOC_STORE_H

#include "planner.h"
#include "datatype/timestamp.h"
#include "storage/itemptr.h"

/* An order line, as the customer sent it. */
typedef struct AllocLine
{
	const text *orderid;
	const text *sku;
	int64		qty;
} AllocLine;

/* A line that a batch serves. */
typedef struct AllocLineRow
{
	AllocLine	line;
	int64		batch_id;
	int64		event_id;		/* that allocated it: its age */
	ItemPointerData tid;
} AllocLineRow;

/* A batch with its slot, which has a copy of most of it. */
typedef struct AllocBatchRow
{
	AllocPlanBatch plan;
	text	   *ref;
	text	   *sku;
	int64		purchased;		/* not in the slot */
	ItemPointerData tid;		/* neither */
	int64		shipped;
	ItemPointerData slot_tid;
	TransactionId slot_busy;	/* who was at work on it, if anybody */
	int32		slot;
} AllocBatchRow;

/* A row of the log; keys that do not apply are NULL. */
typedef struct AllocEventRow
{
	int64		event_id;
	TimestampTz at;
	const char *type;
	const text *sku;
	const text *orderid;
	const text *batchref;
	NullableDatum qty;			/* bigint */
	NullableDatum old_qty;		/* bigint */
	NullableDatum eta;			/* date */
	NullableDatum old_eta;		/* date */
} AllocEventRow;

extern void alloc_store_init(void);

extern void alloc_store_begin(const char *command);
extern void alloc_store_end(void);
extern void alloc_store_look(void);

extern bool alloc_store_find_line(const text *orderid, const text *sku,
								  AllocLineRow *row);
extern bool alloc_store_settle_line(const AllocLine *line, AllocLineRow *row);
extern bool alloc_store_insert_line(const AllocLine *line, int64 batch_id,
									int64 event_id);
extern void alloc_store_move_line(const AllocLineRow *row, int64 batch_id,
								  int64 event_id);
extern void alloc_store_delete_line(const AllocLineRow *row);
extern size_t alloc_store_newest_lines(int64 batch_id, int64 deficit,
									   AllocLineRow **rows);

extern bool alloc_store_find_batch(const text *ref, AllocBatchRow *batch);
extern bool alloc_store_settle_ref(const text *ref, AllocBatchRow *batch);
extern void alloc_store_get_batch(int64 batch_id, AllocBatchRow *batch);
extern bool alloc_store_best_batch(const text *sku, int64 qty,
								   AllocBatchRow *batch, bool *known_sku);
extern size_t alloc_store_batches(const text *sku, AllocBatchRow **batches);
extern bool alloc_store_insert_batch(const AllocBatchRow *batch);
extern void alloc_store_set_purchased(const AllocBatchRow *batch,
									  int64 purchased);

extern bool alloc_store_take(const AllocBatchRow *batch, int64 qty);
extern bool alloc_store_give(const AllocBatchRow *batch, int64 qty);
extern void alloc_store_wait_slot(const AllocBatchRow *batch);
extern void alloc_store_lock_slots(const AllocBatchRow *batch);
extern void alloc_store_set_available(const AllocBatchRow *batch,
									  int64 available);

extern bool alloc_store_lock_product(const text *sku);
extern void alloc_store_create_product(const text *sku);

extern int64 alloc_store_next_event_id(void);
extern void alloc_store_insert_event(const AllocEventRow *event);

#endif							/* ALLOC_STORE_H */
