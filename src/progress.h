/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  How far a long query has come, told by NOTICE.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_PROGRESS_H
#define ALLOC_PROGRESS_H

#include "datatype/timestamp.h"

/* What is done to many things.  To begin with: what, and else 0. */
typedef struct AllocProgress
{
	const char *what;			/* like "events read" */
	int64		count;
	TimestampTz next_at;		/* when to tell it */
} AllocProgress;

/* Setting: milliseconds between two notices; 0: there are none. */
extern int	alloc_progress_interval;

extern void alloc_progress_step(AllocProgress *progress);

#endif							/* ALLOC_PROGRESS_H */
