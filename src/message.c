/*-------------------------------------------------------------------------
 *
 * message.c
 *	  SQL-callable: handle(), the door for messages from elsewhere.
 *
 * A message is read (message_read.c), its command is called as any client
 * would call it, and what that returns is the answer.  The call goes through
 * the executor, as the caller: so the caller needs EXECUTE on the command, and
 * on handle() to get here, and nothing else.
 *
 * A message with an id is carried out once.  Its id is recorded first, so that
 * of two at the same moment the second waits; then comes the command, then its
 * answer is recorded.  All of it is the caller's transaction: when the command
 * fails, the message was never here.
 *
 * Each such call also forgets a few messages that are older than
 * alloc.message_retention: a few more than it adds, so that the table does not
 * grow where no background worker sweeps it.
 *
 * Memory: the answer is in the caller's context, what the command returned in
 * SPI's.  Saved plans live as long as the backend.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "catalog/pg_type.h"
#include "command.h"
#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "message.h"
#include "miscadmin.h"
#include "stat.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(alloc_handle);

/* Old messages that each new one takes away. */
#define SWEPT_PER_MESSAGE 2

int			alloc_message_retention;

static SPIPlanPtr plans[ALLOC_MESSAGE_NCOMMANDS];

static Jsonb *handle_once(Jsonb *json, AllocMessage *message);
static void require_same_body(const AllocMessageRow *there,
							  const AllocMessageRow *message);
static bytea *hash_body(Jsonb *json);
static Jsonb *carry_out(AllocMessage *message);
static Jsonb *call_command(AllocMessage *message);
static SPIPlanPtr get_plan(AllocMessage *message);
static Jsonb *make_answer(bool rows);
static void push_rows(JsonbParseState **state);
static void push_key(JsonbParseState **state, const char *name);
static void push_column(JsonbParseState **state, HeapTuple row, int column);
static void set_string(JsonbValue *value, const char *chars, size_t length);

/*
 * alloc.handle(message jsonb) returns jsonb
 *		Carries out the command that the message names: {"command": "allocate",
 *		"orderid": "o1", "sku": "LAMP", "qty": 2, "message_id": "m1"}; returns
 *		{"result": what it returned}, rows as an array of objects.
 *
 * A message_id that was seen before gets the answer that it got then, for as
 * long as its row is there: at least alloc.message_retention.  Errors: those of
 * the command and of alloc_message_read(); SK006 (message_id seen with another
 * body); 40001; 42501 (no EXECUTE on the command).  Source: DESIGN section 2;
 * the book, chapters 9 to 11 (the message bus, messages from outside).
 */
Datum
alloc_handle(PG_FUNCTION_ARGS)
{
	AllocMessage message = {0};
	Jsonb	   *json;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("message must not be null")));
	json = PG_GETARG_JSONB_P(0);
	alloc_message_read(json, &message);
	alloc_stat_count(ALLOC_STAT_HANDLE);
	if (message.message_id == NULL)
		PG_RETURN_JSONB_P(carry_out(&message));
	PG_RETURN_JSONB_P(handle_once(json, &message));
}

/*
 * The command cannot run within the store's begin and end: it has its own.
 */
static Jsonb *
handle_once(Jsonb *json, AllocMessage *message)
{
	AllocMessageRow there;
	AllocMessageRow row = {
		.message_id = message->message_id,
		.received_at = GetCurrentTimestamp(),
		.body_hash = hash_body(json)
	};
	bool		is_new;

	alloc_store_begin("handle()");
	is_new = alloc_store_add_message(&row, &there);
	alloc_store_end();
	if (!is_new)
	{
		require_same_body(&there, &row);
		alloc_stat_count(ALLOC_STAT_MESSAGES_REPEATED);
		return there.answer;
	}
	row.answer = carry_out(message);

	alloc_store_begin("handle()");
	alloc_store_answer_message(&row);
	(void) alloc_store_sweep_messages(row.received_at - alloc_message_retention * USECS_PER_SEC,
									  SWEPT_PER_MESSAGE);
	alloc_store_end();
	return row.answer;
}

static void
require_same_body(const AllocMessageRow *there, const AllocMessageRow *message)
{
	if (VARSIZE_ANY_EXHDR(there->body_hash) == VARSIZE_ANY_EXHDR(message->body_hash) &&
		memcmp(VARDATA_ANY(there->body_hash), VARDATA_ANY(message->body_hash),
			   VARSIZE_ANY_EXHDR(message->body_hash)) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ALLOC_OTHER_BODY),
			 errmsg("message_id \"%s\" is that of another message",
					alloc_show(message->message_id)),
			 errdetail("That one was received at %s.",
					   timestamptz_to_str(there->received_at)),
			 errhint("Give each message an id of its own, and send it again as it was.")));
}

/*
 * Equal values have equal hashes: as jsonb text they differ in nothing but the
 * zeros at the end of a fraction.
 */
