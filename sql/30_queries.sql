-- Read models.

CREATE FUNCTION alloc.event_payload(event alloc.event)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'alloc_event_payload'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION alloc.event_payload(alloc.event) IS
	'an event as the JSON that NOTIFY sends: event_id, type, at (ISO 8601, UTC), orderid, sku, qty, batchref, eta, old_qty, old_eta, expires_at, without the keys that do not apply';

-- The views show the skus that this database serves.  Rows of others are what a
-- move of skus to another database left: see drop_moved().
CREATE FUNCTION alloc._serves_support(internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'alloc_serves_support'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION alloc._serves_support(internal) IS
	'what the planner has to know of _serves()';
CREATE FUNCTION alloc._serves(sku text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'alloc_serves'
LANGUAGE C STABLE PARALLEL SAFE COST 2 SUPPORT alloc._serves_support;
COMMENT ON FUNCTION alloc._serves(text) IS
	'is a sku served by this database? for the views';

CREATE VIEW alloc.allocations AS
SELECT a.orderid, a.sku, a.qty, b.ref AS batchref, b.eta, a.expires_at
  FROM alloc.allocation a
  JOIN alloc.batch b USING (batch_id)
 WHERE a.shipped_at IS NULL
   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp())
   AND alloc._serves(a.sku);
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
	       ELSE 0 END AS qty) h
 WHERE alloc._serves(b.sku);
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
 WHERE alloc._serves(b.sku)
 ORDER BY b.event_id;
COMMENT ON VIEW alloc.backorders IS
	'order lines that wait for stock, in the order in which they will be served: orderid, sku, qty, and since when';

CREATE VIEW alloc.events AS
SELECT e.event_id, e.at, e.type, e.sku, e.orderid, e.batchref, e.qty,
       alloc.event_payload(e) AS payload
  FROM alloc.event e
 WHERE alloc._serves(e.sku);
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
