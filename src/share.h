/*-------------------------------------------------------------------------
 *
 * share.h
 *	  Which share of the skus this database serves.
 *
 * A command asks after it has locked the table of slots, and what it is told
 * holds until its transaction ends: see set_partition().
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_SHARE_H
#define ALLOC_SHARE_H

#include "c.h"

/* What is known of it, and that every sku is served.  Not to be set by others. */
extern bool alloc_share_is_known;
extern bool alloc_share_is_whole;

extern void alloc_share_init(void);
extern void alloc_share_learn(void);
extern bool alloc_share_has(const text *sku);
extern void alloc_share_refuse(const text *sku);

/*
 * alloc_share_serves
 *		Is a sku served here?
 */
static inline bool
alloc_share_serves(const text *sku)
{
	return alloc_share_is_whole || alloc_share_has(sku);
}

/*
 * alloc_share_require
 *		Raises 55000 when a sku is not served here.
 */
static inline void
alloc_share_require(const text *sku)
{
	if (!alloc_share_serves(sku))
		alloc_share_refuse(sku);
}

#endif							/* ALLOC_SHARE_H */
