/*-------------------------------------------------------------------------
 *
 * stat.c
 *	  Counters: what the commands of a database have done since the server
 *	  was started, or since reset_stats().
 *
 * They are in shared memory, which there is only where the library is in
 * shared_preload_libraries; elsewhere nothing is counted.
 *
 * What a transaction has done is counted when it commits, or is prepared; what
 * is rolled back, to a savepoint or as a whole, is not.  A wait is counted at
 * once: it has been waited, whatever comes of the transaction.
 *
 * Each process adds to counters of its own, which nobody else writes: no lock,
 * and no line of cache that two would fight for.  They stay when it ends, and
 * the next process in its place goes on with them; if it is in another
 * database, it first adds them to the sum that is kept for theirs.  Who reads
 * adds all of it up.
 *
 * Locks: to which database the counters of a process belong, and the sums, are
 * read and written under the LWLock.
 *
 * Memory: what the subtransactions have done that are under way is in
 * TopTransactionContext, and freed at the end of each.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "stat.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(alloc_counters);
PG_FUNCTION_INFO_V1(alloc_reset_stats);

/* Databases for which a sum is kept, at most. */
#define MAX_SUMS 256

/* The counters of a process. */
typedef struct Session
{
	Oid			database;		/* invalid: nobody has counted here */
	pg_atomic_uint64 counts[ALLOC_NSTATS];
} Session;

/* Apart from each other in the cache. */
typedef union PaddedSession
{
	Session		session;
	char		pad[TYPEALIGN(PG_CACHE_LINE_SIZE, sizeof(Session))];
} PaddedSession;

/*
 * What is to be added to the sessions of a database: what others have counted
 * in their places before, less what there was at the last reset.
 */
typedef struct Sum
{
	Oid			database;		/* invalid: the entry is free */
	TimestampTz since;
	int64		counts[ALLOC_NSTATS];
} Sum;

typedef struct Counters
{
	LWLock	   *lock;
	TimestampTz since;
	Sum			sums[MAX_SUMS];
} Counters;

/* What a (sub)transaction has done. */
typedef struct Pending
{
	int			nest_level;
	uint64		touched;		/* a bit for each count that is not 0 */
	int64		counts[ALLOC_NSTATS];
	struct Pending *outer;
} Pending;

StaticAssertDecl(ALLOC_NSTATS <= 64, "a bit for each");

static const char *const names[ALLOC_NSTATS] = {
	[ALLOC_STAT_ADD_BATCH] = "add_batch_calls",
	[ALLOC_STAT_ALLOCATE] = "allocate_calls",
	[ALLOC_STAT_ALLOCATE_LINES] = "allocate_lines_calls",
	[ALLOC_STAT_ALLOCATE_ORDER] = "allocate_order_calls",
	[ALLOC_STAT_CANCEL_BACKORDER] = "cancel_backorder_calls",
	[ALLOC_STAT_CHANGE_BATCH_ETA] = "change_batch_eta_calls",
	[ALLOC_STAT_CHANGE_BATCH_QUANTITY] = "change_batch_quantity_calls",
	[ALLOC_STAT_CONFIRM] = "confirm_calls",
	[ALLOC_STAT_DEALLOCATE] = "deallocate_calls",
	[ALLOC_STAT_EXTEND_HOLD] = "extend_hold_calls",
	[ALLOC_STAT_HANDLE] = "handle_calls",
	[ALLOC_STAT_HOLD] = "hold_calls",
	[ALLOC_STAT_PURGE_SHIPPED] = "purge_shipped_calls",
	[ALLOC_STAT_RELEASE] = "release_calls",
	[ALLOC_STAT_SHIP] = "ship_calls",
	[ALLOC_STAT_SYNC_BATCHES] = "sync_batches_calls",
	[ALLOC_STAT_LINES_ALLOCATED] = "lines_allocated",
	[ALLOC_STAT_LINES_DEALLOCATED] = "lines_deallocated",
	[ALLOC_STAT_LINES_MOVED] = "lines_moved",
	[ALLOC_STAT_LINES_SHIPPED] = "lines_shipped",
	[ALLOC_STAT_OUT_OF_STOCK] = "out_of_stock",
	[ALLOC_STAT_LINES_BACKORDERED] = "lines_backordered",
	[ALLOC_STAT_BACKORDERS_SERVED] = "backorders_served",
	[ALLOC_STAT_BACKORDERS_CANCELED] = "backorders_canceled",
	[ALLOC_STAT_LINES_HELD] = "lines_held",
	[ALLOC_STAT_HOLDS_CONFIRMED] = "holds_confirmed",
	[ALLOC_STAT_HOLDS_RELEASED] = "holds_released",
	[ALLOC_STAT_HOLDS_EXPIRED] = "holds_expired",
	[ALLOC_STAT_PROMISES_CHANGED] = "promises_changed",
	[ALLOC_STAT_MESSAGES_REPEATED] = "messages_repeated",
	[ALLOC_STAT_SLOT_WAITS] = "slot_waits",
	[ALLOC_STAT_SLOT_SPLITS] = "slot_splits",
	[ALLOC_STAT_SLOT_MERGES] = "slot_merges"
};

