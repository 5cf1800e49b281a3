/*-------------------------------------------------------------------------
 *
 * store.h
 *	  The repository: products, batches, slots, lines and events as rows.
 *
 * Functions work on the state that the last alloc_store_look() saw, and
 * between alloc_store_begin() and alloc_store_end() only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ALLOC_STORE_H
#define ALLOC_STORE_H

#include "nodes/pg_list.h"
#include "planner.h"
#include "position.h"
#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/jsonb.h"

/* An order line, as the customer sent it. */
typedef struct AllocLine
{
	const text *orderid;
	const text *sku;
	int64		qty;
	TimestampTz expires_at;		/* it is held until then; 0: for good */
} AllocLine;

/* A line that a batch serves. */
typedef struct AllocLineRow
{
	AllocLine	line;
	int64		batch_id;
	int64		event_id;		/* that allocated it: its age; or shipped it */
	TimestampTz shipped_at;		/* 0: it has not been */
	ItemPointerData tid;
} AllocLineRow;

/* A line's hold, or the mark that it has ended, at line.expires_at. */
typedef struct AllocHoldRow
{
	AllocLine	line;
	int64		batch_id;
	const text *batchref;
	bool		ended;
	ItemPointerData tid;
} AllocHoldRow;

/* A batch that has a hold which is over, and since when. */
typedef struct AllocDue
{
	TimestampTz expires_at;
	int64		batch_id;
} AllocDue;

/*
 * Where the list of a batch's lines goes on: events that allocated lines, each
 * with the rest of its own list behind it.
 */
typedef struct AllocChain
{
	int64		newest;			/* 0: none */
	ArrayType  *merged;			/* of bigint, older than newest; or NULL */
} AllocChain;

/* A row of a batch's stock. */
typedef struct AllocSlotRow
{
	int64		available;
	int64		shipped;
	AllocChain	lines;
	TimestampTz hold_until;		/* holds may end from then on; 0: none */
	ItemPointerData tid;
	TransactionId busy;			/* who was at work on it, if anybody */
	int16		number;
	bool		spread;			/* the batch may have others */
	bool		waiting;		/* lines may wait for units */
	bool		quiet;			/* nobody has written it for long */
} AllocSlotRow;

/*
 * A batch.  Its slots, and what they add up to (plan.available, shipped), are
 * there after alloc_store_read_slots() or alloc_store_lock_slots() only.
 */
typedef struct AllocBatchRow
{
	AllocPlanBatch plan;
	text	   *ref;
	text	   *sku;
	int64		purchased;
	int64		shipped;
	ItemPointerData tid;
	AllocSlotRow *slots;
	size_t		nslots;
} AllocBatchRow;

/* How the best batch can serve. */
typedef enum AllocOfferKind
{
	ALLOC_OFFER_NONE,			/* no batch has enough */
	ALLOC_OFFER_FREE,			/* from the slot */
	ALLOC_OFFER_BUSY,			/* from the slot, when it is free again */
	ALLOC_OFFER_EXPIRED,		/* perhaps, when holds have been ended */
	ALLOC_OFFER_SCATTERED		/* from several slots */
} AllocOfferKind;

typedef struct AllocOffer
{
	AllocOfferKind kind;
	AllocBatchRow batch;		/* plan but for available, ref, sku */
	AllocSlotRow slot;
	int			passed;			/* slots with enough that were busy */
	bool		expired;		/* holds of the batch may be over */
} AllocOffer;

/* A row of the log; keys that do not apply are NULL. */
typedef struct AllocEventRow
{
	int64		event_id;
	TimestampTz at;
	int64		xact;			/* set by the store */
	bool		relay;			/* to be sent by the relay */
	const char *type;
	const text *sku;
	const text *orderid;
	const text *batchref;
	const text *traceparent;
	NullableDatum qty;			/* bigint */
	NullableDatum old_qty;		/* bigint */
	NullableDatum eta;			/* date */
	NullableDatum old_eta;		/* date */
	TimestampTz expires_at;		/* 0: it does not apply */
	AllocChain	before;			/* the batch's lines so far */
} AllocEventRow;

/* What a fold of the log has to know of an event. */
typedef struct AllocFact
{
	int64		event_id;
	const text *type;
	const text *sku;
	const text *batchref;		/* NULL: it is about no batch */
	NullableDatum qty;			/* bigint */
	NullableDatum old_qty;		/* bigint */
	NullableDatum eta;			/* date */
} AllocFact;

