/*-------------------------------------------------------------------------
 *
 * shared_private.h
 *	  What is in shared memory.
 *
 * For shared.c and shared_handler.c only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_SHARED_PRIVATE_H
#define ALLOC_SHARED_PRIVATE_H

#include "shared.h"
#include "storage/lwlock.h"

/* What is to be served, and its worker if there is one. */
typedef struct AllocSharedWorker
{
	Oid			database;		/* invalid: the entry is free */
	int64		subscription;	/* 0: the relay */
	bool		wanted;			/* there is, or may be, something to do */
	bool		failed;			/* the last one did not end by itself */
	pid_t		pid;			/* 0: there is none */
	Latch	   *latch;
	volatile bool work;			/* of a relay: somebody has committed events */
	pid_t		paused_by;		/* of a relay; 0: by nobody */
	bool		crowded;		/* of a relay: handlers wait for a worker */
	int64		running;		/* of a handler: the event that it handles */
} AllocSharedWorker;

typedef struct AllocSharedState
{
	LWLock	   *lock;
	Latch	   *launcher_latch; /* NULL: there is no launcher */
	AllocSharedWorker workers[FLEXIBLE_ARRAY_MEMBER];
} AllocSharedState;

extern AllocSharedState *alloc_shared;
extern int	alloc_shared_nworkers;

extern AllocSharedWorker *alloc_shared_find_relay(Oid database);
extern AllocSharedWorker *alloc_shared_find_worker(Oid database,
												   int64 subscription);
extern AllocSharedWorker *alloc_shared_add_worker(Oid database,
												  int64 subscription);
extern bool alloc_shared_is_paused(AllocSharedWorker *relay);
extern void alloc_shared_wake_handlers(Oid database);

#endif							/* ALLOC_SHARED_PRIVATE_H */
