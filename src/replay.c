/*-------------------------------------------------------------------------
 *
 * replay.c
 *	  The state of all batches, folded from the log.
 *
 * What an event adds to a batch does not depend on the events before it, so
 * they can come in any order: changes are added up, and the day of arrival is
 * that of the latest event that tells one.  So the log is read as it lies in
 * its table, which is fastest, and concurrent commands, or two events in one
 * microsecond, make no difference.  On the way a sum can pass 2^63-1 in a log
 * that is sound: sums are modulo 2^64, so that they are right in the end.
 *
 * Memory: a fold's context, a child of the current one, has a struct and a
 * hash table's entry for each batch; nothing is kept of an event.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "progress.h"
#include "store.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

/* A batch in the order in which the fold has met it. */
typedef struct AllocReplayBatch
{
	AllocBatchTotals totals;
	int64		eta_from;		/* the event that says what eta is */
	struct AllocReplayBatch *next;
} AllocReplayBatch;

/*
 * A fold of the log.  All of it is in its context, and grows with the number
 * of batches.
 */
typedef struct AllocReplay
{
	MemoryContext cxt;
	struct alloc_replay_hash *by_ref;
	AllocReplayBatch *first;
	AllocReplayBatch **last;
	AllocProgress *progress;	/* to be told, or NULL */
} AllocReplay;

/* By its reference. */
typedef struct ReplayEntry
{
	const text *ref;
	AllocReplayBatch *batch;
	uint32		hash;
	char		status;
} ReplayEntry;

static uint32 hash_ref(const text *ref);

#define SH_PREFIX alloc_replay
#define SH_ELEMENT_TYPE ReplayEntry
#define SH_KEY_TYPE const text *
#define SH_KEY ref
#define SH_HASH_KEY(tb, key) hash_ref(key)
#define SH_EQUAL(tb, a, b) alloc_same_key(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, entry) entry->hash
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

PG_FUNCTION_INFO_V1(alloc_replay);
PG_FUNCTION_INFO_V1(alloc_fold_log);

static AllocReplay *begin_replay(void);
static int64 required_base(FunctionCallInfo fcinfo, int n);
static text *optional_sku(FunctionCallInfo fcinfo, int n);
static int64 optional_upto(FunctionCallInfo fcinfo, int n);
static int64 base_of(int64 upto);
static void fold(AllocReplay *replay, const text *sku, int64 base, int64 upto);
static void take_totals(const AllocBatchTotals *totals, void *arg);
static void take_fact(const AllocFact *fact, void *arg);
static AllocReplayBatch *batch_of(AllocReplay *replay, const text *ref,
								  const text *sku);
static text *copy_key(const AllocReplay *replay, const text *key);
static bool is_type(const AllocFact *fact, const char *type, size_t length);
static void set_eta(AllocReplayBatch *batch, const AllocFact *fact);
static int64 sum_of(int64 a, int64 b);
static int64 qty_of(NullableDatum qty, const AllocFact *fact);
static void return_batches(const AllocReplay *replay, ReturnSetInfo *result);
static void return_batch(const AllocBatchTotals *totals,
						 ReturnSetInfo *result);

/*
 * alloc.replay(sku text DEFAULT NULL, upto bigint DEFAULT NULL)
 * returns setof (ref, sku, eta, purchased_qty, shipped_qty, allocated_qty,
 * available_qty)
 *		The batches, those of a sku only unless it is NULL, as they were after
 *		the event upto, or as they are; from the log and its snapshots alone.
 *
 * Errors: 22023, 22001 (sku), 55000 (the state then cannot be computed any
 * more, because events of before were archived).  Source: DESIGN section 2;
 * the order of ids is causal, section 3.
 */
Datum
alloc_replay(PG_FUNCTION_ARGS)
{
	text	   *sku = optional_sku(fcinfo, 0);
	int64		upto = optional_upto(fcinfo, 1);
	AllocReplay *replay = begin_replay();

	InitMaterializedSRF(fcinfo, 0);
	alloc_store_begin_query("replay()");
	fold(replay, sku, base_of(upto), upto);
	alloc_store_end_query();
	return_batches(replay, (ReturnSetInfo *) fcinfo->resultinfo);
	MemoryContextDelete(replay->cxt);
	return (Datum) 0;
}

