/*-------------------------------------------------------------------------
 *
 * count_notifications.c
 *	  A client that listens to all channels of alloc, and counts.
 *
 *	  count_notifications CONNINFO
 *
 * Prints "listening", then, when a notification comes from channel
 * "bench_stop", the number of events, how often the doorbell rang, and the
 * moment at which the last event came, in seconds since 1970.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "notify_client.h"

static long events;
static long rings;
static int64_t last_event;

/*
 * Counts what has arrived.  Returns 0 when the end was among it.
 */
static int
count_notifications(PGconn *conn)
{
	PGnotify   *notification;
	int64_t		now = nanoseconds(CLOCK_REALTIME);
	int			go_on = 1;

	while ((notification = PQnotifies(conn)) != NULL)
	{
		if (strcmp(notification->relname, "bench_stop") == 0)
			go_on = 0;
		else if (strcmp(notification->relname, "alloc_events") == 0)
			rings++;
		else
		{
			events++;
			last_event = now;
		}
		PQfreemem(notification);
	}
	return go_on;
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;

	if (argc != 2)
		return 2;
	conn = connect_to(argv[1]);
	listen_to_alloc(conn);
	execute(conn, "LISTEN bench_stop");
	printf("listening\n");
	fflush(stdout);

	while (count_notifications(conn))
	{
		struct pollfd socket = {.fd = PQsocket(conn),.events = POLLIN};

		require_connection(conn, poll(&socket, 1, -1) >= 0 &&
						   PQconsumeInput(conn));
	}
	printf("%ld %ld %.6f\n", events, rings, (double) last_event / 1e9);
	PQfinish(conn);
	return 0;
}