/* Who takes it; it is gone when the taker returns. */
typedef void (*AllocFactTaker) (const AllocFact *fact, void *arg);

/* A line that waits for stock. */
typedef struct AllocWaitingRow
{
	AllocLine	line;
	int64		event_id;		/* since when: its place in the queue */
	ItemPointerData tid;
} AllocWaitingRow;

typedef struct AllocQueue AllocQueue;

/* A batch, as the log tells of it. */
typedef struct AllocBatchTotals
{
	const text *ref;
	const text *sku;
	int64		created;		/* the event that did */
	int64		purchased;
	int64		shipped;
	int64		allocated;
	NullableDatum eta;			/* date */
} AllocBatchTotals;

typedef void (*AllocTotalsTaker) (const AllocBatchTotals *totals, void *arg);

/* A reader of the log. */
typedef enum AllocReaderKind
{
	ALLOC_READER_CONSUMER,
	ALLOC_READER_RELAY,
	ALLOC_READER_HANDLER
} AllocReaderKind;

typedef struct AllocReader
{
	int64		consumer_id;
	int64		moved;
	ItemPointerData tid;
	AllocPosition position;
} AllocReader;

/* A message to handle(). */
typedef struct AllocMessageRow
{
	const text *message_id;
	TimestampTz received_at;
	bytea	   *body_hash;
	Jsonb	   *answer;			/* NULL: at work */
} AllocMessageRow;

/* Who takes an event that a reader is given. */
typedef void (*AllocEventTaker) (const AllocEventRow *event, void *arg);

/* A function that is to be called with the events of a type. */
typedef struct AllocSubscription
{
	int64		id;
	Oid			role;			/* as whom */
	char	   *event_type;
	char	   *handler;		/* with its schema and argument types */
	char	   *search_path;
	bool		sync;
} AllocSubscription;

/* An event that a handler failed on. */
typedef struct AllocDelivery
{
	int64		id;
	int64		subscription_id;
	int64		event_id;
	TimestampTz at;				/* of the last error */
	TimestampTz next_at;		/* to be tried again; 0: not any more */
	int64		attempts;
	const char *handler;
	const char *last_error;
	ItemPointerData tid;
} AllocDelivery;

/* Of the skus: those of which partition_of() & (count - 1) is the number. */
typedef struct AllocShare
{
	int32		number;
	int32		count;			/* a power of two */
} AllocShare;

/* Setting: the number of slots that a batch may have. */
extern int	alloc_max_slots;

extern void alloc_store_init(void);

extern void alloc_store_begin(const char *command);
extern void alloc_store_end(void);
extern void alloc_store_look(void);
extern void alloc_store_begin_query(const char *query);
extern void alloc_store_end_query(void);

extern void alloc_store_read_share(Oid *relid, AllocShare *share);

extern bool alloc_store_find_line(const text *orderid, const text *sku,
								  AllocLineRow *row);
extern bool alloc_store_settle_line(const AllocLine *line, AllocLineRow *row);
extern bool alloc_store_line_is_coming(const AllocLine *line);
extern bool alloc_store_insert_line(const AllocLine *line, int64 batch_id,
									int64 event_id);
extern bool alloc_store_add_line(const AllocLine *line, int64 batch_id,
								 int64 event_id);
extern void alloc_store_move_line(const AllocLineRow *row, int64 batch_id,
								  int64 event_id);
extern void alloc_store_rewrite_line(const AllocLineRow *row);
extern bool alloc_store_try_keep_line(const ItemPointerData *tid);
extern bool alloc_store_delete_line(const AllocLineRow *row);
extern bool alloc_store_mark_shipped(const AllocLineRow *row, int64 event_id);
extern int64 alloc_store_purge_shipped(TimestampTz before);
extern size_t alloc_store_skus_of_order(const text *orderid,
										const text ***skus);
extern size_t alloc_store_newest_lines(const AllocBatchRow *batch,
									   int64 deficit, AllocLineRow **rows,
									   AllocChain *rest);
extern int64 alloc_store_listed_qty(const AllocBatchRow *batch, int64 enough);

extern bool alloc_store_find_hold(const text *orderid, const text *sku,
								  AllocHoldRow *hold);
extern size_t alloc_store_holds_of_order(const text *orderid,
										 AllocHoldRow **holds);
