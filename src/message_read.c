/*-------------------------------------------------------------------------
 *
 * message_read.c
 *	  From a message in JSON to a command and its arguments.
 *
 * A message is an object.  Its key "command" names the command, "message_id"
 * and "traceparent" are about the message itself, and each other key is an
 * argument of the command.  A key that nobody knows is an error: it may be one
 * that was misspelt.
 *
 * Nothing here knows what a command does with its arguments; it refuses NULL,
 * empty and long keys itself.
 *
 * Memory: what a message points to is in the current context, or in the JSON.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "argument.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "funcapi.h"
#include "message.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* Keys of a message that are not arguments of its command. */
static const char *const own_keys[] = {"command", "message_id", "traceparent"};

const AllocMessageCommand alloc_message_commands[ALLOC_MESSAGE_NCOMMANDS] = {
	{"add_batch", "SELECT alloc.add_batch($1, $2, $3, $4)", false, 4,
	{{"ref", TEXTOID}, {"sku", TEXTOID}, {"qty", INT8OID}, {"eta", DATEOID}}},
	{"allocate", "SELECT alloc.allocate($1, $2, $3)", false, 3,
	{{"orderid", TEXTOID}, {"sku", TEXTOID}, {"qty", INT8OID}}},
	{"allocate_lines", "SELECT * FROM alloc.allocate_lines($1)", true, 1,
	{{"lines", ALLOC_ORDER_LINES}}},
	{"allocate_order", "SELECT * FROM alloc.allocate_order($1, $2, COALESCE($3, 'all'))", true, 3,
	{{"orderid", TEXTOID}, {"lines", ALLOC_ORDER_LINES}, {"mode", TEXTOID}}},
	{"deallocate", "SELECT alloc.deallocate($1, $2)", false, 2,
	{{"orderid", TEXTOID}, {"sku", TEXTOID}}},
	{"change_batch_quantity", "SELECT * FROM alloc.change_batch_quantity($1, $2)", true, 2,
	{{"ref", TEXTOID}, {"qty", INT8OID}}},
	{"change_batch_eta", "SELECT * FROM alloc.change_batch_eta($1, $2)", true, 2,
	{{"ref", TEXTOID}, {"eta", DATEOID, true}}},
	{"ship", "SELECT alloc.ship($1, $2)", false, 2,
	{{"orderid", TEXTOID}, {"sku", TEXTOID}}},
	{"hold", "SELECT alloc.hold($1, $2, $3, $4)", false, 4,
	{{"orderid", TEXTOID}, {"sku", TEXTOID}, {"qty", INT8OID}, {"ttl", INTERVALOID}}},
	{"confirm", "SELECT alloc.confirm($1)", false, 1, {{"orderid", TEXTOID}}},
	{"release", "SELECT alloc.release($1)", false, 1, {{"orderid", TEXTOID}}},
	{"extend_hold", "SELECT alloc.extend_hold($1, $2)", false, 2,
	{{"orderid", TEXTOID}, {"ttl", INTERVALOID}}}
};

static int	read_command(JsonbContainer *object);
static const char *list_commands(void);
static const text *read_message_id(JsonbContainer *object);
static const char *read_traceparent(JsonbContainer *object);
static void require_known_message_keys(JsonbContainer *object,
									   const AllocMessageCommand *command);
static void require_known_keys(JsonbContainer *object, const char **known,
							   int nknown, const char *what);
static bool get_key(JsonbContainer *object, const char *name,
					JsonbValue *value);
static void require_key(JsonbContainer *object, const char *name);
static Datum read_key(JsonbContainer *object, const char *name, Oid type,
					  bool *isnull);
