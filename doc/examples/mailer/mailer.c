/*-------------------------------------------------------------------------
 *
 * mailer.c
 *	  Mails "Out of stock for SKU" to whoever buys: a consumer to copy.
 *
 *	  mailer CONNINFO SMTP_URL SENDER RECIPIENT [CONSUMER]
 *
 * It reads the event log by a consumer of alloc and keeps a table of its own,
 * stock_mail, with a row for each mail.  Events become rows in the transaction
 * that takes them from the consumer: none is missed, none is recorded twice.
 * A row is then sent and marked as sent.  What is marked is never sent again;
 * what is not marked is sent until a server has taken it.
 *
 * SMTP leaves one gap.  Between the moment when the mail server takes a mail
 * and the one when that is recorded, this program may be killed, or the
 * server's "250" be lost: nobody can tell whether the mail is out, so it is
 * sent again.  The repetition is the same to the byte.  Its Message-ID is made
 * of the event's id and moment, so a receiver can tell, and many mail servers
 * drop it by themselves.  A database that goes away in between is no such gap:
 * the program remembers the mail in hand and marks it when it is connected
 * again.
 *
 * Channel alloc_events says when to look.  Notifications may be lost with a
 * connection, the log is not: after each connect, and once in a while, it
 * looks unasked.  Whatever fails in the database ends the connection; the next
 * one goes on from what the tables say.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* asprintf, ppoll */

#include <curl/curl.h>
#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Milliseconds: between looks at the log that nobody asked for; after a first
 * failure, doubled with each one that follows; and the most of it.
 */
#define LOOK_INTERVAL 60000
#define FIRST_DELAY 250
#define MAX_DELAY 30000

/* Events that one transaction takes from the consumer. */
#define BATCH_SIZE 1000

/* Seconds for a mail, and for the connection to a server. */
#define MAIL_TIMEOUT 30L
#define CONNECT_TIMEOUT 10L

#define REASON_SIZE (CURL_ERROR_SIZE + 40)

typedef struct Mailer
{
	const char *conninfo;
	const char *smtp_url;
	const char *sender;
	const char *recipient;
	const char *consumer;
	PGconn	   *conn;
	char		in_hand[32];	/* event_id of a mail that is out, but not yet
								 * marked; or empty */
} Mailer;

typedef enum Outcome
{
	SENT,
	REFUSED,					/* this mail, by the mail server */
	UNREACHABLE,				/* the mail server; or it asks to wait */
	NOTHING_LEFT,
	DATABASE_LOST
} Outcome;

static volatile sig_atomic_t stopping;

/* Makes all that is missing.  What has been sent must survive a crash. */
static const char setup[] =
	"SET client_min_messages = warning;"
	"SET standard_conforming_strings = on;"
	"SELECT pg_catalog.set_config('synchronous_commit', 'on', false)"
	" WHERE pg_catalog.current_setting('synchronous_commit') = 'off';"
	"CREATE TABLE IF NOT EXISTS stock_mail ("
	"	consumer text NOT NULL,"
	"	event_id bigint NOT NULL,"
	"	at timestamptz NOT NULL,"
	"	sku text NOT NULL,"
	"	orderid text NOT NULL,"
	"	qty bigint NOT NULL,"
	"	sent_at timestamptz,"
	"	refused int NOT NULL DEFAULT 0,"
	"	refusal text,"
	"	try_after timestamptz NOT NULL DEFAULT '-infinity',"
	"	PRIMARY KEY (consumer, event_id));"
	"CREATE INDEX IF NOT EXISTS stock_mail_unsent"
	" ON stock_mail (consumer, event_id) WHERE sent_at IS NULL;"
	"LISTEN alloc_events";

/*
 * One statement is one transaction: the position moves with the rows.  A row
 * may be there already if somebody has dropped the consumer and begun again.
 */
