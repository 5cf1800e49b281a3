/*-------------------------------------------------------------------------
 *
 * relay.h
 *	  The background workers: launcher and relays.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_RELAY_H
#define ALLOC_RELAY_H

#include "fmgr.h"

extern void alloc_launcher_register(void);
extern PGDLLEXPORT void alloc_launcher_main(Datum arg);
extern PGDLLEXPORT void alloc_relay_main(Datum arg);

extern void alloc_relay_init(void);
extern void alloc_relay_note_work(void);

/* In the relay: see sweep.c */
extern long alloc_sweep(void);

extern void alloc_worker_begin(const char *name, Oid database);
extern bool alloc_worker_lock_extension(void);
extern void alloc_worker_obey(void);
extern void alloc_worker_sleep(long milliseconds, const char *wait_event);

#endif							/* ALLOC_RELAY_H */
