/*-------------------------------------------------------------------------
 *
 * notify_latency.c
 *	  Clients that allocate at a steady rate, and one that listens: how long
 *	  after a commit does its event arrive?
 *
 *	  notify_latency CONNINFO CLIENTS RATE SECONDS SKUS PREFIX
 *
 * Calls are due at RATE per second and are sent as soon as one of the clients
 * is idle.  The orders are PREFIX0, PREFIX1 and so on; nobody else may have
 * such.  Prints three lines:
 *
 *	  calls, calls per second;
 *	  from the answer to the notification: p50, p95, p99 and the most, in
 *	  milliseconds; 0 where the notification came first;
 *	  from the moment when the call was sent: the same.
 *
 * A client knows of its commit by the answer, which comes after it, but not
 * when it was; it was after the call was sent.  So the time from commit to
 * listener is between the two.
 *
 * All is done by one thread, with one clock, which is read once when
 * something has arrived: an answer and a notification that are there together
 * arrived together.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "notify_client.h"

/* Nanoseconds. */
#define SECOND INT64_C(1000000000)
#define PATIENCE (10 * SECOND)

/* The moments of a call, 0: it was not yet. */
typedef struct Call
{
	int64_t		sent;
	int64_t		answered;
	int64_t		heard;
} Call;

typedef struct Client
{
	PGconn	   *conn;
	Call	   *call;			/* NULL: idle */
} Client;

static Client *clients;
static int	nclients;
static PGconn *listener;
static Call *calls;
static int64_t ncalls;
static int64_t max_calls;
static int64_t nanswered;
static int64_t nheard;
static int64_t skus;
static const char *prefix;

static int64_t
positive(const char *argument)
{
	char	   *end;
	int64_t		value = strtoll(argument, &end, 10);

	if (*end == '\0' && value > 0)
		return value;
	fprintf(stderr, "\"%s\" is no number above zero\n", argument);
	exit(2);
}

static void *
allocate_zeroed(int64_t n, size_t size)
{
	void	   *array = calloc((size_t) n, size);

	if (array != NULL)
		return array;
	fprintf(stderr, "out of memory\n");
	exit(1);
}

static void
open_connections(const char *conninfo)
{
	clients = allocate_zeroed(nclients, sizeof(Client));
	for (int i = 0; i < nclients; i++)
	{
		PGresult   *result;

		clients[i].conn = connect_to(conninfo);
		result = PQprepare(clients[i].conn, "allocate",
						   "SELECT alloc.allocate($1, $2, 1)", 0, NULL);
		require_connection(clients[i].conn,
						   PQresultStatus(result) == PGRES_COMMAND_OK);
		PQclear(result);
	}
	listener = connect_to(conninfo);
	listen_to_alloc(listener);
}

static void
close_connections(void)
{
	for (int i = 0; i < nclients; i++)
		PQfinish(clients[i].conn);
	PQfinish(listener);
	free(clients);
}

static Client *
idle_client(void)
{
	for (int i = 0; i < nclients; i++)
		if (clients[i].call == NULL)
			return &clients[i];
	return NULL;
}

/*
 * 7919 is prime: neighbours in time are far apart in the shop.
 */
static void
send_call(Client *client)
{
	char		orderid[100];
	char		sku[40];
	const char *const arguments[] = {orderid, sku};

	snprintf(orderid, sizeof(orderid), "%s%" PRId64, prefix, ncalls);
	snprintf(sku, sizeof(sku), "SKU-%" PRId64, 100001 + ncalls * 7919 % skus);
	client->call = &calls[ncalls++];
	client->call->sent = nanoseconds(CLOCK_MONOTONIC);
	require_connection(client->conn,
					   PQsendQueryPrepared(client->conn, "allocate", 2,
										   arguments, NULL, NULL, 0));
}

/*
 * Has a client its answer?  It is complete when the commit is.
 */
static void
take_answer(Client *client, int64_t now)
{
	PGresult   *result;

	require_connection(client->conn, PQconsumeInput(client->conn));
	while (!PQisBusy(client->conn))
	{
		result = PQgetResult(client->conn);
		if (result == NULL)
		{
			client->call->answered = now;
			client->call = NULL;
			nanswered++;
			return;
		}
		require_connection(client->conn,
						   PQresultStatus(result) == PGRES_TUPLES_OK &&
						   !PQgetisnull(result, 0, 0));
		PQclear(result);
	}
}

/*
 * The order of an event is PREFIX and the number of the call.
 */
static void
note_event(const char *payload, int64_t now)
{
	const char *orderid = strstr(payload, prefix);
	char	   *end;
	int64_t		n;

	if (orderid == NULL)
		return;
	n = strtoll(orderid + strlen(prefix), &end, 10);
	if (*end != '"' || n < 0 || n >= ncalls || calls[n].heard != 0)
	{
		fprintf(stderr, "unexpected or for the second time: %s\n", payload);
		exit(1);
	}
	calls[n].heard = now;
	nheard++;
}

