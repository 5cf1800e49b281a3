/*-------------------------------------------------------------------------
 *
 * store_private.h
 *	  What the files of the repository share: the tables and their columns.
 *
 * For store.c and store_*.c only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_STORE_PRIVATE_H
#define ALLOC_STORE_PRIVATE_H

#include "executor/tuptable.h"
#include "store.h"
#include "table.h"

enum
{
	PRODUCT, BATCH, SLOT, ALLOCATION, HOLD, BACKORDER, EVENT, SNAPSHOT,
	SNAPSHOT_BATCH, SNAPSHOT_LINE, ARCHIVE, ERA, CONSUMER, POSITION, SUBSCRIPTION, DELIVERY,
	MESSAGE, NTABLES
};

extern AllocTable alloc_tables[NTABLES];

/* Positions in AllocTable.index_names */
enum
{
	PRODUCT_SKU = 0,
	BATCH_PKEY = 0, BATCH_REF, BATCH_PREFERENCE,
	SLOT_PKEY = 0, SLOT_PREFERENCE,
	ALLOCATION_LINE = 0,
	HOLD_LINE = 0, HOLD_EXPIRY, HOLD_ENDED, HOLD_DUE,
	BACKORDER_LINE = 0, BACKORDER_QUEUE,
	EVENT_PKEY = 0, EVENT_SKU,
	SNAPSHOT_PKEY = 0,
	SNAPSHOT_BATCH_SKU = 0,
	SNAPSHOT_LINE_BATCH = 0,
	ARCHIVE_PKEY = 0,
	CONSUMER_PKEY = 0, CONSUMER_NAME,
	POSITION_PKEY = 0,
	SUBSCRIPTION_PKEY = 0, SUBSCRIPTION_HANDLER,
	DELIVERY_PKEY = 0, DELIVERY_EVENT, DELIVERY_DUE,
	MESSAGE_ID = 0, MESSAGE_RECEIVED_AT
};

/* Columns, from 0 */
enum
{
	PRODUCT_C_SKU, PRODUCT_NCOLUMNS
};
enum
{
	BATCH_C_ID, BATCH_C_PURCHASED, BATCH_C_ETA, BATCH_C_REF, BATCH_C_SKU,
	BATCH_NCOLUMNS
};
enum
{
	SLOT_C_BATCH, SLOT_C_AVAILABLE, SLOT_C_SHIPPED, SLOT_C_NEWEST, SLOT_C_SLOT,
	SLOT_C_SPREAD, SLOT_C_WAITING, SLOT_C_EXHAUSTED, SLOT_C_SKU, SLOT_C_REF,
	SLOT_C_ETA, SLOT_C_HOLD_UNTIL, SLOT_C_MERGED, SLOT_NCOLUMNS
};
enum
{
	LINE_C_BATCH, LINE_C_EVENT, LINE_C_QTY, LINE_C_EXPIRES, LINE_C_SHIPPED,
	LINE_C_ORDERID, LINE_C_SKU, LINE_NCOLUMNS
};
enum
{
	HOLD_C_BATCH, HOLD_C_QTY, HOLD_C_EXPIRES, HOLD_C_ENDED, HOLD_C_ORDERID,
	HOLD_C_SKU, HOLD_C_BATCHREF, HOLD_NCOLUMNS
};
enum
{
	BACKORDER_C_EVENT, BACKORDER_C_QTY, BACKORDER_C_SINCE,
	BACKORDER_C_ORDERID, BACKORDER_C_SKU, BACKORDER_NCOLUMNS
};
enum
{
	EVENT_C_ID, EVENT_C_AT, EVENT_C_XACT, EVENT_C_QTY, EVENT_C_OLD_QTY,
	EVENT_C_PREVIOUS, EVENT_C_EXPIRES, EVENT_C_ETA, EVENT_C_OLD_ETA,
	EVENT_C_RELAY, EVENT_C_TYPE, EVENT_C_SKU, EVENT_C_ORDERID,
	EVENT_C_BATCHREF, EVENT_C_TRACEPARENT, EVENT_C_MERGED, EVENT_NCOLUMNS
};
enum
{
	SNAPSHOT_C_EVENT, SNAPSHOT_C_TAKEN_AT, SNAPSHOT_NCOLUMNS
};
enum
{
	SNAPSHOT_BATCH_C_SNAPSHOT, SNAPSHOT_BATCH_C_CREATED,
	SNAPSHOT_BATCH_C_PURCHASED, SNAPSHOT_BATCH_C_SHIPPED,
	SNAPSHOT_BATCH_C_ALLOCATED, SNAPSHOT_BATCH_C_ETA, SNAPSHOT_BATCH_C_REF,
	SNAPSHOT_BATCH_C_SKU, SNAPSHOT_BATCH_NCOLUMNS
};
enum
{
	SNAPSHOT_LINE_C_SNAPSHOT, SNAPSHOT_LINE_C_EVENT, SNAPSHOT_LINE_C_QTY,
	SNAPSHOT_LINE_C_EXPIRES, SNAPSHOT_LINE_C_SHIPPED, SNAPSHOT_LINE_C_SKU, SNAPSHOT_LINE_C_BATCHREF,
	SNAPSHOT_LINE_C_ORDERID, SNAPSHOT_LINE_NCOLUMNS
};
enum
{
	ARCHIVE_C_EVENT, ARCHIVE_C_MOVED_AT, ARCHIVE_NCOLUMNS
};
enum
{
	ERA_C_BEGAN_AT, ERA_NCOLUMNS
};
enum
{
	CONSUMER_C_ID, CONSUMER_C_KIND, CONSUMER_C_NAME, CONSUMER_NCOLUMNS
};
enum
{
	POSITION_C_CONSUMER, POSITION_C_MOVED, POSITION_C_SEEN_XMAX,
	POSITION_C_UPTO_XMAX, POSITION_C_GIVEN_TO, POSITION_C_BATCH_END,
	POSITION_C_LAST_EVENT, POSITION_C_LAST_FETCH, POSITION_C_SEEN_OPEN,
	POSITION_C_UPTO_OPEN, POSITION_C_MARKS, POSITION_NCOLUMNS
};
enum
{
	SUBSCRIPTION_C_ID, SUBSCRIPTION_C_ROLE, SUBSCRIPTION_C_TYPE,
	SUBSCRIPTION_C_HANDLER, SUBSCRIPTION_C_MODE, SUBSCRIPTION_C_PATH,
	SUBSCRIPTION_NCOLUMNS
};
enum
{
	DELIVERY_C_ID, DELIVERY_C_SUBSCRIPTION, DELIVERY_C_EVENT, DELIVERY_C_AT,
	DELIVERY_C_NEXT, DELIVERY_C_ATTEMPTS, DELIVERY_C_HANDLER, DELIVERY_C_ERROR,
	DELIVERY_NCOLUMNS
};
enum
{
	PARTITION_C_NUMBER, PARTITION_C_COUNT
};
enum
{
	MESSAGE_C_ID, MESSAGE_C_RECEIVED_AT, MESSAGE_C_BODY_HASH, MESSAGE_C_ANSWER,
	MESSAGE_NCOLUMNS
};

