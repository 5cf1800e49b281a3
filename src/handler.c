/*-------------------------------------------------------------------------
 *
 * handler.c
 *	  The message bus: functions that are called with events.
 *
 * A synchronous handler is called at the end of the command that caused the
 * event, in its transaction; an asynchronous one by a worker, after the commit
 * (handler_worker.c).  Both run as the role that subscribed, with that role's
 * search_path of then, and cannot become another role: whoever causes an event
 * gets no right by it, and neither does whoever handles it, or wrote what does.
 *
 * Memory: "alloc handlers" has what this backend knows of the subscriptions,
 * and the ids of the events that synchronous handlers are still to be called
 * with.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "argument.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "command.h"
#include "commands/trigger.h"
#include "compat.h"
#include "event.h"
#include "handler.h"
#include "miscadmin.h"
#include "relay.h"
#include "shared.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(alloc_subscribe);
PG_FUNCTION_INFO_V1(alloc_unsubscribe);
PG_FUNCTION_INFO_V1(alloc_retry_dead_letters);
PG_FUNCTION_INFO_V1(alloc_subscriptions_changed);

/* Settings */
int			alloc_handler_workers = 4;
int			alloc_handler_timeout = 30000;
int			alloc_handler_retries = 3;
int			alloc_handler_retry_delay = 1000;

static MemoryContext handler_cxt;
static MemoryContext subscription_cxt;
static List *subscriptions;
static uint32 version;			/* of the subscriptions; 0: none is known */
static int64 *noted;
static int	nnoted;
static int	noted_room;

static char *checked_type(FunctionCallInfo fcinfo, int n);
static char *checked_handler(FunctionCallInfo fcinfo, int n);
static bool is_sync(FunctionCallInfo fcinfo, int n);
static char *current_search_path(void);
static void load_subscriptions(void);
static void note(int64 event_id);
static void run_for_event(int64 event_id);
static Oid	find_function(const AllocSubscription *subscription);
static void require_trusted(Form_pg_proc function, const char *name);
static void tell_handler(void *arg);

/*
 * alloc.subscribe(event_type text, handler regprocedure,
 * mode text DEFAULT 'async') returns void
 *		Lets a function of one jsonb be called with each event of a type from
 *		now on, as the current role.  mode: 'sync', within the command, whose
 *		transaction an error aborts; 'async', by a worker after the commit.
 *
 * Errors: 22004, 22023 (unknown type or mode, a function of other arguments),
 * 42883 (no such function), 42501 (no EXECUTE on it, or its owner has not the
 * role's rights), 42710 (the same is subscribed).  Source: the book, chapters
 * 8 (message bus) and 11.
 */
Datum
alloc_subscribe(PG_FUNCTION_ARGS)
{
	AllocSubscription subscription = {0};

	subscription.event_type = checked_type(fcinfo, 0);
	subscription.handler = checked_handler(fcinfo, 1);
	subscription.sync = is_sync(fcinfo, 2);
	subscription.role = GetUserId();
	subscription.search_path = current_search_path();

	alloc_store_begin("subscribe()");
	if (!alloc_store_subscribe(&subscription))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("%s already handles \"%s\"", subscription.handler,
						subscription.event_type),
				 errhint("Call unsubscribe() first to change the mode or the role.")));
	alloc_relay_note_work();
	alloc_store_end();
	if (!subscription.sync && !alloc_shared_available())
		ereport(WARNING,
				(errmsg("%s will not be called", subscription.handler),
				 errdetail("There is no background worker that could."),
				 errhint("Add \"alloc\" to shared_preload_libraries, and restart the server.")));
	PG_RETURN_VOID();
}

/*
 * alloc.unsubscribe(event_type text, handler regprocedure) returns void
 *		Ends it; waits for an asynchronous handler that is at work.
 *
 * Errors: 22004, 22023, 42704 (there is no such subscription).
 */
