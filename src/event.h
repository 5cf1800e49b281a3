/*-------------------------------------------------------------------------
 *
 * event.h
 *	  Facts: their record in the log, their JSON, their notification.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_EVENT_H
#define ALLOC_EVENT_H

#include "lib/stringinfo.h"
#include "store.h"
#include "utils/jsonb.h"

/* Values of the setting alloc.notify. */
typedef enum AllocNotify
{
	ALLOC_NOTIFY_OFF,
	ALLOC_NOTIFY_COMMIT,		/* in the caller's transaction */
	ALLOC_NOTIFY_RELAY,			/* by the relay, after the commit */
	ALLOC_NOTIFY_AUTO			/* the best of what there is */
} AllocNotify;

/* Settings */
extern int	alloc_notify;
extern char *alloc_traceparent;

extern void alloc_event_init(void);

extern void alloc_event_batch_created(const AllocBatchRow *batch);
extern void alloc_event_quantity_changed(const AllocBatchRow *batch, int64 qty);
extern void alloc_event_allocated(int64 event_id, const AllocLine *line,
								  const text *batchref,
								  const AllocChain *before);
extern void alloc_event_deallocated(const AllocLine *line,
									const text *batchref);
extern void alloc_event_extended(const AllocLineRow *row,
								 const text *batchref);
extern void alloc_event_confirmed(const AllocLineRow *row,
								  const text *batchref);
extern void alloc_event_hold_expired(const AllocLine *line,
									 const text *batchref);
extern void alloc_event_out_of_stock(const AllocLine *line);
extern void alloc_event_backordered(int64 event_id, const AllocLine *line);
extern void alloc_event_eta_changed(const AllocBatchRow *batch,
									const AllocPlanBatch *now);
extern void alloc_event_promise_changed(const AllocLine *line,
										const AllocBatchRow *batch,
										const AllocPlanBatch *now);
extern void alloc_event_shipped(int64 event_id, const AllocLine *line,
								const text *batchref);
extern void alloc_event_repaired(const text *sku, const text *batchref,
								 const text *orderid, NullableDatum qty,
								 NullableDatum old_qty);

extern void alloc_event_send(const AllocEventRow *event);

extern void alloc_event_json(StringInfo json, const AllocEventRow *event);
extern Jsonb *alloc_event_jsonb(const AllocEventRow *event);

#endif							/* ALLOC_EVENT_H */
