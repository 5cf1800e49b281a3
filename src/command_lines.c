/*-------------------------------------------------------------------------
 *
 * command_lines.c
 *	  allocate_lines(): many lines in one call, the bulk path.
 *
 * The result is that of allocate() for each line in turn.  First the stock of
 * each sku is locked, and the planner places the sku's lines in memory.  Skus
 * come in the order of their bytes, so that two calls do not deadlock, and
 * lines of different skus do not bear on each other.  Then, with all locks
 * held, lines and events are written in the order of the call, and last the
 * slots.
 *
 * Where one slot has enough for all lines of a sku, that slot is all that is
 * locked, as by allocate(); else as many as it takes of those that are free;
 * and all slots of the sku only where these do not suffice.
 *
 * Whether a line is there already is not asked at first: its insertion tells.
 * Then all is undone, and done again with care: whoever is at work on one of
 * the lines is waited for while nothing is locked, and each line is looked
 * for.  So the work is done in a subtransaction.
 *
 * Memory: "alloc lines" has the lines, about 100 bytes each, and the array is
 * the caller's; "alloc attempt" has what is known of the skus, about 700 bytes
 * each, and is made anew for each attempt.  The result is a tuplestore, which
 * goes to disk beyond work_mem.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "argument.h"
#include "command.h"
#include "common/hashfn.h"
#include "event.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(alloc_allocate_lines);

typedef enum LineFate
{
	LINE_OUT_OF_STOCK,
	LINE_PLACED,
	LINE_THERE,					/* before this call, or earlier in it */
	LINE_UNKNOWN_SKU
} LineFate;

typedef struct BulkLine
{
	AllocLine	line;
	struct BulkLine *next;		/* of the same sku, in the order of the call */
	LineFate	fate;
	struct BulkBatch *batch;	/* LINE_PLACED */
	const text *ref;			/* LINE_PLACED, LINE_THERE */
	int64		qty_there;		/* LINE_THERE */
} BulkLine;

/* A batch that serves some of the lines. */
typedef struct BulkBatch
{
	AllocBatchRow row;
	AllocChain	chain;			/* its lines, in the course of writing */
	int64		taken;
} BulkBatch;

/* The lines of one sku, and the batches that may serve them. */
typedef struct BulkSku
{
	const text *sku;			/* the key of the hash table */
	BulkLine   *first;
	BulkLine   *last;
	int64		least;			/* the smallest quantity */
	int64		whole;			/* the sum of them, at most 2^63-1 */
	bool		one_slot;		/* the offer's slot is all that is locked */
	bool		waited;			/* for slots that others had */
	AllocOffer	offer;
	BulkBatch  *batches;
	size_t		nbatches;
} BulkSku;

typedef struct Bulk
{
	BulkLine   *lines;
	size_t		nlines;
	BulkSku   **skus;			/* in the order of their bytes */
	size_t		nskus;
	HTAB	   *placed;			/* BulkLine by key, when there is care */
} Bulk;

static void read_lines(ArrayType *array, Bulk *bulk);
static void read_line(HeapTupleHeader header, TupleDesc desc, BulkLine *line);
static void tell_line(void *arg);
static void group_by_sku(Bulk *bulk);
static void add_to_sku(BulkSku *sku, BulkLine *line);
static uint32 hash_sku(const void *key, Size size);
static int	match_sku(const void *a, const void *b, Size size);
static int	compare_skus(const void *a, const void *b, void *arg);
static bool attempt(Bulk *bulk, bool careful);
static bool allocate_lines(Bulk *bulk, bool careful);
static void settle_lines(Bulk *bulk);
static uint32 hash_line(const void *key, Size size);
static int	match_line(const void *a, const void *b, Size size);
static void lock_stock(BulkSku *sku, bool careful);
static void add_batches(BulkSku *sku, const AllocBatchRow *rows, size_t n);
static void lock_all_stock(BulkSku *sku);
static void plan_sku(Bulk *bulk, BulkSku *sku);
static bool line_is_there(Bulk *bulk, BulkLine *line);
static void remember_placed(Bulk *bulk, BulkLine *line);
static bool write_lines(Bulk *bulk);
static bool write_line(BulkLine *line);
static void write_slots(BulkSku *sku);
static void return_lines(const Bulk *bulk, ReturnSetInfo *result);

