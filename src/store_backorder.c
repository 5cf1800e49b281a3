/*-------------------------------------------------------------------------
 *
 * store_backorder.c
 *	  The repository's part about order lines that wait for stock.  See
 *	  store.c.
 *
 * A line is put into the queue with the product and all slots of its sku
 * locked, and from then on all of these slots say that lines wait: so whoever
 * frees units has the newest version of a slot that says so, and looks.
 *
 * The queue of a sku is walked by quantity: of those that want the same only
 * the first can be the next.  So a walk costs by the lines that it gives, and
 * by the different quantities that would fit, however many lines wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "lib/pairingheap.h"
#include "store_private.h"
#include "utils/snapmgr.h"

/* The first of the lines that want a quantity. */
typedef struct QueueHead
{
	pairingheap_node node;
	AllocWaitingRow row;
} QueueHead;

/* A walk along the queue of a sku. */
struct AllocQueue
{
	MemoryContext cxt;			/* that lives as long as the walk */
	const text *sku;
	pairingheap *heap;			/* of QueueHead, first come first */
	QueueHead  *given;			/* the last one, not in the heap; or NULL */
};

static void set_waiting_keys(ScanKey keys, const text *orderid,
							 const text *sku);
static void read_waiting(AllocWaitingRow *row);
static void follow_given(AllocQueue *queue, int64 most);
static QueueHead *find_head(const AllocQueue *queue, ScanKey keys, int nkeys);
static void free_head(QueueHead *head);
static int	first_come_first(const pairingheap_node *a,
							 const pairingheap_node *b, void *arg);

/*
 * alloc_store_find_waiting
 *		The line of an order, if it waits for stock.
 */
bool
alloc_store_find_waiting(const text *orderid, const text *sku,
						 AllocWaitingRow *row)
{
	ScanKeyData keys[2];

	set_waiting_keys(keys, orderid, sku);
	if (!alloc_table_find(&alloc_tables[BACKORDER], BACKORDER_LINE, keys, 2))
		return false;
	read_waiting(row);
	row->line.sku = sku;
	return true;
}

/*
 * alloc_store_settle_waiting
 *		Like alloc_store_find_waiting(), but sees a line as well that others
 *		have put into the queue since the last look, and waits for those who
 *		are at work on it.
 */
bool
alloc_store_settle_waiting(const AllocLine *line, AllocWaitingRow *row)
{
	ScanKeyData keys[2];

	set_waiting_keys(keys, line->orderid, line->sku);
	if (!alloc_store_settle_key(&alloc_tables[BACKORDER], BACKORDER_LINE,
								keys, 2))
		return false;
	read_waiting(row);
	row->line.sku = line->sku;
	alloc_store_look();
	return true;
}

/*
 * alloc_store_claim_waiting
 *		Like alloc_store_settle_waiting(), and locks the line, without waiting.
 *		*busy: somebody is at work on it, or the transaction's snapshot does
 *		not see it; alloc_store_settle_waiting() is to settle that.
 */
bool
alloc_store_claim_waiting(const AllocLine *line, AllocWaitingRow *row,
						  bool *busy)
{
	AllocTable *table = &alloc_tables[BACKORDER];
	ScanKeyData keys[2];
	TransactionId worker;

	*busy = false;
	set_waiting_keys(keys, line->orderid, line->sku);
	if (!alloc_table_probe(table, BACKORDER_LINE, keys, 2, &worker))
		return false;
	read_waiting(row);
	row->line.sku = line->sku;
	*busy = TransactionIdIsValid(worker) ||
		(IsolationUsesXactSnapshot() &&
		 !alloc_table_find(table, BACKORDER_LINE, keys, 2)) ||
		!alloc_table_try_lock(table, &row->tid);
	return true;
}

/*
 * alloc_store_insert_waiting
 *		Puts a line into the queue, with the event that says so.  All slots of
 *		its sku are locked.  False: it is there, or somebody is at work on it.
 */
bool
alloc_store_insert_waiting(const AllocLine *line, int64 event_id)
{
	AllocTable *table = &alloc_tables[BACKORDER];
	TupleTableSlot *row = alloc_table_row(table);

	alloc_row_set(row, BACKORDER_C_EVENT, Int64GetDatum(event_id));
	alloc_row_set(row, BACKORDER_C_QTY, Int64GetDatum(line->qty));
	alloc_row_set_time(row, BACKORDER_C_SINCE,
					   GetCurrentStatementStartTimestamp());
	alloc_row_set_text(row, BACKORDER_C_ORDERID, line->orderid);
	alloc_row_set_text(row, BACKORDER_C_SKU, line->sku);
	return alloc_table_insert_new(table, BACKORDER_LINE);
}

/*
 * alloc_store_delete_waiting
 *		Takes a line out of the queue.  False: somebody else was faster; look
 *		again.
 */
bool
alloc_store_delete_waiting(const AllocWaitingRow *row)
{
	ItemPointerData tid = row->tid;

	return alloc_store_is_unchanged(alloc_table_delete(&alloc_tables[BACKORDER],
													   &tid));
}

