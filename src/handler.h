/*-------------------------------------------------------------------------
 *
 * handler.h
 *	  The message bus: functions that are called with events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_HANDLER_H
#define ALLOC_HANDLER_H

#include "fmgr.h"
#include "store.h"
#include "utils/jsonb.h"

/* Settings */
extern int	alloc_handler_workers;
extern int	alloc_handler_timeout;	/* milliseconds */
extern int	alloc_handler_retries;
extern int	alloc_handler_retry_delay;	/* milliseconds */

extern void alloc_handler_note_event(const AllocEventRow *event);
extern bool alloc_handler_is_sync(const char *type);
extern void alloc_handler_begin(void);
extern bool alloc_handler_has_noted(void);
extern void alloc_handler_run_noted(void);
extern void alloc_handler_call(const AllocSubscription *subscription,
							   int64 event_id, Jsonb *event);

/* In the relay: see dispatch.c */
extern void alloc_dispatch_note_event(const char *type);
extern long alloc_dispatch(long delay);

/* In a handler's worker: see handler_worker.c */
extern PGDLLEXPORT void alloc_handler_main(Datum arg);
extern void alloc_handler_record_failure(int64 subscription_id, int64 event_id,
										 const char *message);

#endif							/* ALLOC_HANDLER_H */
