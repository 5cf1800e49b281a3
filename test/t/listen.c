/*-------------------------------------------------------------------------
 *
 * listen.c
 *	  A client that listens: what a shop's own program would do with libpq.
 *
 *	  listen CONNINFO CHANNEL...
 *
 * Prints "listening", then a line "CHANNEL PAYLOAD" for each notification, in
 * the order in which they arrive, until one comes from channel "stop", which
 * is not printed.  Payloads of alloc have no newline in them.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

static void
fail(PGconn *conn)
{
	fprintf(stderr, "listen: %s", PQerrorMessage(conn));
	exit(1);
}

static void
listen_to(PGconn *conn, const char *channel)
{
	char	   *name = PQescapeIdentifier(conn, channel, strlen(channel));
	char		command[200];
	PGresult   *result;

	snprintf(command, sizeof(command), "LISTEN %s", name);
	result = PQexec(conn, command);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(conn);
	PQclear(result);
	PQfreemem(name);
}

/*
 * Prints what has arrived.  Returns 0 when "stop" was among it.
 */
static int
print_notifications(PGconn *conn)
{
	PGnotify   *notification;
	int			go_on = 1;

	while ((notification = PQnotifies(conn)) != NULL)
	{
		if (strcmp(notification->relname, "stop") == 0)
			go_on = 0;
		else
			printf("%s %s\n", notification->relname, notification->extra);
		PQfreemem(notification);
	}
	fflush(stdout);
	return go_on;
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;

	if (argc < 2)
		return 2;
	conn = PQconnectdb(argv[1]);
	if (PQstatus(conn) != CONNECTION_OK)
		fail(conn);
	listen_to(conn, "stop");
	for (int i = 2; i < argc; i++)
		listen_to(conn, argv[i]);
	printf("listening\n");
	fflush(stdout);

	while (print_notifications(conn))
	{
		struct pollfd socket = {.fd = PQsocket(conn),.events = POLLIN};

		if (poll(&socket, 1, -1) < 0 || !PQconsumeInput(conn))
			fail(conn);
	}
	PQfinish(conn);
	return 0;
}
