/*-------------------------------------------------------------------------
 *
 * replay.h
 *	  The state of all batches, folded from the log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_REPLAY_H
#define ALLOC_REPLAY_H

#include "progress.h"
#include "store.h"

/* A batch in the order in which the fold has met it. */
typedef struct AllocReplayBatch
{
	AllocBatchTotals totals;
	int64		eta_from;		/* the event that says what eta is */
	struct AllocReplayBatch *next;
} AllocReplayBatch;

/*
 * A fold of the log.  All of it is in its context, and grows with the number
 * of batches.
 */
typedef struct AllocReplay
{
	MemoryContext cxt;
	struct alloc_replay_hash *by_ref;
	AllocReplayBatch *first;
	AllocReplayBatch **last;
	AllocProgress *progress;	/* to be told, or NULL */
} AllocReplay;

extern AllocReplay *alloc_replay_begin(void);
extern void alloc_replay_take_totals(const AllocBatchTotals *totals,
									 void *arg);
extern void alloc_replay_take_fact(const AllocFact *fact, void *arg);

#endif							/* ALLOC_REPLAY_H */
