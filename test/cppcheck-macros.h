/*
 * What cppcheck has to know of PostgreSQL's macros, whose headers it does not
 * read: which make a statement, and that an error does not return.
 */
#define DEBUG1 14
#define LOG 15
#define INFO 17
#define NOTICE 18
#define WARNING 19
#define ERROR 21
#define FATAL 22
#define PANIC 23

#define ereport(level, ...) \
	do { if ((level) >= ERROR) abort(); } while (0)
#define elog(level, ...) \
	do { if ((level) >= ERROR) abort(); } while (0)

#define foreach(cell, list) \
	for (cell = list_head(list); cell != NULL; cell = lnext(list, cell))
#define foreach_ptr(type, var, list) \
	for (type *var = linitial(list); var != NULL; var = lnext(list, var))
#define foreach_oid(var, list) \
	for (Oid var = linitial_oid(list); var != 0; var = lnext(list, var))
#define foreach_int(var, list) \
	for (int var = linitial_int(list); var != 0; var = lnext(list, var))

#define PG_TRY() do { if (sigsetjmp() == 0) {
#define PG_CATCH() } else {
#define PG_FINALLY() } {
#define PG_END_TRY() } } while (0)

#define PG_MODULE_MAGIC extern int no_module_magic
#define PG_FUNCTION_INFO_V1(name) extern Datum name(PG_FUNCTION_ARGS)