/* In shared memory; NULL: the library was not preloaded. */
static Counters *counters;
static PaddedSession *sessions;

/* Of this process, once it has counted. */
static Session *own;
static bool may_count = true;

/* The innermost that has done anything; the outermost is this one. */
static Pending *pending;
static Pending outermost;

static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

static void request_shmem(void);
static void startup_shmem(void);
static void init_shmem(void);
static bool begin_to_count(void);
static bool add_to_sum(Session *session);
static Sum *find_sum(Oid database);
static Sum *find_or_add_sum(Oid database);
static void add_up(const Sum *sum, int64 *counts);
static void add_to_own(AllocStat stat, int64 n);
static Pending *begin_pending(int nest_level);
static void end_pending(void);
static void add_pending(Pending *to, const Pending *from);
static void at_xact_end(XactEvent event, void *arg);
static void at_subxact_end(SubXactEvent event, SubTransactionId my_subid,
						   SubTransactionId parent_subid, void *arg);
static void return_counter(ReturnSetInfo *result, const char *name,
						   int64 value);

/*
 * alloc_stat_init
 *		When the library is loaded by the postmaster.
 */
void
alloc_stat_init(void)
{
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
}

/*
 * alloc_stat_count
 *		Within a command: one more, if the transaction commits.
 */
void
alloc_stat_count(AllocStat stat)
{
	int			nest_level;

	if (own == NULL && !begin_to_count())
		return;
	nest_level = GetCurrentTransactionNestLevel();
	if (pending == NULL || pending->nest_level < nest_level)
		pending = begin_pending(nest_level);
	pending->counts[stat]++;
	pending->touched |= UINT64CONST(1) << stat;
}

/*
 * alloc_stat_count_now
 *		Within a command: one more, whatever comes of the transaction.
 */
void
alloc_stat_count_now(AllocStat stat)
{
	if (own != NULL || begin_to_count())
		add_to_own(stat, 1);
}

/*
 * alloc_stat_forget
 *		A database is gone.
 */
void
alloc_stat_forget(Oid database)
{
	Sum		   *sum;

	LWLockAcquire(counters->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MaxBackends; i++)
	{
		Session    *session = &sessions[i].session;

		if (session->database != database)
			continue;
		session->database = InvalidOid;
		for (int stat = 0; stat < ALLOC_NSTATS; stat++)
			pg_atomic_write_u64(&session->counts[stat], 0);
	}
	sum = find_sum(database);
	if (sum != NULL)
		sum->database = InvalidOid;
	LWLockRelease(counters->lock);
}

/*
 * alloc.counters() returns setof (name text, value bigint)
 *		For view stats: what was counted in this database, and for how many
 *		milliseconds; NULL where nothing is counted.
 */
