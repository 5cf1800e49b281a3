/*-------------------------------------------------------------------------
 *
 * message.h
 *	  Messages to handle(): the command and its arguments in JSON.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_MESSAGE_H
#define ALLOC_MESSAGE_H

#include "utils/jsonb.h"

#define ALLOC_MAX_MESSAGE_ARGS 4

/* Stands for alloc.order_line[], whose oid is another in each database. */
#define ALLOC_ORDER_LINES InvalidOid

/* An argument of a command: a key of the message. */
typedef struct AllocMessageArg
{
	const char *name;
	Oid			type;			/* text, bigint, date, interval or order lines */
	bool		must_be_there;	/* null says something that absence does not */
} AllocMessageArg;

/* A command that a message may be about. */
typedef struct AllocMessageCommand
{
	const char *name;
	const char *sql;			/* with the arguments as $1, $2... */
	bool		returns_rows;
	int			nargs;
	AllocMessageArg args[ALLOC_MAX_MESSAGE_ARGS];
} AllocMessageCommand;

/*
 * A message as it was understood.  A key that is absent or null is a NULL
 * argument.
 */
typedef struct AllocMessage
{
	int			command;		/* in alloc_message_commands */
	const text *message_id;		/* NULL: none */
	const char *traceparent;	/* NULL: none */
	Oid			types[ALLOC_MAX_MESSAGE_ARGS];
	Datum		values[ALLOC_MAX_MESSAGE_ARGS];
	char		nulls[ALLOC_MAX_MESSAGE_ARGS];	/* ' ' or 'n', as SPI has it */
} AllocMessage;

#define ALLOC_MESSAGE_NCOMMANDS 12

extern const AllocMessageCommand alloc_message_commands[ALLOC_MESSAGE_NCOMMANDS];

/* Setting: seconds for which ids and answers are kept. */
extern int	alloc_message_retention;

extern void alloc_message_read(Jsonb *json, AllocMessage *message);
extern const char *alloc_message_show(JsonbValue *value);

#endif							/* ALLOC_MESSAGE_H */
