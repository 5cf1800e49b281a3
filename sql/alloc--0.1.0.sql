-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION alloc" to load this file. \quit

-- Everything below resolves names in schema alloc.  If the schema was there
-- before, whoever made it must not have put anything in it, or a function or
-- an operator of his would be taken for ours and run with our rights.
DO $guard$
BEGIN
	IF EXISTS (
		SELECT FROM pg_catalog.pg_depend d
		 WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
		   AND d.refobjid OPERATOR(pg_catalog.=) 'alloc'::pg_catalog.regnamespace::pg_catalog.oid
		   AND d.deptype OPERATOR(pg_catalog.=) 'n'
		   AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass)
	THEN
		RAISE EXCEPTION USING
			ERRCODE = 'duplicate_object',
			MESSAGE = 'schema "alloc" already contains objects',
			HINT = 'Drop what is in it, or the schema, then create the extension again.';
	END IF;
	IF NOT EXISTS (
		SELECT FROM pg_catalog.pg_namespace n
		 WHERE n.nspname OPERATOR(pg_catalog.=) 'alloc'
		   AND n.nspowner OPERATOR(pg_catalog.=) (
			SELECT r.oid FROM pg_catalog.pg_roles r
			 WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER))
	THEN
		RAISE EXCEPTION USING
			ERRCODE = 'insufficient_privilege',
			MESSAGE = 'schema "alloc" belongs to another role',
			HINT = 'Drop the schema; CREATE EXTENSION makes its own.';
	END IF;
END
$guard$;
-- The state: products, batches, their slots, and who is served by which batch.
--
-- Keys are text in the database's collation, so that joins with a shop's own
-- tables work, but every index on a key compares bytes (text_pattern_ops):
-- faster, and indifferent to the operating system's collation versions.

CREATE SEQUENCE alloc.batch_id_seq;
-- No cache: the order of event ids must be causal across sessions.
CREATE SEQUENCE alloc.event_id_seq CACHE 1;

CREATE TABLE alloc.product (
	sku text NOT NULL
		CONSTRAINT product_sku_length CHECK (octet_length(sku) BETWEEN 1 AND 255)
) USING heap;
CREATE UNIQUE INDEX product_sku ON alloc.product (sku text_pattern_ops);
ALTER TABLE alloc.product REPLICA IDENTITY USING INDEX product_sku;
COMMENT ON TABLE alloc.product IS
	'one row per sku; the aggregate''s root, locked by commands that change its batches';

-- No foreign key to product: a parallel pg_restore fills the tables of an
-- extension in any order.
CREATE TABLE alloc.batch (
	batch_id  bigint NOT NULL,
	purchased bigint NOT NULL
		CONSTRAINT batch_purchased_not_negative CHECK (purchased >= 0),
	eta       date,
	ref       text NOT NULL
		CONSTRAINT batch_ref_length CHECK (octet_length(ref) BETWEEN 1 AND 255),
	sku       text NOT NULL,
	CONSTRAINT batch_pkey PRIMARY KEY (batch_id)
) USING heap;
CREATE UNIQUE INDEX batch_ref ON alloc.batch (ref text_pattern_ops);
-- The batches of a sku in order of preference.
CREATE INDEX batch_preference
	ON alloc.batch (sku text_pattern_ops, eta NULLS FIRST, batch_id);
COMMENT ON TABLE alloc.batch IS
	'stock bought together; eta NULL: it is in the warehouse';

-- The rows that allocate() updates.  They repeat what allocate() has to know
-- of their batch, so that one index scan finds the best one; none of it but
-- eta ever changes.  Half of each page is left free, so that the next version
-- of a row fits beside it (heap-only tuple) without an index entry.  There is
-- no foreign key to batch: its trigger would cost on each update of the hot
-- path.
--
-- A batch has one slot, number 0, and more while many want it; then spread is
-- set in all of them.  exhausted says that nothing is available: it takes the
-- slot out of slot_preference, which available itself could not do without an
-- index entry at each change.
--
-- newest and merged are where the list of the batch's lines begins: the ids
-- of the events that allocated the newest line from this slot, and from those
-- that were merged into it.
--
-- Of each hold of the batch that may have ended unseen, one of its slots has a
-- hold_until no later than its end: so allocate() sees that units may be free
-- again without a look at the holds.  Such a slot is never exhausted.
--
-- waiting says that order lines of the sku may wait for stock, so that who
-- gives units to a slot knows when there is nobody to look for.
--
-- Columns of indexes are at the beginning, before all that is often NULL: each
-- update compares them, and finds them there without a walk through the row.
CREATE TABLE alloc.slot (
	batch_id  bigint NOT NULL,
	available bigint NOT NULL
		CONSTRAINT slot_available_not_negative CHECK (available >= 0),
	shipped   bigint NOT NULL DEFAULT 0
		CONSTRAINT slot_shipped_not_negative CHECK (shipped >= 0),
	newest    bigint,
	slot      smallint NOT NULL DEFAULT 0,
	spread    boolean NOT NULL DEFAULT false,
	waiting   boolean NOT NULL DEFAULT false,
	exhausted boolean GENERATED ALWAYS AS (available = 0 AND hold_until IS NULL) STORED,
	sku       text NOT NULL,
	ref       text NOT NULL,
	eta       date,
	hold_until timestamptz,
	merged    bigint[],
	CONSTRAINT slot_pkey PRIMARY KEY (batch_id, slot)
) USING heap WITH (fillfactor = 50);
-- The order in which allocate() looks at the stock of a sku.
CREATE INDEX slot_preference
	ON alloc.slot (sku text_pattern_ops, eta NULLS FIRST, batch_id, slot)
	WHERE NOT exhausted;
COMMENT ON TABLE alloc.slot IS
	'the available stock of a batch, in one or more rows; the last line of defence against overselling is its CHECK';

CREATE TABLE alloc.allocation (
	batch_id   bigint NOT NULL,
	event_id   bigint NOT NULL,
	qty        bigint NOT NULL
		CONSTRAINT allocation_qty_positive CHECK (qty > 0),
	expires_at timestamptz,
	shipped_at timestamptz,
	orderid    text NOT NULL,
	sku        text NOT NULL
) USING heap;
CREATE UNIQUE INDEX allocation_line
	ON alloc.allocation (orderid text_pattern_ops, sku text_pattern_ops);
ALTER TABLE alloc.allocation REPLICA IDENTITY USING INDEX allocation_line;
COMMENT ON TABLE alloc.allocation IS
	'order lines that a batch serves, or that were shipped from it; event_id is the event that allocated or shipped them, expires_at is NULL for all but holds';

-- Holds: which of the order lines end by themselves, and when.  A line that has
-- ended is taken off by whoever needs its units, or by the relay; then ended is
-- set, so that confirm() still knows of it.  Apart from the lines, because
-- allocate() would pay for an index there.
CREATE TABLE alloc.hold (
	batch_id   bigint NOT NULL,
	qty        bigint NOT NULL
		CONSTRAINT hold_qty_positive CHECK (qty > 0),
	expires_at timestamptz NOT NULL,
	ended      boolean NOT NULL DEFAULT false,
	orderid    text NOT NULL,
	sku        text NOT NULL,
	batchref   text NOT NULL
) USING heap;
CREATE UNIQUE INDEX hold_line
	ON alloc.hold (orderid text_pattern_ops, sku text_pattern_ops);
CREATE INDEX hold_expiry ON alloc.hold (batch_id, expires_at) WHERE NOT ended;
-- In which batches the relay is to end some.
CREATE INDEX hold_due ON alloc.hold (expires_at, batch_id) WHERE NOT ended;
CREATE INDEX hold_ended ON alloc.hold (expires_at) WHERE ended;
ALTER TABLE alloc.hold REPLICA IDENTITY USING INDEX hold_line;
COMMENT ON TABLE alloc.hold IS
	'order lines that are held until a moment, and those that were until they ended';

-- Order lines that wait for stock, served in the order of event_id: the event
-- that says so.
CREATE TABLE alloc.backorder (
	event_id bigint NOT NULL,
	qty      bigint NOT NULL
		CONSTRAINT backorder_qty_positive CHECK (qty > 0),
	since    timestamptz NOT NULL,
	orderid  text NOT NULL,
	sku      text NOT NULL
) USING heap;
CREATE UNIQUE INDEX backorder_line
	ON alloc.backorder (orderid text_pattern_ops, sku text_pattern_ops);
-- The first of those that want the same quantity of a sku.
CREATE UNIQUE INDEX backorder_queue
	ON alloc.backorder (sku text_pattern_ops, qty, event_id);
ALTER TABLE alloc.backorder REPLICA IDENTITY USING INDEX backorder_line;
COMMENT ON TABLE alloc.backorder IS
	'order lines that wait for stock, in the order of event_id';

-- The log.  It repeats keys and quantities as they were, so that it can be
-- read without any other table.
--
-- The events that allocated the lines of a batch form a list, newest first,
-- that begins in its slots: previous is the one before, merged are those where
-- the lists of other slots go on.  So the newest lines of a batch are found
-- without an index on them, which each allocate() would have to feed.
--
-- xact is the transaction, by which readers of the log know what is new to
-- them (see alloc.position): its id, and above that the era.  relay says that
-- the relay is to send the event by NOTIFY.
CREATE TABLE alloc.event (
	event_id    bigint NOT NULL,
	at          timestamptz NOT NULL,
	xact        bigint NOT NULL,
	qty         bigint,
	old_qty     bigint,
	previous    bigint,
	expires_at  timestamptz,
	eta         date,
	old_eta     date,
	relay       boolean NOT NULL,
	type        text NOT NULL,
	sku         text NOT NULL,
	orderid     text,
	batchref    text,
	traceparent text,
	merged      bigint[],
	CONSTRAINT event_pkey PRIMARY KEY (event_id) INCLUDE (xact)
) USING heap;
-- The story of a sku, and its replay.  Of each page of the log it knows, but
-- for a few in a thousand, whether the sku is in there.  VACUUM takes new pages
-- in; until then they are read whatever the sku, and an allocate() that adds to
-- them writes nothing here.
CREATE INDEX event_sku ON alloc.event USING brin
	(sku text_bloom_ops (n_distinct_per_range = 80, false_positive_rate = 0.002))
	WITH (pages_per_range = 1);
COMMENT ON TABLE alloc.event IS
	'facts that commands recorded, never changed and never deleted by a command';

-- A restore brings the log to where transactions have other ids.  Each CREATE
-- EXTENSION writes a row here, and pg_dump carries those of before: so their
-- number, the era, grows with each restore.
CREATE TABLE alloc.era (
	began_at timestamptz NOT NULL
) USING heap;
INSERT INTO alloc.era VALUES (pg_catalog.now());
COMMENT ON TABLE alloc.era IS
	'one row for each database in which the log has lived; their number is the era in event.xact';

CREATE SEQUENCE alloc.consumer_id_seq;

-- Readers of the log.
CREATE TABLE alloc.consumer (
	consumer_id bigint NOT NULL,
	kind        text NOT NULL
		CONSTRAINT consumer_kind CHECK (kind IN ('consumer', 'relay', 'handler')),
	name        text NOT NULL
		CONSTRAINT consumer_name_length CHECK (octet_length(name) BETWEEN 1 AND 255),
	CONSTRAINT consumer_pkey PRIMARY KEY (consumer_id)
) USING heap;
CREATE UNIQUE INDEX consumer_name
	ON alloc.consumer (name text_pattern_ops, kind text_pattern_ops);
ALTER TABLE alloc.consumer REPLICA IDENTITY USING INDEX consumer_name;
COMMENT ON TABLE alloc.consumer IS
	'readers of the event log: those that create_consumer() made, handlers, and the relay';

-- How far each has come, by snapshots: of the transactions below seen_xmax all
-- but those in seen_open had ended, and their events were given.  In the middle
-- of a batch also those below upto_xmax but for upto_open, up to the event
-- given_to; the batch has none beyond batch_end.  marks are pairs of a
-- transaction and an event id: from that transaction on, ids are above it.
--
-- moved counts the moves.  With it the newest version of a row is found at
-- once, however many old ones a long transaction keeps from being removed.
CREATE TABLE alloc.position (
	consumer_id   bigint NOT NULL,
	moved         bigint NOT NULL,
	seen_xmax     bigint NOT NULL,
	upto_xmax     bigint,
	given_to      bigint,
	batch_end     bigint,
	last_event_id bigint,
	last_fetch_at timestamptz,
	seen_open     bigint[] NOT NULL,
	upto_open     bigint[],
	marks         bigint[] NOT NULL,
	CONSTRAINT position_pkey PRIMARY KEY (consumer_id, moved)
) USING heap;
COMMENT ON TABLE alloc.position IS
	'how far each reader of the event log has come: the snapshot up to which it has had all events';