extern void alloc_store_require_unchanged(TM_Result result,
										  const AllocTable *table);
extern bool alloc_store_settle_key(AllocTable *table, int index,
								   ScanKey keys, int nkeys);
extern bool alloc_store_is_unchanged(TM_Result result);

extern void alloc_line_read(AllocLineRow *row);

extern int16 alloc_slot_random_number(void);
extern bool alloc_slot_find(int64 batch_id, int16 number, AllocSlotRow *slot);
extern void alloc_slot_set(const AllocBatchRow *batch,
						   const AllocSlotRow *slot);
extern void alloc_slot_must_write(const AllocBatchRow *batch,
								  const AllocSlotRow *slot);
extern void alloc_row_set_chain(TupleTableSlot *row, int newest, int merged,
								const AllocChain *chain);
extern AllocChain alloc_row_get_chain(const AllocTable *table, int newest,
									  int merged);
extern void alloc_row_set_eta(TupleTableSlot *row, int column,
							  const AllocPlanBatch *plan);
extern void alloc_row_get_eta(const AllocTable *table, int column,
							  AllocPlanBatch *plan);
extern void alloc_row_set_time(TupleTableSlot *row, int column,
							   TimestampTz value);
extern TimestampTz alloc_row_get_time(const AllocTable *table, int column);
extern TimestampTz alloc_earlier_moment(TimestampTz a, TimestampTz b);
extern void alloc_row_set_null(TupleTableSlot *row, int column);
extern void alloc_row_set(TupleTableSlot *row, int column, Datum value);
extern void alloc_row_set_text(TupleTableSlot *row, int column,
							   const text *value);
extern void alloc_row_set_nullable(TupleTableSlot *row, int column,
								   NullableDatum value);
extern Datum alloc_row_get(const AllocTable *table, int column);
extern NullableDatum alloc_row_get_nullable(const AllocTable *table,
											int column);
extern const text *alloc_row_get_text(const AllocTable *table, int column);
extern Datum alloc_int8_array(const int64 *values, int n);

#endif							/* ALLOC_STORE_PRIVATE_H */