static Datum read_scalar(JsonbValue *value, const char *name, Oid type);
static text *read_text(JsonbValue *value, const char *name);
static int64 read_bigint(JsonbValue *value, const char *name);
static int	compare_numeric(Numeric a, int64 b);
static DateADT read_date(JsonbValue *value, const char *name);
static Datum read_interval(JsonbValue *value, const char *name);
static void wrong_type(const char *name, const char *type, JsonbValue *value);
static Oid	order_line_type(void);
static Datum read_lines(JsonbContainer *object, const char *name, Oid type,
						bool *isnull);
static Datum read_line(JsonbContainer *object, TupleDesc desc);
static void tell_element(void *arg);

/*
 * alloc_message_read
 *		Raises 22004 when there is no command or message_id is null; 22023 when
 *		the message is no object, has a key or a command that is not known, or a
 *		value of another type; 22003 when a number is no bigint; 22007 and 22008
 *		when a string is no date; and what alloc_check_key() has for message_id.
 */
void
alloc_message_read(Jsonb *json, AllocMessage *message)
{
	JsonbContainer *object = &json->root;
	const AllocMessageCommand *command;

	if (!JsonContainerIsObject(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message is not an object: %s",
						alloc_show(cstring_to_text(JsonbToCString(NULL, object, VARSIZE(json))))),
				 errhint("A message is like {\"command\": \"allocate\", \"orderid\": \"o1\", \"sku\": \"LAMP\", \"qty\": 2}.")));
	message->command = read_command(object);
	command = &alloc_message_commands[message->command];
	require_known_message_keys(object, command);
	message->message_id = read_message_id(object);
	message->traceparent = read_traceparent(object);
	for (int i = 0; i < command->nargs; i++)
	{
		const AllocMessageArg *arg = &command->args[i];
		bool		isnull;

		if (arg->type == ALLOC_ORDER_LINES)
		{
			Oid			line = order_line_type();

			message->types[i] = get_array_type(line);
			message->values[i] = read_lines(object, arg->name, line, &isnull);
		}
		else
		{
			if (arg->must_be_there)
				require_key(object, arg->name);
			message->types[i] = arg->type;
			message->values[i] = read_key(object, arg->name, arg->type, &isnull);
		}
		message->nulls[i] = isnull ? 'n' : ' ';
	}
}

/*
 * alloc_message_show
 *		A JSON value as an error message shows it.
 */
const char *
alloc_message_show(JsonbValue *value)
{
	Jsonb	   *json = JsonbValueToJsonb(value);

	return alloc_show(cstring_to_text(JsonbToCString(NULL, &json->root,
													 VARSIZE(json))));
}

static int
read_command(JsonbContainer *object)
{
	JsonbValue	value;

	if (!get_key(object, "command", &value))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("command must not be null"),
				 errhint("Commands are %s.", list_commands())));
	if (value.type != jbvString)
		wrong_type("command", "string", &value);
	for (int i = 0; i < ALLOC_MESSAGE_NCOMMANDS; i++)
	{
		const char *name = alloc_message_commands[i].name;

		if (strlen(name) == value.val.string.len &&
			memcmp(name, value.val.string.val, value.val.string.len) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown command \"%s\"",
					alloc_show(read_text(&value, "command"))),
			 errhint("Commands are %s.", list_commands())));
	return -1;
}

static const char *
list_commands(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < ALLOC_MESSAGE_NCOMMANDS; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "",
						 alloc_message_commands[i].name);
	return list.data;
}

/*
 * One that is null is refused: its sender believes that it has an id.
 */
static const text *
read_message_id(JsonbContainer *object)
{
	JsonbValue	value;
	bool		isnull;
	Datum		id;

	if (getKeyJsonValueFromContainer(object, "message_id",
									 strlen("message_id"), &value) == NULL)
		return NULL;
	id = read_key(object, "message_id", TEXTOID, &isnull);
	return alloc_check_key(id, isnull, "message_id");
}

static const char *
read_traceparent(JsonbContainer *object)
{
	bool		isnull;
	Datum		traceparent = read_key(object, "traceparent", TEXTOID, &isnull);

	return isnull ? NULL : TextDatumGetCString(traceparent);
}