Datum
alloc_unsubscribe(PG_FUNCTION_ARGS)
{
	char	   *type = checked_type(fcinfo, 0);
	char	   *handler;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("handler must not be null")));
	handler = format_procedure_qualified(PG_GETARG_OID(1));
	alloc_store_begin("unsubscribe()");
	if (!alloc_store_unsubscribe(type, handler))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s does not handle \"%s\"", handler, type)));
	alloc_relay_note_work();
	alloc_store_end();
	PG_RETURN_VOID();
}

/*
 * alloc.retry_dead_letters() returns bigint
 *		Tries all dead letters again, as often as new ones; returns how many.
 *		Those whose subscription is gone stay.
 */
Datum
alloc_retry_dead_letters(PG_FUNCTION_ARGS)
{
	int64		n;

	alloc_store_begin("retry_dead_letters()");
	n = alloc_store_retry_dead(GetCurrentTimestamp());
	alloc_relay_note_work();
	alloc_store_end();
	PG_RETURN_INT64(n);
}

/*
 * alloc.subscriptions_changed() returns trigger
 *		What sessions keep of the subscriptions is stale when this commits.
 */
Datum
alloc_subscriptions_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("subscriptions_changed() is a trigger function")));
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	alloc_relay_note_work();
	return PointerGetDatum(NULL);
}

/*
 * alloc_handler_note_event
 *		An event was appended: remembers it for the synchronous handlers of
 *		its type, and lets the relay know if there are asynchronous ones.
 */
void
alloc_handler_note_event(const AllocEventRow *event)
{
	ListCell   *cell;
	bool		is_noted = false;

	if (version == 0 || version != alloc_store_subscriptions_version())
		load_subscriptions();
	foreach(cell, subscriptions)
	{
		const AllocSubscription *subscription = lfirst(cell);

		if (strcmp(subscription->event_type, event->type) != 0)
			continue;
		if (!subscription->sync)
			alloc_relay_note_work();
		else if (!is_noted)
		{
			note(event->event_id);
			is_noted = true;
		}
	}
}

/*
 * alloc_handler_is_sync
 *		Are there synchronous handlers of a type?
 */
bool
alloc_handler_is_sync(const char *type)
{
	ListCell   *cell;

	if (version == 0 || version != alloc_store_subscriptions_version())
		load_subscriptions();
	foreach(cell, subscriptions)
	{
		const AllocSubscription *subscription = lfirst(cell);

		if (subscription->sync && strcmp(subscription->event_type, type) == 0)
			return true;
	}
	return false;
}

/*
 * alloc_handler_begin
 *		A command begins: what one before it noted, and did not come to its
 *		end, is forgotten.
 */
void
alloc_handler_begin(void)
{
	nnoted = 0;
}

/*
 * alloc_handler_has_noted
 *		Are synchronous handlers still to be called with what a command did?
 */
bool
alloc_handler_has_noted(void)
{
	return nnoted > 0;
}

/*
 * alloc_handler_run_noted
 *		After a command: calls the synchronous handlers with its events, in
 *		order.  They may call commands, whose handlers are called first.
 */
void
alloc_handler_run_noted(void)
{
	int			n = nnoted;
	int64	   *ids;
	MemoryContext event_cxt;
	MemoryContext oldcxt;

	if (n == 0)
		return;
	check_stack_depth();
	ids = MemoryContextAllocHuge(CurrentMemoryContext, n * sizeof(int64));
	memcpy(ids, noted, n * sizeof(int64));
	nnoted = 0;
	event_cxt = AllocSetContextCreate(CurrentMemoryContext, "alloc handled event",
									  ALLOCSET_SMALL_SIZES);
	oldcxt = MemoryContextSwitchTo(event_cxt);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		run_for_event(ids[i]);
		MemoryContextReset(event_cxt);
	}
	MemoryContextSwitchTo(oldcxt);
	MemoryContextDelete(event_cxt);
	pfree(ids);
}