/*
 * alloc._fold_log(base bigint, upto bigint, sku text)
 * returns setof (ref, sku, eta, purchased, shipped, allocated, available,
 * created)
 *		Likewise, from the snapshot of event base (0: from the beginning of the
 *		log), with the event that created each batch; tells its progress.
 *
 * Errors: 55000 (base is NULL: see alloc._first_base()), 22023, 22001 (sku).
 */
Datum
alloc_fold_log(PG_FUNCTION_ARGS)
{
	int64		base = required_base(fcinfo, 0);
	int64		upto = optional_upto(fcinfo, 1);
	text	   *sku = optional_sku(fcinfo, 2);
	AllocReplay *replay = begin_replay();
	AllocProgress progress = {.what = "events read"};

	InitMaterializedSRF(fcinfo, 0);
	replay->progress = &progress;
	alloc_store_begin_query("fold_log()");
	fold(replay, sku, base, upto);
	alloc_store_end_query();
	return_batches(replay, (ReturnSetInfo *) fcinfo->resultinfo);
	MemoryContextDelete(replay->cxt);
	return (Datum) 0;
}

static int64
required_base(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log cannot be folded"),
				 errdetail("Events were archived, and there is no snapshot that has them.")));
	return PG_GETARG_INT64(n);
}

static text *
optional_sku(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : alloc_arg_key(fcinfo, n, "sku");
}

static int64
optional_upto(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? PG_INT64_MAX : PG_GETARG_INT64(n);
}

/*
 * The newest snapshot up to an event, from which the log goes on.
 */
static int64
base_of(int64 upto)
{
	int64		archived_to = alloc_store_archived_to();
	int64		base = alloc_store_newest_snapshot(upto);

	if (base < archived_to)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the state after event " INT64_FORMAT " cannot be computed",
						upto),
				 errdetail("Events up to " INT64_FORMAT " have been archived, and there is no snapshot between them and that event.",
						   archived_to)));
	return base;
}

static void
fold(AllocReplay *replay, const text *sku, int64 base, int64 upto)
{
	if (base > 0)
		alloc_store_read_snapshot(base, sku, take_totals, replay);
	alloc_store_read_facts(sku, base, upto, take_fact, replay);
}

/*
 * Begins a fold.  It is to be ended by the deletion of its context.
 */
static AllocReplay *
begin_replay(void)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "alloc replay",
											  ALLOCSET_DEFAULT_SIZES);
	AllocReplay *replay = MemoryContextAllocZero(cxt, sizeof(AllocReplay));

	replay->cxt = cxt;
	replay->by_ref = alloc_replay_create(cxt, 1024, NULL);
	replay->last = &replay->first;
	return replay;
}

/*
 * Takes a batch of the snapshot from which the fold begins.
 */
static void
take_totals(const AllocBatchTotals *totals, void *arg)
{
	AllocReplay *replay = arg;
	AllocReplayBatch *batch = batch_of(replay, totals->ref, totals->sku);

	batch->totals.created = totals->created;
	batch->totals.purchased = totals->purchased;
	batch->totals.shipped = totals->shipped;
	batch->totals.allocated = totals->allocated;
	batch->totals.eta = totals->eta;
}

#define IS_TYPE(fact, literal) is_type(fact, literal, sizeof(literal) - 1)

/*
 * Takes an event.  The most frequent types come first.
 *
 * Raises XX001 when the log contradicts itself.
 */
static void
take_fact(const AllocFact *fact, void *arg)
{
	AllocReplay *replay = arg;
	AllocReplayBatch *batch;

	if (replay->progress != NULL)
		alloc_progress_step(replay->progress);
	if (fact->batchref == NULL || IS_TYPE(fact, "repaired"))
		return;
	batch = batch_of(replay, fact->batchref, fact->sku);
	if (IS_TYPE(fact, "allocated") ||
		(IS_TYPE(fact, "held") && fact->old_qty.isnull))
		batch->totals.allocated = sum_of(batch->totals.allocated,
										 qty_of(fact->qty, fact));
	else if (IS_TYPE(fact, "deallocated") || IS_TYPE(fact, "hold_released") ||
			 IS_TYPE(fact, "hold_expired"))
		batch->totals.allocated = sum_of(batch->totals.allocated,
										 -qty_of(fact->qty, fact));
	else if (IS_TYPE(fact, "shipped"))
	{
		batch->totals.allocated = sum_of(batch->totals.allocated,
										 -qty_of(fact->qty, fact));
		batch->totals.shipped = sum_of(batch->totals.shipped,
									   qty_of(fact->qty, fact));
	}
	else if (IS_TYPE(fact, "batch_quantity_changed"))
		batch->totals.purchased = sum_of(batch->totals.purchased,
										 qty_of(fact->qty, fact) -
										 qty_of(fact->old_qty, fact));
	else if (IS_TYPE(fact, "batch_created"))
	{
		batch->totals.created = fact->event_id;
		batch->totals.purchased = sum_of(batch->totals.purchased,
										 qty_of(fact->qty, fact));
		set_eta(batch, fact);
	}
	else if (IS_TYPE(fact, "batch_eta_changed"))
		set_eta(batch, fact);
	else if (!IS_TYPE(fact, "promise_changed") && !IS_TYPE(fact, "held") &&
			 !IS_TYPE(fact, "confirmed"))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("event " INT64_FORMAT " has the unknown type \"%s\"",
						fact->event_id, alloc_show(fact->type))));
}

