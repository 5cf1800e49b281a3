/*-------------------------------------------------------------------------
 *
 * argument.h
 *	  Arguments of SQL functions: checked on their way in, shown in messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_ARGUMENT_H
#define ALLOC_ARGUMENT_H

#include "compat.h"
#include "fmgr.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#define ALLOC_MAX_KEY_BYTES 255

extern text *alloc_arg_key(FunctionCallInfo fcinfo, int n, const char *name);
extern int64 alloc_arg_qty(FunctionCallInfo fcinfo, int n, int64 least);
extern TimestampTz alloc_arg_end(FunctionCallInfo fcinfo, int n,
								 const char *name);
extern text *alloc_check_key(Datum key, bool isnull, const char *name);
extern int64 alloc_check_qty(Datum value, bool isnull, int64 least);

extern int	alloc_compare_keys(const text *a, const text *b);
extern bool alloc_same_key(const text *a, const text *b);
extern const char *alloc_show(const text *key);
extern const char *alloc_show_date(DateADT date);

#endif							/* ALLOC_ARGUMENT_H */
