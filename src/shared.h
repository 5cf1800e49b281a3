/*-------------------------------------------------------------------------
 *
 * shared.h
 *	  What the processes of a server know of each other: which relay serves
 *	  which database, and which worker which handler.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_SHARED_H
#define ALLOC_SHARED_H

#include "storage/latch.h"

/* A database that wants a relay. */
typedef struct AllocWantedRelay
{
	Oid			database;
	bool		failed;			/* the last one did not end by itself */
} AllocWantedRelay;

/* A handler whose worker has ended. */
typedef struct AllocDeadHandler
{
	int64		subscription;
	int64		running;		/* the event it was called with then; 0: none */
	bool		more;			/* it left something to do */
	bool		failed;			/* it did not end by itself */
} AllocDeadHandler;

extern void alloc_shared_init(void);
extern bool alloc_shared_available(void);

extern bool alloc_shared_want_relay(Oid database);
extern void alloc_shared_wake_relay(void);
extern bool alloc_shared_relay_has_work(void);

extern void alloc_shared_begin_launcher(void);
extern int	alloc_shared_relays_in_want(AllocWantedRelay **wanted);

extern bool alloc_shared_begin_relay(Oid database);
extern void alloc_shared_unwant_relay(Oid database);

extern bool alloc_shared_want_handler(int64 subscription);
extern bool alloc_shared_begin_handler(Oid database, int64 subscription);
extern void alloc_shared_handler_runs(int64 event_id);
extern bool alloc_shared_handler_is_wanted(void);
extern void alloc_shared_set_crowded(bool crowded);
extern bool alloc_shared_is_crowded(void);
extern int	alloc_shared_handlers_at_work(void);
extern void alloc_shared_end_handler(bool more);
extern bool alloc_shared_dead_handler(AllocDeadHandler *handler);

extern void alloc_shared_pause(Oid database);
extern void alloc_shared_resume(Oid database);

#endif							/* ALLOC_SHARED_H */