extern size_t alloc_store_expired_holds(int64 batch_id, TimestampTz now,
										AllocHoldRow **holds);
extern size_t alloc_store_some_expired_holds(int64 batch_id, TimestampTz now,
											 size_t max, AllocHoldRow **holds);
extern size_t alloc_store_due_batches(AllocDue *place, TimestampTz now,
									  AllocDue *due, size_t max, bool *more);
extern int64 alloc_store_expired_qty(int64 batch_id, TimestampTz now);
extern TimestampTz alloc_store_next_expiry(int64 batch_id);
extern bool alloc_store_may_have_more_holds(const text *orderid, int64 n);
extern int64 alloc_store_count_holds(const text *orderid, TimestampTz now);
extern void alloc_store_insert_hold(const AllocLine *line,
									const AllocBatchRow *batch);
extern bool alloc_store_end_hold(const AllocHoldRow *hold, TimestampTz now);
extern bool alloc_store_extend_hold(const AllocHoldRow *hold,
									TimestampTz expires_at);
extern bool alloc_store_move_hold(const AllocHoldRow *hold,
								  const AllocBatchRow *batch);
extern bool alloc_store_lock_hold(const AllocHoldRow *hold);
extern bool alloc_store_try_lock_hold(const AllocHoldRow *hold);
extern bool alloc_store_delete_hold(const AllocHoldRow *hold);
extern void alloc_store_forget_end(const text *orderid, const text *sku);
extern void alloc_store_forget_ended_holds(TimestampTz before, int64 max);
extern size_t alloc_store_batches_to_sweep(const text *sku,
										   AllocBatchRow **batches);

extern bool alloc_store_find_batch(const text *ref, AllocBatchRow *batch);
extern bool alloc_store_settle_ref(const text *ref, AllocBatchRow *batch);
extern void alloc_store_get_batch(int64 batch_id, AllocBatchRow *batch);
extern size_t alloc_store_batches(const text *sku, AllocBatchRow **batches);
extern bool alloc_store_insert_batch(const AllocBatchRow *batch);
extern void alloc_store_set_purchased(const AllocBatchRow *batch,
									  int64 purchased);

extern void alloc_store_set_eta(const AllocBatchRow *batch,
								const AllocPlanBatch *now);
extern void alloc_store_take_turn(void);
extern size_t alloc_store_present(AllocPlanPresent **present);

extern void alloc_store_best_offer(const text *sku, int64 least, int64 whole,
								   AllocOffer *offer);
extern void alloc_store_any_slot(const AllocBatchRow *batch,
								 AllocSlotRow *slot);
extern bool alloc_store_take(const AllocOffer *offer, int64 qty,
							 int64 event_id);
extern bool alloc_store_take_held(const AllocOffer *offer,
								  const AllocLine *line, int64 event_id);
extern void alloc_store_cover_hold(AllocSlotRow *slot,
								   const AllocLine *line);
extern bool alloc_store_may_be_over(const AllocSlotRow *slot);
extern bool alloc_store_ship(const AllocBatchRow *batch,
							 const AllocSlotRow *slot, int64 qty);
extern bool alloc_store_give(const AllocBatchRow *batch,
							 const AllocSlotRow *slot, int64 qty);
extern bool alloc_store_offer_again(AllocOffer *offer, int64 qty);
extern void alloc_store_undo(const AllocBatchRow *batch,
							 const AllocSlotRow *slot);
extern void alloc_store_wait_slot(const AllocSlotRow *slot);
extern void alloc_store_gather(const AllocOffer *offer, int64 qty);
extern void alloc_store_seize(const AllocOffer *offer);
extern void alloc_store_arrange(const AllocOffer *offer, int64 qty,
								bool waited);

extern void alloc_store_insert_slots(const AllocBatchRow *batch);
extern bool alloc_store_is_large(int64 available);
extern void alloc_store_read_slots(AllocBatchRow *batch);
extern void alloc_store_lock_slots(AllocBatchRow *batch);
extern bool alloc_store_lock_free_slots(AllocBatchRow *batch, int64 qty);
extern bool alloc_store_try_lock_slot(const AllocSlotRow *slot);
extern bool alloc_store_try_lock_slots(AllocBatchRow *batch);
extern void alloc_store_take_from_all(const AllocBatchRow *batch, int64 qty,
									  int64 event_id);
