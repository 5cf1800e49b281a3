/*-------------------------------------------------------------------------
 *
 * notify_client.c
 *	  What the clients that listen have in common: connections that end the
 *	  program when they fail, and the channels of alloc.
 *
 *-------------------------------------------------------------------------
 */
#include "notify_client.h"

#include <stdio.h>
#include <stdlib.h>

/* Those of the events, and the doorbell. */
static const char *const channels[] = {
	"alloc_batch_created", "alloc_batch_quantity_changed",
	"alloc_batch_eta_changed", "alloc_allocated", "alloc_deallocated",
	"alloc_out_of_stock", "alloc_held", "alloc_hold_released",
	"alloc_hold_expired", "alloc_confirmed", "alloc_backordered",
	"alloc_shipped", "alloc_promise_changed", "alloc_events"
};

/*
 * The server is found by the environment where conninfo does not say it.
 */
PGconn *
connect_to(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	require_connection(conn, PQstatus(conn) == CONNECTION_OK);
	return conn;
}

/*
 * Ends the program with the connection's error if something was not sound.
 */
void
require_connection(PGconn *conn, int sound)
{
	if (sound)
		return;
	fprintf(stderr, "%s", PQerrorMessage(conn));
	exit(1);
}

void
execute(PGconn *conn, const char *command)
{
	PGresult   *result = PQexec(conn, command);

	require_connection(conn, PQresultStatus(result) == PGRES_COMMAND_OK);
	PQclear(result);
}

void
listen_to_alloc(PGconn *conn)
{
	char		command[100];

	for (size_t i = 0; i < sizeof(channels) / sizeof(channels[0]); i++)
	{
		snprintf(command, sizeof(command), "LISTEN %s", channels[i]);
		execute(conn, command);
	}
}

int64_t
nanoseconds(clockid_t which)
{
	struct timespec now;

	clock_gettime(which, &now);
	return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}