static const char record[] =
	"WITH event AS MATERIALIZED"
	" (SELECT * FROM alloc.fetch_events($1, $2)),"
	" mail AS"
	" (INSERT INTO stock_mail (consumer, event_id, at, sku, orderid, qty)"
	"  SELECT $1, event_id, at, sku, orderid, qty FROM event"
	"   WHERE type = 'out_of_stock'"
	"  ON CONFLICT DO NOTHING)"
	"SELECT count(*) < $2 FROM event";

/*
 * Locked, so that a second mailer takes another one.  A sku is any text: its
 * control characters stay out of the subject, which is in encoded words (RFC
 * 2047) of nine characters unless it is plain ASCII and does not look like
 * one; and the body is encoded as a whole.  So nothing in it can become a
 * header or the end of the mail.
 */
static const char next_mail[] =
	"SELECT m.event_id,"
	"       event_id || '.' || (extract(epoch FROM at) * 1000000)::bigint,"
	"       to_char(at AT TIME ZONE 'UTC', 'Dy, DD Mon YYYY HH24:MI:SS +0000'),"
	"       CASE WHEN title ~ '^[ -~]*$' AND title !~ '=[?]' THEN title"
	"       ELSE (SELECT string_agg('=?UTF-8?B?' || encode(convert_to("
	"               substr(title, n, 9), 'UTF8'), 'base64') || '?=',"
	"               E'\\r\\n ' ORDER BY n)"
	"               FROM generate_series(1, length(title), 9) n)"
	"       END,"
	"       replace(encode(convert_to(format("
	"               E'Out of stock for %s\\r\\n\\r\\nOrder: %s\\r\\nQuantity: %s\\r\\n',"
	"               sku, orderid, qty), 'UTF8'), 'base64'), E'\\n', E'\\r\\n')"
	"  FROM stock_mail m, regexp_replace('Out of stock for ' || sku,"
	"       '[\\u0001-\\u001f\\u007f-\\u009f]', '', 'g') title"
	" WHERE consumer = $1 AND sent_at IS NULL AND try_after <= now()"
	" ORDER BY event_id LIMIT 1 FOR UPDATE OF m SKIP LOCKED";

static const char mark_sent[] =
	"UPDATE stock_mail SET sent_at = clock_timestamp()"
	" WHERE consumer = $1 AND event_id = $2 AND sent_at IS NULL";

/* The others need not wait for it: from two minutes to 17 hours. */
static const char mark_refused[] =
	"UPDATE stock_mail SET refused = refused + 1, refusal = $3, try_after ="
	" now() + interval '1 minute' * 2 ^ least(refused + 1, 10)"
	" WHERE consumer = $1 AND event_id = $2";

static void check_address(const char *address);
static void stop_on_signals(void);
static bool begin(Mailer *mailer);
static bool serve(Mailer *mailer);
static bool record_mails(Mailer *mailer);
static Outcome send_mails(Mailer *mailer);
static Outcome send_next(Mailer *mailer, CURL *curl);
static bool mark(Mailer *mailer, Outcome outcome, const char *event_id,
				 const char *reason);
static Outcome deliver(const Mailer *mailer, CURL *curl, char *text,
					   size_t length, char *reason);
static char *compose(const Mailer *mailer, const PGresult *row,
					 size_t *length);
static bool create_consumer(Mailer *mailer);
static PGresult *query(Mailer *mailer, const char *command, int nargs,
					   const char *const *args);
static bool execute(Mailer *mailer, const char *command, int nargs,
					const char *const *args);
static bool wait_for_doorbell(Mailer *mailer);
static bool has_rung(PGconn *conn);
static void wait_for(int fd, int delay);
static int	longer(int delay);
static void die(const char *what);

