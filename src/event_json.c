/*-------------------------------------------------------------------------
 *
 * event_json.c
 *	  Events as JSON: text for NOTIFY, jsonb for queries, consumers and
 *	  handlers.
 *
 * What the members are and in which order is written once, in
 * write_members(); the two forms differ in how they take one.
 *
 * Memory: results, and what is needed on the way, are in the current context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "event.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

typedef struct JsonWriter
{
	void		(*put_string) (struct JsonWriter *writer, const char *key,
							   const char *value, size_t length);
	void		(*put_number) (struct JsonWriter *writer, const char *key,
							   int64 value);
	StringInfo	json;			/* text */
	JsonbParseState *state;		/* jsonb */
} JsonWriter;

static void write_members(JsonWriter *writer, const AllocEventRow *event);
static void write_moment(JsonWriter *writer, const char *key, TimestampTz at);
static void write_key(JsonWriter *writer, const char *key, const text *value);
static void write_qty(JsonWriter *writer, const char *key,
					  NullableDatum value);
static void write_date(JsonWriter *writer, const char *key,
					   NullableDatum value);
static void put_text_key(JsonWriter *writer, const char *key);
static void put_text_string(JsonWriter *writer, const char *key,
							const char *value, size_t length);
static void put_text_number(JsonWriter *writer, const char *key, int64 value);
static void put_jsonb_key(JsonWriter *writer, const char *key);
static void put_jsonb_string(JsonWriter *writer, const char *key,
							 const char *value, size_t length);
static void put_jsonb_number(JsonWriter *writer, const char *key, int64 value);

/*
 * alloc_event_json
 *		Appends an event as JSON text: the payload of NOTIFY.
 *
 * With keys of at most 255 bytes, each escaped to at most six, it stays under
 * the 8000 bytes that NOTIFY takes.  Dates and the moment are in ISO 8601,
 * the moment in UTC, whatever the session's settings.
 */
void
alloc_event_json(StringInfo json, const AllocEventRow *event)
{
	JsonWriter	writer = {
		.put_string = put_text_string,
		.put_number = put_text_number,
		.json = json
	};

	appendStringInfoChar(json, '{');
	write_members(&writer, event);
	appendStringInfoChar(json, '}');
}

/*
 * alloc_event_jsonb
 *		The same, as jsonb.
 */
Jsonb *
alloc_event_jsonb(const AllocEventRow *event)
{
	JsonWriter	writer = {
		.put_string = put_jsonb_string,
		.put_number = put_jsonb_number
	};

	pushJsonbValue(&writer.state, WJB_BEGIN_OBJECT, NULL);
	write_members(&writer, event);
	return JsonbValueToJsonb(pushJsonbValue(&writer.state, WJB_END_OBJECT,
											NULL));
}

/*
 * The keys are the book's; one that does not apply is absent.  DESIGN section
 * 3.
 */
static void
write_members(JsonWriter *writer, const AllocEventRow *event)
{
	writer->put_number(writer, "event_id", event->event_id);
	writer->put_string(writer, "type", event->type, strlen(event->type));
	write_moment(writer, "at", event->at);
	write_key(writer, "orderid", event->orderid);
	write_key(writer, "sku", event->sku);
	write_qty(writer, "qty", event->qty);
	write_qty(writer, "old_qty", event->old_qty);
	write_key(writer, "batchref", event->batchref);
	write_date(writer, "eta", event->eta);
	write_date(writer, "old_eta", event->old_eta);
	if (event->expires_at != 0)
		write_moment(writer, "expires_at", event->expires_at);
	write_key(writer, "traceparent", event->traceparent);
}

static void
write_moment(JsonWriter *writer, const char *key, TimestampTz at)
{
	char	   *moment = palloc(MAXDATELEN + 1);
	const int	utc = 0;

	JsonEncodeDateTime(moment, TimestampTzGetDatum(at), TIMESTAMPTZOID, &utc);
	writer->put_string(writer, key, moment, strlen(moment));
}

static void
write_key(JsonWriter *writer, const char *key, const text *value)
{
	if (value != NULL)
		writer->put_string(writer, key, VARDATA_ANY(value),
						   VARSIZE_ANY_EXHDR(value));
}

static void
write_qty(JsonWriter *writer, const char *key, NullableDatum value)
{
	if (!value.isnull)
		writer->put_number(writer, key, DatumGetInt64(value.value));
}

static void
write_date(JsonWriter *writer, const char *key, NullableDatum value)
{
	char	   *date;

	if (value.isnull)
		return;
	date = palloc(MAXDATELEN + 1);
	JsonEncodeDateTime(date, value.value, DATEOID, NULL);
	writer->put_string(writer, key, date, strlen(date));
}

static void
put_text_key(JsonWriter *writer, const char *key)
{
	if (writer->json->data[writer->json->len - 1] != '{')
		appendStringInfoString(writer->json, ", ");
	appendStringInfo(writer->json, "\"%s\": ", key);
}

static void
put_text_string(JsonWriter *writer, const char *key, const char *value,
				size_t length)
{
	char	   *terminated = pnstrdup(value, length);

	put_text_key(writer, key);
	escape_json(writer->json, terminated);
	pfree(terminated);
}

static void
put_text_number(JsonWriter *writer, const char *key, int64 value)
{
	put_text_key(writer, key);
	appendStringInfo(writer->json, INT64_FORMAT, value);
}

static void
put_jsonb_key(JsonWriter *writer, const char *key)
{
	JsonbValue	name = {.type = jbvString};

	name.val.string.val = unconstify(char *, key);
	name.val.string.len = (int) strlen(key);
	pushJsonbValue(&writer->state, WJB_KEY, &name);
}

/*
 * The value must stay as it is until the object is complete.
 */
static void
put_jsonb_string(JsonWriter *writer, const char *key, const char *value,
				 size_t length)
{
	JsonbValue	string = {.type = jbvString};

	put_jsonb_key(writer, key);
	string.val.string.val = unconstify(char *, value);
	string.val.string.len = (int) length;
	pushJsonbValue(&writer->state, WJB_VALUE, &string);
}

static void
put_jsonb_number(JsonWriter *writer, const char *key, int64 value)
{
	JsonbValue	number = {.type = jbvNumeric};

	put_jsonb_key(writer, key);
	number.val.numeric = int64_to_numeric(value);
	pushJsonbValue(&writer->state, WJB_VALUE, &number);
}
