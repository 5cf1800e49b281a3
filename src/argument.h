/*-------------------------------------------------------------------------
 *
 * argument.h
 *	  Arguments of SQL functions: checked on their way in, compared, shown in
 *	  messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_ARGUMENT_H
#define ALLOC_ARGUMENT_H

#include "compat.h"
#include "fmgr.h"
#include "utils/date.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#define ALLOC_MAX_KEY_BYTES 255

/* For so many entries at most a hash table has room at first. */
#define ALLOC_HASH_ENTRIES 1024

extern text *alloc_arg_key(FunctionCallInfo fcinfo, int n, const char *name);
extern int64 alloc_arg_qty(FunctionCallInfo fcinfo, int n, int64 least);
extern TimestampTz alloc_arg_end(FunctionCallInfo fcinfo, int n,
								 const char *name);
extern text *alloc_check_key(Datum key, bool isnull, const char *name);
extern int64 alloc_check_qty(Datum value, bool isnull, int64 least);

extern int	alloc_compare_keys(const text *a, const text *b);
extern bool alloc_same_key(const text *a, const text *b);
extern uint32 alloc_hash_key(const text *key);
extern HTAB *alloc_hash_by_key(const char *name, Size entrysize, size_t n);
extern const char *alloc_show(const text *key);
extern const char *alloc_show_date(DateADT date);

#endif							/* ALLOC_ARGUMENT_H */