int
main(int argc, char **argv)
{
	Mailer		mailer = {0};
	int			delay = FIRST_DELAY;

	if (argc < 5 || argc > 6)
	{
		fprintf(stderr, "usage: mailer CONNINFO SMTP_URL SENDER RECIPIENT [CONSUMER]\n");
		return 2;
	}
	mailer.conninfo = argv[1];
	mailer.smtp_url = argv[2];
	mailer.sender = argv[3];
	mailer.recipient = argv[4];
	mailer.consumer = argc > 5 ? argv[5] : "mailer";
	check_address(mailer.sender);
	check_address(mailer.recipient);
	stop_on_signals();
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		die("libcurl");

	while (!stopping)
	{
		if (begin(&mailer) && serve(&mailer))
			delay = FIRST_DELAY;
		PQfinish(mailer.conn);
		if (!stopping)
			wait_for(-1, delay);
		delay = longer(delay);
	}
	curl_global_cleanup();
	return 0;
}

/*
 * An address becomes part of a header and of SMTP's commands.
 */
static void
check_address(const char *address)
{
	bool		good = strchr(address, '@') != NULL;

	for (const char *c = address; *c; c++)
		if ((unsigned char) *c <= ' ' || *c == '<' || *c == '>' || *c == 0x7f)
			good = false;
	if (!good)
	{
		fprintf(stderr, "mailer: not an address: %s\n", address);
		exit(2);
	}
}

static void
note_stop(int signal_number)
{
	(void) signal_number;
	stopping = 1;
}

/*
 * The mail in hand is brought to its end.
 */
