/*-------------------------------------------------------------------------
 *
 * share.c
 *	  Which share of the skus this database serves.
 *
 * In a fleet of databases each serves the skus of which partition_of() ends in
 * its number; the table partition says which, and without a row there it
 * serves all.  Numbers below 0 are of no sku: then none is served.  The share
 * is read when it is first asked for, and again when the table has changed, of
 * which the relation cache hears.
 *
 * What has to be so for a move of skus to another database: a transaction with
 * a command that was told that a sku is served has ended before a transaction
 * that takes the sku away commits, and whoever comes after that is told so.
 * Every command locks the table of slots first, until its transaction ends;
 * set_partition() locks out all of them, and waits for those at work.  Who
 * waits for it hears of the change when he gets his lock, and looks again: rows
 * may have come with the skus.
 *
 * Whether it was rolled back, what the transaction's own snapshot says, and
 * whether anybody writes here at all does not matter: the newest row counts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "argument.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "nodes/supportnodes.h"
#include "share.h"
#include "store.h"
#include "utils/inval.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(alloc_partition_of);
PG_FUNCTION_INFO_V1(alloc_serves);
PG_FUNCTION_INFO_V1(alloc_serves_support);
PG_FUNCTION_INFO_V1(alloc_partition_changed);

/* Numbers in table partition of who serves no sku. */
#define SHARE_OF_FILLED (-1)
#define SHARE_OF_ROUTER (-2)

bool		alloc_share_is_known;
bool		alloc_share_is_whole;

static AllocShare share;
static Oid	table_id;			/* of which the share is */
static uint32 changes;			/* of the table, that we have heard of */

static void share_invalidated(Datum arg, Oid relid);
static int	explain_refusal(const text *sku);
static int32 hash_sku(const text *sku);

/*
 * alloc_share_init
 *		Once per backend, when the library is loaded.
 */
void
alloc_share_init(void)
{
	CacheRegisterRelcacheCallback(share_invalidated, (Datum) 0);
}

/*
 * alloc.partition_of(sku text) returns integer
 *		31 bits of a hash of the sku: in a fleet of n databases, a power of
 *		two, number partition_of(sku) & (n - 1) serves it.  NULL: 0, so that a
 *		command with a NULL comes to a partition, which refuses it.
 *
 * It never changes: each fleet relies on it.
 */
Datum
alloc_partition_of(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(PG_ARGISNULL(0) ? 0 : hash_sku(PG_GETARG_TEXT_PP(0)));
}

/*
 * alloc._serves(sku text) returns boolean
 *		Is a sku served here?  For the views.  NULL: no.
 */
Datum
alloc_serves(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!PG_ARGISNULL(0) &&
				   alloc_share_serves(PG_GETARG_TEXT_PP(0)));
}

/*
 * alloc._serves_support(internal) returns internal
 *		Tells the planner that nearly all rows are of skus that are served:
 *		only after a move there are others, for a while.  Its own guess would
 *		be a third.
 */
Datum
alloc_serves_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (!IsA(request, SupportRequestSelectivity))
		PG_RETURN_POINTER(NULL);
	((SupportRequestSelectivity *) request)->selectivity = 0.99;
	PG_RETURN_POINTER(request);
}

/*
 * alloc._partition_changed() returns trigger
 *		Of table partition: what every session knows of it is stale when the
 *		transaction commits, and what this one knows, at once.
 */
Datum
alloc_partition_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("_partition_changed() is a trigger function")));
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

/*
 * alloc_share_learn
 *		Reads the share; and again when it has changed meanwhile.
 */
void
alloc_share_learn(void)
{
	uint32		before;

	do
	{
		before = changes;
		alloc_store_read_share(&table_id, &share);
	} while (before != changes);
	alloc_share_is_known = true;
	alloc_share_is_whole = share.count == 1;
}

/*
 * alloc_share_has
 *		The part of alloc_share_serves() that is not always needed.
 */
bool
alloc_share_has(const text *sku)
{
	if (!alloc_share_is_known)
		alloc_share_learn();
	return alloc_share_is_whole ||
		(hash_sku(sku) & (share.count - 1)) == share.number;
}

/*
 * alloc_share_refuse
 *		Raises 55000 for a sku that is not served here.
 */
void
alloc_share_refuse(const text *sku)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("sku \"%s\" is not served by this partition",
					alloc_show(sku)),
			 explain_refusal(sku),
			 errhint("The router's list of partitions may just be changing: call again.")));
}

static int
explain_refusal(const text *sku)
{
	switch (share.number)
	{
		case SHARE_OF_FILLED:
			return errdetail("This partition is being filled.");
		case SHARE_OF_ROUTER:
			return errdetail("This database is a router.");
		default:
			return errdetail("It belongs to partition %d of %d, this is partition %d of %d.",
							 hash_sku(sku) & (share.count - 1), share.count,
							 share.number, share.count);
	}
}

/*
 * Relcache callback: relation relid, or every one when it is invalid, may have
 * changed.  Without a table, any may be the one that an update has made.
 */
static void
share_invalidated(Datum arg, Oid relid)
{
	if (OidIsValid(relid) && OidIsValid(table_id) && relid != table_id)
		return;
	changes++;
	alloc_share_is_known = false;
	alloc_share_is_whole = false;
}

/*
 * The lowest 31 bits of the hash by which PostgreSQL finds the partition of a
 * table PARTITION BY HASH (sku): compute_partition_hash_value() of
 * partbounds.c, where the hash of the one column, with this seed, is combined
 * with nothing before it.  So such a table can lie as a fleet does, and a
 * condition on partition_of() be one on its partitions.
 *
 * hashtextextended() hashes the bytes of a text where its collation is
 * deterministic, and the default one of a database always is.
 */
static int32
hash_sku(const text *sku)
{
	uint64		hash = DatumGetUInt64(hash_any_extended((const unsigned char *) VARDATA_ANY(sku),
														(int) VARSIZE_ANY_EXHDR(sku),
														HASH_PARTITION_SEED));

	return (int32) (hash_combine64(0, hash) & PG_INT32_MAX);
}