static void
require_known_message_keys(JsonbContainer *object,
						   const AllocMessageCommand *command)
{
	const char *known[lengthof(own_keys) + ALLOC_MAX_MESSAGE_ARGS];
	int			n = 0;

	for (int i = 0; i < command->nargs; i++)
		known[n++] = command->args[i].name;
	for (int i = 0; i < lengthof(own_keys); i++)
		known[n++] = own_keys[i];
	require_known_keys(object, known, n, command->name);
}

static void
require_known_keys(JsonbContainer *object, const char **known, int nknown,
				   const char *what)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	key;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		StringInfoData list;
		bool		found = token != WJB_KEY;

		for (int i = 0; !found && i < nknown; i++)
			found = strlen(known[i]) == key.val.string.len &&
				memcmp(known[i], key.val.string.val, key.val.string.len) == 0;
		if (found)
			continue;
		initStringInfo(&list);
		for (int i = 0; i < nknown; i++)
			appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", known[i]);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown key %s of %s", alloc_message_show(&key), what),
				 errhint("Keys are %s.", list.data)));
	}
}

/*
 * False: the key is absent or null.
 */
static bool
get_key(JsonbContainer *object, const char *name, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(object, name, (int) strlen(name),
										value) != NULL &&
		value->type != jbvNull;
}

static void
require_key(JsonbContainer *object, const char *name)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(object, name, (int) strlen(name),
									 &value) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the message has no key \"%s\"", name),
				 errhint("Null is a value of its own here.")));
}

static Datum
read_key(JsonbContainer *object, const char *name, Oid type, bool *isnull)
{
	JsonbValue	value;

	*isnull = !get_key(object, name, &value);
	return *isnull ? (Datum) 0 : read_scalar(&value, name, type);
}

static Datum
read_scalar(JsonbValue *value, const char *name, Oid type)
{
	switch (type)
	{
		case TEXTOID:
			return PointerGetDatum(read_text(value, name));
		case INT8OID:
			return Int64GetDatum(read_bigint(value, name));
		case DATEOID:
			return DateADTGetDatum(read_date(value, name));
		case INTERVALOID:
			return read_interval(value, name);
		default:
			/* somebody has altered type order_line */
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("key \"%s\" of a message cannot be of type %s",
							name, format_type_be(type))));
	}
	return (Datum) 0;
}

static text *
read_text(JsonbValue *value, const char *name)
{
	if (value->type != jbvString)
		wrong_type(name, "string", value);
	return cstring_to_text_with_len(value->val.string.val,
									value->val.string.len);
}

/*
 * Not by a cast to bigint, which would round.
 */
static int64
read_bigint(JsonbValue *value, const char *name)
{
	int64		result;

	if (value->type != jbvNumeric)
		wrong_type(name, "number", value);
	if (compare_numeric(value->val.numeric, PG_INT64_MIN) < 0 ||
		compare_numeric(value->val.numeric, PG_INT64_MAX) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("%s is out of the range of bigint: %s",
						name, alloc_message_show(value))));
	result = DatumGetInt64(DirectFunctionCall1(numeric_int8,
											   NumericGetDatum(value->val.numeric)));
	if (compare_numeric(value->val.numeric, result) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is not a whole number: %s",
						name, alloc_message_show(value))));
	return result;
}

static int
compare_numeric(Numeric a, int64 b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a),
											 NumericGetDatum(int64_to_numeric(b))));
}

/*
 * In the one form that events have it in: what else PostgreSQL takes for a
 * date depends on settings, or on the day.
 */
static DateADT
read_date(JsonbValue *value, const char *name)
{
	text	   *string = read_text(value, name);

	if (VARSIZE_ANY_EXHDR(string) <= MAXDATELEN)
	{
		char	   *chars = text_to_cstring(string);
		DateADT		date = DatumGetDateADT(DirectFunctionCall1(date_in,
															   CStringGetDatum(chars)));

		if (strcmp(alloc_show_date(date), chars) == 0)
			return date;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_DATETIME_FORMAT),
			 errmsg("%s is not a date in ISO 8601: %s",
					name, alloc_message_show(value)),
			 errhint("Dates are like \"2031-03-01\".")));
	return 0;
}