static void
stop_on_signals(void)
{
	struct sigaction action = {.sa_handler = note_stop};

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/*
 * Connects, makes what is missing, and listens before the first look.
 */
static bool
begin(Mailer *mailer)
{
	char		timeout[12];
	const char *keywords[] = {"connect_timeout", "fallback_application_name",
	"dbname", "client_encoding", NULL};
	const char *values[] = {timeout, "mailer", mailer->conninfo, "UTF8", NULL};
	PGresult   *result;
	bool		done;

	snprintf(timeout, sizeof(timeout), "%ld", CONNECT_TIMEOUT);
	mailer->conn = PQconnectdbParams(keywords, values, 1);
	if (PQstatus(mailer->conn) != CONNECTION_OK)
	{
		fprintf(stderr, "mailer: %s", PQerrorMessage(mailer->conn));
		return false;
	}
	result = PQexec(mailer->conn, setup);
	done = PQresultStatus(result) == PGRES_COMMAND_OK;
	PQclear(result);
	if (!done)
	{
		fprintf(stderr, "mailer: %s", PQerrorMessage(mailer->conn));
		return false;
	}
	if (!create_consumer(mailer))
		return false;
	if (mailer->in_hand[0] && !mark(mailer, SENT, mailer->in_hand, NULL))
		return false;
	mailer->in_hand[0] = '\0';
	fprintf(stderr, "mailer: listening\n");
	return true;
}

/*
 * Works until told to stop, or the connection has to be made anew.  Returns
 * whether it could look at the log at least once.
 */
static bool
serve(Mailer *mailer)
{
	int			delay = FIRST_DELAY;
	bool		looked = false;

	while (!stopping && record_mails(mailer))
	{
		Outcome		outcome = send_mails(mailer);

		looked = true;
		if (outcome == DATABASE_LOST || stopping)
			break;
		if (outcome == UNREACHABLE)
		{
			wait_for(-1, delay);
			delay = longer(delay);
			continue;
		}
		delay = FIRST_DELAY;
		if (!wait_for_doorbell(mailer))
			break;
	}
	return looked;
}

/*
 * Puts a row into stock_mail for each event that is new.
 */
static bool
record_mails(Mailer *mailer)
{
	char		most[12];
	const char *args[] = {mailer->consumer, most};
	bool		all = false;

	snprintf(most, sizeof(most), "%d", BATCH_SIZE);
	while (!all && !stopping)
	{
		PGresult   *result = query(mailer, record, 2, args);

		if (result == NULL)
			return false;
		all = PQgetvalue(result, 0, 0)[0] == 't';
		PQclear(result);
	}
	return true;
}

/*
 * Sends what is due; over one connection to the mail server.
 */
static Outcome
send_mails(Mailer *mailer)
{
	CURL	   *curl = curl_easy_init();
	Outcome		outcome;

	if (curl == NULL)
		die("libcurl");
	do
		outcome = send_next(mailer, curl);
	while ((outcome == SENT || outcome == REFUSED) && !stopping);
	curl_easy_cleanup(curl);
	return outcome;
}

/*
 * The row stays locked while its mail is on the way.
 */
static Outcome
send_next(Mailer *mailer, CURL *curl)
{
	const char *args[] = {mailer->consumer};
	char		reason[REASON_SIZE];
	PGresult   *row;
	Outcome		outcome = NOTHING_LEFT;
	bool		done = true;

	if (!execute(mailer, "BEGIN", 0, NULL) ||
		(row = query(mailer, next_mail, 1, args)) == NULL)
		return DATABASE_LOST;
	if (PQntuples(row) == 1)
	{
		size_t		length;
		char	   *text = compose(mailer, row, &length);

		outcome = deliver(mailer, curl, text, length, reason);
		free(text);
		if (outcome == SENT)
			snprintf(mailer->in_hand, sizeof(mailer->in_hand), "%s",
					 PQgetvalue(row, 0, 0));
		else
			fprintf(stderr, "mailer: event %s: %s\n", PQgetvalue(row, 0, 0),
					reason);
		done = mark(mailer, outcome, PQgetvalue(row, 0, 0), reason);
	}
	PQclear(row);
	if (!done || !execute(mailer, "COMMIT", 0, NULL))
		return DATABASE_LOST;
	mailer->in_hand[0] = '\0';
	return outcome;
}

/*
 * Writes into the mail's row what has become of it.
 */
static bool
mark(Mailer *mailer, Outcome outcome, const char *event_id, const char *reason)
{
	const char *args[] = {mailer->consumer, event_id, reason};

	if (outcome == SENT)
		return execute(mailer, mark_sent, 2, args);
	if (outcome == REFUSED)
		return execute(mailer, mark_refused, 3, args);
	return true;
}

/*
 * Gives a mail to the mail server.  If it was not taken, reason says why.
 * A login, if one is needed, is in ~/.netrc.
 */
static Outcome
deliver(const Mailer *mailer, CURL *curl, char *text, size_t length,
		char *reason)
{
	FILE	   *mail = fmemopen(text, length, "r");
	struct curl_slist *recipients = curl_slist_append(NULL, mailer->recipient);
	char		error[CURL_ERROR_SIZE] = "";
	long		reply = 0;
	CURLcode	code;

	if (mail == NULL || recipients == NULL)
		die("out of memory");
	curl_easy_setopt(curl, CURLOPT_URL, mailer->smtp_url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NETRC, (long) CURL_NETRC_OPTIONAL);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, MAIL_TIMEOUT);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
	curl_easy_setopt(curl, CURLOPT_MAIL_FROM, mailer->sender);
	curl_easy_setopt(curl, CURLOPT_MAIL_RCPT, recipients);
	curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(curl, CURLOPT_READDATA, mail);
	code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply);
	curl_slist_free_all(recipients);
	fclose(mail);
	if (code == CURLE_OK)
		return SENT;
	snprintf(reason, REASON_SIZE, "%s (last reply: %ld)",
			 error[0] ? error : curl_easy_strerror(code), reply);
	return reply >= 500 ? REFUSED : UNREACHABLE;
}

/*
 * The mail as it goes over the wire, from a row of next_mail.
 */