-- What pg_dump must carry: all of it, but for the relay, who sends what is new
-- in this database.
SELECT pg_catalog.pg_extension_config_dump('alloc.batch_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.event_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.product', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.batch', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.slot', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.allocation', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.hold', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.backorder', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.event', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.era', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.consumer_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.consumer', 'WHERE kind <> ''relay''');
SELECT pg_catalog.pg_extension_config_dump('alloc.position',
	'WHERE consumer_id IN (SELECT consumer_id FROM alloc.consumer WHERE kind <> ''relay'')');
-- Snapshots of the log: what it tells up to an event.  A replay begins with
-- one, and events before it can be moved out.

CREATE TABLE alloc.snapshot (
	event_id bigint NOT NULL,
	taken_at timestamptz NOT NULL,
	CONSTRAINT snapshot_pkey PRIMARY KEY (event_id)
) USING heap;
COMMENT ON TABLE alloc.snapshot IS
	'snapshots of the log, each by the last event that it takes in';

CREATE TABLE alloc.snapshot_batch (
	snapshot  bigint NOT NULL,
	created   bigint NOT NULL,
	purchased bigint NOT NULL,
	shipped   bigint NOT NULL,
	allocated bigint NOT NULL,
	eta       date,
	ref       text NOT NULL,
	sku       text NOT NULL
) USING heap;
CREATE UNIQUE INDEX snapshot_batch_sku ON alloc.snapshot_batch
	(snapshot, sku text_pattern_ops, ref text_pattern_ops);
ALTER TABLE alloc.snapshot_batch REPLICA IDENTITY USING INDEX snapshot_batch_sku;
COMMENT ON TABLE alloc.snapshot_batch IS
	'batches as a snapshot has them; created is the event that did';

CREATE TABLE alloc.snapshot_line (
	snapshot   bigint NOT NULL,
	event_id   bigint NOT NULL,
	qty        bigint NOT NULL,
	expires_at timestamptz,
	shipped_at timestamptz,
	sku        text NOT NULL,
	batchref   text NOT NULL,
	orderid    text NOT NULL
) USING heap;
-- The lines of a batch by age: the list of its lines goes on here when the
-- events that it leads to were moved out of the log.
CREATE UNIQUE INDEX snapshot_line_batch ON alloc.snapshot_line
	(snapshot, sku text_pattern_ops, batchref text_pattern_ops, event_id);
ALTER TABLE alloc.snapshot_line REPLICA IDENTITY USING INDEX snapshot_line_batch;
COMMENT ON TABLE alloc.snapshot_line IS
	'order lines that were served as a snapshot has them';

CREATE TABLE alloc.snapshot_backorder (
	snapshot bigint NOT NULL,
	event_id bigint NOT NULL,
	qty      bigint NOT NULL,
	since    timestamptz NOT NULL,
	sku      text NOT NULL,
	orderid  text NOT NULL
) USING heap;
CREATE UNIQUE INDEX snapshot_backorder_line ON alloc.snapshot_backorder
	(snapshot, sku text_pattern_ops, orderid text_pattern_ops);
ALTER TABLE alloc.snapshot_backorder REPLICA IDENTITY USING INDEX snapshot_backorder_line;
COMMENT ON TABLE alloc.snapshot_backorder IS
	'order lines that waited for stock as a snapshot has them';

CREATE TABLE alloc.archive (
	event_id bigint NOT NULL,
	moved_at timestamptz NOT NULL,
	CONSTRAINT archive_pkey PRIMARY KEY (event_id)
) USING heap;
COMMENT ON TABLE alloc.archive IS
	'up to which event the log was moved out, each time';

SELECT pg_catalog.pg_extension_config_dump('alloc.snapshot', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.snapshot_batch', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.snapshot_line', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.snapshot_backorder', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.archive', '');
-- Commands.  None is STRICT: a NULL key is refused, not passed over.

