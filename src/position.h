/*-------------------------------------------------------------------------
 *
 * position.h
 *	  How far a reader of the log has come: snapshots, not event ids.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_POSITION_H
#define ALLOC_POSITION_H

#include "datatype/timestamp.h"

/*
 * A transaction as the log knows it, in the column xact of table event: its
 * id, and above that the era, which grows with each restore into a database
 * where transactions have other ids.  So the transactions of an era before
 * compare as older, whatever their ids were.
 */
#define ALLOC_ERA_SHIFT 48

/* The transactions that have ended: all below xmax but the open ones. */
typedef struct AllocSeen
{
	int64		xmax;
	int			nopen;
	int64	   *open;			/* ascending */
} AllocSeen;

/* Events of transactions from xact on have ids above event_id. */
typedef struct AllocMark
{
	int64		xact;
	int64		event_id;
} AllocMark;

/*
 * What a reader has had: the events of the transactions in seen, and, while it
 * is being given a batch of events, of those in upto the ones up to cursor.
 *
 * A batch is the events of the transactions in upto that are not in seen, by
 * their ids.  Whatever a transaction saw committed has ended before it, so it
 * is in the same batch with a smaller id, or in an earlier one: this order is
 * causal.
 */
typedef struct AllocPosition
{
	AllocSeen	seen;
	bool		in_batch;
	AllocSeen	upto;
	int64		cursor;			/* ids up to here are given or not in the batch */
	int64		end;			/* there are none in the batch beyond */
	int			nmarks;
	AllocMark  *marks;			/* ascending; the first holds for all that may
								 * come */
	int64		last_event_id;	/* the one that was given last; 0: none */
	TimestampTz last_fetch_at;	/* 0: never */
} AllocPosition;

extern bool alloc_seen_has(const AllocSeen *seen, int64 xact);

extern void alloc_position_init(AllocPosition *position);
extern void alloc_position_begin_now(AllocPosition *position,
									 const AllocSeen *now, AllocMark mark);
extern bool alloc_position_begin_batch(AllocPosition *position,
									   const AllocSeen *now, AllocMark mark,
									   int64 end);
extern void alloc_position_end_batch(AllocPosition *position);
extern bool alloc_position_wants(const AllocPosition *position, int64 event_id,
								 int64 xact);
extern bool alloc_position_had(const AllocPosition *position, int64 event_id,
							   int64 xact);

#endif							/* ALLOC_POSITION_H */
