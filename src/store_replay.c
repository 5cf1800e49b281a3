/*-------------------------------------------------------------------------
 *
 * store_replay.c
 *	  The repository's part about the log as a whole: what a fold of it reads,
 *	  snapshots of it, and what was moved out of it.  See store.c.
 *
 * A snapshot is what the log tells up to an event.  It is taken when every
 * event up to that one is settled, so it never changes: see
 * alloc_store_settle_log().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "compat.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "store_private.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

/*
 * A range of ids with less than this part of the log is read by its key; with
 * less than the other one even where one sku is asked for and has an index.
 */
#define SMALL_PART 4
#define TINY_PART 64

/* Which events are wanted, and by whom. */
typedef struct FactRange
{
	const text *sku;			/* NULL: any */
	int64		after;
	int64		upto;
	AllocFactTaker take;
	void	   *arg;
} FactRange;

static void read_by_key(const FactRange *range);
static void read_by_sku(const FactRange *range, ScanKey key);
static void read_whole_log(const FactRange *range);
static void give_fact(const FactRange *range);
static void read_fact(AllocFact *fact);
static int64 newest_id(int table, int index, int64 upto);

/*
 * alloc_store_read_facts
 *		Gives all events with ids above after and up to upto, those of a sku
 *		only unless it is NULL, in no order.
 *
 * A small part of the log is read by its key; one sku by the index event_sku,
 * if there is one; and most of the log as it lies in the table, which is
 * fastest.
 */
void
alloc_store_read_facts(const text *sku, int64 after, int64 upto,
					   AllocFactTaker take, void *arg)
{
	FactRange	range = {sku, after, upto, take, arg};
	int64		first = alloc_store_archived_to();
	int64		last = alloc_store_last_event_id();
	int64		wanted = Min(upto, last) - after;
	ScanKeyData key;

	if (sku != NULL)
		alloc_key_text(&key, 1, sku);
	if (wanted < (last - first) / TINY_PART)
		read_by_key(&range);
	else if (sku != NULL && alloc_table_fit_key(&alloc_tables[EVENT], EVENT_SKU,
												EVENT_C_SKU, &key))
		read_by_sku(&range, &key);
	else if (wanted < (last - first) / SMALL_PART)
		read_by_key(&range);
	else
		read_whole_log(&range);
}

static void
read_by_key(const FactRange *range)
{
	AllocTable *table = &alloc_tables[EVENT];
	ScanKeyData keys[2];
	IndexScanDesc scan;

	alloc_key_int8_above(&keys[0], 1, range->after);
	alloc_key_int8_up_to(&keys[1], 1, range->upto);
	scan = alloc_table_scan(table, EVENT_PKEY, GetActiveSnapshot(), keys, 2);
	while (alloc_table_next(table, scan, ForwardScanDirection))
		give_fact(range);
	index_endscan(scan);
}

static void
read_by_sku(const FactRange *range, ScanKey key)
{
	AllocTable *table = &alloc_tables[EVENT];
	AllocBitmapScan *scan = alloc_table_scan_bitmap(table, EVENT_SKU, key);

	while (alloc_table_next_of_bitmap(table, scan))
		give_fact(range);
	alloc_table_end_bitmap(scan);
}

static void
read_whole_log(const FactRange *range)
{
	AllocTable *table = &alloc_tables[EVENT];
	TableScanDesc scan = alloc_table_scan_all(table, NULL, 0);

	while (alloc_table_next_of_all(table, scan))
		give_fact(range);
	table_endscan(scan);
}

static void
give_fact(const FactRange *range)
{
	AllocFact	fact;

	read_fact(&fact);
	if (fact.event_id > range->after && fact.event_id <= range->upto &&
		(range->sku == NULL || alloc_same_key(fact.sku, range->sku)))
		range->take(&fact, range->arg);
}

/*
 * The event that a scan found.  It allocates nothing for what has not been
 * compressed, and keys are too short for that.
 */