static char *
compose(const Mailer *mailer, const PGresult *row, size_t *length)
{
	char	   *text;
	int			size;

	size = asprintf(&text,
					"From: <%s>\r\n"
					"To: <%s>\r\n"
					"Subject: %s\r\n"
					"Date: %s\r\n"
					"Message-ID: <%s%s>\r\n"
					"Auto-Submitted: auto-generated\r\n"
					"MIME-Version: 1.0\r\n"
					"Content-Type: text/plain; charset=UTF-8\r\n"
					"Content-Transfer-Encoding: base64\r\n"
					"\r\n"
					"%s\r\n",
					mailer->sender, mailer->recipient, PQgetvalue(row, 0, 3),
					PQgetvalue(row, 0, 2), PQgetvalue(row, 0, 1),
					strrchr(mailer->sender, '@'), PQgetvalue(row, 0, 4));
	if (size < 0)
		die("out of memory");
	*length = size;
	return text;
}

/*
 * From now on, if it is new; 42710: it was there.
 */
static bool
create_consumer(Mailer *mailer)
{
	const char *args[] = {mailer->consumer};
	PGresult   *result = PQexecParams(mailer->conn,
									  "SELECT alloc.create_consumer($1)",
									  1, NULL, args, NULL, NULL, 0);
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	bool		done = PQresultStatus(result) == PGRES_TUPLES_OK ||
		(state != NULL && strcmp(state, "42710") == 0);

	if (!done)
		fprintf(stderr, "mailer: %s", PQerrorMessage(mailer->conn));
	PQclear(result);
	return done;
}

/*
 * NULL, and a line on stderr, if the command failed.
 */
static PGresult *
query(Mailer *mailer, const char *command, int nargs, const char *const *args)
{
	PGresult   *result = PQexecParams(mailer->conn, command, nargs, NULL, args,
									  NULL, NULL, 0);
	ExecStatusType status = PQresultStatus(result);

	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		return result;
	fprintf(stderr, "mailer: %s", PQerrorMessage(mailer->conn));
	PQclear(result);
	return NULL;
}

static bool
execute(Mailer *mailer, const char *command, int nargs,
		const char *const *args)
{
	PGresult   *result = query(mailer, command, nargs, args);

	PQclear(result);
	return result != NULL;
}

/*
 * Until it rings, or for LOOK_INTERVAL.  False: the connection is lost.
 */
static bool
wait_for_doorbell(Mailer *mailer)
{
	if (!has_rung(mailer->conn) && PQstatus(mailer->conn) == CONNECTION_OK)
	{
		wait_for(PQsocket(mailer->conn), LOOK_INTERVAL);
		(void) has_rung(mailer->conn);
	}
	if (PQstatus(mailer->conn) == CONNECTION_OK)
		return true;
	fprintf(stderr, "mailer: %s", PQerrorMessage(mailer->conn));
	return false;
}

/*
 * Takes all notifications that have arrived: one look is enough for them.
 */
static bool
has_rung(PGconn *conn)
{
	PGnotify   *notification;
	bool		rung = false;

	if (!PQconsumeInput(conn))
		return false;
	while ((notification = PQnotifies(conn)) != NULL)
	{
		rung = true;
		PQfreemem(notification);
	}
	return rung;
}

/*
 * Waits until there is something to read (fd -1: nothing), for delay
 * milliseconds, or until told to stop, be it just before.
 */
static void
wait_for(int fd, int delay)
{
	struct pollfd readable = {.fd = fd,.events = POLLIN};
	struct timespec timeout = {delay / 1000, delay % 1000 * 1000000L};
	sigset_t	stops;
	sigset_t	before;

	sigemptyset(&stops);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGINT);
	sigprocmask(SIG_BLOCK, &stops, &before);
	if (!stopping && ppoll(&readable, 1, &timeout, &before) < 0 &&
		errno != EINTR)
		die("poll");
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static int
longer(int delay)
{
	return delay * 2 < MAX_DELAY ? delay * 2 : MAX_DELAY;
}

static void
die(const char *what)
{
	perror(what);
	exit(1);
}
