/*-------------------------------------------------------------------------
 *
 * table.h
 *	  Direct access to the extension's tables: scan, insert, update, delete,
 *	  lock, without parser, planner and executor.
 *
 * For store.c only, which knows what is in the tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_TABLE_H
#define ALLOC_TABLE_H

#include "access/genam.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/tableam.h"
#include "nodes/execnodes.h"
#include "utils/date.h"

#define ALLOC_MAX_NAMED_INDEXES 4

/*
 * A table of schema alloc.  The first part is constant; the second lives as
 * long as the backend, or until the table's definition changes; the third is
 * set while a command has the table open.
 */
typedef struct AllocTable
{
	const char *name;
	const char *sequence;		/* that numbers its rows, or NULL */
	bool		busy_pages;		/* rows are updated all the time */
	int			ncolumns;
	const char *index_names[ALLOC_MAX_NAMED_INDEXES];	/* that scans use */
	int			nrequired;		/* of them; the others may be missing; 0: all */

	MemoryContext cxt;			/* NULL: nothing is cached */
	bool		stale;			/* the definition may have changed */
	uint32		version;		/* grows when what is cached is made anew */
	Oid			relid;
	Oid			sequence_id;
	Oid		   *index_ids;		/* of every index of the table */
	int			index_at[ALLOC_MAX_NAMED_INDEXES];	/* named ones in there */
	List	   *arbiters[ALLOC_MAX_NAMED_INDEXES];	/* each of them alone */
	EState	   *estate;
	ResultRelInfo *rri;
	TupleTableSlot *row;		/* to be written */
	TupleTableSlot *found;		/* by a scan */

	Relation	rel;			/* NULL: not open */
	struct AllocRowBuffer *buffer;	/* of rows to be inserted, or NULL */
	bool		in_queue;		/* we are at the head of a row's queue */
	ItemPointerData queue;
} AllocTable;

extern void alloc_table_init(AllocTable *tables, int ntables);
extern void alloc_table_read_only(bool read_only);
extern void alloc_table_open(AllocTable *table);
extern Relation alloc_table_open_index(AllocTable *table, int at);
extern void alloc_table_open_all_indexes(AllocTable *table);
extern void alloc_table_close(AllocTable *table);
extern void alloc_table_forget(AllocTable *table);
extern int64 alloc_table_nextval(AllocTable *table);
extern int64 alloc_table_lastval(AllocTable *table);
extern uint32 alloc_table_version(const AllocTable *table);

extern void alloc_key_int8(ScanKey key, AttrNumber attno, int64 value);
extern void alloc_key_int8_above(ScanKey key, AttrNumber attno, int64 value);
extern void alloc_key_int8_up_to(ScanKey key, AttrNumber attno, int64 value);
extern void alloc_key_int2(ScanKey key, AttrNumber attno,
						   StrategyNumber strategy, int16 value);
extern void alloc_key_date(ScanKey key, AttrNumber attno, DateADT value);
extern void alloc_key_time(ScanKey key, AttrNumber attno,
						   StrategyNumber strategy, TimestampTz value);
extern void alloc_key_null(ScanKey key, AttrNumber attno);
extern void alloc_key_text(ScanKey key, AttrNumber attno, const text *value);
extern IndexScanDesc alloc_table_scan(AllocTable *table, int index,
									  Snapshot snapshot, ScanKey keys,
									  int nkeys);
extern bool alloc_table_next(AllocTable *table, IndexScanDesc scan,
							 ScanDirection direction);
extern bool alloc_table_find(AllocTable *table, int index, ScanKey keys,
							 int nkeys);
extern bool alloc_table_probe(AllocTable *table, int index, ScanKey keys,
							  int nkeys, TransactionId *busy);
extern TransactionId alloc_table_found_busy(const AllocTable *table);
extern bool alloc_table_found_ours(const AllocTable *table);
extern bool alloc_table_found_quiet(const AllocTable *table);
extern TableScanDesc alloc_table_scan_all(AllocTable *table, ScanKey keys,
										  int nkeys);
extern bool alloc_table_next_of_all(AllocTable *table, TableScanDesc scan);

extern IndexScanDesc alloc_table_scan_entries(AllocTable *table, int index,
											  ScanKey keys, int nkeys);
extern bool alloc_table_next_entry(IndexScanDesc scan);
extern int64 alloc_table_entry_int8(IndexScanDesc scan, AttrNumber attno);
extern bool alloc_table_entry_row(AllocTable *table, IndexScanDesc scan);

typedef struct AllocBitmapScan AllocBitmapScan;

extern bool alloc_table_fit_key(AllocTable *table, int index, int column,
								ScanKey key);
extern AllocBitmapScan *alloc_table_scan_bitmap(AllocTable *table, int index,
												ScanKey key);
extern bool alloc_table_next_of_bitmap(AllocTable *table,
									   AllocBitmapScan *scan);
extern void alloc_table_end_bitmap(AllocBitmapScan *scan);

extern TupleTableSlot *alloc_table_row(AllocTable *table);
extern void alloc_table_insert(AllocTable *table);
extern bool alloc_table_insert_new(AllocTable *table, int index);
extern bool alloc_table_insert_speculatively(AllocTable *table, int index);
extern void alloc_table_begin_buffer(AllocTable *table, int index);
extern bool alloc_table_buffer_row(AllocTable *table);
extern bool alloc_table_end_buffer(AllocTable *table);
extern void alloc_table_require_valid(AllocTable *table);
extern void alloc_table_after_insert(AllocTable *table, TupleTableSlot *row,
									 List *recheck);
extern TM_Result alloc_table_update(AllocTable *table, ItemPointer tid);
extern TM_Result alloc_table_delete(AllocTable *table, ItemPointer tid);
extern void alloc_table_wait(AllocTable *table, const ItemPointerData *tid,
							 TransactionId xid);
extern void alloc_table_leave_queue(AllocTable *table);
extern TM_Result alloc_table_lock(AllocTable *table, ItemPointer tid);
extern TM_Result alloc_table_lock_version(AllocTable *table, ItemPointer tid);
extern bool alloc_table_try_lock(AllocTable *table, ItemPointer tid);
extern bool alloc_table_try_keep(AllocTable *table, ItemPointer tid);

#endif							/* ALLOC_TABLE_H */