extern void alloc_store_save_slots(const AllocBatchRow *batch,
								   const AllocChain *lines);
extern AllocChain alloc_store_lines(const AllocBatchRow *batch);

extern bool alloc_store_find_waiting(const text *orderid, const text *sku,
									 AllocWaitingRow *row);
extern bool alloc_store_settle_waiting(const AllocLine *line,
									   AllocWaitingRow *row);
extern bool alloc_store_claim_waiting(const AllocLine *line,
									  AllocWaitingRow *row, bool *busy);
extern bool alloc_store_insert_waiting(const AllocLine *line, int64 event_id);
extern bool alloc_store_delete_waiting(const AllocWaitingRow *row);
extern bool alloc_store_anybody_waits(const text *sku);
extern AllocQueue *alloc_store_open_queue(const text *sku, int64 most);
extern bool alloc_store_next_waiting(AllocQueue *queue, int64 most,
									 AllocWaitingRow *row);
extern void alloc_store_close_queue(AllocQueue *queue);
extern void alloc_store_mark_waiting(const AllocBatchRow *batch);
extern void alloc_store_give_locked(const AllocBatchRow *batch, int64 qty);

extern bool alloc_store_product_exists(const text *sku);
extern bool alloc_store_renew_product(const text *sku);
extern void alloc_store_lock_product(const text *sku);
extern bool alloc_store_try_lock_product(const text *sku);
extern void alloc_store_create_product(const text *sku);

extern void alloc_store_begin_bulk(void);
extern bool alloc_store_end_bulk(void);

extern int64 alloc_store_next_event_id(void);
extern int64 alloc_store_last_event_id(void);
extern int64 alloc_store_era(void);
extern void alloc_store_begin_era(int64 above);
extern void alloc_store_insert_event(const AllocEventRow *event);
extern void alloc_store_read_event(AllocEventRow *event);

extern void alloc_store_read_facts(const text *sku, int64 after, int64 upto,
								   AllocFactTaker take, void *arg);
extern void alloc_store_read_snapshot(int64 snapshot, const text *sku,
									  AllocTotalsTaker take, void *arg);
extern int64 alloc_store_newest_snapshot(int64 upto);
extern int64 alloc_store_archived_to(void);
extern void alloc_store_keep_log(void);
extern int64 alloc_store_settle_log(void);
extern void alloc_store_open_stock(void);

extern bool alloc_store_find_reader(AllocReaderKind kind, const text *name,
									int64 *consumer_id);
extern bool alloc_store_create_reader(AllocReaderKind kind, const text *name,
									  bool from_now, int64 *consumer_id);
extern bool alloc_store_drop_reader(AllocReaderKind kind, const text *name);
extern bool alloc_store_lock_reader(int64 consumer_id, AllocReader *reader);
extern int64 alloc_store_read_batch(AllocReader *reader, const char *type,
									int64 max, AllocEventTaker take, void *arg);
extern bool alloc_store_next_batch(AllocReader *reader);
extern void alloc_store_move_reader(AllocReader *reader);

extern bool alloc_store_subscribe(AllocSubscription *subscription);
extern bool alloc_store_unsubscribe(const char *type, const char *handler);
extern uint32 alloc_store_subscriptions_version(void);
extern List *alloc_store_subscriptions(void);
extern bool alloc_store_find_subscription(int64 subscription_id,
										  AllocSubscription *subscription);
extern bool alloc_store_lock_handler(int64 subscription_id,
									 AllocReader *reader);
extern bool alloc_store_next_delivery(int64 subscription_id,
									  AllocDelivery *delivery);
extern bool alloc_store_find_delivery(int64 subscription_id, int64 event_id,
									  AllocDelivery *delivery);
extern void alloc_store_insert_delivery(AllocDelivery *delivery);
extern bool alloc_store_update_delivery(AllocDelivery *delivery);
extern bool alloc_store_delete_delivery(AllocDelivery *delivery);
extern int64 alloc_store_retry_dead(TimestampTz now);
extern bool alloc_store_find_event(int64 event_id, AllocEventRow *event);

extern int64 *alloc_array_int8(ArrayType *array, int *n);

extern bool alloc_store_add_message(const AllocMessageRow *message,
									AllocMessageRow *there);
extern void alloc_store_answer_message(const AllocMessageRow *message);
extern int64 alloc_store_sweep_messages(TimestampTz before, int max);

#endif							/* ALLOC_STORE_H */
