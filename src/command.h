/*-------------------------------------------------------------------------
 *
 * command.h
 *	  What the commands share: their errors, and what is done to a batch whose
 *	  product is locked.
 *
 * For command*.c, bulk.c, repair.c, message.c and sweep.c only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_COMMAND_H
#define ALLOC_COMMAND_H

#include "fmgr.h"
#include "nodes/execnodes.h"
#include "store.h"

/* Setting */
extern int	alloc_max_holds_per_order;

#define ERRCODE_ALLOC_UNKNOWN_SKU	MAKE_SQLSTATE('S', 'K', '0', '0', '1')
#define ERRCODE_ALLOC_UNKNOWN_BATCH MAKE_SQLSTATE('S', 'K', '0', '0', '2')
#define ERRCODE_ALLOC_OTHER_QUANTITY MAKE_SQLSTATE('S', 'K', '0', '0', '3')
#define ERRCODE_ALLOC_SHIPPED		MAKE_SQLSTATE('S', 'K', '0', '0', '4')
#define ERRCODE_ALLOC_HOLD_EXPIRED	MAKE_SQLSTATE('S', 'K', '0', '0', '5')
#define ERRCODE_ALLOC_OTHER_BODY	MAKE_SQLSTATE('S', 'K', '0', '0', '6')

extern void alloc_command_begin(const char *command);
extern void alloc_command_end(void);

extern text *alloc_place(const AllocLine *line);
extern PGDLLEXPORT Datum alloc_hold(PG_FUNCTION_ARGS);
extern text *alloc_try_free(const AllocLineRow *row, bool *nobody_waits);

extern bool alloc_is_over(const AllocLine *line);
extern bool alloc_confirm_line(const AllocLineRow *row);
extern void alloc_require_hold_room(const text *orderid);
extern bool alloc_find_hold_of(const AllocLineRow *row, AllocHoldRow *hold);
extern void alloc_sweep_sku(const text *sku);
extern void alloc_sweep_product(const text *sku);
extern bool alloc_end_hold(const AllocBatchRow *batch,
						   const AllocHoldRow *hold);
extern void alloc_save_swept(AllocBatchRow *batch, AllocChain *lines,
							 int64 ended);
extern void alloc_require_no_holds(const text *orderid, const text *sku);
extern void alloc_require_not_held(const AllocLine *line);

extern void alloc_lock_product_for(const text *sku);
extern bool alloc_buy_batch(AllocBatchRow *batch);
extern void alloc_set_quantity(const AllocBatchRow *batch, int64 qty,
							   ReturnSetInfo *result);
extern int64 alloc_retire(const AllocBatchRow *batch);
extern bool alloc_set_eta(const AllocBatchRow *batch,
						  const AllocPlanBatch *now, ReturnSetInfo *result);

extern void alloc_serve_from_new(const text *ref, const text *sku);
extern void alloc_give_and_serve(AllocBatchRow *batch, int64 qty);
extern bool alloc_serve_waiting(AllocBatchRow *batch, AllocChain *chain);
extern bool alloc_mark_slots(AllocBatchRow *batch, bool waiting);
extern void alloc_wait_for_stock(const AllocLine *line);
extern void alloc_queue_line(const AllocLine *line);
extern void alloc_leave_queue(const AllocLine *line);
extern bool alloc_leave_queue_now(const AllocLine *line);
extern bool alloc_waits_otherwise(const AllocLine *line);
extern void alloc_require_not_waiting_otherwise(const AllocLine *line);

extern void alloc_require_sum_fits(const text *sku, const text *except,
								   int64 qty);
extern void alloc_require_batch(const text *ref, AllocBatchRow *batch);
extern void alloc_require_not_shipped(const text *ref, int64 shipped,
									  int64 qty);
extern void alloc_unknown_sku(const text *sku);
extern void alloc_require_same_qty(const AllocLine *line, int64 qty_there);

#endif							/* ALLOC_COMMAND_H */