static bytea *
hash_body(Jsonb *json)
{
	JsonbIterator *it = JsonbIteratorInit(&json->root);
	JsonbParseState *state = NULL;
	JsonbValue *body = NULL;
	JsonbValue	value;
	JsonbIteratorToken token;
	char	   *chars;

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		bool		has_value = token == WJB_KEY || token == WJB_VALUE ||
			token == WJB_ELEM;

		if (has_value && value.type == jbvNumeric)
			value.val.numeric =
				DatumGetNumeric(DirectFunctionCall1(numeric_trim_scale,
													NumericGetDatum(value.val.numeric)));
		body = pushJsonbValue(&state, token, has_value ? &value : NULL);
	}
	json = JsonbValueToJsonb(body);
	chars = JsonbToCString(NULL, &json->root, VARSIZE(json));
	return DatumGetByteaPP(DirectFunctionCall1(sha256_bytea,
											   PointerGetDatum(cstring_to_text(chars))));
}

/*
 * Calls the command, within the message's trace.
 */
static Jsonb *
carry_out(AllocMessage *message)
{
	Jsonb	   *answer;
	int			nest_level;

	if (message->traceparent == NULL)
		return call_command(message);
	nest_level = NewGUCNestLevel();
	(void) set_config_option("alloc.traceparent", message->traceparent,
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	answer = call_command(message);
	AtEOXact_GUC(true, nest_level);
	return answer;
}

static Jsonb *
call_command(AllocMessage *message)
{
	const AllocMessageCommand *command = &alloc_message_commands[message->command];
	MemoryContext cxt = CurrentMemoryContext;
	MemoryContext spi_cxt;
	Jsonb	   *answer;
	int			result;

	SPI_connect();
	result = SPI_execute_plan(get_plan(message), message->values,
							  message->nulls, false, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_plan failed: %s",
			 SPI_result_code_string(result));
	spi_cxt = MemoryContextSwitchTo(cxt);
	answer = make_answer(command->returns_rows);
	MemoryContextSwitchTo(spi_cxt);
	SPI_finish();
	return answer;
}

/*
 * The plan of a command, made anew when a type of its arguments is another
 * than before: that of order lines is, after DROP and CREATE EXTENSION.
 */
static SPIPlanPtr
get_plan(AllocMessage *message)
{
	const AllocMessageCommand *command = &alloc_message_commands[message->command];
	SPIPlanPtr *plan = &plans[message->command];
	SPIPlanPtr	fresh;

	for (int i = 0; *plan != NULL && i < command->nargs; i++)
		if (SPI_getargtypeid(*plan, i) != message->types[i])
		{
			SPI_freeplan(*plan);
			*plan = NULL;
		}
	if (*plan != NULL)
		return *plan;
	fresh = SPI_prepare_cursor(command->sql, command->nargs,
							   message->types, CURSOR_OPT_GENERIC_PLAN);
	if (fresh == NULL)
		elog(ERROR, "SPI_prepare_cursor failed: %s",
			 SPI_result_code_string(SPI_result));
	SPI_keepplan(fresh);
	*plan = fresh;
	return fresh;
}

/*
 * What SPI has as the result: rows as an array, or one value.
 */
static Jsonb *
make_answer(bool rows)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_key(&state, "result");
	if (rows)
		push_rows(&state);
	else
		push_column(&state, SPI_tuptable->vals[0], 1);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
push_rows(JsonbParseState **state)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;

	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		CHECK_FOR_INTERRUPTS();
		pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
		for (int column = 1; column <= desc->natts; column++)
		{
			push_key(state, NameStr(TupleDescAttr(desc, column - 1)->attname));
			push_column(state, SPI_tuptable->vals[i], column);
		}
		pushJsonbValue(state, WJB_END_OBJECT, NULL);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

/*
 * A column (from 1) as a value.  It points into the row.
 */
static void
push_column(JsonbParseState **state, HeapTuple row, int column)
{
	TupleDesc	desc = SPI_tuptable->tupdesc;
	JsonbValue	value = {.type = jbvNull};
	bool		isnull;
	Datum		datum = SPI_getbinval(row, desc, column, &isnull);
	Oid			type = SPI_gettypeid(desc, column);
	const text *string;
	const char *date;

	if (!isnull)
		switch (type)
		{
			case TEXTOID:
				string = DatumGetTextPP(datum);
				set_string(&value, VARDATA_ANY(string),
						   VARSIZE_ANY_EXHDR(string));
				break;
			case INT8OID:
				value.type = jbvNumeric;
				value.val.numeric = int64_to_numeric(DatumGetInt64(datum));
				break;
			case DATEOID:
				date = alloc_show_date(DatumGetDateADT(datum));
				set_string(&value, date, strlen(date));
				break;
			case BOOLOID:
				value.type = jbvBool;
				value.val.boolean = DatumGetBool(datum);
				break;
			default:
				elog(ERROR, "a command returns type %u", type);
		}
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_key(JsonbParseState **state, const char *name)
{
	JsonbValue	key;

	set_string(&key, name, strlen(name));
	pushJsonbValue(state, WJB_KEY, &key);
}

static void
set_string(JsonbValue *value, const char *chars, size_t length)
{
	value->type = jbvString;
	value->val.string.val = unconstify(char *, chars);
	value->val.string.len = (int) length;
}
