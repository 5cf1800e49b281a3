/*-------------------------------------------------------------------------
 *
 * notify_client.h
 *	  What the clients that listen have in common.
 *
 *-------------------------------------------------------------------------
 */
#ifndef NOTIFY_CLIENT_H
#define NOTIFY_CLIENT_H

#include <stdint.h>
#include <time.h>

#include <libpq-fe.h>

extern PGconn *connect_to(const char *conninfo);
extern void require_connection(PGconn *conn, int sound);
extern void execute(PGconn *conn, const char *command);
extern void listen_to_alloc(PGconn *conn);
extern int64_t nanoseconds(clockid_t which);

#endif
