-- The read models: allocations, batches, stock, events.

\ir common.psql
BEGIN;
SELECT plan(28);

SELECT is((SELECT string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
			 FROM pg_attribute WHERE attrelid = view::regclass AND attnum > 0),
	columns, format('%s: columns in this order, of these types', view))
  FROM (VALUES
	('alloc.allocations', 'orderid text, sku text, qty bigint, batchref text, eta date, expires_at timestamp with time zone'),
	('alloc.batches', 'ref text, sku text, eta date, purchased_qty bigint, shipped_qty bigint, allocated_qty bigint, available_qty bigint'),
	('alloc.events', 'event_id bigint, at timestamp with time zone, type text, sku text, orderid text, batchref text, qty bigint, payload jsonb'),
	('alloc.stock', 'sku text, purchased_qty bigint, shipped_qty bigint, allocated_qty bigint, available_qty bigint, on_hand_qty bigint, incoming_qty bigint'))
	AS contract (view, columns);

SELECT is_empty('SELECT * FROM alloc.allocations', 'at first there is no allocation');
SELECT is_empty('SELECT * FROM alloc.batches', 'at first there is no batch');
SELECT is_empty('SELECT * FROM alloc.stock', 'at first there is no stock');
SELECT is_empty('SELECT * FROM alloc.events', 'at first there is no event');

SELECT alloc.add_batch('store1', 'lamp', 10), alloc.add_batch('store2', 'lamp', 20),
	   alloc.add_batch('ship1', 'lamp', 40, '2011-01-01'), alloc.add_batch('ship2', 'lamp', 80, '2011-02-01'),
	   alloc.add_batch('rug', 'rug', 5, '2011-01-01'), alloc.add_batch('none', 'none', 0);
SELECT results_eq('SELECT * FROM alloc.stock ORDER BY sku',
	$$VALUES ('lamp', 150::bigint, 0::bigint, 0::bigint, 150::bigint, 30::bigint, 120::bigint),
			 ('none', 0, 0, 0, 0, 0, 0),
			 ('rug', 5, 0, 0, 5, 0, 5)$$,
	'stock: what is available with eta is incoming, without it on hand');

SELECT alloc.allocate('o1', 'lamp', 10), alloc.allocate('o2', 'lamp', 15), alloc.allocate('o3', 'lamp', 30),
	   alloc.allocate('o1', 'rug', 2), alloc.allocate('o4', 'rug', 4);
SELECT results_eq('SELECT * FROM alloc.allocations ORDER BY orderid, sku',
	$$VALUES ('o1', 'lamp', 10::bigint, 'store1', NULL::date, NULL::timestamptz),
			 ('o1', 'rug', 2, 'rug', '2011-01-01', NULL),
			 ('o2', 'lamp', 15, 'store2', NULL, NULL),
			 ('o3', 'lamp', 30, 'ship1', '2011-01-01', NULL)$$,
	'allocations: who is served by what, and when it comes');
SELECT results_eq('SELECT * FROM alloc.batches ORDER BY ref',
	$$VALUES ('none', 'none', NULL::date, 0::bigint, 0::bigint, 0::bigint, 0::bigint),
			 ('rug', 'rug', '2011-01-01', 5, 0, 2, 3),
			 ('ship1', 'lamp', '2011-01-01', 40, 0, 30, 10),
			 ('ship2', 'lamp', '2011-02-01', 80, 0, 0, 80),
			 ('store1', 'lamp', NULL, 10, 0, 10, 0),
			 ('store2', 'lamp', NULL, 20, 0, 15, 5)$$,
	'batches: what is allocated and what is available');
SELECT results_eq($$SELECT * FROM alloc.stock WHERE sku = 'lamp'$$,
	$$VALUES ('lamp', 150::bigint, 0::bigint, 55::bigint, 95::bigint, 5::bigint, 90::bigint)$$,
	'stock: on_hand and incoming are what is available');
