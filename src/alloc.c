/*-------------------------------------------------------------------------
 *
 * alloc.c
 *	  Loading of the library: settings and callbacks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "command.h"
#include "event.h"
#include "fmgr.h"
#include "handler.h"
#include "message.h"
#include "miscadmin.h"
#include "progress.h"
#include "relay.h"
#include "share.h"
#include "shared.h"
#include "stat.h"
#include "store.h"
#include "utility.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static const struct config_enum_entry notify_options[] = {
	{"auto", ALLOC_NOTIFY_AUTO, false},
	{"commit", ALLOC_NOTIFY_COMMIT, false},
	{"relay", ALLOC_NOTIFY_RELAY, false},
	{"off", ALLOC_NOTIFY_OFF, false},
	{NULL, 0, false}
};

/* Setting; sql/69_fleet_lines.sql reads it. */
static int	order_ttl;

static void define_stock_settings(void);
static void define_event_settings(void);
static void define_worker_settings(void);
static bool check_notify(int *value, void **extra, GucSource source);
static bool check_traceparent(char **value, void **extra, GucSource source);

/*
 * Once per backend, or, if it is preloaded, in the postmaster.
 */
void
_PG_init(void)
{
	define_stock_settings();
	define_event_settings();
	define_worker_settings();
	MarkGUCPrefixReserved("alloc");
	alloc_store_init();
	alloc_share_init();
	alloc_event_init();
	alloc_relay_init();
	if (process_shared_preload_libraries_in_progress)
	{
		alloc_shared_init();
		alloc_stat_init();
		alloc_utility_init();
		if (!IsBinaryUpgrade)
			alloc_launcher_register();
	}
}

static void
define_stock_settings(void)
{
	DefineCustomIntVariable("alloc.max_slots",
							"The number of rows over which the stock of a batch may be spread.",
							"As many clients can take from the batch at the same time.",
							&alloc_max_slots,
							128, 1, 1024,
							PGC_SUSET,
							0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("alloc.max_holds_per_order",
							"The number of lines of an order that may be held at the same time.",
							"-1: any number.",
							&alloc_max_holds_per_order,
							100, -1, INT_MAX,
							PGC_SUSET,
							0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("alloc.order_ttl",
							"On a router: how long the lines of an order are held while several partitions take it.",
							"A partition that cannot be reached for as long may lose them to other orders.",
							&order_ttl,
							60, 1, 24 * 60 * 60,
							PGC_USERSET,
							GUC_UNIT_S,
							NULL, NULL, NULL);
}

static void
define_event_settings(void)
{
	DefineCustomEnumVariable("alloc.notify",
							 "How events are sent by NOTIFY.",
							 "commit: in the caller's transaction; relay: by a background worker after it; off: not at all; auto: relay if the library is preloaded, else commit.",
							 &alloc_notify,
							 ALLOC_NOTIFY_AUTO,
							 notify_options,
							 PGC_SUSET,
							 0,
							 check_notify, NULL, NULL);
	DefineCustomStringVariable("alloc.traceparent",
							   "The trace to which the events of this session belong (W3C Trace Context).",
							   "It is stored with each event and is in its JSON; empty: none.",
							   &alloc_traceparent,
							   "",
							   PGC_USERSET,
							   0,
							   check_traceparent, NULL, NULL);
	DefineCustomIntVariable("alloc.message_retention",
							"How long handle() remembers the ids of messages, and its answers.",
							"A message that comes again within this time gets the answer that it got.",
							&alloc_message_retention,
							7 * 24 * 60 * 60, 0, INT_MAX,
							PGC_SUSET,
							GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("alloc.progress_interval",
							"The time between two notices of how far check() and its like have come.",
							"0: there are none.",
							&alloc_progress_interval,
							5000, 0, INT_MAX,
							PGC_USERSET,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
}

static void
define_worker_settings(void)
{
	DefineCustomIntVariable("alloc.handler_workers",
							"The number of asynchronous handlers that run at the same time, in each database.",
							"Each needs one of max_worker_processes.",
							&alloc_handler_workers,
							4, 0, 1024,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("alloc.handler_timeout",
							"The time that an asynchronous handler has for an event.",
							"Then it is canceled, which is a failure; 0: it has any time.",
							&alloc_handler_timeout,
							30000, 0, INT_MAX / 2,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("alloc.handler_retries",
							"How often an asynchronous handler is called again with an event that it failed on.",
							"After that the event is a dead letter.",
							&alloc_handler_retries,
							3, 0, 100,
							PGC_SIGHUP,
							0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("alloc.handler_retry_delay",
							"The time before an asynchronous handler is called again with an event that it failed on.",
							"It doubles with each failure.",
							&alloc_handler_retry_delay,
							1000, 1, INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_MS,
							NULL, NULL, NULL);
}

/*
 * There is a relay only where the postmaster loads the library.
 */
static bool						/* NOLINTNEXTLINE(readability-non-const-parameter) */
check_notify(int *value, void **extra, GucSource source)
{
	if (*value != ALLOC_NOTIFY_RELAY || alloc_shared_available() ||
		process_shared_preload_libraries_in_progress)
		return true;
	GUC_check_errdetail("There is no relay.");
	GUC_check_errhint("Add \"alloc\" to shared_preload_libraries, and restart the server.");
	return false;
}

/*
 * version "-" trace-id "-" parent-id "-" flags, in lower-case hexadecimal
 * digits: 2, 32, 16 and 2.  Source: W3C Trace Context, section 3.2.  Later
 * versions may have more behind it, which no event is to carry.
 */
static bool
check_traceparent(char **value, void **extra, GucSource source)
{
	static const char form[] = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
	const char *v = *value;

	if (v[0] == '\0')
		return true;
	if (strlen(v) == strlen(form))
	{
		size_t		i = 0;

		while (form[i] != '\0' &&
			   (form[i] == 'x' ? v[i] != '\0' && strchr("0123456789abcdef", v[i]) != NULL
				: v[i] == form[i]))
			i++;
		if (form[i] == '\0' && strncmp(v, "ff", 2) != 0 &&
			strspn(v + 3, "0") < 32 && strspn(v + 36, "0") < 16)
			return true;
	}
	GUC_check_errdetail("It is neither empty nor like \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\" (W3C Trace Context).");
	return false;
}