/*
 * alloc_handler_call
 *		Calls a handler with an event, as its role.
 *
 * It may do what that role may do, but not become another one, and what it
 * sets is undone.  Where the role is not the current one it also may leave
 * nothing behind that would run as the current one later, such as a deferred
 * trigger.  An error passes through; the abort restores the role.
 */
void
alloc_handler_call(const AllocSubscription *subscription, int64 event_id,
				   Jsonb *event)
{
	LOCAL_FCINFO(call, 1);
	FmgrInfo	function;
	ErrorContextCallback context = {
		.callback = tell_handler,
		.arg = unconstify(AllocSubscription *, subscription),
		.previous = error_context_stack
	};
	Oid			user;
	int			security;
	int			nest_level;

	error_context_stack = &context;
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(subscription->role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role %u, which subscribed, does not exist",
						subscription->role)));
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(subscription->role,
						   security | SECURITY_LOCAL_USERID_CHANGE |
						   (user == subscription->role ? 0 : SECURITY_RESTRICTED_OPERATION));
	nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", subscription->search_path,
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	PushActiveSnapshot(GetTransactionSnapshot());
	fmgr_info(find_function(subscription), &function);
	InitFunctionCallInfoData(*call, &function, 1, InvalidOid, NULL, NULL);
	call->args[0].value = JsonbPGetDatum(event);
	call->args[0].isnull = false;
	(void) FunctionCallInvoke(call);
	PopActiveSnapshot();
	CommandCounterIncrement();
	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(user, security);
	error_context_stack = context.previous;
}

/*
 * The types of DESIGN section 3, and repair()'s.
 */
static char *
checked_type(FunctionCallInfo fcinfo, int n)
{
	static const char *const types[] = {
		"batch_created", "batch_quantity_changed", "batch_eta_changed",
		"allocated", "deallocated", "out_of_stock", "held", "hold_released",
		"hold_expired", "confirmed", "backordered", "shipped",
		"promise_changed", "repaired"
	};
	char	   *type;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("event_type must not be null")));
	type = text_to_cstring(PG_GETARG_TEXT_PP(n));
	for (int i = 0; i < lengthof(types); i++)
		if (strcmp(type, types[i]) == 0)
			return type;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no event type \"%s\"",
					alloc_show(PG_GETARG_TEXT_PP(n))),
			 errhint("Types are batch_created, batch_quantity_changed, batch_eta_changed, allocated, deallocated, out_of_stock, held, hold_released, hold_expired, confirmed, backordered, shipped, promise_changed and repaired.")));
	return NULL;
}

/*
 * A function that may be a handler, by its full name.
 */
static char *
checked_handler(FunctionCallInfo fcinfo, int n)
{
	HeapTuple	tuple;
	Form_pg_proc function;
	char	   *name;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("handler must not be null")));
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(PG_GETARG_OID(n)));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %u does not exist", PG_GETARG_OID(n))));
	name = format_procedure_qualified(PG_GETARG_OID(n));
	function = (Form_pg_proc) GETSTRUCT(tuple);
	if (function->prokind != PROKIND_FUNCTION || function->proretset ||
		function->pronargs != 1 || function->proargtypes.values[0] != JSONBOID)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s cannot be a handler", name),
				 errhint("A handler is a function with one argument of type jsonb that does not return a set.")));
	require_trusted(function, name);
	ReleaseSysCache(tuple);
	return name;
}

static bool
is_sync(FunctionCallInfo fcinfo, int n)
{
	char	   *mode;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("mode must not be null")));
	mode = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (strcmp(mode, "sync") == 0)
		return true;
	if (strcmp(mode, "async") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mode \"%s\" is neither \"sync\" nor \"async\"",
						alloc_show(PG_GETARG_TEXT_PP(n)))));
	return false;
}

/*
 * The schemas in which the subscriber finds names now; temporary tables last,
 * so that the session in which the handler runs cannot put its own before
 * them.
 */
