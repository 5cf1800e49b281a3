/*-------------------------------------------------------------------------
 *
 * alloc.c
 *	  Loading of the library: settings and callbacks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "event.h"
#include "fmgr.h"
#include "store.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static const struct config_enum_entry notify_options[] = {
	{"auto", ALLOC_NOTIFY_AUTO, false},
	{"commit", ALLOC_NOTIFY_COMMIT, false},
	{"off", ALLOC_NOTIFY_OFF, false},
	{NULL, 0, false}
};

void
_PG_init(void)
{
	DefineCustomEnumVariable("alloc.notify",
							 "How events are sent by NOTIFY.",
							 "commit: in the caller's transaction; off: not at all; auto: commit.",
							 &alloc_notify,
							 ALLOC_NOTIFY_AUTO,
							 notify_options,
							 PGC_SUSET,
							 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("alloc.max_slots",
							"The number of rows over which the stock of a batch may be spread.",
							"As many clients can take from the batch at the same time.",
							&alloc_max_slots,
							128, 1, 1024,
							PGC_SUSET,
							0,
							NULL, NULL, NULL);
	MarkGUCPrefixReserved("alloc");
	alloc_store_init();
	alloc_event_init();
}
