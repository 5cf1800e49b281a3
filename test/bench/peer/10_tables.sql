-- The peer: the contract of the commands, but for sync_batches() and handle(),
-- and of promise() and available_to_promise(), in plain PL/pgSQL, in schema
-- alloc_peer.  The files of this directory, in the order of their names, are
-- one whole.
--
-- It serves twice.  As the reference: test/checks/random_commands.t runs
-- random commands against it and against the extension, in lock step.  As
-- the rival: make bench says how much faster the extension is.  So it is
-- written as one would write it for production: statements that the planner
-- can cache, one row lock per allocation, no subtransactions.
--
-- It does not need the extension:
--   cat test/bench/peer/*.sql | psql

\set ON_ERROR_STOP on
BEGIN;

CREATE SCHEMA alloc_peer;

-- The tables of sql/10_tables.sql.

CREATE SEQUENCE alloc_peer.batch_id_seq;
CREATE SEQUENCE alloc_peer.event_id_seq CACHE 1;

CREATE TABLE alloc_peer.product (
	sku text NOT NULL
		CONSTRAINT product_sku_length CHECK (octet_length(sku) BETWEEN 1 AND 255)
);
CREATE UNIQUE INDEX product_sku ON alloc_peer.product (sku text_pattern_ops);

CREATE TABLE alloc_peer.batch (
	batch_id  bigint NOT NULL,
	purchased bigint NOT NULL
		CONSTRAINT batch_purchased_not_negative CHECK (purchased >= 0),
	eta       date,
	ref       text NOT NULL
		CONSTRAINT batch_ref_length CHECK (octet_length(ref) BETWEEN 1 AND 255),
	sku       text NOT NULL,
	CONSTRAINT batch_pkey PRIMARY KEY (batch_id),
	CONSTRAINT batch_of_product FOREIGN KEY (sku) REFERENCES alloc_peer.product (sku)
);
CREATE UNIQUE INDEX batch_ref ON alloc_peer.batch (ref text_pattern_ops);
CREATE INDEX batch_preference
	ON alloc_peer.batch (sku text_pattern_ops, eta NULLS FIRST, batch_id);

-- The peer has one slot, number 0, per batch.
CREATE TABLE alloc_peer.slot (
	batch_id  bigint NOT NULL,
	available bigint NOT NULL
		CONSTRAINT slot_available_not_negative CHECK (available >= 0),
	shipped   bigint NOT NULL DEFAULT 0
		CONSTRAINT slot_shipped_not_negative CHECK (shipped >= 0),
	slot      integer NOT NULL DEFAULT 0,
	waiting   boolean NOT NULL DEFAULT false,
	eta       date,
	hold_until timestamptz,
	ref       text NOT NULL,
	sku       text NOT NULL,
	CONSTRAINT slot_pkey PRIMARY KEY (batch_id, slot)
) WITH (fillfactor = 50);
CREATE INDEX slot_preference
	ON alloc_peer.slot (sku text_pattern_ops, eta NULLS FIRST, batch_id, slot);

CREATE TABLE alloc_peer.allocation (
	batch_id   bigint NOT NULL,
	event_id   bigint NOT NULL,
	qty        bigint NOT NULL
		CONSTRAINT allocation_qty_positive CHECK (qty > 0),
	expires_at timestamptz,
	shipped_at timestamptz,
	orderid    text NOT NULL,
	sku        text NOT NULL
);
CREATE UNIQUE INDEX allocation_line
	ON alloc_peer.allocation (orderid text_pattern_ops, sku text_pattern_ops);
CREATE INDEX allocation_batch ON alloc_peer.allocation (batch_id, event_id);

CREATE TABLE alloc_peer.hold (
	batch_id   bigint NOT NULL,
	qty        bigint NOT NULL,
	expires_at timestamptz NOT NULL,
	ended      boolean NOT NULL DEFAULT false,
	orderid    text NOT NULL,
	sku        text NOT NULL
);
CREATE UNIQUE INDEX hold_line
	ON alloc_peer.hold (orderid text_pattern_ops, sku text_pattern_ops);
CREATE INDEX hold_expiry ON alloc_peer.hold (batch_id, expires_at) WHERE NOT ended;
CREATE INDEX hold_ended ON alloc_peer.hold (expires_at) WHERE ended;

CREATE TABLE alloc_peer.backorder (
	event_id bigint NOT NULL,
	qty      bigint NOT NULL
		CONSTRAINT backorder_qty_positive CHECK (qty > 0),
	since    timestamptz NOT NULL,
	orderid  text NOT NULL,
	sku      text NOT NULL
);
CREATE UNIQUE INDEX backorder_line
	ON alloc_peer.backorder (orderid text_pattern_ops, sku text_pattern_ops);
CREATE INDEX backorder_queue ON alloc_peer.backorder (sku text_pattern_ops, event_id);

CREATE TABLE alloc_peer.event (
	event_id bigint NOT NULL,
	at       timestamptz NOT NULL,
	xact     xid8 NOT NULL DEFAULT pg_current_xact_id(),
	qty      bigint,
	old_qty  bigint,
	eta      date,
	old_eta  date,
	expires_at timestamptz,
	type     text NOT NULL,
	sku      text NOT NULL,
	orderid  text,
	batchref text,
	CONSTRAINT event_pkey PRIMARY KEY (event_id) INCLUDE (xact)
);

CREATE TYPE alloc_peer.order_line AS (orderid text, sku text, qty bigint);

CREATE VIEW alloc_peer.allocations AS
SELECT a.orderid, a.sku, a.qty, b.ref AS batchref, b.eta, a.expires_at
  FROM alloc_peer.allocation a
  JOIN alloc_peer.batch b USING (batch_id)
 WHERE a.shipped_at IS NULL
   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp());

CREATE VIEW alloc_peer.batches AS
SELECT b.ref, b.sku, b.eta,
       b.purchased AS purchased_qty,
       s.shipped AS shipped_qty,
       b.purchased - s.shipped - s.available - h.qty AS allocated_qty,
       s.available + h.qty AS available_qty
  FROM alloc_peer.batch b
  JOIN alloc_peer.slot s ON s.batch_id = b.batch_id AND s.slot = 0
 CROSS JOIN LATERAL (
	SELECT coalesce(sum(hold.qty), 0)::bigint AS qty
	  FROM alloc_peer.hold
	 WHERE hold.batch_id = b.batch_id AND NOT hold.ended
	   AND hold.expires_at <= statement_timestamp()) h;

CREATE VIEW alloc_peer.stock AS
SELECT sku,
       sum(purchased_qty)::bigint AS purchased_qty,
       sum(shipped_qty)::bigint AS shipped_qty,
       sum(allocated_qty)::bigint AS allocated_qty,
       sum(available_qty)::bigint AS available_qty,
       coalesce(sum(available_qty) FILTER (WHERE eta IS NULL), 0)::bigint AS on_hand_qty,
       coalesce(sum(available_qty) FILTER (WHERE eta IS NOT NULL), 0)::bigint AS incoming_qty
  FROM alloc_peer.batches
 GROUP BY sku;

CREATE VIEW alloc_peer.backorders AS
SELECT orderid, sku, qty, since FROM alloc_peer.backorder ORDER BY event_id;
COMMIT;