/*
 * The batch of a reference, new if it was not met before.
 */
static AllocReplayBatch *
batch_of(AllocReplay *replay, const text *ref, const text *sku)
{
	AllocReplayBatch *batch;
	ReplayEntry *entry;
	bool		found;

	entry = alloc_replay_insert(replay->by_ref, ref, &found);
	if (found)
		return entry->batch;
	batch = MemoryContextAllocZero(replay->cxt, sizeof(AllocReplayBatch));
	batch->totals.ref = copy_key(replay, ref);
	batch->totals.sku = copy_key(replay, sku);
	batch->totals.eta.isnull = true;
	*replay->last = batch;
	replay->last = &batch->next;
	entry->ref = batch->totals.ref;
	entry->batch = batch;
	return batch;
}

static text *
copy_key(const AllocReplay *replay, const text *key)
{
	text	   *copy = MemoryContextAlloc(replay->cxt, VARSIZE_ANY(key));

	memcpy(copy, key, VARSIZE_ANY(key));
	return copy;
}

static uint32
hash_ref(const text *ref)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(ref),
					  (int) VARSIZE_ANY_EXHDR(ref));
}

static bool
is_type(const AllocFact *fact, const char *type, size_t length)
{
	return VARSIZE_ANY_EXHDR(fact->type) == length &&
		memcmp(VARDATA_ANY(fact->type), type, length) == 0;
}

static void
set_eta(AllocReplayBatch *batch, const AllocFact *fact)
{
	if (fact->event_id < batch->eta_from)
		return;
	batch->eta_from = fact->event_id;
	batch->totals.eta = fact->eta;
}

static int64
sum_of(int64 a, int64 b)
{
	return (int64) ((uint64) a + (uint64) b);
}

static int64
qty_of(NullableDatum qty, const AllocFact *fact)
{
	if (qty.isnull || DatumGetInt64(qty.value) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("event " INT64_FORMAT " has no valid quantity",
						fact->event_id)));
	return DatumGetInt64(qty.value);
}

/*
 * All of it in the order in which it was met.  replay() does not have the last
 * column.
 */
static void
return_batches(const AllocReplay *replay, ReturnSetInfo *result)
{
	for (AllocReplayBatch *batch = replay->first; batch; batch = batch->next)
		return_batch(&batch->totals, result);
}

static void
return_batch(const AllocBatchTotals *totals, ReturnSetInfo *result)
{
	Datum		values[8];
	bool		nulls[8] = {0};
	int64		available;

	CHECK_FOR_INTERRUPTS();
	if (pg_sub_s64_overflow(totals->purchased, totals->shipped, &available) ||
		pg_sub_s64_overflow(available, totals->allocated, &available))
		available = PG_INT64_MIN;
	else if (totals->purchased < 0 || totals->shipped < 0 ||
			 totals->allocated < 0)
		available = Min(available, -1);
	values[0] = PointerGetDatum(totals->ref);
	values[1] = PointerGetDatum(totals->sku);
	values[2] = totals->eta.value;
	nulls[2] = totals->eta.isnull;
	values[3] = Int64GetDatum(totals->purchased);
	values[4] = Int64GetDatum(totals->shipped);
	values[5] = Int64GetDatum(totals->allocated);
	values[6] = Int64GetDatum(available);
	values[7] = Int64GetDatum(totals->created);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}
