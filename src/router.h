/*-------------------------------------------------------------------------
 *
 * router.h
 *	  What a router asks its partitions, and how it tells their errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_ROUTER_H
#define ALLOC_ROUTER_H

#include "nodes/params.h"
#include "utils/tuplestore.h"

extern void alloc_router_query(const char *query, ParamListInfo params,
							   bool read_only, Tuplestorestate *rows);

#endif							/* ALLOC_ROUTER_H */
