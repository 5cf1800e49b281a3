/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  How far a long query has come, told by NOTICE.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "progress.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(alloc_progress);

/* The clock is looked at once in so many steps. */
#define STEPS_PER_LOOK 1024

int			alloc_progress_interval = 5000;

static void look_at_clock(AllocProgress *progress);

/*
 * alloc_progress_step
 *		One more was read.
 */
void
alloc_progress_step(AllocProgress *progress)
{
	if (progress->count++ % STEPS_PER_LOOK == 0)
		look_at_clock(progress);
}

static void
look_at_clock(AllocProgress *progress)
{
	TimestampTz now;

	if (alloc_progress_interval == 0)
		return;
	now = GetCurrentTimestamp();
	if (progress->next_at != 0 && now >= progress->next_at)
		ereport(NOTICE,
				(errmsg(INT64_FORMAT " %s",
						progress->count, progress->what)));
	else if (progress->next_at != 0)
		return;
	progress->next_at = TimestampTzPlusMilliseconds(now,
													alloc_progress_interval);
}

/*
 * alloc._progress(what text) returns boolean
 *		For the WHERE clause of a long query: true, and counts what it is
 *		called for, for as long as the query runs.
 */
Datum
alloc_progress(PG_FUNCTION_ARGS)
{
	AllocProgress *progress = fcinfo->flinfo->fn_extra;

	if (progress == NULL)
	{
		MemoryContext oldcxt = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		progress = palloc0(sizeof(AllocProgress));
		progress->what = text_to_cstring(PG_GETARG_TEXT_PP(0));
		fcinfo->flinfo->fn_extra = progress;
		MemoryContextSwitchTo(oldcxt);
	}
	alloc_progress_step(progress);
	PG_RETURN_BOOL(true);
}