/*
 * A duration that looks the same wherever it is written.
 */
static Datum
read_interval(JsonbValue *value, const char *name)
{
	text	   *string = read_text(value, name);

	if (VARSIZE_ANY_EXHDR(string) > MAXDATELEN || *VARDATA_ANY(string) != 'P')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_DATETIME_FORMAT),
				 errmsg("%s is not a duration in ISO 8601: %s",
						name, alloc_message_show(value)),
				 errhint("Durations are like \"PT15M\", 15 minutes.")));
	return DirectFunctionCall3(interval_in,
							   CStringGetDatum(text_to_cstring(string)),
							   ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

static void
wrong_type(const char *name, const char *type, JsonbValue *value)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s must be a JSON %s: %s",
					name, type, alloc_message_show(value))));
}

static Oid
order_line_type(void)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									   CStringGetDatum("order_line"),
									   ObjectIdGetDatum(get_namespace_oid("alloc", false)));

	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type alloc.order_line does not exist")));
	return type;
}

/*
 * An array of objects, as an array of order lines.
 */
static Datum
read_lines(JsonbContainer *object, const char *name, Oid type, bool *isnull)
{
	int			element = 0;
	ErrorContextCallback context = {
		.callback = tell_element,
		.arg = &element,
		.previous = error_context_stack
	};
	JsonbValue	array;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;
	TupleDesc	desc;
	Datum	   *lines;
	bool	   *nulls;
	const int	lower_bound = 1;

	*isnull = !get_key(object, name, &array);
	if (*isnull)
		return (Datum) 0;
	if (array.type != jbvBinary || !JsonContainerIsArray(array.val.binary.data))
		wrong_type(name, "array", &array);
	lines = palloc_array(Datum, JsonContainerSize(array.val.binary.data) + 1);
	nulls = palloc_array(bool, JsonContainerSize(array.val.binary.data) + 1);
	desc = lookup_rowtype_tupdesc(type, -1);
	it = JsonbIteratorInit(array.val.binary.data);
	error_context_stack = &context;
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		CHECK_FOR_INTERRUPTS();
		if (token != WJB_ELEM)
			continue;
		nulls[element] = value.type == jbvNull;
		if (!nulls[element])
		{
			if (value.type != jbvBinary ||
				!JsonContainerIsObject(value.val.binary.data))
				wrong_type("an order line", "object", &value);
			lines[element] = read_line(value.val.binary.data, desc);
		}
		element++;
	}
	error_context_stack = context.previous;
	ReleaseTupleDesc(desc);
	return PointerGetDatum(construct_md_array(lines, nulls, 1, &element,
											  unconstify(int *, &lower_bound),
											  type, -1, false,
											  TYPALIGN_DOUBLE));
}

/*
 * The keys are the attributes of the type.
 */
static Datum
read_line(JsonbContainer *object, TupleDesc desc)
{
	const char **names = palloc_array(const char *, desc->natts);
	Datum	   *values = palloc0_array(Datum, desc->natts);
	bool	   *nulls = palloc_array(bool, desc->natts);
	Datum		line;

	for (int i = 0; i < desc->natts; i++)
		names[i] = NameStr(TupleDescAttr(desc, i)->attname);
	require_known_keys(object, names, desc->natts, "an order line");
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		nulls[i] = true;
		if (!attribute->attisdropped)
			values[i] = read_key(object, names[i], attribute->atttypid,
								 &nulls[i]);
	}
	line = HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
	pfree(names);
	pfree(values);
	pfree(nulls);
	return line;
}

static void
tell_element(void *arg)
{
	errcontext("element %d of the lines", *(int *) arg + 1);
}