static void
read_fact(AllocFact *fact)
{
	const AllocTable *table = &alloc_tables[EVENT];

	fact->event_id = DatumGetInt64(alloc_row_get(table, EVENT_C_ID));
	fact->type = DatumGetTextPP(alloc_row_get(table, EVENT_C_TYPE));
	fact->sku = DatumGetTextPP(alloc_row_get(table, EVENT_C_SKU));
	fact->batchref = alloc_row_get_text(table, EVENT_C_BATCHREF);
	fact->qty = alloc_row_get_nullable(table, EVENT_C_QTY);
	fact->old_qty = alloc_row_get_nullable(table, EVENT_C_OLD_QTY);
	fact->eta = alloc_row_get_nullable(table, EVENT_C_ETA);
}

/*
 * alloc_store_read_snapshot
 *		Gives the batches of a snapshot, those of a sku only unless it is NULL.
 */
void
alloc_store_read_snapshot(int64 snapshot, const text *sku,
						  AllocTotalsTaker take, void *arg)
{
	AllocTable *table = &alloc_tables[SNAPSHOT_BATCH];
	ScanKeyData keys[2];
	IndexScanDesc scan;

	alloc_key_int8(&keys[0], 1, snapshot);
	if (sku != NULL)
		alloc_key_text(&keys[1], 2, sku);
	scan = alloc_table_scan(table, SNAPSHOT_BATCH_SKU, GetActiveSnapshot(),
							keys, sku != NULL ? 2 : 1);
	while (alloc_table_next(table, scan, ForwardScanDirection))
	{
		AllocBatchTotals totals = {
			.ref = DatumGetTextPP(alloc_row_get(table, SNAPSHOT_BATCH_C_REF)),
			.sku = DatumGetTextPP(alloc_row_get(table, SNAPSHOT_BATCH_C_SKU)),
			.created = DatumGetInt64(alloc_row_get(table, SNAPSHOT_BATCH_C_CREATED)),
			.purchased = DatumGetInt64(alloc_row_get(table, SNAPSHOT_BATCH_C_PURCHASED)),
			.shipped = DatumGetInt64(alloc_row_get(table, SNAPSHOT_BATCH_C_SHIPPED)),
			.allocated = DatumGetInt64(alloc_row_get(table, SNAPSHOT_BATCH_C_ALLOCATED)),
			.eta = alloc_row_get_nullable(table, SNAPSHOT_BATCH_C_ETA)
		};

		take(&totals, arg);
	}
	index_endscan(scan);
}

/*
 * alloc_store_newest_snapshot
 *		The event of the newest snapshot up to an event; 0: there is none.
 */
int64
alloc_store_newest_snapshot(int64 upto)
{
	return newest_id(SNAPSHOT, SNAPSHOT_PKEY, upto);
}

/*
 * alloc_store_archived_to
 *		The last event that was moved out of the log; 0: none was.
 */
int64
alloc_store_archived_to(void)
{
	return newest_id(ARCHIVE, ARCHIVE_PKEY, PG_INT64_MAX);
}

/*
 * The greatest id, in a table's first column, up to one; 0: there is none.
 */
static int64
newest_id(int table, int index, int64 upto)
{
	ScanKeyData key;
	IndexScanDesc scan;
	int64		id = 0;

	alloc_key_int8_up_to(&key, 1, upto);
	scan = alloc_table_scan(&alloc_tables[table], index, GetActiveSnapshot(),
							&key, 1);
	if (alloc_table_next(&alloc_tables[table], scan, BackwardScanDirection))
		id = DatumGetInt64(alloc_row_get(&alloc_tables[table], 0));
	index_endscan(scan);
	return id;
}

/*
 * alloc_store_keep_log
 *		Waits for one who moves events out of the log, and lets nobody begin
 *		with that until the transaction has ended.
 *
 * The lock does not conflict with those of commands, which may read snapshots.
 */
void
alloc_store_keep_log(void)
{
	(void) alloc_table_row(&alloc_tables[SNAPSHOT]);
	LockRelationOid(alloc_tables[SNAPSHOT].relid, ShareUpdateExclusiveLock);
	alloc_store_look();
}

/*
 * alloc_store_settle_log
 *		Waits until every event up to the last one that anybody has drawn is
 *		committed, rolled back, or our own; returns that one.
 *
 * Who draws an id has locked the table of events before, and keeps the lock
 * until his transaction ends.  To be followed by a look.
 */
int64
alloc_store_settle_log(void)
{
	int64		last = alloc_store_last_event_id();
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, alloc_tables[EVENT].relid);
	WaitForLockers(tag, ShareLock, false);
	return last;
}
