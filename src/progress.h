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

/* Something of which much is read.  To begin with: what, and else 0. */
typedef struct AllocProgress
{
	const char *what;			/* in the plural */
	int64		count;
	TimestampTz next_at;		/* when to tell it */
} AllocProgress;

/* Setting: milliseconds between two notices; 0: there are none. */
extern int	alloc_progress_interval;

extern void alloc_progress_step(AllocProgress *progress);

#endif							/* ALLOC_PROGRESS_H */
