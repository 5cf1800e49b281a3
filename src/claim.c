/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  The right to insert a key, for the short time until it is in the index.
 *
 * Two calls with the same new key must not fail: one inserts, the other waits
 * for its outcome.  A unique index alone would raise 23505 in the second, and
 * would do so late, with stock already taken.  So a key is claimed first, by
 * a heavyweight lock on its hash, then looked for among the uncommitted rows
 * as well, and only then inserted.
 *
 * Who holds a claim never waits for a transaction: it gives the claim back
 * before that.  So claims cannot take part in a deadlock, and two keys with
 * the same hash only take turns.  After an error the lock is released with
 * the other locks of the (sub)transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "claim.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "store.h"

/* The user's advisory locks have 1 and 2 there. */
#define CLAIM_LOCK_FIELD4 0xA110

static void set_tag(LOCKTAG *tag, AllocTable *table, int index, ScanKey keys,
					int nkeys);

/*
 * alloc_claim_key
 *		Claims a key of text columns of a unique index.
 *
 * True: a row with this key is there, committed or our own; it is in
 * table->found, and nothing is claimed.  False: there is none, and nobody
 * else inserts one until alloc_unclaim_key().
 *
 * Waits for a transaction that has inserted or deleted such a row.  Raises
 * 40001 when there is a row that the transaction's snapshot does not see.
 */
bool
alloc_claim_key(AllocTable *table, int index, ScanKey keys, int nkeys)
{
	for (;;)
	{
		ItemPointerData tid;
		TransactionId busy;

		/* The transaction's snapshot decides, and predicate locks are due. */
		if (IsolationUsesXactSnapshot() &&
			alloc_table_find(table, index, keys, nkeys))
			return true;

		alloc_claim_present_key(table, index, keys, nkeys);
		if (!alloc_table_probe(table, index, keys, nkeys, &busy))
			return false;
		alloc_unclaim_key(table, index, keys, nkeys);
		if (!TransactionIdIsValid(busy))
		{
			if (IsolationUsesXactSnapshot())
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("could not serialize access due to concurrent insert"),
						 errhint("Run the transaction again.")));
			return true;
		}
		tid = table->found->tts_tid;
		XactLockTableWait(busy, table->rel, &tid, XLTW_InsertIndexUnique);
		alloc_store_look();
	}
}

/*
 * alloc_claim_present_key
 *		Claims a key whose row is there and known to stay, so that nobody
 *		probes for it while its index entry moves.
 */
void
alloc_claim_present_key(AllocTable *table, int index, ScanKey keys, int nkeys)
{
	LOCKTAG		tag;

	set_tag(&tag, table, index, keys, nkeys);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/*
 * alloc_unclaim_key
 *		Gives a claim back, after the row is in the index or will not be.
 */
void
alloc_unclaim_key(AllocTable *table, int index, ScanKey keys, int nkeys)
{
	LOCKTAG		tag;

	set_tag(&tag, table, index, keys, nkeys);
	LockRelease(&tag, ExclusiveLock, false);
}

/*
 * The lock is on the hash of the index's name and the key.
 */
static void
set_tag(LOCKTAG *tag, AllocTable *table, int index, ScanKey keys, int nkeys)
{
	const char *name = table->index_names[index];
	uint64		hash = hash_bytes_extended((const unsigned char *) name,
										   (int) strlen(name), 0);

	for (int i = 0; i < nkeys; i++)
	{
		const text *key = DatumGetTextPP(keys[i].sk_argument);

		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(key),
								   VARSIZE_ANY_EXHDR(key), hash);
	}
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, CLAIM_LOCK_FIELD4);
}