Datum
alloc_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		counts[ALLOC_NSTATS] = {0};
	TimestampTz since = 0;

	InitMaterializedSRF(fcinfo, 0);
	if (counters != NULL)
	{
		const Sum  *sum;

		LWLockAcquire(counters->lock, LW_SHARED);
		sum = find_sum(MyDatabaseId);
		since = sum != NULL ? sum->since : counters->since;
		add_up(sum, counts);
		LWLockRelease(counters->lock);
	}
	return_counter(result, "counting_ms",
				   TimestampDifferenceMilliseconds(since, GetCurrentTimestamp()));
	for (int stat = 0; stat < ALLOC_NSTATS; stat++)
		return_counter(result, names[stat], counts[stat]);
	return (Datum) 0;
}

/*
 * alloc.reset_stats() returns void
 *		Sets the counters of this database to 0, at once: a rollback does not
 *		undo it.
 *
 * The sum becomes what makes it 0: the sessions go on counting meanwhile.
 * Errors: 55000 (nothing is counted), 53400 (too many databases).  Source:
 * DESIGN section 2.
 */
Datum
alloc_reset_stats(PG_FUNCTION_ARGS)
{
	Sum		   *sum;

	if (counters == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there are no counters"),
				 errhint("Add \"alloc\" to shared_preload_libraries, and restart the server.")));
	LWLockAcquire(counters->lock, LW_EXCLUSIVE);
	sum = find_or_add_sum(MyDatabaseId);
	if (sum != NULL)
	{
		int64		counts[ALLOC_NSTATS] = {0};

		add_up(sum, counts);
		for (int stat = 0; stat < ALLOC_NSTATS; stat++)
			sum->counts[stat] -= counts[stat];
		sum->since = GetCurrentTimestamp();
	}
	LWLockRelease(counters->lock);
	if (sum == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("counters of more than %d databases cannot be reset",
						MAX_SUMS)));
	PG_RETURN_VOID();
}

/* ---- shared memory ---- */

static void
request_shmem(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(Counters)));
	RequestAddinShmemSpace(add_size(PG_CACHE_LINE_SIZE,
									mul_size(MaxBackends, sizeof(PaddedSession))));
	RequestNamedLWLockTranche("alloc counters", 1);
}

static void
startup_shmem(void)
{
	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	init_shmem();
	LWLockRelease(AddinShmemInitLock);
}

static void
init_shmem(void)
{
	bool		found;
	void	   *unaligned;

	unaligned = ShmemInitStruct("alloc counters of sessions",
								add_size(PG_CACHE_LINE_SIZE,
										 mul_size(MaxBackends, sizeof(PaddedSession))),
								&found);
	sessions = (PaddedSession *) TYPEALIGN(PG_CACHE_LINE_SIZE, unaligned);
	counters = ShmemInitStruct("alloc counters", sizeof(Counters), &found);
	if (found)
		return;
	memset(counters, 0, sizeof(Counters));
	counters->lock = &GetNamedLWLockTranche("alloc counters")->lock;
	counters->since = GetCurrentTimestamp();
	for (int i = 0; i < MaxBackends; i++)
	{
		sessions[i].session.database = InvalidOid;
		for (int stat = 0; stat < ALLOC_NSTATS; stat++)
			pg_atomic_init_u64(&sessions[i].session.counts[stat], 0);
	}
}

/* ---- of the processes, and of the databases ---- */

/*
 * Where this process counts.  False: it cannot, because there are too many
 * databases, or nothing is counted.
 */
static bool
begin_to_count(void)
{
	Session    *session;

	if (counters == NULL || !may_count)
		return false;
	session = &sessions[alloc_proc_number()].session;
	LWLockAcquire(counters->lock, LW_EXCLUSIVE);
	may_count = session->database == MyDatabaseId || add_to_sum(session);
	if (may_count)
	{
		session->database = MyDatabaseId;
		own = session;
	}
	LWLockRelease(counters->lock);
	return may_count;
}

/*
 * What was counted in a process's place is that database's; it begins with 0.
 * False: there are too many.
 */