/*
 * alloc.allocate_lines(lines alloc.order_line[])
 * returns setof (orderid, sku, qty, batchref)
 *		Gives each line the best batch, as allocate() called for each in turn
 *		would; one row for each line, in the order of the array, batchref NULL:
 *		out of stock.
 *
 * An error in one line is an error of the call, and nothing is allocated.
 * Errors: those of allocate(), and 22004 when the array or an element is NULL.
 * Source: DESIGN section 2; the book, chapter 1 (allocate).
 */
Datum
alloc_allocate_lines(PG_FUNCTION_ARGS)
{
	MemoryContext lines_cxt;
	MemoryContext attempt_cxt;
	MemoryContext oldcxt;
	Bulk		bulk = {0};
	bool		careful = false;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("lines must not be null")));
	InitMaterializedSRF(fcinfo, 0);
	lines_cxt = AllocSetContextCreate(CurrentMemoryContext, "alloc lines",
									  ALLOCSET_DEFAULT_SIZES);
	attempt_cxt = AllocSetContextCreate(lines_cxt, "alloc attempt",
										ALLOCSET_DEFAULT_SIZES);
	oldcxt = MemoryContextSwitchTo(lines_cxt);
	read_lines(PG_GETARG_ARRAYTYPE_P(0), &bulk);

	MemoryContextSwitchTo(attempt_cxt);
	while (!attempt(&bulk, careful))
	{
		MemoryContextReset(attempt_cxt);
		careful = true;
	}
	return_lines(&bulk, (ReturnSetInfo *) fcinfo->resultinfo);
	MemoryContextSwitchTo(oldcxt);
	MemoryContextDelete(lines_cxt);
	return (Datum) 0;
}

/*
 * The array as lines, which point into it.
 */
static void
read_lines(ArrayType *array, Bulk *bulk)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(ARR_ELEMTYPE(array), -1);
	ArrayIterator elements = array_create_iterator(array, 0, NULL);
	ErrorContextCallback context = {
		.callback = tell_line,
		.arg = &bulk->nlines,
		.previous = error_context_stack
	};
	Datum		element;
	bool		isnull;

	if (desc->natts != 3)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("type alloc.order_line does not have the attributes that it was created with")));
	bulk->lines = palloc_extended(ArrayGetNItems(ARR_NDIM(array),
												 ARR_DIMS(array)) * sizeof(BulkLine),
								  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	error_context_stack = &context;
	while (array_iterate(elements, &element, &isnull))
	{
		CHECK_FOR_INTERRUPTS();
		if (isnull)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("an order line must not be null")));
		read_line(DatumGetHeapTupleHeader(element), desc,
				  &bulk->lines[bulk->nlines]);
		bulk->nlines++;
	}
	error_context_stack = context.previous;
	array_free_iterator(elements);
	ReleaseTupleDesc(desc);
}

static void
read_line(HeapTupleHeader header, TupleDesc desc, BulkLine *line)
{
	HeapTupleData tuple;
	Datum		values[3];
	bool		nulls[3];

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, values, nulls);
	line->line.orderid = alloc_check_key(values[0], nulls[0], "orderid");
	line->line.sku = alloc_check_key(values[1], nulls[1], "sku");
	line->line.qty = alloc_check_qty(values[2], nulls[2], 1);
}

static void
tell_line(void *arg)
{
	errcontext("element %zu of the lines", *(size_t *) arg + 1);
}

/*
 * One attempt, in a subtransaction.  False: it was rolled back, because some
 * line is there or about to be.
 */
static bool
attempt(Bulk *bulk, bool careful)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	bool		done;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		alloc_store_begin("allocate_lines()");
		done = allocate_lines(bulk, careful);
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
	if (done)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return done;
}

