/*-------------------------------------------------------------------------
 *
 * bulk_run.c
 *	  Attempts at the allocation of many lines.
 *
 * bulk.c does the work.  Where that finds that a line is there after all, what
 * it did is undone, and it does it again with care; where the lines are given
 * up, the locks on their stock are.  So each attempt is a subtransaction.
 *
 * Memory: "alloc attempt", below the context of the call, has what is known of
 * the skus, about 700 bytes each, and is emptied for each attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "bulk.h"
#include "command.h"
#include "miscadmin.h"
#include "share.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

static AllocBulkOutcome attempt(AllocBulk *bulk, const char *command,
								AllocBulkWork work);
static void begin(const AllocBulk *bulk, const char *command);

/*
 * alloc_bulk_run
 *		Does the work on the lines, in as many attempts as it needs.  command:
 *		for messages.  The lines point into a child of the current memory
 *		context then.
 */
void
alloc_bulk_run(AllocBulk *bulk, const char *command, AllocBulkWork work)
{
	MemoryContext attempt_cxt = AllocSetContextCreate(CurrentMemoryContext,
													  "alloc attempt",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcxt = MemoryContextSwitchTo(attempt_cxt);
	AllocBulkOutcome outcome;

	while ((outcome = attempt(bulk, command, work)) == ALLOC_BULK_AGAIN)
	{
		MemoryContextReset(attempt_cxt);
		bulk->careful = true;
	}
	if (outcome == ALLOC_BULK_GIVEN_UP)
	{
		begin(bulk, command);
		(void) alloc_bulk_write(bulk);
		alloc_store_end();
	}
	MemoryContextSwitchTo(oldcxt);
}

/*
 * One attempt, in a subtransaction, which is rolled back unless it is done.
 */
static AllocBulkOutcome
attempt(AllocBulk *bulk, const char *command, AllocBulkWork work)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	AllocBulkOutcome outcome;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		begin(bulk, command);
		outcome = work(bulk);
		alloc_store_end();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		ReThrowError(error);
	}
	PG_END_TRY();
	if (outcome == ALLOC_BULK_DONE)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return outcome;
}

/*
 * An attempt that is rolled back has lost the lock under which its skus were
 * served.
 */
static void
begin(const AllocBulk *bulk, const char *command)
{
	alloc_command_begin(command);
	for (size_t i = 0; i < bulk->nlines; i++)
	{
		CHECK_FOR_INTERRUPTS();
		alloc_share_require(bulk->lines[i].line.sku);
	}
}