/*
 * alloc_store_anybody_waits
 *		Does any line wait for units of a sku?  For good, if its product is
 *		locked, or else as far as the last look saw.
 */
bool
alloc_store_anybody_waits(const text *sku)
{
	ScanKeyData key;

	alloc_key_text(&key, 1, sku);
	return alloc_table_find(&alloc_tables[BACKORDER], BACKORDER_QUEUE, &key, 1);
}

/*
 * alloc_store_open_queue
 *		Begins a walk along the lines that wait for units of a sku, whose
 *		product is locked: those that want most units or fewer.
 */
AllocQueue *
alloc_store_open_queue(const text *sku, int64 most)
{
	AllocQueue *queue = palloc_object(AllocQueue);
	QueueHead  *head;
	ScanKeyData keys[2];

	queue->cxt = CurrentMemoryContext;
	queue->sku = sku;
	queue->heap = pairingheap_allocate(first_come_first, NULL);
	queue->given = NULL;
	alloc_key_text(&keys[0], 1, sku);
	alloc_key_int8_above(&keys[1], 2, 0);
	while ((head = find_head(queue, keys, 2)) != NULL &&
		   head->row.line.qty <= most)
	{
		pairingheap_add(queue->heap, &head->node);
		alloc_key_int8_above(&keys[1], 2, head->row.line.qty);
	}
	if (head != NULL)
		free_head(head);
	return queue;
}

/*
 * alloc_store_next_waiting
 *		The next line of a walk that wants most units or fewer; most does not
 *		grow.  False: there is none.
 *
 * What the row points to is valid until the next call.
 */
bool
alloc_store_next_waiting(AllocQueue *queue, int64 most, AllocWaitingRow *row)
{
	follow_given(queue, most);
	while (!pairingheap_is_empty(queue->heap))
	{
		QueueHead  *head = pairingheap_container(QueueHead, node,
												 pairingheap_remove_first(queue->heap));

		if (head->row.line.qty <= most)
		{
			queue->given = head;
			*row = head->row;
			return true;
		}
		free_head(head);
	}
	return false;
}

/*
 * alloc_store_close_queue
 */
void
alloc_store_close_queue(AllocQueue *queue)
{
	while (!pairingheap_is_empty(queue->heap))
		free_head(pairingheap_container(QueueHead, node,
										pairingheap_remove_first(queue->heap)));
	if (queue->given != NULL)
		free_head(queue->given);
	pairingheap_free(queue->heap);
	pfree(queue);
}

/*
 * The line behind the one that was given comes to the head of those that want
 * the same.
 */
static void
follow_given(AllocQueue *queue, int64 most)
{
	QueueHead  *given = queue->given;
	QueueHead  *next;
	ScanKeyData keys[3];

	if (given == NULL)
		return;
	queue->given = NULL;
	if (given->row.line.qty <= most)
	{
		alloc_key_text(&keys[0], 1, queue->sku);
		alloc_key_int8(&keys[1], 2, given->row.line.qty);
		alloc_key_int8_above(&keys[2], 3, given->row.event_id);
		next = find_head(queue, keys, 3);
		if (next != NULL)
			pairingheap_add(queue->heap, &next->node);
	}
	free_head(given);
}

static QueueHead *
find_head(const AllocQueue *queue, ScanKey keys, int nkeys)
{
	MemoryContext oldcxt;
	QueueHead  *head;

	if (!alloc_table_find(&alloc_tables[BACKORDER], BACKORDER_QUEUE, keys,
						  nkeys))
		return NULL;
	oldcxt = MemoryContextSwitchTo(queue->cxt);
	head = palloc_object(QueueHead);
	read_waiting(&head->row);
	MemoryContextSwitchTo(oldcxt);
	head->row.line.sku = queue->sku;
	return head;
}

static void
free_head(QueueHead *head)
{
	pfree(unconstify(text *, head->row.line.orderid));
	pfree(head);
}

static int
first_come_first(const pairingheap_node *a, const pairingheap_node *b,
				 void *arg)
{
	int64		id_a = pairingheap_const_container(QueueHead, node, a)->row.event_id;
	int64		id_b = pairingheap_const_container(QueueHead, node, b)->row.event_id;

	return id_a > id_b ? -1 : id_a < id_b;
}

static void
set_waiting_keys(ScanKey keys, const text *orderid, const text *sku)
{
	alloc_key_text(&keys[0], 1, orderid);
	alloc_key_text(&keys[1], 2, sku);
}

/*
 * The row that a scan found, but for the sku, which the caller knows.
 */
static void
read_waiting(AllocWaitingRow *row)
{
	const AllocTable *table = &alloc_tables[BACKORDER];

	row->event_id = DatumGetInt64(alloc_row_get(table, BACKORDER_C_EVENT));
	row->line.qty = DatumGetInt64(alloc_row_get(table, BACKORDER_C_QTY));
	row->line.orderid = DatumGetTextPCopy(alloc_row_get(table, BACKORDER_C_ORDERID));
	row->line.expires_at = 0;
	row->tid = table->found->tts_tid;
}