static bool
allocate_lines(Bulk *bulk, bool careful)
{
	group_by_sku(bulk);
	if (careful)
		settle_lines(bulk);
	for (size_t i = 0; i < bulk->nskus; i++)
	{
		CHECK_FOR_INTERRUPTS();
		lock_stock(bulk->skus[i], careful);
		plan_sku(bulk, bulk->skus[i]);
	}
	if (!write_lines(bulk))
		return false;
	for (size_t i = 0; i < bulk->nskus; i++)
		write_slots(bulk->skus[i]);
	return true;
}

static void
group_by_sku(Bulk *bulk)
{
	HASHCTL		control = {
		.keysize = sizeof(const text *),
		.entrysize = sizeof(BulkSku),
		.hash = hash_sku,
		.match = match_sku,
		.hcxt = CurrentMemoryContext
	};
	HTAB	   *skus = hash_create("alloc skus", 1024, &control,
								   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE |
								   HASH_CONTEXT);
	HASH_SEQ_STATUS scan;
	BulkSku    *sku;

	for (size_t i = 0; i < bulk->nlines; i++)
	{
		BulkLine   *line = &bulk->lines[i];
		bool		found;

		CHECK_FOR_INTERRUPTS();
		sku = hash_search(skus, &line->line.sku, HASH_ENTER, &found);
		if (!found)
			*sku = (BulkSku) {.sku = line->line.sku};
		add_to_sku(sku, line);
	}

	bulk->nskus = 0;
	bulk->skus = palloc_extended(hash_get_num_entries(skus) * sizeof(BulkSku *),
								 MCXT_ALLOC_HUGE);
	hash_seq_init(&scan, skus);
	while ((sku = hash_seq_search(&scan)) != NULL)
		bulk->skus[bulk->nskus++] = sku;
	qsort_interruptible(bulk->skus, bulk->nskus, sizeof(BulkSku *),
						compare_skus, NULL);
}

static void
add_to_sku(BulkSku *sku, BulkLine *line)
{
	line->next = NULL;
	if (sku->first == NULL)
	{
		sku->first = line;
		sku->least = line->line.qty;
	}
	else
		sku->last->next = line;
	sku->last = line;
	sku->least = Min(sku->least, line->line.qty);
	if (pg_add_s64_overflow(sku->whole, line->line.qty, &sku->whole))
		sku->whole = PG_INT64_MAX;
}

static uint32
hash_sku(const void *key, Size size)
{
	const text *sku = *(const text *const *) key;

	return hash_bytes((const unsigned char *) VARDATA_ANY(sku),
					  VARSIZE_ANY_EXHDR(sku));
}

static int
match_sku(const void *a, const void *b, Size size)
{
	return alloc_compare_keys(*(const text *const *) a,
							  *(const text *const *) b);
}

static int
compare_skus(const void *a, const void *b, void *arg)
{
	return alloc_compare_keys((*(BulkSku *const *) a)->sku,
							  (*(BulkSku *const *) b)->sku);
}

/*
 * Waits for whoever is at work on one of the lines, with nothing locked.
 */
