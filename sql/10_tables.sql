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
		CONSTRAINT consumer_kind CHECK (kind IN ('consumer', 'counted', 'relay', 'handler')),
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
