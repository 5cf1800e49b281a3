/*-------------------------------------------------------------------------
 *
 * tap.h
 *	  What the unit tests print: the Test Anything Protocol.  Each test is a
 *	  program of one file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_TAP_H
#define ALLOC_TAP_H

#include <stdbool.h>
#include <stdio.h>

#define lengthof(array) (sizeof(array) / sizeof((array)[0]))

static int	tests;
static int	failures;

static void
ok(bool holds, const char *expected)
{
	tests++;
	if (!holds)
		failures++;
	printf("%sok %d - %s\n", holds ? "" : "not ", tests, expected);
}

/*
 * What was printed is not to be lost when a sanitizer ends the program.
 */
static void
begin_tests(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/*
 * The plan, and the program's exit status.
 */
static int
end_tests(void)
{
	printf("1..%d\n", tests);
	return failures == 0 ? 0 : 1;
}

#endif							/* ALLOC_TAP_H */
