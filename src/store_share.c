/*-------------------------------------------------------------------------
 *
 * store_share.c
 *	  The repository's part about the share of the skus that is served here.
 *	  See store.c.
 *
 * The views ask for it as well: so it can be read at any time, on a standby and
 * by a parallel worker too, whether a command is at work or not.  The table is
 * read as one of the catalog, whose newest rows count, and not through
 * alloc_tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "store_private.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

static Relation open_table(Oid *relid);
static int32 get_column(Relation rel, HeapTuple row, int attno);

/*
 * alloc_store_read_share
 *		What table partition says; without a row: one partition of one.  *relid
 *		is the table, and is set before it is read: whoever is told of changes
 *		of it from then on misses none.  InvalidOid: there is none, because the
 *		SQL is still that of version 0.1.0.
 */
void
alloc_store_read_share(Oid *relid, AllocShare *share)
{
	Relation	rel = open_table(relid);
	SysScanDesc scan;
	HeapTuple	row;

	share->number = 0;
	share->count = 1;
	if (rel == NULL)
		return;
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
	{
		share->number = get_column(rel, row, PARTITION_C_NUMBER + 1);
		share->count = get_column(rel, row, PARTITION_C_COUNT + 1);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static Relation
open_table(Oid *relid)
{
	Relation	rel;

	/* Waiting for the lock may be waiting for its end. */
	do
	{
		*relid = get_relname_relid("partition",
								   get_namespace_oid("alloc", true));
		if (!OidIsValid(*relid))
			return NULL;
	} while ((rel = try_table_open(*relid, AccessShareLock)) == NULL);
	return rel;
}

static int32
get_column(Relation rel, HeapTuple row, int attno)
{
	bool		isnull;
	Datum		value = heap_getattr(row, attno, RelationGetDescr(rel), &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column %d of a row of \"alloc.%s\" is null", attno,
						"partition")));
	return DatumGetInt32(value);
}
