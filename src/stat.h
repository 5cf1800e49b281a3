/*-------------------------------------------------------------------------
 *
 * stat.h
 *	  Counters: what the commands of a database have done.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_STAT_H
#define ALLOC_STAT_H

/* What is counted; the names are in stat.c. */
typedef enum AllocStat
{
	/* calls of commands */
	ALLOC_STAT_ADD_BATCH,
	ALLOC_STAT_ALLOCATE,
	ALLOC_STAT_ALLOCATE_LINES,
	ALLOC_STAT_ALLOCATE_ORDER,
	ALLOC_STAT_CANCEL_BACKORDER,
	ALLOC_STAT_CHANGE_BATCH_ETA,
	ALLOC_STAT_CHANGE_BATCH_QUANTITY,
	ALLOC_STAT_CONFIRM,
	ALLOC_STAT_DEALLOCATE,
	ALLOC_STAT_EXTEND_HOLD,
	ALLOC_STAT_HANDLE,
	ALLOC_STAT_HOLD,
	ALLOC_STAT_PURGE_SHIPPED,
	ALLOC_STAT_RELEASE,
	ALLOC_STAT_SHIP,
	ALLOC_STAT_SYNC_BATCHES,
	/* what they came to */
	ALLOC_STAT_LINES_ALLOCATED,
	ALLOC_STAT_LINES_DEALLOCATED,
	ALLOC_STAT_LINES_MOVED,
	ALLOC_STAT_LINES_SHIPPED,
	ALLOC_STAT_OUT_OF_STOCK,
	ALLOC_STAT_LINES_BACKORDERED,
	ALLOC_STAT_BACKORDERS_SERVED,
	ALLOC_STAT_BACKORDERS_CANCELED,
	ALLOC_STAT_LINES_HELD,
	ALLOC_STAT_HOLDS_CONFIRMED,
	ALLOC_STAT_HOLDS_RELEASED,
	ALLOC_STAT_HOLDS_EXPIRED,
	ALLOC_STAT_PROMISES_CHANGED,
	ALLOC_STAT_MESSAGES_REPEATED,
	/* how they got into each other's way */
	ALLOC_STAT_SLOT_WAITS,
	ALLOC_STAT_SLOT_SPLITS,
	ALLOC_STAT_SLOT_MERGES,
	ALLOC_NSTATS
} AllocStat;

extern void alloc_stat_init(void);

extern void alloc_stat_count(AllocStat stat);
extern void alloc_stat_count_now(AllocStat stat);
extern void alloc_stat_forget(Oid database);

#endif							/* ALLOC_STAT_H */