static void
settle_lines(Bulk *bulk)
{
	HASHCTL		control = {
		.keysize = sizeof(BulkLine *),
		.entrysize = sizeof(BulkLine *),
		.hash = hash_line,
		.match = match_line,
		.hcxt = CurrentMemoryContext
	};
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "alloc scratch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcxt;

	bulk->placed = hash_create("alloc placed lines", (long) bulk->nlines,
							   &control,
							   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE |
							   HASH_CONTEXT);
	oldcxt = MemoryContextSwitchTo(scratch);
	for (size_t i = 0; i < bulk->nlines; i++)
	{
		AllocLineRow there;

		CHECK_FOR_INTERRUPTS();
		(void) alloc_store_settle_line(&bulk->lines[i].line, &there);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(oldcxt);
	alloc_store_look();
}

static uint32
hash_line(const void *key, Size size)
{
	const BulkLine *line = *(BulkLine *const *) key;

	return hash_combine(hash_sku(&line->line.orderid, 0),
						hash_sku(&line->line.sku, 0));
}

static int
match_line(const void *a, const void *b, Size size)
{
	const BulkLine *line_a = *(BulkLine *const *) a;
	const BulkLine *line_b = *(BulkLine *const *) b;
	int			order = alloc_compare_keys(line_a->line.orderid,
										   line_b->line.orderid);

	return order != 0 ? order :
		alloc_compare_keys(line_a->line.sku, line_b->line.sku);
}

/*
 * Locks the stock that may serve the lines of a sku.
 *
 * The batch of the offer is the first that can serve any of them, so when it
 * can serve all of them it does.
 */
static void
lock_stock(BulkSku *sku, bool careful)
{
	AllocOffer *offer = &sku->offer;

	alloc_store_best_offer(sku->sku, sku->least, sku->whole, offer);
	if (offer->kind == ALLOC_OFFER_NONE)
		return;
	if (!careful && offer->kind == ALLOC_OFFER_FREE &&
		alloc_store_try_lock_slot(&offer->slot))
	{
		sku->one_slot = true;
		offer->batch.plan.available = offer->slot.available;
		add_batches(sku, &offer->batch, 1);
		sku->batches[0].chain = offer->slot.lines;
		return;
	}
	sku->waited = offer->kind != ALLOC_OFFER_SCATTERED;
	alloc_store_lock_product(sku->sku);
	alloc_store_look();
	alloc_store_best_offer(sku->sku, sku->least, sku->whole, offer);
	if (offer->kind == ALLOC_OFFER_NONE)
		return;
	if (alloc_store_lock_free_slots(&offer->batch, sku->whole))
	{
		add_batches(sku, &offer->batch, 1);
		sku->batches[0].chain = offer->batch.slots[0].lines;
	}
	else
		lock_all_stock(sku);
}

static void
add_batches(BulkSku *sku, const AllocBatchRow *rows, size_t n)
{
	sku->nbatches = n;
	sku->batches = palloc_extended(n * sizeof(BulkBatch),
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (size_t i = 0; i < n; i++)
		sku->batches[i].row = rows[i];
}

/*
 * All of it, waiting for whoever has some.
 */
static void
lock_all_stock(BulkSku *sku)
{
	AllocBatchRow *rows;
	size_t		n;

	alloc_store_look();
	n = alloc_store_batches(sku->sku, &rows);
	add_batches(sku, rows, n);
	pfree(rows);
	for (size_t i = 0; i < n; i++)
	{
		BulkBatch  *batch = &sku->batches[i];

		alloc_store_lock_slots(&batch->row);
		batch->chain = batch->row.slots[0].lines;
	}
}

static void
plan_sku(Bulk *bulk, BulkSku *sku)
{
	AllocPlanBatch *left = palloc_extended(sku->nbatches * sizeof(AllocPlanBatch),
										   MCXT_ALLOC_HUGE);
	LineFate	otherwise = LINE_OUT_OF_STOCK;

	if (sku->nbatches == 0 && !alloc_store_product_exists(sku->sku))
		otherwise = LINE_UNKNOWN_SKU;
	for (size_t i = 0; i < sku->nbatches; i++)
		left[i] = sku->batches[i].row.plan;
	for (BulkLine *line = sku->first; line != NULL; line = line->next)
	{
		ptrdiff_t	place;

		CHECK_FOR_INTERRUPTS();
		line->fate = otherwise;
		line->ref = NULL;
		if (bulk->placed != NULL && line_is_there(bulk, line))
			continue;
		place = alloc_plan_take(left, sku->nbatches, line->line.qty);
		if (place == ALLOC_NO_BATCH)
			continue;
		line->fate = LINE_PLACED;
		line->batch = &sku->batches[place];
		line->batch->taken += line->line.qty;
		line->ref = line->batch->row.ref;
		if (bulk->placed != NULL)
			remember_placed(bulk, line);
	}
	pfree(left);
}

/*
 * Is a line there, from before this call or from earlier in it?
 */
static bool
line_is_there(Bulk *bulk, BulkLine *line)
{
	BulkLine  **earlier = hash_search(bulk->placed, &line, HASH_FIND, NULL);
	AllocLineRow there;
	AllocBatchRow batch;

	if (earlier != NULL)
	{
		line->qty_there = (*earlier)->line.qty;
		line->ref = (*earlier)->ref;
	}
	else if (alloc_store_find_line(line->line.orderid, line->line.sku, &there))
	{
		alloc_store_get_batch(there.batch_id, &batch);
		line->qty_there = there.line.qty;
		line->ref = batch.ref;
	}
	else
		return false;
	line->fate = LINE_THERE;
	return true;
}

static void
remember_placed(Bulk *bulk, BulkLine *line)
{
	(void) hash_search(bulk->placed, &line, HASH_ENTER, NULL);
}

/*
 * Writes what was planned.  False: a line is there.
 */
static bool
write_lines(Bulk *bulk)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "alloc scratch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcxt;

	alloc_store_begin_bulk();
	for (size_t i = 0; i < bulk->nlines; i++)
	{
		bool		is_new;

		CHECK_FOR_INTERRUPTS();
		oldcxt = MemoryContextSwitchTo(scratch);
		is_new = write_line(&bulk->lines[i]);
		MemoryContextSwitchTo(oldcxt);
		MemoryContextReset(scratch);
		if (!is_new)
			return false;
	}
	MemoryContextDelete(scratch);
	return alloc_store_end_bulk();
}

static bool
write_line(BulkLine *line)
{
	AllocChain *chain;
	int64		event_id;

	switch (line->fate)
	{
		case LINE_UNKNOWN_SKU:
			alloc_unknown_sku(line->line.sku);
			break;
		case LINE_THERE:
			alloc_require_same_qty(&line->line, line->qty_there);
			break;
		case LINE_OUT_OF_STOCK:
			alloc_event_out_of_stock(&line->line);
			break;
		case LINE_PLACED:
			chain = &line->batch->chain;
			event_id = alloc_store_next_event_id();
			if (!alloc_store_add_line(&line->line,
									  line->batch->row.plan.batch_id,
									  event_id))
				return false;
			alloc_event_allocated(event_id, &line->line, line->ref, chain);
			chain->newest = event_id;
			chain->merged = NULL;
			break;
	}
	return true;
}

/*
 * Takes from the slots what the lines got.  A batch whose slots were waited
 * for is spread over more of them.
 */
static void
write_slots(BulkSku *sku)
{
	CHECK_FOR_INTERRUPTS();
	for (size_t i = 0; i < sku->nbatches; i++)
	{
		const BulkBatch *batch = &sku->batches[i];

		if (batch->taken == 0)
			continue;
		if (!sku->one_slot)
			alloc_store_take_from_all(&batch->row, batch->taken,
									  batch->chain.newest);
		else if (!alloc_store_take(&sku->offer, batch->taken,
								   batch->chain.newest))
			elog(ERROR, "slot of batch \"%s\" changed under lock",
				 alloc_show(batch->row.ref));
		if (sku->waited)
		{
			sku->offer.batch = batch->row;
			sku->offer.slot = batch->row.slots[0];
		}
		if (sku->waited || sku->one_slot)
			alloc_store_arrange(&sku->offer, sku->least, sku->waited);
		sku->waited = false;
	}
}

static void
return_lines(const Bulk *bulk, ReturnSetInfo *result)
{
	for (size_t i = 0; i < bulk->nlines; i++)
	{
		const BulkLine *line = &bulk->lines[i];
		Datum		values[4];
		bool		nulls[4] = {0};

		CHECK_FOR_INTERRUPTS();
		values[0] = PointerGetDatum(line->line.orderid);
		values[1] = PointerGetDatum(line->line.sku);
		values[2] = Int64GetDatum(line->line.qty);
		values[3] = PointerGetDatum(line->ref);
		nulls[3] = line->ref == NULL;
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
}