CREATE FUNCTION alloc.add_batch(ref text, sku text, qty bigint, eta date DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'alloc_add_batch'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.add_batch(text, text, bigint, date) IS
	'buys a batch: reference, sku, quantity (0 or more), day of arrival (NULL: it is in the warehouse); returns the reference';

CREATE FUNCTION alloc.allocate(orderid text, sku text, qty bigint)
RETURNS text
AS 'MODULE_PATHNAME', 'alloc_allocate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.allocate(text, text, bigint) IS
	'gives an order line the best batch that can serve all of it: in stock first, then the earliest arrival; returns its reference, or NULL when the sku is out of stock';

CREATE FUNCTION alloc.hold(orderid text, sku text, qty bigint, ttl interval)
RETURNS text
AS 'MODULE_PATHNAME', 'alloc_hold'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.hold(text, text, bigint, interval) IS
	'allocates an order line as allocate() does, until ttl has passed since the beginning of the statement; returns the batch''s reference, or NULL when the sku is out of stock';

CREATE FUNCTION alloc.confirm(orderid text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_confirm'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.confirm(text) IS
	'allocates the lines of an order that are held for good; returns how many';

CREATE FUNCTION alloc.release(orderid text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_release'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.release(text) IS
	'frees the lines of an order that are held; returns how many';

CREATE FUNCTION alloc.extend_hold(orderid text, ttl interval)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_extend_hold'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.extend_hold(text, interval) IS
	'makes the holds of an order last until ttl has passed since the beginning of the statement, if they do not last longer anyway; returns how many there are';

CREATE TYPE alloc.order_line AS (orderid text, sku text, qty bigint);
COMMENT ON TYPE alloc.order_line IS
	'what a customer orders of one sku';

CREATE FUNCTION alloc.allocate_lines(
	lines alloc.order_line[],
	OUT orderid text, OUT sku text, OUT qty bigint, OUT batchref text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_allocate_lines'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.allocate_lines(alloc.order_line[]) IS
	'allocates many order lines in one pass, as allocate() called for each in turn would; returns each with its batch, NULL when it is out of stock';

CREATE FUNCTION alloc.allocate_order(
	orderid text, lines alloc.order_line[], mode text DEFAULT 'all',
	OUT sku text, OUT qty bigint, OUT batchref text, OUT status text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_allocate_order'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.allocate_order(text, alloc.order_line[], text) IS
	'allocates the lines of an order, those of one sku added together: every line or none (mode all), or those that can be served (partial), and the others wait for stock (backorder); returns a row for each sku with its batch and what became of it: allocated, out_of_stock, backordered or not_taken';

CREATE FUNCTION alloc.deallocate(orderid text, sku text)
RETURNS text
AS 'MODULE_PATHNAME', 'alloc_deallocate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.deallocate(text, text) IS
	'frees an order line; returns the reference of the batch it was freed from, or NULL if it was not allocated';

CREATE FUNCTION alloc.cancel_backorder(orderid text, sku text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'alloc_cancel_backorder'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.cancel_backorder(text, text) IS
	'takes an order line that waits for stock out of the queue; returns false if it does not wait';

CREATE FUNCTION alloc.change_batch_quantity(
	ref text, qty bigint,
	OUT orderid text, OUT sku text, OUT qty bigint,
	OUT old_batchref text, OUT new_batchref text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_change_batch_quantity'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.change_batch_quantity(text, bigint) IS
	'sets what was purchased of a batch; lines that no longer fit, newest first, are taken off and allocated again, oldest first; returns a row for each';

CREATE FUNCTION alloc.change_batch_eta(
	ref text, eta date,
	OUT orderid text, OUT sku text, OUT qty bigint,
	OUT old_eta date, OUT new_eta date)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_change_batch_eta'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.change_batch_eta(text, date) IS
	'sets the day of arrival of a batch, NULL: it is in the warehouse; returns a row for each order line that it serves, oldest first';

CREATE FUNCTION alloc.sync_batches(
	source regclass, dry_run boolean DEFAULT false,
	OUT action text, OUT ref text, OUT sku text,
	OUT old_qty bigint, OUT new_qty bigint, OUT old_eta date, OUT new_eta date)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_sync_batches'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.sync_batches(regclass, boolean) IS
	'makes the batches equal to a feed: a table, view or foreign table with columns ref, sku, qty, eta; a batch that is not in it is left with what has been shipped; returns a row for each change; dry_run: changes nothing';

CREATE FUNCTION alloc.ship(orderid text, sku text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_ship'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.ship(text, text) IS
	'the stock of an order''s line, or of all its lines, has left; returns how many lines';

CREATE FUNCTION alloc.purge_shipped(before timestamptz)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_purge_shipped'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.purge_shipped(timestamptz) IS
	'forgets order lines that were shipped before that moment; returns how many';
-- Readers of the event log.

CREATE FUNCTION alloc.create_consumer(name text, start text DEFAULT 'now')
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_create_consumer'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.create_consumer(text, text) IS
	'creates a durable reader of the event log; start: ''now'', what commits from now on, or ''beginning'', all there is';

CREATE FUNCTION alloc.drop_consumer(name text)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_drop_consumer'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.drop_consumer(text) IS
	'removes a reader of the event log';

CREATE FUNCTION alloc.fetch_events(
	consumer text, max_events integer DEFAULT 1000,
	OUT event_id bigint, OUT at timestamptz, OUT type text, OUT sku text,
	OUT orderid text, OUT batchref text, OUT qty bigint, OUT payload jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_fetch_events'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.fetch_events(text, integer) IS
	'the next events for a consumer, at most max_events, in causal order; they count as had when the transaction commits';

CREATE FUNCTION alloc.was_given(
	seen_xmax bigint, seen_open bigint[],
	upto_xmax bigint, upto_open bigint[], given_to bigint,
	event_id bigint, xact bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'alloc_was_given'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION alloc.was_given(bigint, bigint[], bigint, bigint[], bigint, bigint, bigint) IS
	'has a reader at this position (columns of alloc.position) had this event? for the views';

-- A reader has had whatever is below its first mark.
CREATE VIEW alloc.consumers AS
SELECT c.name,
       (SELECT pg_catalog.count(*)
          FROM alloc.event e
         WHERE e.event_id OPERATOR(pg_catalog.>) p.marks[2]
           AND NOT alloc.was_given(p.seen_xmax, p.seen_open, p.upto_xmax,
                                   p.upto_open, p.given_to, e.event_id, e.xact))
           AS pending,
       p.last_event_id, p.last_fetch_at
  FROM alloc.consumer c
  JOIN alloc.position p USING (consumer_id)
 WHERE c.kind OPERATOR(pg_catalog.=) 'consumer';
COMMENT ON VIEW alloc.consumers IS
	'readers of the event log: events that each has still to fetch, the last one it had, and when it fetched';
-- The message bus: functions that are called with events.

CREATE SEQUENCE alloc.subscription_id_seq;

-- search_path is that of whoever subscribed, and the handler runs with it: not
-- with that of whoever happens to cause the event.
CREATE TABLE alloc.subscription (
	subscription_id bigint NOT NULL,
	role            regrole NOT NULL,
	event_type      text NOT NULL,
	handler         text NOT NULL,
	mode            text NOT NULL
		CONSTRAINT subscription_mode CHECK (mode IN ('sync', 'async')),
	search_path     text NOT NULL,
	CONSTRAINT subscription_pkey PRIMARY KEY (subscription_id)
) USING heap;
CREATE UNIQUE INDEX subscription_handler
	ON alloc.subscription (event_type text_pattern_ops, handler text_pattern_ops);
ALTER TABLE alloc.subscription REPLICA IDENTITY USING INDEX subscription_handler;
COMMENT ON TABLE alloc.subscription IS
	'which function is called with which events, and as whom';

-- What each backend knows of the subscriptions is stale after a change that no
-- command made: a restore, for one.
CREATE FUNCTION alloc.subscriptions_changed()
RETURNS trigger
AS 'MODULE_PATHNAME', 'alloc_subscriptions_changed'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.subscriptions_changed() IS
	'trigger of table subscription: tells all sessions that it has changed';
CREATE TRIGGER subscriptions_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON alloc.subscription
	FOR EACH STATEMENT EXECUTE FUNCTION alloc.subscriptions_changed();

CREATE SEQUENCE alloc.delivery_id_seq;

-- Only those that failed: next_at NULL, for good.
CREATE TABLE alloc.delivery (
	delivery_id     bigint NOT NULL,
	subscription_id bigint NOT NULL,
	event_id        bigint NOT NULL,
	at              timestamptz NOT NULL,
	next_at         timestamptz,
	attempts        bigint NOT NULL,
	handler         text NOT NULL,
	last_error      text NOT NULL,
	CONSTRAINT delivery_pkey PRIMARY KEY (delivery_id)
) USING heap;
CREATE UNIQUE INDEX delivery_event
	ON alloc.delivery (subscription_id, event_id);
CREATE INDEX delivery_due
	ON alloc.delivery (subscription_id, next_at) WHERE next_at IS NOT NULL;
COMMENT ON TABLE alloc.delivery IS
	'events that an asynchronous handler failed on: to be tried again at next_at, or not any more';

CREATE FUNCTION alloc.subscribe(
	event_type text, handler regprocedure, mode text DEFAULT 'async')
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_subscribe'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.subscribe(text, regprocedure, text) IS
	'lets a function of one jsonb be called with each event of a type; sync: within the command, async: by a background worker after its commit; as the role that subscribes';

CREATE FUNCTION alloc.unsubscribe(event_type text, handler regprocedure)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_unsubscribe'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.unsubscribe(text, regprocedure) IS
	'ends what subscribe() began; what has failed for good stays in dead_letters';

CREATE FUNCTION alloc.retry_dead_letters()
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_retry_dead_letters'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.retry_dead_letters() IS
	'tries all dead letters again whose subscription is still there; returns how many';

CREATE VIEW alloc.dead_letters AS
SELECT delivery_id AS id, event_id, handler, attempts, last_error, at
  FROM alloc.delivery
 WHERE next_at IS NULL;
COMMENT ON VIEW alloc.dead_letters IS
	'events that a handler failed on for good: how often it was tried, the last error, and when that was';

SELECT pg_catalog.pg_extension_config_dump('alloc.subscription_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.subscription', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.delivery_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.delivery', '');
-- The message bus's door, and what came through it.

-- Messages that had an id, with their answers, for as long as
-- alloc.message_retention says.  The row is there before the command runs, so
-- that a second one with this id waits for the outcome; answer is NULL until
-- then.  body_hash is the SHA-256 of the message as jsonb text, numbers
-- without zeros at their ends.
CREATE TABLE alloc.message (
	message_id  text NOT NULL
		CONSTRAINT message_id_length CHECK (octet_length(message_id) BETWEEN 1 AND 255),
	received_at timestamptz NOT NULL,
	body_hash   bytea NOT NULL,
	answer      jsonb
) USING heap;
CREATE UNIQUE INDEX message_id ON alloc.message (message_id text_pattern_ops);
-- The oldest first: for those that are to be forgotten.
CREATE INDEX message_received_at ON alloc.message (received_at);
ALTER TABLE alloc.message REPLICA IDENTITY USING INDEX message_id;
COMMENT ON TABLE alloc.message IS
	'messages that handle() was given with an id, and what it answered';

SELECT pg_catalog.pg_extension_config_dump('alloc.message', '');

CREATE FUNCTION alloc.handle(message jsonb)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'alloc_handle'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.handle(jsonb) IS
	'carries out the command that a message names, with its other keys as arguments, and returns {"result": ...}; a message_id that was seen before gets the answer that it got then';
-- Read models.

CREATE FUNCTION alloc.event_payload(event alloc.event)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'alloc_event_payload'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION alloc.event_payload(alloc.event) IS
	'an event as the JSON that NOTIFY sends: event_id, type, at (ISO 8601, UTC), orderid, sku, qty, batchref, eta, old_qty, old_eta, expires_at, without the keys that do not apply';

CREATE VIEW alloc.allocations AS
SELECT a.orderid, a.sku, a.qty, b.ref AS batchref, b.eta, a.expires_at
  FROM alloc.allocation a
  JOIN alloc.batch b USING (batch_id)
 WHERE a.shipped_at IS NULL
   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp());
COMMENT ON VIEW alloc.allocations IS
	'order lines that are served: orderid, sku, qty, the batch and its day of arrival, and for a hold the moment at which it ends';

CREATE VIEW alloc.batches AS
SELECT b.ref, b.sku, b.eta,
       b.purchased AS purchased_qty,
       s.shipped AS shipped_qty,
       b.purchased - s.shipped - s.available - h.qty AS allocated_qty,
       s.available + h.qty AS available_qty
  FROM alloc.batch b
 CROSS JOIN LATERAL (
	SELECT sum(slot.available)::bigint AS available,
	       sum(slot.shipped)::bigint AS shipped,
	       min(slot.hold_until) AS hold_until
	  FROM alloc.slot
	 WHERE slot.batch_id = b.batch_id) s
 -- Holds that are over, though nobody has ended them.
 CROSS JOIN LATERAL (
	SELECT CASE WHEN s.hold_until <= statement_timestamp() THEN (
		SELECT coalesce(sum(hold.qty), 0)::bigint
		  FROM alloc.hold
		 WHERE hold.batch_id = b.batch_id AND NOT hold.ended
		   AND hold.expires_at <= statement_timestamp())
	       ELSE 0 END AS qty) h;
COMMENT ON VIEW alloc.batches IS
	'batches with what was purchased, shipped, allocated or held, and is available';

CREATE VIEW alloc.stock AS
SELECT sku,
       sum(purchased_qty)::bigint AS purchased_qty,
       sum(shipped_qty)::bigint AS shipped_qty,
       sum(allocated_qty)::bigint AS allocated_qty,
       sum(available_qty)::bigint AS available_qty,
       coalesce(sum(available_qty) FILTER (WHERE eta IS NULL), 0)::bigint AS on_hand_qty,
       coalesce(sum(available_qty) FILTER (WHERE eta IS NOT NULL), 0)::bigint AS incoming_qty
  FROM alloc.batches
 GROUP BY sku;
COMMENT ON VIEW alloc.stock IS
	'the stock of each sku: its batches added up; on_hand_qty is available in the warehouse, incoming_qty on ships';

CREATE VIEW alloc.backorders AS
SELECT b.orderid, b.sku, b.qty, b.since
  FROM alloc.backorder b
 ORDER BY b.event_id;
COMMENT ON VIEW alloc.backorders IS
	'order lines that wait for stock, in the order in which they will be served: orderid, sku, qty, and since when';

CREATE VIEW alloc.events AS
SELECT e.event_id, e.at, e.type, e.sku, e.orderid, e.batchref, e.qty,
       alloc.event_payload(e) AS payload
  FROM alloc.event e;
COMMENT ON VIEW alloc.events IS
	'the event log, with each event as the JSON that NOTIFY sends';

CREATE FUNCTION alloc.available_to_promise(sku text, by date DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_available_to_promise'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc.available_to_promise(text, date) IS
	'units of a sku that are available by a day, in the warehouse or on ships that have come by then; without a day: at all';

CREATE FUNCTION alloc.promise(sku text, qty bigint, OUT batchref text, OUT eta date)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_promise'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc.promise(text, bigint) IS
	'the batch that allocate() would choose now for so many units, and its day of arrival; no row: out of stock';
-- What an operator watches.

CREATE VIEW alloc.stats AS
WITH unsent AS (
	SELECT count(*) AS events, min(e.at) AS oldest
	  FROM alloc.event e
	  LEFT JOIN alloc.position p ON p.consumer_id OPERATOR(pg_catalog.=) 0
	 WHERE e.relay
	   AND e.event_id OPERATOR(pg_catalog.>) coalesce(p.marks[2], 0)
	   AND alloc.was_given(p.seen_xmax, p.seen_open, p.upto_xmax, p.upto_open,
	                       p.given_to, e.event_id, e.xact) IS NOT TRUE),
unhandled AS (
	SELECT count(*) AS events, min(e.at) AS oldest
	  FROM alloc.subscription s
	  JOIN alloc.consumer c
	    ON c.kind OPERATOR(pg_catalog.=) 'handler'
	   AND c.name OPERATOR(pg_catalog.=) s.subscription_id::text
	  JOIN alloc.position p USING (consumer_id)
	  JOIN alloc.event e
	    ON e.type OPERATOR(pg_catalog.=) s.event_type
	   AND e.event_id OPERATOR(pg_catalog.>) p.marks[2]
	   AND NOT alloc.was_given(p.seen_xmax, p.seen_open, p.upto_xmax, p.upto_open,
	                           p.given_to, e.event_id, e.xact)),
failed AS (
	SELECT count(*) FILTER (WHERE next_at IS NOT NULL) AS retries,
	       count(*) FILTER (WHERE next_at IS NULL) AS dead
	  FROM alloc.delivery)
SELECT 'relay_pending' AS name, events AS value FROM unsent
UNION ALL
SELECT 'relay_lag_ms', greatest(0, extract(epoch FROM clock_timestamp() OPERATOR(pg_catalog.-) oldest) OPERATOR(pg_catalog.*) 1000)::bigint FROM unsent
UNION ALL
SELECT 'handler_pending', events FROM unhandled
UNION ALL
SELECT 'handler_lag_ms', greatest(0, extract(epoch FROM clock_timestamp() OPERATOR(pg_catalog.-) oldest) OPERATOR(pg_catalog.*) 1000)::bigint FROM unhandled
UNION ALL
SELECT 'handler_retries', retries FROM failed
UNION ALL
SELECT 'dead_letters', dead FROM failed;
COMMENT ON VIEW alloc.stats IS
	'relay and handlers: events that are committed and not yet sent or handled, the age of the oldest in milliseconds, events to be tried again, and dead letters';
-- The log as a whole: state folded from it, and the story it tells.
--
-- replay() reads the tables directly, and checks nothing but EXECUTE.  The
-- others run as the extension's owner, because the tables are closed to all
-- others; they do nothing but what their comment says.

CREATE FUNCTION alloc.replay(
	sku text DEFAULT NULL, upto bigint DEFAULT NULL,
	OUT ref text, OUT sku text, OUT eta date, OUT purchased_qty bigint,
	OUT shipped_qty bigint, OUT allocated_qty bigint, OUT available_qty bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_replay'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc.replay(text, bigint) IS
	'the batches, of one sku or of all, as they were after an event, or as they are; computed from the event log alone';

CREATE FUNCTION alloc.history(sku text)
RETURNS SETOF alloc.events
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	PERFORM alloc._require_key(history.sku, 'sku');
	RETURN QUERY
		SELECT e.* FROM alloc.events e
		 WHERE e.sku = history.sku
		 ORDER BY e.event_id;
END
$$;
COMMENT ON FUNCTION alloc.history(text) IS
	'the events of a sku, in order';

CREATE FUNCTION alloc.history_of_order(orderid text)
RETURNS SETOF alloc.events
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	PERFORM alloc._require_key(history_of_order.orderid, 'orderid');
	RETURN QUERY
		SELECT e.* FROM alloc.events e
		 WHERE e.orderid = history_of_order.orderid
		 ORDER BY e.event_id;
END
$$;
COMMENT ON FUNCTION alloc.history_of_order(text) IS
	'the events of an order, in order';

-- What follows is for the functions of this and the next parts.  A name that
-- begins with _ is nobody else's business.

CREATE FUNCTION alloc._require_key(key text, name text)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_require_key'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION alloc._require_key(text, text) IS
	'raises the error that a bad key is';

CREATE FUNCTION alloc._progress(what text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'alloc_progress'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc._progress(text) IS
	'true, and in a long query a NOTICE from time to time';

CREATE FUNCTION alloc._fold_log(
	base bigint, upto bigint, sku text,
	OUT ref text, OUT sku text, OUT eta date, OUT purchased bigint,
	OUT shipped bigint, OUT allocated bigint, OUT available bigint,
	OUT created bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_fold_log'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc._fold_log(bigint, bigint, text) IS
	'replay() from a snapshot, or from 0, the beginning; with the event that created each batch';

CREATE FUNCTION alloc._archived_to()
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT coalesce(max(a.event_id), 0) FROM alloc.archive a;
END;
COMMENT ON FUNCTION alloc._archived_to() IS
	'the last event that was moved out of the log; 0: none was';

-- So that snapshots are not only believed but also seen to be right.
CREATE FUNCTION alloc._first_base()
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE WHEN alloc._archived_to() = 0 THEN 0
	            ELSE (SELECT min(s.event_id) FROM alloc.snapshot s
	                   WHERE s.event_id >= alloc._archived_to()) END;
END;
COMMENT ON FUNCTION alloc._first_base() IS
	'from where most of the log can be folded: 0, or the first snapshot that has what was archived';

CREATE FUNCTION alloc._newest_snapshot()
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT coalesce(max(s.event_id), 0) FROM alloc.snapshot s;
END;
COMMENT ON FUNCTION alloc._newest_snapshot() IS
	'the event of the newest snapshot; 0: there is none';

-- A hold that was extended or confirmed goes on being the line that the event
-- before it allocated.
CREATE FUNCTION alloc._log_lines(base bigint, upto bigint, only_sku text)
RETURNS TABLE (
	orderid text, sku text, event_id bigint, qty bigint, batchref text,
	expires_at timestamptz, shipped_at timestamptz)
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT l.orderid, l.sku, l.event_id, l.qty, l.batchref, l.expires_at, l.shipped_at
	  FROM (
		SELECT DISTINCT ON (f.orderid COLLATE "C", f.sku COLLATE "C") f.*
		  FROM (
			SELECT s.orderid, s.sku, s.event_id, s.event_id AS told_by, s.qty,
			       s.batchref, s.expires_at, s.shipped_at, 'allocated' AS type
			  FROM alloc.snapshot_line s
			 WHERE s.snapshot = base
			   AND (only_sku IS NULL OR s.sku = only_sku)
			 UNION ALL
			SELECT e.orderid, e.sku,
			       CASE WHEN e.type = 'confirmed' OR e.type = 'held' AND e.old_qty IS NOT NULL
			            THEN e.previous ELSE e.event_id END,
			       e.event_id, e.qty, e.batchref, e.expires_at,
			       CASE WHEN e.type = 'shipped' THEN e.at END, e.type
			  FROM alloc.event e
			 WHERE e.event_id > base
			   AND (upto IS NULL OR e.event_id <= upto)
			   AND (only_sku IS NULL OR e.sku = only_sku)
			   AND e.batchref IS NOT NULL
			   AND e.type IN ('allocated', 'deallocated', 'held', 'hold_released',
			                  'hold_expired', 'confirmed', 'shipped')
			   AND alloc._progress('events of order lines read')) f
		 ORDER BY f.orderid COLLATE "C", f.sku COLLATE "C", f.told_by DESC) l
	 WHERE l.type NOT IN ('deallocated', 'hold_released', 'hold_expired');
END;
COMMENT ON FUNCTION alloc._log_lines(bigint, bigint, text) IS
	'the order lines that are served or held, or were shipped, by the log: of a sku or of all, from a snapshot or from 0, up to an event or to the end';

-- Each event that allocated a line is in here, or another one of its batch
-- leads to it.  For all that were archived the newest one will do: from there
-- the list goes on in the snapshot.
CREATE FUNCTION alloc._line_heads(only_sku text)
RETURNS TABLE (sku text, batchref text, newest bigint, merged bigint[])
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT min(h.sku COLLATE "C"), h.batchref, max(h.event_id),
	       nullif((array_agg(h.event_id ORDER BY h.event_id DESC))[2:], '{}')
	  FROM (
		SELECT e.sku, e.batchref, e.event_id
		  FROM alloc.event e
		 WHERE (e.type = 'allocated' OR e.type = 'held' AND e.old_qty IS NULL)
		   AND (only_sku IS NULL OR e.sku = only_sku)
		   AND NOT EXISTS (
			SELECT FROM alloc.event f
			 WHERE f.previous = e.event_id
			   AND (f.type = 'allocated' OR f.type = 'held' AND f.old_qty IS NULL)
			   AND (only_sku IS NULL OR f.sku = only_sku))
		   AND NOT EXISTS (
			SELECT FROM alloc.event f, unnest(f.merged) AS m
			 WHERE m = e.event_id
			   AND (only_sku IS NULL OR f.sku = only_sku))
		 UNION ALL
		SELECT s.sku, s.batchref, max(s.event_id)
		  FROM alloc.snapshot_line s
		 WHERE s.snapshot = alloc._newest_snapshot()
		   AND s.event_id <= alloc._archived_to()
		   AND (only_sku IS NULL OR s.sku = only_sku)
		 GROUP BY s.sku, s.batchref) h
	 GROUP BY h.batchref;
END;
COMMENT ON FUNCTION alloc._line_heads(text) IS
	'where the list of each batch''s lines can begin, by the log: columns newest and merged of table slot';

CREATE FUNCTION alloc._listed_qty(batch_id bigint, enough bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_listed_qty'
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc._listed_qty(bigint, bigint) IS
	'units of the lines to which the list of a batch''s lines leads, as far as is enough';
-- Is the state sound, and is it what the log tells?

CREATE FUNCTION alloc.check(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT b.* FROM alloc._wrong_batches() b
	 WHERE alloc._first_base() IS NOT NULL
	UNION ALL
	SELECT l.* FROM alloc._wrong_lines() l
	 WHERE alloc._first_base() IS NOT NULL
	UNION ALL
	SELECT * FROM alloc._wrong_holds()
	UNION ALL
	SELECT w.* FROM alloc._wrong_backorders() w
	 WHERE alloc._first_base() IS NOT NULL
	UNION ALL
	SELECT * FROM alloc._wrong_slots()
	UNION ALL
	SELECT * FROM alloc._unmarked_slots()
	UNION ALL
	SELECT * FROM alloc._wrong_snapshots()
	UNION ALL
	SELECT * FROM alloc._wrong_snapshot_backorders()
	UNION ALL
	SELECT * FROM alloc._wrong_positions()
	UNION ALL
	SELECT * FROM alloc._wrong_sequences()
$$;
COMMENT ON FUNCTION alloc.check() IS
	'what is wrong with the state, or not as the event log tells; no row: it is sound';

-- The parts of it.  Each is one query, so that all of them see one state of
-- the database, whatever goes on; each tells its progress.

CREATE FUNCTION alloc._wrong_batches(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH log AS (
		SELECT * FROM alloc._fold_log(alloc._first_base(), NULL, NULL)),
	state AS (
		SELECT b.batch_id, b.ref, b.sku, b.eta, b.purchased,
		       s.available, s.shipped, heads.ids AS heads,
		       coalesce(l.allocated, 0) AS allocated
		  FROM alloc.batch b
		  LEFT JOIN (
			SELECT batch_id, sum(available) AS available, sum(shipped) AS shipped
			  FROM alloc.slot
			 WHERE alloc._progress('slots read')
			 GROUP BY batch_id) s USING (batch_id)
		  LEFT JOIN (
			SELECT batch_id, array_agg(id) AS ids
			  FROM alloc.slot, unnest(newest || merged) AS id
			 GROUP BY batch_id) heads USING (batch_id)
		  LEFT JOIN (
			SELECT batch_id, sum(qty) AS allocated
			  FROM alloc.allocation
			 WHERE shipped_at IS NULL AND alloc._progress('order lines read')
			 GROUP BY batch_id) l USING (batch_id)),
	suspect AS MATERIALIZED (
		SELECT log.ref AS log_ref, log.sku AS log_sku, log.eta AS log_eta,
		       log.purchased AS log_purchased, log.shipped AS log_shipped,
		       log.available AS log_available, log.created AS log_created,
		       state.*,
		       p.sku IS NULL AS no_product,
		       -- Where all that nothing leads to is in the slots, they lead to
		       -- all.  Else the list is followed: lines that have left may be
		       -- what is missing.
		       CASE WHEN state.allocated > 0 AND state.available IS NOT NULL
		                 AND NOT coalesce(coalesce(cardinality(h.merged), 0) < 100
		                                  AND h.newest || h.merged <@ state.heads, false)
		            THEN alloc._listed_qty(state.batch_id,
				least(state.allocated, 9223372036854775807)::bigint)
				< state.allocated
		            ELSE false END AS unlisted
		  FROM log
		  FULL JOIN state ON state.ref COLLATE "C" = log.ref COLLATE "C"
		  LEFT JOIN alloc.product p ON p.sku COLLATE "C" = coalesce(log.sku, state.sku) COLLATE "C"
		  LEFT JOIN alloc._line_heads(NULL) h
		    ON h.batchref COLLATE "C" = state.ref COLLATE "C"
		 WHERE alloc._progress('batches compared')),
	wrong AS (
		SELECT * FROM suspect
		 WHERE (ref, sku, eta, purchased, available, shipped)
		       IS DISTINCT FROM
		       (log_ref, log_sku, log_eta, log_purchased, log_available, log_shipped)
		    OR purchased IS DISTINCT FROM available + shipped + allocated
		    OR log_available < 0 OR log_created = 0 OR no_product OR unlisted)
	SELECT found.problem, coalesce(log_sku, w.sku), coalesce(log_ref, w.ref),
	       NULL, found.detail
	  FROM wrong w
	 CROSS JOIN LATERAL (VALUES
		('batch_missing', ref IS NULL,
		 format('the log tells of %s units', log_purchased)),
		('batch_unknown', log_ref IS NULL,
		 format('%s units, and the log does not tell of it', purchased)),
		('batch_differs',
		 (w.sku, eta, purchased) IS DISTINCT FROM (log_sku, log_eta, log_purchased),
		 format('sku "%s", eta %s, %s units; by the log sku "%s", eta %s, %s units',
		        w.sku, coalesce(eta::text, 'none'), purchased,
		        log_sku, coalesce(log_eta::text, 'none'), log_purchased)),
		('slot_missing', available IS NULL, 'it has no slot'),
		('stock_differs',
		 available IS NOT NULL AND
		 (available, shipped) IS DISTINCT FROM (log_available, log_shipped),
		 format('%s available, %s shipped; by the log %s and %s',
		        available, shipped, log_available, log_shipped)),
		('not_conserved',
		 purchased IS DISTINCT FROM available + shipped + allocated,
		 format('%s purchased, but %s available, %s allocated and %s shipped',
		        purchased, available, allocated, shipped)),
		('product_missing', no_product,
		 format('there is no product "%s"', coalesce(log_sku, w.sku))),
		('lines_unlisted', unlisted,
		 'the list that begins in its slots does not lead to all of its lines')
	  ) AS found (problem, is_so, detail)
	 WHERE found.is_so
	   AND (w.ref IS NOT NULL
	        OR found.problem IN ('batch_missing', 'product_missing'))
	   AND (w.log_ref IS NOT NULL
	        OR found.problem IN ('batch_unknown', 'not_conserved'))
	UNION ALL
	SELECT 'log_contradicts', log_sku, log_ref, NULL,
	       CASE WHEN log_created = 0
	            THEN 'the log does not tell of its creation'
	            ELSE format('by the log %s units are available', log_available)
	       END
	  FROM suspect
	 WHERE log_available < 0 OR log_created = 0
	UNION ALL
	SELECT 'product_unknown', p.sku, NULL, NULL,
	       'the log does not tell of any batch of this sku'
	  FROM alloc.product p
	 WHERE NOT EXISTS (
		SELECT FROM suspect
		 WHERE suspect.log_sku COLLATE "C" = p.sku COLLATE "C")
$$;
COMMENT ON FUNCTION alloc._wrong_batches() IS
	'part of check(): batches and products';

CREATE FUNCTION alloc._wrong_lines(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH state AS (
		SELECT a.orderid, a.sku, a.qty, a.event_id, a.batch_id, a.expires_at,
		       a.shipped_at, b.ref, b.sku AS batch_sku,
		       count(*) OVER (
				PARTITION BY a.orderid COLLATE "C", a.sku COLLATE "C") AS rows
		  FROM alloc.allocation a
		  LEFT JOIN alloc.batch b USING (batch_id)
		 WHERE alloc._progress('order lines read')),
	wrong AS (
		SELECT s.orderid, s.sku, s.qty, s.event_id, s.batch_id, s.expires_at,
		       s.shipped_at, s.ref, s.batch_sku, s.rows,
		       l.orderid AS log_orderid, l.sku AS log_sku, l.qty AS log_qty,
		       l.event_id AS log_event_id, l.batchref AS log_ref,
		       l.expires_at AS log_expires_at, l.shipped_at AS log_shipped_at
		  FROM state s
		  FULL JOIN alloc._log_lines(alloc._first_base(), NULL, NULL) l
		    ON l.orderid COLLATE "C" = s.orderid COLLATE "C"
		   AND l.sku COLLATE "C" = s.sku COLLATE "C"
		 WHERE CASE WHEN alloc._progress('order lines compared') THEN
		       (s.orderid, s.qty, s.event_id, s.ref, s.expires_at, s.shipped_at,
		        s.batch_sku, s.rows)
		       IS DISTINCT FROM
		       (l.orderid, l.qty, l.event_id, l.batchref, l.expires_at, l.shipped_at,
		        l.sku, 1) END
		   -- a line that was shipped may have been purged
		   AND (s.orderid IS NOT NULL OR l.shipped_at IS NULL))
	SELECT found.problem, coalesce(log_sku, w.sku), coalesce(log_ref, w.ref),
	       coalesce(log_orderid, w.orderid), found.detail
	  FROM wrong w
	 CROSS JOIN LATERAL (VALUES
		('line_missing', w.orderid IS NULL,
		 format('%s units, allocated by event %s', log_qty, log_event_id)),
		('line_unknown', log_orderid IS NULL,
		 format('%s units, and the log does not tell that they are allocated', qty)),
		('line_differs',
		 w.orderid IS NOT NULL AND log_orderid IS NOT NULL AND
		 (qty, event_id, ref, expires_at, shipped_at) IS DISTINCT FROM
		 (log_qty, log_event_id, log_ref, log_expires_at, log_shipped_at),
		 format('%s units of batch "%s" by event %s%s%s; by the log %s of "%s" by event %s%s%s',
		        qty, ref, event_id, ', held until ' || expires_at,
		        CASE WHEN shipped_at IS NOT NULL THEN ', shipped' END,
		        log_qty, log_ref, log_event_id, ', held until ' || log_expires_at,
		        CASE WHEN log_shipped_at IS NOT NULL THEN ', shipped' END)),
		('line_twice', rows > 1, format('%s rows', rows)),
		('line_of_no_batch', w.orderid IS NOT NULL AND w.ref IS NULL,
		 format('there is no batch with batch_id %s', batch_id)),
		('line_of_other_sku', w.batch_sku <> w.sku,
		 format('its batch "%s" is of sku "%s"', ref, batch_sku))
	  ) AS found (problem, is_so, detail)
	 WHERE found.is_so
$$;
COMMENT ON FUNCTION alloc._wrong_lines() IS
	'part of check(): order lines';

CREATE FUNCTION alloc._wrong_holds(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH line AS (
		SELECT a.orderid, a.sku, a.qty, a.batch_id, a.expires_at, b.ref
		  FROM alloc.allocation a
		  LEFT JOIN alloc.batch b USING (batch_id)
		 WHERE a.expires_at IS NOT NULL AND a.shipped_at IS NULL),
	live AS (
		SELECT h.* FROM alloc.hold h WHERE NOT h.ended),
	wrong AS (
		SELECT coalesce(l.orderid, h.orderid) AS orderid,
		       coalesce(l.sku, h.sku) AS sku,
		       coalesce(l.batch_id, h.batch_id) AS batch_id,
		       l.orderid IS NULL AS no_line, h.orderid IS NULL AS no_hold,
		       h.qty, h.expires_at
		  FROM line l
		  FULL JOIN live h
		    ON h.orderid COLLATE "C" = l.orderid COLLATE "C"
		   AND h.sku COLLATE "C" = l.sku COLLATE "C"
		 WHERE (l.orderid, l.qty, l.batch_id, l.expires_at, l.ref) IS DISTINCT FROM
		       (h.orderid, h.qty, h.batch_id, h.expires_at, h.batchref))
	SELECT CASE WHEN w.no_line THEN 'hold_unknown'
	            WHEN w.no_hold THEN 'hold_missing'
	            ELSE 'hold_differs' END,
	       w.sku, b.ref, w.orderid,
	       CASE WHEN w.no_line THEN 'there is no such order line that is held'
	            WHEN w.no_hold THEN 'the order line says that it is held'
	            ELSE format('%s units until %s, other than the order line', w.qty, w.expires_at)
	       END
	  FROM wrong w
	  LEFT JOIN alloc.batch b USING (batch_id)
	UNION ALL
	SELECT 'hold_uncovered', b.sku, b.ref, NULL,
	       format('a hold ends at %s, and its slots say %s', h.expires_at,
	              coalesce(s.hold_until::text, 'never'))
	  FROM (
		SELECT batch_id, min(expires_at) AS expires_at FROM live GROUP BY batch_id) h
	  JOIN alloc.batch b USING (batch_id)
	 CROSS JOIN LATERAL (
		SELECT min(slot.hold_until) AS hold_until FROM alloc.slot
		 WHERE slot.batch_id = h.batch_id) s
	 WHERE s.hold_until IS NULL OR s.hold_until > h.expires_at
$$;
COMMENT ON FUNCTION alloc._wrong_holds() IS
	'part of check(): order lines that are held';

CREATE FUNCTION alloc._wrong_slots(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH wrong AS (
		SELECT s.*, b.ref AS batch_ref, b.sku AS batch_sku, b.eta AS batch_eta,
		       s.slot <> 0 OR EXISTS (
				SELECT FROM alloc.slot t
				 WHERE t.batch_id = s.batch_id AND t.slot <> 0) AS has_others
		  FROM alloc.slot s
		  LEFT JOIN alloc.batch b USING (batch_id)
		 WHERE alloc._progress('slots read')
		   AND ((s.ref, s.sku, s.eta) IS DISTINCT FROM (b.ref, b.sku, b.eta)
		        OR s.available < 0 OR s.shipped < 0
		        OR s.exhausted <> (s.available = 0 AND s.hold_until IS NULL)
		        OR s.slot <> 0
		        OR NOT s.spread AND EXISTS (
				SELECT FROM alloc.slot t
				 WHERE t.batch_id = s.batch_id AND t.slot <> 0)))
	SELECT found.problem, coalesce(w.batch_sku, w.sku),
	       coalesce(w.batch_ref, w.ref), NULL,
	       format('slot %s: %s', w.slot, found.detail)
	  FROM wrong w
	 CROSS JOIN LATERAL (VALUES
		('slot_of_no_batch', w.batch_ref IS NULL,
		 format('there is no batch with batch_id %s', w.batch_id)),
		('slot_differs',
		 w.batch_ref IS NOT NULL AND
		 (w.ref, w.sku, w.eta) IS DISTINCT FROM
		 (w.batch_ref, w.batch_sku, w.batch_eta),
		 format('ref "%s", sku "%s", eta %s', w.ref, w.sku,
		        coalesce(w.eta::text, 'none'))),
		('slot_negative', w.available < 0 OR w.shipped < 0,
		 format('%s available, %s shipped', w.available, w.shipped)),
		('slot_differs', w.exhausted <> (w.available = 0 AND w.hold_until IS NULL),
		 format('exhausted is %s with %s available, and holds until %s', w.exhausted,
		        w.available, coalesce(w.hold_until::text, 'never'))),
		('slot_differs', w.has_others AND NOT w.spread,
		 'spread is false, though the batch has several slots')
	  ) AS found (problem, is_so, detail)
	 WHERE found.is_so
$$;
COMMENT ON FUNCTION alloc._wrong_slots() IS
	'part of check(): the rows of stock';

CREATE FUNCTION alloc._wrong_snapshots(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH newest AS (
		SELECT s.event_id FROM alloc.snapshot s
		 WHERE s.event_id = alloc._newest_snapshot()
		   AND s.event_id > alloc._first_base()),
	log AS (
		SELECT f.* FROM newest,
		       alloc._fold_log(alloc._first_base(), newest.event_id, NULL) f),
	state AS (
		SELECT b.* FROM newest
		  JOIN alloc.snapshot_batch b ON b.snapshot = newest.event_id),
	lines AS (
		SELECT l.* FROM newest,
		       alloc._log_lines(alloc._first_base(), newest.event_id, NULL) l),
	kept AS (
		SELECT l.* FROM newest
		  JOIN alloc.snapshot_line l ON l.snapshot = newest.event_id)
	SELECT 'snapshot_differs', coalesce(log.sku, state.sku),
	       coalesce(log.ref, state.ref), NULL,
	       format('snapshot %s: its batch is not as the log tells',
	              (SELECT event_id FROM newest))
	  FROM log
	  FULL JOIN state ON state.ref COLLATE "C" = log.ref COLLATE "C"
	 WHERE (log.sku, log.eta, log.purchased, log.shipped, log.allocated, log.created)
	       IS DISTINCT FROM
	       (state.sku, state.eta, state.purchased, state.shipped,
	        state.allocated, state.created)
	UNION ALL
	SELECT 'snapshot_differs', coalesce(lines.sku, kept.sku),
	       coalesce(lines.batchref, kept.batchref),
	       coalesce(lines.orderid, kept.orderid),
	       format('snapshot %s: its order line is not as the log tells',
	              (SELECT event_id FROM newest))
	  FROM lines
	  FULL JOIN kept
	    ON kept.orderid COLLATE "C" = lines.orderid COLLATE "C"
	   AND kept.sku COLLATE "C" = lines.sku COLLATE "C"
	 WHERE (lines.qty, lines.event_id, lines.batchref, lines.expires_at, lines.shipped_at)
	       IS DISTINCT FROM
	       (kept.qty, kept.event_id, kept.batchref, kept.expires_at, kept.shipped_at)
	   AND (kept.orderid IS NOT NULL OR lines.shipped_at IS NULL)
	UNION ALL
	-- Where the log is gone, the snapshot's parts can still be compared.
	SELECT 'snapshot_differs', b.sku, b.ref, NULL,
	       format('snapshot %s: its batch has %s units allocated, its order lines have %s',
	              b.snapshot, b.allocated, coalesce(l.qty, 0))
	  FROM alloc.snapshot_batch b
	  LEFT JOIN (
		SELECT snapshot, sku, batchref, sum(qty) AS qty
		  FROM alloc.snapshot_line
		 WHERE shipped_at IS NULL
		 GROUP BY snapshot, sku, batchref) l
	    ON (l.snapshot, l.sku, l.batchref) = (b.snapshot, b.sku, b.ref)
	 WHERE b.snapshot = alloc._newest_snapshot()
	   AND b.snapshot = alloc._first_base()
	   AND coalesce(l.qty, 0) <> b.allocated
	UNION ALL
	SELECT 'snapshot_missing', NULL, NULL, NULL,
	       format('events up to %s were archived, and no snapshot has them',
	              alloc._archived_to())
	 WHERE alloc._first_base() IS NULL
$$;
COMMENT ON FUNCTION alloc._wrong_snapshots() IS
	'part of check(): the newest snapshot of the log, if the log still has what it is of';

-- Transactions of an era before this one compare as older, whatever their ids.
CREATE FUNCTION alloc._wrong_positions(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH now AS (
		SELECT ((SELECT count(*) FROM alloc.era) << 48)
		       + pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax,
		       (SELECT last_value - (NOT is_called)::integer
		          FROM alloc.event_id_seq) AS last_event_id),
	readers AS (
		SELECT coalesce(c.kind || ' "' || c.name || '"',
		                'position ' || p.consumer_id) AS reader,
		       c.consumer_id IS NULL AS no_reader,
		       p.consumer_id IS NULL AS no_position,
		       p.*
		  FROM alloc.consumer c
		  FULL JOIN alloc.position p USING (consumer_id))
	SELECT found.problem, NULL, NULL, NULL, format('%s: %s', reader, found.detail)
	  FROM readers r
	 CROSS JOIN now
	 CROSS JOIN LATERAL (VALUES
		('position_missing', no_position, 'it has no position'),
		('position_of_no_reader', no_reader, 'there is no such reader'),
		('position_unsound', r.seen_xmax > now.xmax OR r.upto_xmax > now.xmax,
		 'it has seen transactions that have not begun'),
		('position_unsound', r.upto_xmax < r.seen_xmax,
		 'its batch ends before it begins'),
		('position_unsound',
		 (SELECT bool_or(x >= r.seen_xmax) FROM unnest(r.seen_open) AS x)
		 OR (SELECT bool_or(x >= r.upto_xmax) FROM unnest(r.upto_open) AS x),
		 'transactions count as open that it has not seen at all'),
		('position_unsound',
		 r.seen_open IS DISTINCT FROM ARRAY(
			SELECT x FROM unnest(r.seen_open) AS x ORDER BY x)
		 OR r.upto_open IS DISTINCT FROM CASE WHEN r.upto_open IS NOT NULL THEN ARRAY(
			SELECT x FROM unnest(r.upto_open) AS x ORDER BY x) END,
		 'its open transactions are not in order'),
		('position_unsound',
		 (r.upto_xmax IS NULL) <> (r.upto_open IS NULL)
		 OR (r.upto_xmax IS NULL) <> (r.given_to IS NULL)
		 OR (r.upto_xmax IS NULL) <> (r.batch_end IS NULL),
		 'half of a batch is missing'),
		('position_unsound',
		 greatest(r.last_event_id, r.batch_end, r.given_to, r.marks[2])
		 > now.last_event_id,
		 format('it is beyond the last event, %s', now.last_event_id)),
		('position_unsound',
		 cardinality(r.marks) < 2 OR cardinality(r.marks) % 2 <> 0,
		 'its marks are not pairs')
	  ) AS found (problem, is_so, detail)
	 WHERE found.is_so
	   AND (found.problem = 'position_missing' OR NOT r.no_position)
	UNION ALL
	SELECT 'position_missing', NULL, NULL, NULL,
	       format('handler %s of %s: it has no position', s.handler, s.event_type)
	  FROM alloc.subscription s
	 WHERE s.mode = 'async'
	   AND NOT EXISTS (
		SELECT FROM alloc.consumer c
		 WHERE c.kind = 'handler' AND c.name = s.subscription_id::text)
$$;
COMMENT ON FUNCTION alloc._wrong_positions() IS
	'part of check(): how far consumers, handlers and the relay have come';

CREATE FUNCTION alloc._wrong_sequences(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'sequence_behind', NULL, NULL, NULL,
	       format('%s has given %s, and %s is in use', s.name, s.given, s.used)
	  FROM (
		SELECT 'event_id_seq',
		       last_value - (NOT is_called)::integer,
		       alloc._last_event_id()
		  FROM alloc.event_id_seq
		UNION ALL
		SELECT 'batch_id_seq',
		       last_value - (NOT is_called)::integer,
		       (SELECT max(batch_id) FROM alloc.batch)
		  FROM alloc.batch_id_seq) AS s (name, given, used)
	 WHERE s.used > s.given
$$;
COMMENT ON FUNCTION alloc._wrong_sequences() IS
	'part of check(): numbers that would be given twice';

CREATE FUNCTION alloc._last_event_id()
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT greatest((SELECT max(e.event_id) FROM alloc.event e),
	                alloc._archived_to(), alloc._newest_snapshot());
END;
COMMENT ON FUNCTION alloc._last_event_id() IS
	'the last event of the log, in it or moved out of it';
-- Making the state equal to the log again.

CREATE FUNCTION alloc.repair(
	dry_run boolean DEFAULT true,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	wrong record;
BEGIN
	IF repair.dry_run IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'dry_run must not be null';
	END IF;
	IF NOT repair.dry_run THEN
		PERFORM alloc._stop_commands('repair()');
	END IF;
	-- What has been mended may have hidden something.
	FOR pass IN 1 .. CASE WHEN repair.dry_run THEN 1 ELSE 2 END LOOP
		FOR wrong IN
			SELECT * FROM alloc._repairs_needed() r
			 WHERE pass = 1 OR r.step < 7
			 ORDER BY r.step, r.problem, r.sku, r.batchref, r.orderid
		LOOP
			CASE wrong.step
			WHEN 1 THEN
				RETURN QUERY SELECT * FROM alloc._mend_sequences(repair.dry_run);
			WHEN 2 THEN
				RETURN QUERY SELECT * FROM alloc._mend_product(wrong.sku, repair.dry_run);
			WHEN 3 THEN
				RETURN QUERY SELECT * FROM alloc._mend_batch(wrong.sku, wrong.batchref, repair.dry_run);
			WHEN 4 THEN
				RETURN QUERY SELECT * FROM alloc._mend_line(wrong.sku, wrong.orderid, repair.dry_run);
				RETURN QUERY SELECT * FROM alloc._mend_backorder(wrong.sku, wrong.orderid, repair.dry_run);
			WHEN 5 THEN
				RETURN QUERY SELECT * FROM alloc._mend_hold(wrong.sku, wrong.orderid, repair.dry_run);
			WHEN 6 THEN
				RETURN QUERY SELECT * FROM alloc._mend_slots(wrong.sku, wrong.batchref, wrong.unlisted, repair.dry_run);
			ELSE
				RETURN QUERY SELECT 'not_mended', wrong.sku, wrong.batchref, NULL,
					wrong.problem || ': the tables cannot be made right from the log';
			END CASE;
		END LOOP;
		EXIT WHEN NOT FOUND;
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc.repair(boolean) IS
	'what makes the state equal to the event log again; with dry_run false it is done, and recorded as events';

CREATE FUNCTION alloc.rebuild(OUT batches bigint, OUT lines bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	base CONSTANT bigint := alloc._first_base();
	wrong record;
BEGIN
	PERFORM alloc._stop_commands('rebuild()');
	IF EXISTS (SELECT FROM alloc.product) OR EXISTS (SELECT FROM alloc.batch)
	   OR EXISTS (SELECT FROM alloc.slot) OR EXISTS (SELECT FROM alloc.allocation)
	   OR EXISTS (SELECT FROM alloc.hold) OR EXISTS (SELECT FROM alloc.backorder) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'rebuild() is for a database that has only the log',
			DETAIL = 'There are products, batches or order lines.',
			HINT = 'repair() makes them equal to the log.';
	END IF;
	IF base IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'data_corrupted',
			MESSAGE = 'the log is not complete',
			DETAIL = 'Events were archived, and there is no snapshot.';
	END IF;
	SELECT * INTO wrong FROM alloc._fold_log(base, NULL, NULL)
	 WHERE available < 0 OR created = 0 LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'data_corrupted',
			MESSAGE = 'the log is not complete',
			DETAIL = format('By it batch "%s" has %s units available, and event %s created it.',
			                wrong.ref, wrong.available, wrong.created);
	END IF;
	-- The log may come from where transactions have other ids.
	PERFORM alloc._begin_era((SELECT max(xact >> 48) FROM alloc.event));
	PERFORM alloc._mend_sequences(false);
	INSERT INTO alloc.batch (batch_id, purchased, eta, ref, sku)
	SELECT nextval('alloc.batch_id_seq'), f.purchased, f.eta, f.ref, f.sku
	  FROM (SELECT * FROM alloc._fold_log(base, NULL, NULL) ORDER BY created) f;
	GET DIAGNOSTICS batches = ROW_COUNT;
	INSERT INTO alloc.product (sku) SELECT DISTINCT b.sku FROM alloc.batch b;
	INSERT INTO alloc.allocation
		(batch_id, event_id, qty, expires_at, shipped_at, orderid, sku)
	SELECT b.batch_id, l.event_id, l.qty, l.expires_at, l.shipped_at, l.orderid, l.sku
	  FROM alloc._log_lines(base, NULL, NULL) l
	  JOIN alloc.batch b ON b.ref = l.batchref;
	GET DIAGNOSTICS lines = ROW_COUNT;
	INSERT INTO alloc.hold (batch_id, qty, expires_at, orderid, sku, batchref)
	SELECT a.batch_id, a.qty, a.expires_at, a.orderid, a.sku, b.ref
	  FROM alloc.allocation a
	  JOIN alloc.batch b USING (batch_id)
	 WHERE a.expires_at IS NOT NULL;
	INSERT INTO alloc.slot
		(batch_id, available, shipped, newest, hold_until, eta, ref, sku, merged)
	SELECT b.batch_id, f.available, f.shipped, h.newest, alloc._next_expiry(b.batch_id),
	       b.eta, b.ref, b.sku, h.merged
	  FROM alloc.batch b
	  JOIN alloc._fold_log(base, NULL, NULL) f ON f.ref = b.ref
	  LEFT JOIN alloc._line_heads(NULL) h ON h.batchref = b.ref;
	PERFORM alloc._rebuild_backorders(base);
END
$$;
COMMENT ON FUNCTION alloc.rebuild() IS
	'makes products, batches and order lines from the event log alone, where there are none; returns how many batches and lines';

-- What follows is for these functions.

CREATE FUNCTION alloc._stop_commands(command text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc._require_writable(command);
	PERFORM alloc._require_read_committed(command);
	-- All commands lock slots first.
	LOCK TABLE alloc.slot, alloc.allocation, alloc.event, alloc.product, alloc.batch
		IN SHARE ROW EXCLUSIVE MODE;
END
$$;
COMMENT ON FUNCTION alloc._stop_commands(text) IS
	'waits for transactions with commands, and lets no others begin until the end of this one';

CREATE FUNCTION alloc._require_writable(command text)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_require_writable'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._require_writable(text) IS
	'raises 25006 in a read-only transaction and on a standby';

CREATE FUNCTION alloc._require_read_committed(command text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_transaction_state',
			MESSAGE = format('%s cannot run in a transaction of isolation level %s',
			                 command, current_setting('transaction_isolation')),
			DETAIL = 'It has to see what others have committed while it waited.',
			HINT = 'Use READ COMMITTED.';
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._require_read_committed(text) IS
	'raises 25000 in a transaction that cannot see what others commit';

CREATE FUNCTION alloc._begin_era(above bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_begin_era'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._begin_era(bigint) IS
	'makes the era greater than that of events from elsewhere';

CREATE FUNCTION alloc._record_repair(
	sku text, batchref text, orderid text, qty bigint, old_qty bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_record_repair'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._record_repair(text, text, text, bigint, bigint) IS
	'appends the event that a row of the state was made equal to the log';

CREATE FUNCTION alloc._mended_by(problem text)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE
		WHEN problem = 'sequence_behind' THEN 1
		WHEN problem IN ('product_missing', 'product_unknown') THEN 2
		WHEN problem IN ('batch_missing', 'batch_unknown', 'batch_differs') THEN 3
		WHEN problem IN ('line_missing', 'line_unknown', 'line_differs', 'line_twice',
		                 'line_of_no_batch', 'line_of_other_sku', 'backorder_missing',
		                 'backorder_unknown', 'backorder_differs') THEN 4
		WHEN problem IN ('hold_missing', 'hold_unknown', 'hold_differs') THEN 5
		WHEN problem IN ('slot_missing', 'slot_of_no_batch', 'slot_differs',
		                 'slot_negative', 'stock_differs', 'lines_unlisted',
		                 'hold_uncovered', 'waiting_unmarked') THEN 6
		ELSE 7 END;
END;
COMMENT ON FUNCTION alloc._mended_by(text) IS
	'the step of repair() that mends a problem of check(); 7: none';

-- Sequences first, because repairs are recorded; then what others name.  With a
-- batch comes all that is its: what is wrong with that does not show as long as
-- it is missing.  Nothing is right by a log of which a part is missing.
CREATE FUNCTION alloc._repairs_needed(
	OUT step integer, OUT problem text, OUT sku text, OUT batchref text,
	OUT orderid text, OUT unlisted boolean)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH wrong AS (
		SELECT c.problem, c.batchref, c.orderid, m.step,
		       coalesce(max(c.sku) FILTER (WHERE m.step = 3)
		                OVER (PARTITION BY c.batchref), c.sku) AS batch_sku,
		       c.sku
		  FROM alloc.check() c
		 CROSS JOIN LATERAL (
			SELECT CASE WHEN alloc._first_base() IS NULL
			              AND alloc._mended_by(c.problem) > 1 THEN 7
			            ELSE alloc._mended_by(c.problem) END AS step) m
		 WHERE c.problem <> 'not_conserved')
	SELECT s.step,
	       CASE s.step WHEN 7 THEN w.problem END,
	       CASE WHEN s.step IN (4, 5) THEN w.sku ELSE w.batch_sku END,
	       CASE WHEN s.step IN (3, 6, 7) THEN w.batchref END,
	       CASE WHEN s.step IN (4, 5) THEN w.orderid END,
	       bool_or(w.problem = 'lines_unlisted')
	  FROM wrong w
	 CROSS JOIN LATERAL unnest(CASE w.step WHEN 3 THEN ARRAY[2, 3, 6]
	                                       WHEN 4 THEN ARRAY[4, 5]
	                                       ELSE ARRAY[w.step] END) AS s (step)
	 GROUP BY 1, 2, 3, 4, 5
$$;
COMMENT ON FUNCTION alloc._repairs_needed() IS
	'part of repair(): what check() finds, as steps to mend it';

CREATE FUNCTION alloc._mend_sequences(
	dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	behind record;
BEGIN
	FOR behind IN
		SELECT 'event_id_seq' AS name, alloc._last_event_id() AS used
		  FROM alloc.event_id_seq s
		 WHERE alloc._last_event_id() > s.last_value - (NOT s.is_called)::integer
		UNION ALL
		SELECT 'batch_id_seq', b.used
		  FROM alloc.batch_id_seq s, (SELECT max(batch_id) AS used FROM alloc.batch) b
		 WHERE b.used > s.last_value - (NOT s.is_called)::integer
	LOOP
		IF NOT _mend_sequences.dry_run THEN
			PERFORM setval(('alloc.' || behind.name)::regclass, behind.used);
		END IF;
		RETURN QUERY SELECT 'sequence_advanced', NULL, NULL, NULL,
			format('%s: to %s', behind.name, behind.used);
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc._mend_sequences(boolean) IS
	'part of repair(): sequences that would give numbers again';

CREATE FUNCTION alloc._mend_product(
	of_sku text, dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	known CONSTANT boolean := EXISTS (
		SELECT FROM alloc._fold_log(alloc._first_base(), NULL, of_sku));
	present CONSTANT boolean := EXISTS (
		SELECT FROM alloc.product p WHERE p.sku = of_sku);
BEGIN
	IF known = present THEN
		RETURN;
	END IF;
	IF NOT dry_run THEN
		IF known THEN
			INSERT INTO alloc.product (sku) VALUES (of_sku);
		ELSE
			DELETE FROM alloc.product p WHERE p.sku = of_sku;
		END IF;
		PERFORM alloc._record_repair(of_sku, NULL, NULL, NULL, NULL);
	END IF;
	RETURN QUERY SELECT CASE WHEN known THEN 'product_added' ELSE 'product_removed' END,
		of_sku, NULL, NULL, NULL;
END
$$;
COMMENT ON FUNCTION alloc._mend_product(text, boolean) IS
	'part of repair(): a product';

CREATE FUNCTION alloc._mend_batch(
	of_sku text, of_ref text, dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	log record;
	state record;
	done text;
BEGIN
	SELECT f.ref, f.sku, f.eta, f.purchased, f.available, f.created INTO log
	  FROM alloc._fold_log(alloc._first_base(), NULL, of_sku) f WHERE f.ref = of_ref;
	SELECT b.ref, b.sku, b.eta, b.purchased, b.batch_id INTO state
	  FROM alloc.batch b WHERE b.ref = of_ref;
	IF (log.ref, log.sku, log.eta, log.purchased)
	   IS NOT DISTINCT FROM (state.ref, state.sku, state.eta, state.purchased)
	   OR log.available < 0 OR log.created = 0 THEN
		RETURN;
	END IF;
	done := CASE WHEN log.ref IS NULL THEN 'batch_removed'
	             WHEN state.ref IS NULL THEN 'batch_added'
	             ELSE 'batch_changed' END;
	IF NOT dry_run THEN
		CASE done
		WHEN 'batch_removed' THEN
			DELETE FROM alloc.slot s WHERE s.batch_id = state.batch_id;
			DELETE FROM alloc.batch b WHERE b.batch_id = state.batch_id;
		WHEN 'batch_added' THEN
			INSERT INTO alloc.batch (batch_id, purchased, eta, ref, sku)
			VALUES (coalesce(alloc._orphaned_batch_id(of_ref), nextval('alloc.batch_id_seq')),
			        log.purchased, log.eta, log.ref, log.sku);
		ELSE
			UPDATE alloc.batch b
			   SET purchased = log.purchased, eta = log.eta, sku = log.sku
			 WHERE b.batch_id = state.batch_id;
		END CASE;
		PERFORM alloc._record_repair(of_sku, of_ref, NULL, log.purchased, state.purchased);
	END IF;
	RETURN QUERY SELECT done, of_sku, of_ref, NULL,
		CASE WHEN log.ref IS NOT NULL
		     THEN format('%s units, eta %s', log.purchased, coalesce(log.eta::text, 'none')) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_batch(text, text, boolean) IS
	'part of repair(): a batch';

CREATE FUNCTION alloc._orphaned_batch_id(of_ref text)
RETURNS bigint
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT min(s.batch_id) FROM alloc.slot s
	 WHERE s.ref = of_ref
	   AND NOT EXISTS (SELECT FROM alloc.batch b WHERE b.batch_id = s.batch_id);
END;
COMMENT ON FUNCTION alloc._orphaned_batch_id(text) IS
	'the id of a batch whose row is missing, by its slots';

CREATE FUNCTION alloc._mend_line(
	of_sku text, of_orderid text, dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	log record;
	state record;
	done text;
BEGIN
	SELECT l.orderid, l.qty, l.event_id, l.batchref, l.expires_at, l.shipped_at,
	       (SELECT b.batch_id FROM alloc.batch b WHERE b.ref = l.batchref) AS batch_id
	  INTO log
	  FROM alloc._log_lines(alloc._first_base(), NULL, of_sku) l
	 WHERE l.orderid = of_orderid;
	SELECT count(*) AS rows, min(a.qty) AS qty, min(a.event_id) AS event_id,
	       min(a.batch_id) AS batch_id, min(a.expires_at) AS expires_at,
	       min(a.shipped_at) AS shipped_at
	  INTO state
	  FROM alloc.allocation a
	 WHERE a.orderid = of_orderid AND a.sku = of_sku;
	IF (log.orderid IS NOT NULL)::integer = state.rows
	   AND (log.qty, log.event_id, log.expires_at, log.shipped_at,
	        coalesce(log.batch_id, alloc._orphaned_batch_id(log.batchref)))
	       IS NOT DISTINCT FROM
	       (state.qty, state.event_id, state.expires_at, state.shipped_at, state.batch_id)
	   -- It has been purged.
	   OR log.shipped_at IS NOT NULL AND state.rows = 0 THEN
		RETURN;
	END IF;
	-- A batch that is not to be mended
	IF log.batch_id IS NULL AND EXISTS (
		SELECT FROM alloc._fold_log(alloc._first_base(), NULL, of_sku) f
		 WHERE f.ref = log.batchref AND (f.available < 0 OR f.created = 0)) THEN
		RETURN;
	END IF;
	done := CASE WHEN log.orderid IS NULL THEN 'line_removed'
	             WHEN state.rows = 0 THEN 'line_added'
	             ELSE 'line_changed' END;
	IF NOT dry_run THEN
		DELETE FROM alloc.allocation a
		 WHERE a.orderid = of_orderid AND a.sku = of_sku;
		IF log.orderid IS NOT NULL THEN
			INSERT INTO alloc.allocation
				(batch_id, event_id, qty, expires_at, shipped_at, orderid, sku)
			VALUES (log.batch_id, log.event_id, log.qty, log.expires_at, log.shipped_at,
			        of_orderid, of_sku);
		END IF;
		PERFORM alloc._record_repair(of_sku, log.batchref, of_orderid, log.qty, state.qty);
	END IF;
	RETURN QUERY SELECT done, of_sku, log.batchref, of_orderid,
		CASE WHEN log.orderid IS NOT NULL
		     THEN format('%s units, %s by event %s', log.qty,
		                 CASE WHEN log.shipped_at IS NULL THEN 'allocated' ELSE 'shipped' END,
		                 log.event_id) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_line(text, text, boolean) IS
	'part of repair(): an order line';

CREATE FUNCTION alloc._mend_hold(
	of_sku text, of_orderid text, dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	line record;
	state record;
BEGIN
	SELECT a.batch_id, a.qty, a.expires_at, b.ref INTO line
	  FROM alloc.allocation a
	  JOIN alloc.batch b USING (batch_id)
	 WHERE a.orderid = of_orderid AND a.sku = of_sku
	   AND a.expires_at IS NOT NULL AND a.shipped_at IS NULL;
	SELECT h.batch_id, h.qty, h.expires_at, h.batchref INTO state
	  FROM alloc.hold h
	 WHERE h.orderid = of_orderid AND h.sku = of_sku AND NOT h.ended;
	IF (line.batch_id, line.qty, line.expires_at, line.ref)
	   IS NOT DISTINCT FROM (state.batch_id, state.qty, state.expires_at, state.batchref) THEN
		RETURN;
	END IF;
	IF NOT dry_run THEN
		DELETE FROM alloc.hold h WHERE h.orderid = of_orderid AND h.sku = of_sku;
		IF line.batch_id IS NOT NULL THEN
			INSERT INTO alloc.hold (batch_id, qty, expires_at, orderid, sku, batchref)
			VALUES (line.batch_id, line.qty, line.expires_at, of_orderid, of_sku, line.ref);
			-- Now that it is known to be there, its end must be.
			UPDATE alloc.slot s SET hold_until = least(s.hold_until, line.expires_at)
			 WHERE s.batch_id = line.batch_id;
		END IF;
		PERFORM alloc._record_repair(of_sku, line.ref, of_orderid, line.qty, state.qty);
	END IF;
	RETURN QUERY SELECT
		CASE WHEN line.batch_id IS NULL THEN 'hold_removed'
		     WHEN state.batch_id IS NULL THEN 'hold_added'
		     ELSE 'hold_changed' END,
		of_sku, line.ref, of_orderid,
		CASE WHEN line.batch_id IS NOT NULL
		     THEN format('%s units until %s', line.qty, line.expires_at) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_hold(text, text, boolean) IS
	'part of repair(): the hold of an order line';

CREATE FUNCTION alloc._next_expiry(of_batch_id bigint)
RETURNS timestamptz
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT min(h.expires_at) FROM alloc.hold h
	 WHERE h.batch_id = of_batch_id AND NOT h.ended;
END;
COMMENT ON FUNCTION alloc._next_expiry(bigint) IS
	'when the next hold of a batch will be over';

CREATE FUNCTION alloc._mend_slots(
	of_sku text, of_ref text, unlisted boolean, dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	log record;
	state record;
	heads record;
	id bigint;
	orphans bigint[];
BEGIN
	SELECT f.* INTO log
	  FROM alloc._fold_log(alloc._first_base(), NULL, of_sku) f WHERE f.ref = of_ref;
	id := coalesce((SELECT b.batch_id FROM alloc.batch b WHERE b.ref = of_ref),
	               alloc._orphaned_batch_id(of_ref));
	SELECT least(sum(s.available), 9223372036854775807)::bigint AS available,
	       sum(s.shipped) AS shipped,
	       bool_and((s.ref, s.sku, s.eta) IS NOT DISTINCT FROM (log.ref, log.sku, log.eta)
	                AND s.available >= 0 AND s.shipped >= 0
	                AND s.exhausted = (s.available = 0 AND s.hold_until IS NULL))
	       AND (bool_and(s.spread) OR count(*) = 1)
	       AND (bool_and(s.waiting) OR NOT alloc._lines_wait(of_sku))
	       AND coalesce(min(s.hold_until) <= alloc._next_expiry(id),
	                    alloc._next_expiry(id) IS NULL) AS sound
	  INTO state
	  FROM alloc.slot s WHERE s.batch_id = id;
	orphans := ARRAY(
		SELECT DISTINCT s.batch_id FROM alloc.slot s
		 WHERE s.ref = of_ref AND s.batch_id <> id
		   AND NOT EXISTS (SELECT FROM alloc.batch b WHERE b.batch_id = s.batch_id));
	IF log.available < 0 OR log.created = 0
	   OR log.ref IS NULL AND state.available IS NULL
	   OR state.sound AND orphans = '{}' AND NOT unlisted
	      AND (state.available, state.shipped) = (log.available, log.shipped) THEN
		RETURN;
	END IF;
	SELECT h.newest, h.merged INTO heads
	  FROM alloc._line_heads(of_sku) h WHERE h.batchref = of_ref;
	IF NOT dry_run THEN
		DELETE FROM alloc.slot s WHERE s.batch_id = id OR s.batch_id = ANY (orphans);
		IF log.ref IS NOT NULL THEN
			INSERT INTO alloc.slot
				(batch_id, available, shipped, newest, hold_until, eta, waiting, ref, sku, merged)
			VALUES (id, log.available, log.shipped, heads.newest, alloc._next_expiry(id),
			        log.eta, alloc._lines_wait(of_sku), of_ref, of_sku, heads.merged);
		END IF;
		PERFORM alloc._record_repair(of_sku, of_ref, NULL, log.available, state.available);
	END IF;
	RETURN QUERY SELECT
		CASE WHEN log.ref IS NULL THEN 'slots_removed' ELSE 'slots_rebuilt' END,
		of_sku, of_ref, NULL,
		CASE WHEN log.ref IS NOT NULL
		     THEN format('%s units available, %s shipped', log.available, log.shipped) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_slots(text, text, boolean, boolean) IS
	'part of repair(): the slots of a batch';
-- Keeping the log short.

CREATE FUNCTION alloc.snapshot_log()
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	base bigint;
	upto bigint;
BEGIN
	PERFORM alloc._require_writable('snapshot_log()');
	PERFORM alloc._require_read_committed('snapshot_log()');
	-- One at a time.  Commands look for lines in snapshots: no lock of theirs
	-- may wait for this one, which is about to wait for them.
	LOCK TABLE alloc.snapshot IN SHARE UPDATE EXCLUSIVE MODE;
	base := alloc._newest_snapshot();
	upto := alloc._settle_log();
	IF upto > base THEN
		INSERT INTO alloc.snapshot (event_id, taken_at) VALUES (upto, now());
		INSERT INTO alloc.snapshot_batch
			(snapshot, created, purchased, shipped, allocated, eta, ref, sku)
		SELECT upto, f.created, f.purchased, f.shipped, f.allocated, f.eta, f.ref, f.sku
		  FROM alloc._fold_log(base, upto, NULL) f;
		INSERT INTO alloc.snapshot_line
			(snapshot, event_id, qty, expires_at, shipped_at, sku, batchref, orderid)
		SELECT upto, l.event_id, l.qty, l.expires_at, l.shipped_at, l.sku, l.batchref, l.orderid
		  FROM alloc._log_lines(base, upto, NULL) l
		 WHERE l.shipped_at IS NULL OR EXISTS (
			SELECT FROM alloc.allocation a
			 WHERE a.orderid = l.orderid AND a.sku = l.sku);
		INSERT INTO alloc.snapshot_backorder
			(snapshot, event_id, qty, since, sku, orderid)
		SELECT upto, l.event_id, l.qty, l.since, l.sku, l.orderid
		  FROM alloc._log_backorders(base, upto, NULL) l;
	END IF;
	RETURN greatest(base, upto);
END
$$;
COMMENT ON FUNCTION alloc.snapshot_log() IS
	'records what the log tells up to now, for replay() to begin with; returns the last event that is in it';

CREATE FUNCTION alloc.archive_events(before timestamptz)
RETURNS SETOF alloc.events
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	upto bigint;
BEGIN
	IF archive_events.before IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'before must not be null';
	END IF;
	PERFORM alloc._require_writable('archive_events()');
	PERFORM alloc._require_read_committed('archive_events()');
	-- create_consumer() takes this lock as well: nobody may begin with what is
	-- about to go.
	LOCK TABLE alloc.snapshot IN SHARE UPDATE EXCLUSIVE MODE;
	upto := alloc._archivable_to(before);
	IF alloc._newest_snapshot() = 0 THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'there is no snapshot of the log',
			HINT = 'Take one with snapshot_log(): replay() will begin with it.';
	END IF;
	IF upto <= alloc._archived_to() THEN
		RETURN;
	END IF;
	INSERT INTO alloc.archive (event_id, moved_at) VALUES (upto, now());
	DELETE FROM alloc.snapshot_line WHERE snapshot < upto;
	DELETE FROM alloc.snapshot_backorder WHERE snapshot < upto;
	DELETE FROM alloc.snapshot_batch WHERE snapshot < upto;
	DELETE FROM alloc.snapshot WHERE event_id < upto;
	RETURN QUERY
		WITH moved AS (
			DELETE FROM alloc.event e WHERE e.event_id <= upto
			RETURNING e.event_id, e.at, e.type, e.sku, e.orderid, e.batchref,
			          e.qty, alloc.event_payload(e) AS payload)
		SELECT * FROM moved m ORDER BY m.event_id;
END
$$;
COMMENT ON FUNCTION alloc.archive_events(timestamptz) IS
	'takes events of before that moment out of the log and returns them, to be put elsewhere: those that a snapshot has and every reader has had';

-- What follows is for these functions.

CREATE FUNCTION alloc._settle_log()
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_settle_log'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._settle_log() IS
	'waits until no event up to the last one can come any more, and returns that one';

-- The log is cut before the first event that has to stay.  A replay needs
-- those after the snapshot; readers those they have not had, handlers only
-- those of their type; the relay those it was told to send, even if it never
-- ran; handlers those they failed on.
CREATE FUNCTION alloc._archivable_to(before timestamptz)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT least(
		alloc._newest_snapshot(),
		(SELECT e.event_id FROM alloc.event e
		  WHERE e.at >= before ORDER BY e.event_id LIMIT 1) - 1,
		(SELECT min(unread.event_id)
		   FROM alloc.position p
		   JOIN alloc.consumer c USING (consumer_id)
		   LEFT JOIN alloc.subscription s
		     ON c.kind = 'handler' AND s.subscription_id::text = c.name
		  CROSS JOIN LATERAL (
			SELECT e.event_id FROM alloc.event e
			 WHERE e.event_id > p.marks[2]
			   AND (s.event_type IS NULL OR e.type = s.event_type)
			   AND NOT alloc.was_given(p.seen_xmax, p.seen_open, p.upto_xmax,
			                           p.upto_open, p.given_to, e.event_id, e.xact)
			 ORDER BY e.event_id LIMIT 1) unread) - 1,
		(SELECT e.event_id FROM alloc.event e
		  WHERE e.relay AND e.xact >> 48 >= (SELECT count(*) FROM alloc.era)
		    AND NOT EXISTS (SELECT FROM alloc.position p WHERE p.consumer_id = 0)
		  ORDER BY e.event_id LIMIT 1) - 1,
		(SELECT min(d.event_id) FROM alloc.delivery d) - 1)
$$;
COMMENT ON FUNCTION alloc._archivable_to(timestamptz) IS
	'the last event that can be moved out of the log with all before it';
-- Order lines that wait for stock: what the log tells of them, what check()
-- compares, and what repair() mends.

CREATE FUNCTION alloc._log_backorders(base bigint, upto bigint, only_sku text)
RETURNS TABLE (orderid text, sku text, event_id bigint, qty bigint, since timestamptz)
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT l.orderid, l.sku, l.event_id, l.qty, l.at
	  FROM (
		SELECT DISTINCT ON (f.orderid COLLATE "C", f.sku COLLATE "C") f.*
		  FROM (
			SELECT s.orderid, s.sku, s.event_id, s.qty, s.since AS at,
			       'backordered' AS type
			  FROM alloc.snapshot_backorder s
			 WHERE s.snapshot = base
			   AND (only_sku IS NULL OR s.sku = only_sku)
			 UNION ALL
			SELECT e.orderid, e.sku, e.event_id, e.qty, e.at, e.type
			  FROM alloc.event e
			 WHERE e.event_id > base
			   AND (upto IS NULL OR e.event_id <= upto)
			   AND (only_sku IS NULL OR e.sku = only_sku)
			   AND e.type IN ('backordered', 'allocated', 'held', 'deallocated')
			   AND alloc._progress('events of waiting lines read')) f
		 ORDER BY f.orderid COLLATE "C", f.sku COLLATE "C", f.event_id DESC) l
	 WHERE l.type = 'backordered';
END;
COMMENT ON FUNCTION alloc._log_backorders(bigint, bigint, text) IS
	'the order lines that wait for stock, by the log: of a sku or of all, from a snapshot or from 0, up to an event or to the end';

CREATE FUNCTION alloc._wrong_backorders(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN w.orderid IS NULL THEN 'backorder_missing'
	            WHEN l.orderid IS NULL THEN 'backorder_unknown'
	            ELSE 'backorder_differs' END,
	       coalesce(l.sku, w.sku), NULL, coalesce(l.orderid, w.orderid),
	       CASE WHEN w.orderid IS NULL
	            THEN format('%s units wait since event %s', l.qty, l.event_id)
	            WHEN l.orderid IS NULL
	            THEN format('%s units, and the log does not tell that they wait', w.qty)
	            ELSE format('%s units since event %s at %s; by the log %s since event %s at %s',
	                        w.qty, w.event_id, w.since, l.qty, l.event_id, l.since) END
	  FROM alloc.backorder w
	  FULL JOIN alloc._log_backorders(alloc._first_base(), NULL, NULL) l
	    ON l.orderid COLLATE "C" = w.orderid COLLATE "C"
	   AND l.sku COLLATE "C" = w.sku COLLATE "C"
	 WHERE (w.qty, w.event_id, w.since) IS DISTINCT FROM (l.qty, l.event_id, l.since)
$$;
COMMENT ON FUNCTION alloc._wrong_backorders() IS
	'part of check(): order lines that wait for stock';

CREATE FUNCTION alloc._unmarked_slots(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'waiting_unmarked', s.sku, s.ref, NULL,
	       format('slot %s does not say that order lines wait', s.slot)
	  FROM alloc.slot s
	 WHERE NOT s.waiting
	   AND alloc._progress('slots read')
	   AND EXISTS (
		SELECT FROM alloc.backorder w
		 WHERE w.sku COLLATE "C" = s.sku COLLATE "C")
$$;
COMMENT ON FUNCTION alloc._unmarked_slots() IS
	'part of check(): rows of stock that must say that order lines wait for it';

CREATE FUNCTION alloc._wrong_snapshot_backorders(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH newest AS (
		SELECT s.event_id FROM alloc.snapshot s
		 WHERE s.event_id = alloc._newest_snapshot()
		   AND s.event_id > alloc._first_base()),
	log AS (
		SELECT l.* FROM newest,
		       alloc._log_backorders(alloc._first_base(), newest.event_id, NULL) l),
	kept AS (
		SELECT b.* FROM newest
		  JOIN alloc.snapshot_backorder b ON b.snapshot = newest.event_id)
	SELECT 'snapshot_differs', coalesce(log.sku, kept.sku), NULL,
	       coalesce(log.orderid, kept.orderid),
	       format('snapshot %s: its waiting line is not as the log tells',
	              (SELECT event_id FROM newest))
	  FROM log
	  FULL JOIN kept
	    ON kept.orderid COLLATE "C" = log.orderid COLLATE "C"
	   AND kept.sku COLLATE "C" = log.sku COLLATE "C"
	 WHERE (log.qty, log.event_id, log.since)
	       IS DISTINCT FROM (kept.qty, kept.event_id, kept.since)
$$;
COMMENT ON FUNCTION alloc._wrong_snapshot_backorders() IS
	'part of check(): waiting lines of the newest snapshot, if the log still has what it is of';

CREATE FUNCTION alloc._mend_backorder(
	of_sku text, of_orderid text, dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	log record;
	state record;
BEGIN
	SELECT l.qty, l.event_id, l.since INTO log
	  FROM alloc._log_backorders(alloc._first_base(), NULL, of_sku) l
	 WHERE l.orderid = of_orderid;
	SELECT w.qty, w.event_id, w.since INTO state
	  FROM alloc.backorder w
	 WHERE w.orderid = of_orderid AND w.sku = of_sku;
	IF log IS NOT DISTINCT FROM state THEN
		RETURN;
	END IF;
	IF NOT dry_run THEN
		DELETE FROM alloc.backorder w
		 WHERE w.orderid = of_orderid AND w.sku = of_sku;
		IF log.qty IS NOT NULL THEN
			INSERT INTO alloc.backorder (event_id, qty, since, orderid, sku)
			VALUES (log.event_id, log.qty, log.since, of_orderid, of_sku);
			UPDATE alloc.slot s SET waiting = true
			 WHERE s.sku = of_sku AND NOT s.waiting;
		END IF;
		PERFORM alloc._record_repair(of_sku, NULL, of_orderid, log.qty, state.qty);
	END IF;
	RETURN QUERY SELECT
		CASE WHEN log.qty IS NULL THEN 'backorder_removed'
		     WHEN state.qty IS NULL THEN 'backorder_added'
		     ELSE 'backorder_changed' END,
		of_sku, NULL, of_orderid,
		CASE WHEN log.qty IS NOT NULL
		     THEN format('%s units wait since event %s', log.qty, log.event_id) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_backorder(text, text, boolean) IS
	'part of repair(): an order line that waits for stock';

CREATE FUNCTION alloc._lines_wait(of_sku text)
RETURNS boolean
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT EXISTS (SELECT FROM alloc.backorder w WHERE w.sku = of_sku);
END;
COMMENT ON FUNCTION alloc._lines_wait(text) IS
	'whether any order line waits for stock of a sku';

CREATE FUNCTION alloc._rebuild_backorders(base bigint)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO alloc.backorder (event_id, qty, since, orderid, sku)
	SELECT l.event_id, l.qty, l.since, l.orderid, l.sku
	  FROM alloc._log_backorders(base, NULL, NULL) l;
	UPDATE alloc.slot s SET waiting = true
	 WHERE alloc._lines_wait(s.sku)
$$;
COMMENT ON FUNCTION alloc._rebuild_backorders(bigint) IS
	'part of rebuild(): order lines that wait for stock';
-- Nothing is for PUBLIC: the owner decides who may do what.

REVOKE ALL ON SCHEMA alloc FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA alloc FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA alloc FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA alloc FROM PUBLIC;
REVOKE ALL ON TYPE alloc.order_line FROM PUBLIC;