static void
take_notifications(int64_t now)
{
	PGnotify   *notification;

	require_connection(listener, PQconsumeInput(listener));
	while ((notification = PQnotifies(listener)) != NULL)
	{
		if (strcmp(notification->relname, "alloc_allocated") == 0)
			note_event(notification->extra, now);
		PQfreemem(notification);
	}
}

/*
 * Waits until something arrives, but not longer than to that moment, and takes
 * it.  Returns whether something did.
 */
static int
wait_until(int64_t until, struct pollfd *sockets)
{
	int64_t		left = until - nanoseconds(CLOCK_MONOTONIC);
	struct timespec timeout = {0, 0};
	int64_t		now;

	for (int i = 0; i < nclients; i++)
		sockets[i] = (struct pollfd) {.fd = PQsocket(clients[i].conn),.events = POLLIN};
	sockets[nclients] = (struct pollfd) {.fd = PQsocket(listener),.events = POLLIN};
	if (left > 0)
		timeout = (struct timespec) {left / SECOND, left % SECOND};
	if (ppoll(sockets, nclients + 1, &timeout, NULL) <= 0)
		return 0;
	now = nanoseconds(CLOCK_MONOTONIC);
	for (int i = 0; i < nclients; i++)
		if (sockets[i].revents != 0 && clients[i].call != NULL)
			take_answer(&clients[i], now);
	if (sockets[nclients].revents != 0)
		take_notifications(now);
	return 1;
}

/*
 * Sends calls for as many seconds, then waits for what is still to come.
 * Returns the nanoseconds from the first call to the last answer.
 */
static int64_t
run(int64_t rate, int64_t seconds)
{
	struct pollfd *sockets = allocate_zeroed(nclients + 1, sizeof(struct pollfd));
	int64_t		start = nanoseconds(CLOCK_MONOTONIC);
	int64_t		last_arrival = start;
	int64_t		last_answer = 0;

	for (;;)
	{
		int64_t		now = nanoseconds(CLOCK_MONOTONIC);
		int64_t		due = start + ncalls * SECOND / rate;
		int			sending = now < start + seconds * SECOND && ncalls < max_calls;
		Client	   *client = sending ? idle_client() : NULL;

		if (client != NULL && due <= now)
		{
			send_call(client);
			continue;
		}
		if (!sending && nanswered == ncalls && nheard == ncalls)
			break;
		if (wait_until(client != NULL ? due : now + SECOND, sockets))
			last_arrival = nanoseconds(CLOCK_MONOTONIC);
		else if (now > last_arrival + PATIENCE)
		{
			fprintf(stderr, "%" PRId64 " notifications are missing\n",
					ncalls - nheard);
			exit(1);
		}
	}
	free(sockets);
	for (int64_t i = 0; i < ncalls; i++)
		if (calls[i].answered > last_answer)
			last_answer = calls[i].answered;
	return last_answer - start;
}

static int
compare_int64(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

/*
 * Milliseconds at or above which a fraction of the sorted values ends.
 */
static double
percentile(const int64_t *sorted, int percent)
{
	int64_t		rank = (ncalls * percent + 99) / 100;

	return (double) sorted[rank > 0 ? rank - 1 : 0] / 1e6;
}

static void
print_times(int64_t *times)
{
	qsort(times, (size_t) ncalls, sizeof(int64_t), compare_int64);
	printf("%.3f %.3f %.3f %.3f\n", percentile(times, 50), percentile(times, 95),
		   percentile(times, 99), percentile(times, 100));
}

int
main(int argc, char **argv)
{
	int64_t		rate;
	int64_t		seconds;
	int64_t    *times;
	int64_t		took;

	if (argc != 7)
		return 2;
	nclients = (int) positive(argv[2]);
	rate = positive(argv[3]);
	seconds = positive(argv[4]);
	skus = positive(argv[5]);
	prefix = argv[6];
	max_calls = rate * seconds;
	calls = allocate_zeroed(max_calls, sizeof(Call));
	times = allocate_zeroed(max_calls, sizeof(int64_t));
	open_connections(argv[1]);

	took = run(rate, seconds);
	printf("%" PRId64 " %.1f\n", ncalls, (double) ncalls * SECOND / (double) took);
	for (int64_t i = 0; i < ncalls; i++)
		times[i] = calls[i].heard > calls[i].answered ?
			calls[i].heard - calls[i].answered : 0;
	print_times(times);
	for (int64_t i = 0; i < ncalls; i++)
		times[i] = calls[i].heard - calls[i].sent;
	print_times(times);
	close_connections();
	free(times);
	free(calls);
	return 0;
}
