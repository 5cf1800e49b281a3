/*-------------------------------------------------------------------------
 *
 * shared.h
 *	  What the processes of a server know of each other: which relay serves
 *	  which database.
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

extern void alloc_shared_init(void);
extern bool alloc_shared_available(void);

extern void alloc_shared_want_relay(Oid database);
extern void alloc_shared_wake_relay(void);

extern void alloc_shared_begin_launcher(void);
extern int	alloc_shared_relays_in_want(AllocWantedRelay **wanted);

extern bool alloc_shared_begin_relay(Oid database);
extern void alloc_shared_unwant_relay(Oid database);

extern void alloc_shared_pause(Oid database);
extern void alloc_shared_resume(Oid database);

#endif							/* ALLOC_SHARED_H */