static bool
add_to_sum(Session *session)
{
	Sum		   *sum;

	if (!OidIsValid(session->database))
		return true;
	sum = find_or_add_sum(session->database);
	if (sum == NULL)
		return false;
	for (int stat = 0; stat < ALLOC_NSTATS; stat++)
	{
		sum->counts[stat] += (int64) pg_atomic_read_u64(&session->counts[stat]);
		pg_atomic_write_u64(&session->counts[stat], 0);
	}
	return true;
}

static Sum *
find_sum(Oid database)
{
	for (int i = 0; i < MAX_SUMS; i++)
		if (counters->sums[i].database == database)
			return &counters->sums[i];
	return NULL;
}

/*
 * NULL: there are too many.
 */
static Sum *
find_or_add_sum(Oid database)
{
	Sum		   *sum = find_sum(database);

	if (sum != NULL)
		return sum;
	sum = find_sum(InvalidOid);
	if (sum != NULL)
	{
		memset(sum, 0, sizeof(*sum));
		sum->database = database;
		sum->since = counters->since;
	}
	return sum;
}

/*
 * What was counted in this database; its sum may be NULL.
 */
static void
add_up(const Sum *sum, int64 *counts)
{
	if (sum != NULL)
		memcpy(counts, sum->counts, sizeof(sum->counts));
	for (int i = 0; i < MaxBackends; i++)
	{
		Session    *session = &sessions[i].session;

		if (session->database != MyDatabaseId)
			continue;
		for (int stat = 0; stat < ALLOC_NSTATS; stat++)
			counts[stat] += (int64) pg_atomic_read_u64(&session->counts[stat]);
	}
}

/*
 * Nobody else writes it, so there is nothing to lock or to repeat.
 */
static void
add_to_own(AllocStat stat, int64 n)
{
	pg_atomic_uint64 *count = &own->counts[stat];

	pg_atomic_write_u64(count, pg_atomic_read_u64(count) + n);
}

/* ---- transactions ---- */

static Pending *
begin_pending(int nest_level)
{
	Pending    *inner = &outermost;

	if (pending != NULL)
		inner = MemoryContextAllocZero(TopTransactionContext, sizeof(Pending));
	inner->nest_level = nest_level;
	inner->outer = pending;
	return inner;
}

/*
 * The innermost is over.
 */
static void
end_pending(void)
{
	Pending    *inner = pending;

	pending = inner->outer;
	if (inner != &outermost)
	{
		pfree(inner);
		return;
	}
	for (; inner->touched != 0; inner->touched &= inner->touched - 1)
		inner->counts[pg_rightmost_one_pos64(inner->touched)] = 0;
}

static void
add_pending(Pending *to, const Pending *from)
{
	to->touched |= from->touched;
	for (uint64 left = from->touched; left != 0; left &= left - 1)
	{
		int			stat = pg_rightmost_one_pos64(left);

		to->counts[stat] += from->counts[stat];
	}
}

static void
at_xact_end(XactEvent event, void *arg)
{
	if (pending == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			for (uint64 left = pending->touched; left != 0; left &= left - 1)
			{
				int			stat = pg_rightmost_one_pos64(left);

				add_to_own(stat, pending->counts[stat]);
			}
			end_pending();
			break;
		case XACT_EVENT_ABORT:
			while (pending != NULL)
				end_pending();
			break;
		default:
			break;
	}
}

/*
 * What a subtransaction has done becomes the outer one's, or is forgotten.
 */
static void
at_subxact_end(SubXactEvent event, SubTransactionId my_subid,
			   SubTransactionId parent_subid, void *arg)
{
	int			nest_level = GetCurrentTransactionNestLevel();

	if (pending == NULL || pending->nest_level < nest_level)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		end_pending();
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		if (pending->outer && pending->outer->nest_level == nest_level - 1)
		{
			add_pending(pending->outer, pending);
			end_pending();
		}
		else
			pending->nest_level = nest_level - 1;
	}
}

/* ---- rows ---- */

static void
return_counter(ReturnSetInfo *result, const char *name, int64 value)
{
	Datum		values[2] = {CStringGetTextDatum(name), Int64GetDatum(value)};
	bool		nulls[2] = {false, counters == NULL};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}
