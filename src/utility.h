/*-------------------------------------------------------------------------
 *
 * utility.h
 *	  Utility commands that the background workers have to know of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_UTILITY_H
#define ALLOC_UTILITY_H

extern void alloc_utility_init(void);

#endif							/* ALLOC_UTILITY_H */