SELECT results_eq($$SELECT sku, batchref FROM alloc.allocations WHERE orderid = 'o1' ORDER BY sku$$,
	$$VALUES ('lamp', 'store1'), ('rug', 'rug')$$, 'allocations: an order has a line for each sku');

-- Shipped units

SELECT alloc.ship('o2', 'lamp'), alloc.ship('o3', 'lamp');
SELECT results_eq($$SELECT shipped_qty, allocated_qty, available_qty FROM alloc.batches WHERE ref = 'store2'$$,
	'VALUES (15::bigint, 0::bigint, 5::bigint)', 'batches: shipped units are no longer allocated');
SELECT results_eq($$SELECT * FROM alloc.stock WHERE sku = 'lamp'$$,
	$$VALUES ('lamp', 150::bigint, 45::bigint, 10::bigint, 95::bigint, 5::bigint, 90::bigint)$$,
	'stock: shipped units are counted apart');
SELECT sound('shipping');

-- Several slots of a batch are one batch

SELECT alloc.add_batch('spread', 'spread', 30), alloc.allocate('o', 'spread', 5);
UPDATE alloc.slot SET available = 10, spread = true WHERE batch_id = (SELECT batch_id FROM alloc.batch WHERE ref = 'spread');
INSERT INTO alloc.slot (batch_id, slot, available, spread, ref, sku)
SELECT s.batch_id, 1, 15, true, s.ref, s.sku
  FROM alloc.slot s JOIN alloc.batch b USING (batch_id) WHERE b.ref = 'spread';
SELECT results_eq($$SELECT purchased_qty, shipped_qty, allocated_qty, available_qty FROM alloc.batches WHERE ref = 'spread'$$,
	'VALUES (30::bigint, 0::bigint, 5::bigint, 25::bigint)', 'batches: slots are added up');
SELECT results_eq($$SELECT purchased_qty, on_hand_qty FROM alloc.stock WHERE sku = 'spread'$$,
	'VALUES (30::bigint, 25::bigint)', 'stock: a batch with two slots counts once');

-- Joins with a shop's own tables, in the database's collation

CREATE TABLE shop_order (orderid text PRIMARY KEY, customer varchar(20));
INSERT INTO shop_order VALUES ('o1', 'Harry'), ('o4', 'Bob');
SELECT results_eq(
	$$SELECT customer::text, count(sku) FROM shop_order LEFT JOIN alloc.allocations USING (orderid) GROUP BY 1 ORDER BY 1$$,
	$$VALUES ('Bob', 0::bigint), ('Harry', 2::bigint)$$, 'allocations can be joined by orderid');
SELECT is((SELECT count(*) FROM alloc.events e JOIN shop_order o ON e.payload->>'orderid' = o.orderid),
	3::bigint, 'events can be joined by what is in the payload');

-- Lookups do not read all there is.  Asked of the planner, not of a clock.

CREATE FUNCTION uses_seq_scan(query text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	SET LOCAL enable_seqscan = off;
	FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
		IF line LIKE '%Seq Scan%' THEN
			RETURN NEXT line;
		END IF;
	END LOOP;
END
$$;
SELECT is_empty(format('SELECT uses_seq_scan(%L)', 'SELECT * FROM alloc.' || query), query || ': by an index')
  FROM unnest(ARRAY[
	$$allocations WHERE orderid = 'o1'$$,
	$$allocations WHERE orderid = 'o1' AND sku = 'lamp'$$,
	$$batches WHERE ref = 'store1'$$,
	$$batches WHERE sku = 'lamp'$$,
	$$stock WHERE sku = 'lamp'$$,
	$$events WHERE event_id > 3 ORDER BY event_id LIMIT 5$$]) AS query;

-- They are for reading

SELECT throws_ok($$DELETE FROM alloc.allocations$$, '55000', NULL, 'the view allocations cannot be deleted from');
SELECT throws_ok($$UPDATE alloc.batches SET available_qty = 1$$, '55000', NULL, 'the view batches cannot be updated');

SELECT * FROM finish();
ROLLBACK;
