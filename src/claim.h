/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  The right to insert a key, for the short time until it is in the index.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_CLAIM_H
#define ALLOC_CLAIM_H

#include "table.h"

extern bool alloc_claim_key(AllocTable *table, int index, ScanKey keys,
							int nkeys);
extern void alloc_claim_present_key(AllocTable *table, int index,
									ScanKey keys, int nkeys);
extern void alloc_unclaim_key(AllocTable *table, int index, ScanKey keys,
							  int nkeys);

#endif							/* ALLOC_CLAIM_H */
