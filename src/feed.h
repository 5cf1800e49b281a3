/*-------------------------------------------------------------------------
 *
 * feed.h
 *	  A feed of batches: the rows of any table, and what is wrong with them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_FEED_H
#define ALLOC_FEED_H

#include "lib/stringinfo.h"
#include "planner.h"

typedef struct AllocFeed
{
	MemoryContext cxt;			/* of all that is below */
	Oid			source;
	const char *name;			/* for messages */
	AllocPlanFeedRow *rows;		/* those with good keys */
	size_t		n;
	size_t		room;
	size_t		nread;			/* with bad ones */
	size_t		nflaws;
	StringInfoData flaws;		/* the first of them, one a line */
} AllocFeed;

extern void alloc_feed_read(AllocFeed *feed, Oid source, bool now);
extern void alloc_feed_flaw(AllocFeed *feed, size_t row, const char *format,...) pg_attribute_printf(3, 4);
extern void alloc_feed_require_sound(const AllocFeed *feed);
extern text *alloc_feed_text(const AllocPlanKey *key);

#endif							/* ALLOC_FEED_H */