static char *
current_search_path(void)
{
	List	   *schemas = fetch_search_path(false);
	ListCell   *cell;
	StringInfoData path;

	initStringInfo(&path);
	foreach(cell, schemas)
	{
		char	   *name = get_namespace_name(lfirst_oid(cell));

		if (name != NULL && !isAnyTempNamespace(lfirst_oid(cell)))
			appendStringInfo(&path, "%s, ", quote_identifier(name));
	}
	appendStringInfoString(&path, "pg_temp");
	return path.data;
}

static void
load_subscriptions(void)
{
	MemoryContext oldcxt;

	if (handler_cxt == NULL)
	{
		handler_cxt = AllocSetContextCreate(TopMemoryContext, "alloc handlers",
											ALLOCSET_SMALL_SIZES);
		subscription_cxt = AllocSetContextCreate(handler_cxt,
												 "alloc subscriptions",
												 ALLOCSET_SMALL_SIZES);
	}
	version = 0;
	subscriptions = NIL;
	MemoryContextReset(subscription_cxt);
	oldcxt = MemoryContextSwitchTo(subscription_cxt);
	subscriptions = alloc_store_subscriptions();
	MemoryContextSwitchTo(oldcxt);
	version = alloc_store_subscriptions_version();
}

static void
note(int64 event_id)
{
	if (noted == NULL)
	{
		noted_room = 16;
		noted = MemoryContextAlloc(handler_cxt, noted_room * sizeof(int64));
	}
	else if (nnoted == noted_room)
	{
		noted_room *= 2;
		noted = repalloc_huge(noted, noted_room * sizeof(int64));
	}
	noted[nnoted++] = event_id;
}

/*
 * An event that is not there was undone by the command itself.
 */
static void
run_for_event(int64 event_id)
{
	AllocEventRow event;
	Jsonb	   *json = NULL;
	char	   *type = NULL;
	List	   *handlers = NIL;
	ListCell   *cell;

	alloc_store_begin("a handler");
	if (alloc_store_find_event(event_id, &event))
	{
		json = alloc_event_jsonb(&event);
		type = pstrdup(event.type);
		/* A copy: handlers may change the list. */
		handlers = alloc_store_subscriptions();
	}
	alloc_store_end();
	foreach(cell, handlers)
	{
		const AllocSubscription *subscription = lfirst(cell);

		if (subscription->sync && strcmp(subscription->event_type, type) == 0)
			alloc_handler_call(subscription, event_id, json);
	}
}

/*
 * The handler's function.  Since it was subscribed, it may have got another
 * owner, or another function its name.
 */
static Oid
find_function(const AllocSubscription *subscription)
{
	Oid			function = DatumGetObjectId(DirectFunctionCall1(regprocedurein,
																CStringGetDatum(subscription->handler)));
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	require_trusted((Form_pg_proc) GETSTRUCT(tuple), subscription->handler);
	ReleaseSysCache(tuple);
	return function;
}

/*
 * The current role must be allowed to call the function.  Whoever owns it can
 * replace it, and would act with the role's rights: so the owner must have
 * them, or the function not run with them.
 */
static void
require_trusted(Form_pg_proc function, const char *name)
{
	Oid			role = GetUserId();

	if (!alloc_may_execute(function->oid, role))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, name);
	if (!function->prosecdef && !has_privs_of_role(function->proowner, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s would run with rights that its owner does not have",
						name),
				 errdetail("It belongs to role \"%s\", who can replace it, and is subscribed by \"%s\".",
						   GetUserNameFromId(function->proowner, false),
						   GetUserNameFromId(role, false)),
				 errhint("Let its owner subscribe it, or make it SECURITY DEFINER.")));
}

static void
tell_handler(void *arg)
{
	const AllocSubscription *subscription = arg;

	errcontext("handler %s of event type \"%s\"", subscription->handler,
			   subscription->event_type);
}
