-- A database that is one partition of a fleet: it serves its own skus only, is
-- without the others as if they were not there, and forgets them.

\ir common.psql
SELECT no_plan();

-- partition_of(): the hash of PARTITION BY HASH

CREATE TABLE by_hash (sku text) PARTITION BY HASH (sku);
CREATE TEMPORARY TABLE sample AS
SELECT 'SKU-' || n AS sku FROM generate_series(1, 2000) n
UNION ALL SELECT repeat('x', n) FROM generate_series(0, 300) n
UNION ALL SELECT repeat(chr(n), n % 7) FROM generate_series(32, 1500) n WHERE n NOT BETWEEN 127 AND 160
UNION ALL SELECT unnest(ARRAY['', ' ', 'é', E'e\u0301', '日本', '🪑', E'\t', '0', repeat('🪑', 60), repeat('long', 100000)]);
SELECT is_empty(format($$
	SELECT left(sku, 20) FROM sample
	 WHERE NOT satisfies_hash_partition('by_hash'::regclass, %1$s, alloc.partition_of(sku) & (%1$s - 1), sku)$$, n),
	format('partition_of() is where a table PARTITION BY HASH has the row, of %s partitions', n))
  FROM unnest(ARRAY[2, 4, 8, 256, 65536]) n;
SELECT is_empty('SELECT left(sku, 20) FROM sample WHERE alloc.partition_of(sku) < 0', 'it has 31 bits');
SELECT is(alloc.partition_of(sku), known, format('it never changes: "%s"', left(sku, 20)))
  FROM (VALUES ('', 1780836518), ('LAMP', 1019725465), ('SKU-1000001', 399296007), ('é', 1626490799),
			   (repeat('x', 255), 42034667), (NULL, 0)) AS t (sku, known);
SELECT volatility_is('alloc', 'partition_of', ARRAY['text'], 'immutable', 'it is IMMUTABLE');
SELECT isnt_strict('alloc', 'partition_of', ARRAY['text'], 'and not STRICT');
SELECT is(proparallel, 's', proname || '() is PARALLEL SAFE')
  FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace AND proname IN ('partition_of', '_serves');
SELECT is((SELECT count(DISTINCT alloc.partition_of('SKU-' || n) & 255) FROM generate_series(1, 5000) n), 256::bigint,
	'skus are spread');

-- shares: what table partition says.
CREATE FUNCTION shares() RETURNS SETOF text
LANGUAGE sql STABLE AS 'SELECT number || '' of '' || count FROM alloc.partition';

-- set_partition(): bad input

SELECT refused(command, sqlstate, '%' || names || '%', command)
  FROM (VALUES
	('SELECT alloc.set_partition(0, NULL)', '22004', 'count'),
	('SELECT alloc.set_partition(NULL, 2)', '22004', 'number'),
	('SELECT alloc.set_partition(0, 0)', '22023', 'count%: 0'),
	('SELECT alloc.set_partition(0, 3)', '22023', 'count%: 3'),
	('SELECT alloc.set_partition(0, -2)', '22023', 'count%: -2'),
	('SELECT alloc.set_partition(0, -2147483648)', '22023', 'count%: -2147483648'),
	('SELECT alloc.set_partition(0, 131072)', '22023', 'count%: 131072'),
	('SELECT alloc.set_partition(-1, 4)', '22023', 'number%: -1'),
	('SELECT alloc.set_partition(4, 4)', '22023', 'number%: 4')) AS t (command, sqlstate, names);
SELECT is_empty('SELECT shares()', 'after that it is no partition');
SELECT throws_ok(format('INSERT INTO alloc.partition VALUES (%s)', share), '23514', NULL, 'the table refuses ' || share)
  FROM unnest(ARRAY['0, 3', '-3, 2', '-1, 1', '2, 2', '0, 0', '0, 131072']) AS share;
SELECT throws_ok('INSERT INTO alloc.partition VALUES (0, 2), (1, 2)', '23505', NULL, 'and a second row');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT throws_ok('SELECT alloc.set_partition(0, 2)', '25000', NULL, 'it is for READ COMMITTED');
ROLLBACK;
BEGIN READ ONLY;
SELECT throws_ok('SELECT alloc.set_partition(0, 2)', '25006', NULL, 'and for transactions that write');
ROLLBACK;

-- The stock of two skus, of which one will go: LAMP is odd, CHAIR even

SELECT alloc.add_batch(lower(sku), sku, 100), alloc.add_batch(lower(sku) || '-ship', sku, 50, '2031-01-01'),
	   alloc.add_batch(lower(sku) || '-more', sku, 5, '2032-01-01')
  FROM unnest(ARRAY['LAMP', 'CHAIR']) sku;
SELECT alloc.allocate(orderid, sku, 2), alloc.hold('cart', sku, 3, '1 hour'),
	   alloc.allocate('gone', sku, 1)
  FROM unnest(ARRAY['o1', 'o2']) orderid, unnest(ARRAY['LAMP', 'CHAIR']) sku;
SELECT alloc.ship('gone');
SELECT alloc.allocate_order('big', ARRAY[(NULL, 'LAMP', 1000), (NULL, 'CHAIR', 1000)]::alloc.order_line[], 'backorder');
SELECT alloc.hold('late', sku, 4, '1 millisecond') FROM unnest(ARRAY['LAMP', 'CHAIR']) sku;
SELECT pg_sleep(0.003);
CREATE TABLE feed AS SELECT ref, sku, purchased AS qty, eta FROM alloc.batch WHERE sku = 'LAMP';
SELECT sound('before it is a partition');

SELECT alloc.set_partition(0, 1);
SELECT is(alloc.allocate('o3', 'CHAIR', 1), 'chair', 'partition 0 of 1 serves all');
SELECT alloc.set_partition(1, 2);
SELECT results_eq('SELECT shares()', ARRAY['1 of 2'], 'the table says which one it is');

-- What names a sku that is not served

CREATE TEMPORARY TABLE command (call text);
INSERT INTO command VALUES
	($$SELECT alloc.add_batch('new', 'CHAIR', 1)$$),
	($$SELECT alloc.add_batch('chair', 'CHAIR', 100)$$),
	($$SELECT alloc.allocate('o9', 'CHAIR', 1)$$),
	($$SELECT alloc.allocate('o1', 'CHAIR', 2)$$),
	($$SELECT alloc.hold('o9', 'CHAIR', 1, '1 hour')$$),
	($$SELECT alloc.deallocate('o1', 'CHAIR')$$),
	($$SELECT alloc.cancel_backorder('big', 'CHAIR')$$),
	($$SELECT * FROM alloc.change_batch_quantity('chair', 200)$$),
	($$SELECT * FROM alloc.change_batch_quantity('chair', 0)$$),
	($$SELECT * FROM alloc.change_batch_eta('chair', '2030-01-01')$$),
	($$SELECT alloc.ship('o1', 'CHAIR')$$),
	($$SELECT * FROM alloc.allocate_lines('{"(o9,LAMP,1)","(o9,CHAIR,1)"}')$$),
	($$SELECT * FROM alloc.allocate_order('o9', '{"(,LAMP,1)","(,CHAIR,1)"}')$$),
	($$SELECT * FROM alloc.allocate_order('o9', '{"(,LAMP,1000)","(,CHAIR,1)"}', 'backorder')$$),
	($$SELECT alloc.available_to_promise('CHAIR')$$),
	($$SELECT * FROM alloc.promise('CHAIR', 1)$$),
	($$SELECT alloc.handle('{"command": "allocate", "orderid": "o9", "sku": "CHAIR", "qty": 1, "message_id": "m"}')$$),
	($$WITH f AS (INSERT INTO feed VALUES ('chair', 'CHAIR', 100, NULL)) SELECT alloc.allocate('o9', 'CHAIR', 1)$$);
SELECT refused(call, '55000', '%"CHAIR" is not served by this partition%', call) FROM command;
INSERT INTO feed VALUES ('chair', 'CHAIR', 100, NULL);
SELECT refused(format('SELECT * FROM alloc.sync_batches(''feed'', %L)', dry_run), '55000', '%"CHAIR" is not served%',
			   format('a feed with a row of another partition, dry_run %s', dry_run))
  FROM unnest(ARRAY[true, false]) dry_run;
DELETE FROM feed WHERE sku = 'CHAIR';
DO $$
DECLARE
	told text;
	advice text;
BEGIN
	PERFORM alloc.allocate('o9', 'CHAIR', 1);
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	GET STACKED DIAGNOSTICS told = PG_EXCEPTION_DETAIL, advice = PG_EXCEPTION_HINT;
	PERFORM set_config('test.told', told || ' ' || advice, false);
END
$$;
SELECT is(current_setting('test.told'),
	'It belongs to partition 0 of 2, this is partition 1 of 2. The router''s list of partitions may just be changing: call again.',
	'the error tells which partition it is of, and what to do');
SELECT throws_ok($$SELECT alloc.allocate(NULL, 'CHAIR', 1)$$, '22004', NULL, 'bad arguments are told first');

-- The same of a sku that is served

SELECT is(alloc.allocate('o9', 'LAMP', 1), 'lamp', 'what is served is');
SELECT is(alloc.deallocate('o9', 'LAMP'), 'lamp', 'and freed');
SELECT is(alloc.available_to_promise('LAMP'), 147::bigint, 'available_to_promise() of what is served');
SELECT is(alloc.available_to_promise('LAMP'), (SELECT available_qty FROM alloc.stock WHERE sku = 'LAMP'), '... as view stock');
SELECT is_empty('SELECT * FROM alloc.sync_batches(''feed'')', 'a feed of what is served retires nothing else');

-- The views show what is served

SELECT results_eq('SELECT DISTINCT sku FROM alloc.' || view, ARRAY['LAMP'], format('view %s shows what is served', view))
  FROM unnest(ARRAY['allocations', 'batches', 'stock', 'backorders', 'events']) view;
SELECT is_empty('SELECT * FROM alloc.history(''CHAIR'')', 'history() does as well');
SELECT bag_eq('SELECT DISTINCT sku FROM alloc.replay()', ARRAY['LAMP', 'CHAIR'], 'replay() has all that the log tells');
SELECT is_empty('SELECT * FROM alloc.check()', 'check() looks at all of it, and it is sound');
SELECT is(alloc._serves(NULL), false, 'no sku is not served');

-- What goes by order passes over the others

-- frozen: all rows of a sku that is not served.
CREATE FUNCTION frozen() RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT md5(string_agg(line, E'\n' ORDER BY line COLLATE "C"))
	  FROM (SELECT t::text AS line FROM alloc.batch t WHERE sku = 'CHAIR'
			UNION ALL SELECT t::text FROM alloc.slot t WHERE sku = 'CHAIR'
			UNION ALL SELECT t::text FROM alloc.allocation t WHERE sku = 'CHAIR'
			UNION ALL SELECT t::text FROM alloc.hold t WHERE sku = 'CHAIR'
			UNION ALL SELECT t::text FROM alloc.backorder t WHERE sku = 'CHAIR'
			UNION ALL SELECT t::text FROM alloc.event t WHERE sku = 'CHAIR') AS lines
$$;
SELECT set_config('test.frozen', frozen(), false);
SELECT mark();
SELECT is(alloc.extend_hold('cart', '2 hours'), 1::bigint, 'extend_hold() counts what is served');
SELECT throws_ok($$SELECT alloc.ship('cart')$$, '55000', 'order line ("cart", "LAMP") is only held', 'ship() sees a hold of what is served');
SELECT is(alloc.confirm('cart'), 1::bigint, 'confirm() too');
SELECT is(alloc.ship('cart'), 1::bigint, 'and then ship()');
SELECT throws_ok($$SELECT alloc.confirm('late')$$, 'SK005', NULL, 'a hold that is over, of what is served');
SELECT is(alloc.release('late'), 0::bigint, 'release() forgets it');
SELECT is(alloc.confirm('late'), 0::bigint, 'then confirm() knows of no other one');
SELECT is(alloc.extend_hold('late', '1 hour'), 0::bigint, 'nor does extend_hold()');
SELECT is(alloc.ship('o1'), 1::bigint, 'ship() of an order with both');
SELECT is(alloc.ship('o1'), 0::bigint, '... again: nothing');
SELECT results_eq('SELECT news()', ARRAY[
	'held cart LAMP 3 lamp was 3', 'confirmed cart LAMP 3 lamp', 'shipped cart LAMP 3 lamp',
	'shipped o1 LAMP 2 lamp'], 'and so the events tell');
SELECT is((SELECT alloc.purge_shipped('infinity')), 3::bigint, 'purge_shipped() forgets lines of what is served');
DELETE FROM feed WHERE ref = 'lamp-more';
SELECT results_eq('SELECT action, ref FROM alloc.sync_batches(''feed'')', $$VALUES ('retire', 'lamp-more')$$,
	'a batch that is not in the feed is retired, if it is served');
SET alloc.max_holds_per_order = 1;
SELECT is(alloc.hold('cart', 'LAMP', 1, '1 hour'), 'lamp', 'a hold that is not served does not count for the order');
RESET alloc.max_holds_per_order;
SELECT is(frozen(), current_setting('test.frozen'), 'of what is not served nothing has changed');
SELECT is_empty('SELECT * FROM alloc.check()', 'and all is sound');

-- The share of a transaction

BEGIN;
SELECT alloc.set_partition(0, 2);
SELECT throws_ok($$SELECT alloc.allocate('o8', 'LAMP', 1)$$, '55000', NULL, 'the transaction that changes it is held to it');
SELECT is(alloc.allocate('o8', 'CHAIR', 1), 'chair', 'both ways');
SAVEPOINT s;
SELECT alloc.set_partition(NULL, NULL);
SELECT is(alloc.allocate('o8', 'LAMP', 1), 'lamp', 'without a share all is served');
ROLLBACK TO s;
SELECT throws_ok($$SELECT alloc.allocate('o8', 'LAMP', 1)$$, '55000', NULL, 'a savepoint brings the share back');
ROLLBACK;
SELECT is(alloc.allocate('o8', 'LAMP', 1), 'lamp', 'and so does a rollback');
SELECT throws_ok($$SELECT alloc.allocate('o8', 'CHAIR', 1)$$, '55000', NULL, '... for both');
UPDATE alloc.partition SET number = 0;
SELECT throws_ok($$SELECT alloc.allocate('o8', 'LAMP', 1)$$, '55000', NULL, 'a change by hand is heard of');
TRUNCATE alloc.partition;
SELECT is(alloc.deallocate('o8', 'LAMP'), 'lamp', 'so is TRUNCATE');
SELECT throws_ok('SELECT alloc._partition_changed()', '39P01', NULL, 'its trigger function is nothing else');

-- drop_moved(): bad input

SELECT refused('SELECT alloc.drop_moved()', '55000', '%not a partition%', 'drop_moved() where all is served');
SELECT alloc.set_partition(1, 2);
SELECT refused('SELECT alloc.drop_moved(NULL)', '22004', '%max_skus%', 'drop_moved(NULL)');
SELECT refused('SELECT alloc.drop_moved(0)', '22023', '%max_skus%: 0%', 'drop_moved(0)');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT throws_ok('SELECT alloc.drop_moved()', '25000', NULL, 'drop_moved() in REPEATABLE READ');
ROLLBACK;

-- drop_moved(): with events that somebody has still to be given

-- left_over: how many rows each table has of skus that are not served.
CREATE FUNCTION left_over() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT format('%s: %s', name, n)
	  FROM (SELECT 'product', count(*) FROM alloc.product WHERE NOT alloc._serves(sku)
			UNION ALL SELECT 'batch', count(*) FROM alloc.batch WHERE NOT alloc._serves(sku)
			UNION ALL SELECT 'slot', count(*) FROM alloc.slot WHERE NOT alloc._serves(sku)
			UNION ALL SELECT 'allocation', count(*) FROM alloc.allocation WHERE NOT alloc._serves(sku)
			UNION ALL SELECT 'hold', count(*) FROM alloc.hold WHERE NOT alloc._serves(sku)
			UNION ALL SELECT 'backorder', count(*) FROM alloc.backorder WHERE NOT alloc._serves(sku)
			UNION ALL SELECT 'event', count(*) FROM alloc.event WHERE NOT alloc._serves(sku)
			UNION ALL SELECT 'snapshot_batch', count(*) FROM alloc.snapshot_batch WHERE NOT alloc._serves(sku)
			UNION ALL SELECT 'snapshot_line', count(*) FROM alloc.snapshot_line WHERE NOT alloc._serves(sku)
			UNION ALL SELECT 'snapshot_backorder', count(*) FROM alloc.snapshot_backorder WHERE NOT alloc._serves(sku)
		   ) AS t (name, n)
	 WHERE n > 0
$$;
-- A log of which a part is archived, a part in a snapshot, a part after it; with
-- more skus of both partitions.
SELECT alloc.set_partition(NULL, NULL);
SELECT alloc.add_batch('b' || n, 'SKU-' || n, 100) FROM generate_series(1, 40) n;
SELECT alloc.allocate('p' || n, 'SKU-' || n, 3) FROM generate_series(1, 40) n;
SELECT alloc.snapshot_log();
SELECT count(*) FROM alloc.archive_events('infinity');
SELECT alloc.allocate('q' || n, 'SKU-' || n, 4) FROM generate_series(1, 40) n;
SELECT alloc.change_batch_quantity('b' || n, 5) FROM generate_series(1, 40, 3) n;
SELECT alloc.snapshot_log();
SELECT alloc.create_consumer('mail', 'beginning');
SELECT alloc.allocate('r' || n, 'SKU-' || n, 1) FROM generate_series(1, 40) n;
SELECT alloc.allocate('s', 'CHAIR', 1);
CREATE TABLE served AS SELECT * FROM alloc.batches WHERE alloc.partition_of(sku) & 1 = 1;
CREATE TABLE served_lines AS SELECT * FROM alloc.allocations WHERE alloc.partition_of(sku) & 1 = 1;
CREATE TABLE served_events AS SELECT * FROM alloc.events WHERE alloc.partition_of(sku) & 1 = 1;
SELECT alloc.set_partition(1, 2);
SELECT cmp_ok((SELECT count(*) FROM alloc.product WHERE NOT alloc._serves(sku)), '>', 10::bigint, 'many skus are to go');
SELECT cmp_ok((SELECT count(*) FROM alloc.product WHERE alloc._serves(sku)), '>', 10::bigint, 'and many to stay');
SELECT is_empty('SELECT * FROM alloc.check()', 'nothing is wrong');
SELECT is((SELECT count(*) FROM left_over()), 10::bigint, 'each table has something to forget');

SELECT set_config('test.all', digest(), false);
SELECT is(alloc.drop_moved(), 0::bigint, 'what a consumer has still to be given stays');
SELECT is(digest(), current_setting('test.all'), '... with all there is of it');
-- All but the last event.
SELECT count(*) FROM alloc.fetch_events('mail', (SELECT count(*)::int - 1 FROM alloc.event));
SELECT results_eq('SELECT DISTINCT sku FROM alloc.event WHERE event_id >= alloc._first_unread()', ARRAY['CHAIR'],
	'the consumer has had all but an event of CHAIR');
CREATE FUNCTION fails(event jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT alloc.subscribe('deallocated', 'fails(jsonb)', 'sync');
INSERT INTO alloc.delivery (delivery_id, subscription_id, event_id, at, attempts, handler, last_error)
SELECT 1, subscription_id, (SELECT max(event_id) FROM alloc.event WHERE sku = 'SKU-4'), now(), 3, 'fails', 'why'
  FROM alloc.subscription;
SELECT is(alloc.partition_of('SKU-4') & 1, 0, 'SKU-4 is to go, and a dead letter is about it');

SELECT is(alloc.drop_moved(5), 5::bigint, 'drop_moved() forgets so many skus');
SELECT is_empty('SELECT * FROM alloc.check()', '... after which all is sound');
DO $$
DECLARE
	dropped bigint;
BEGIN
	LOOP
		dropped := alloc.drop_moved(7);
		EXIT WHEN dropped = 0;
		IF EXISTS (SELECT FROM alloc.check()) THEN
			RAISE 'not sound after drop_moved()';
		END IF;
	END LOOP;
END
$$;
SELECT bag_eq('SELECT sku FROM alloc.product WHERE NOT alloc._serves(sku)', ARRAY['CHAIR', 'SKU-4'],
	'then those are left of which an event is still to be given, or a dead letter is kept');
SELECT count(*) FROM alloc.fetch_events('mail');
SELECT is(alloc.drop_moved(), 1::bigint, 'the consumer has had it: the sku goes');
SELECT bag_eq('SELECT sku FROM alloc.product WHERE NOT alloc._serves(sku)', ARRAY['SKU-4'], '... and the dead letter keeps the other');
DELETE FROM alloc.delivery;
SELECT is(alloc.drop_moved(), 1::bigint, 'without the dead letter it goes as well');
SELECT is(alloc.drop_moved(), 0::bigint, 'then there are none');
SELECT is_empty('SELECT left_over()', 'no table has anything left of them');
SELECT is_empty('SELECT * FROM alloc.check()', 'all is sound');
SELECT is_empty('SELECT unlike_log()', 'and as the log tells');
SELECT bag_eq('SELECT * FROM alloc.batches', 'SELECT * FROM served', 'the batches that are served are as they were');
SELECT bag_eq('SELECT * FROM alloc.allocations', 'SELECT * FROM served_lines', 'so are the order lines');
SELECT bag_eq('SELECT * FROM alloc.events', 'SELECT * FROM served_events', 'and the events');
SELECT bag_eq('SELECT ref FROM alloc.replay()', 'SELECT ref FROM served', 'replay() has those that are served');
SELECT throws_ok($$SELECT alloc.change_batch_quantity('chair', 1)$$, 'SK002', NULL, 'a batch that was forgotten is unknown');
SELECT is(alloc.allocate('t', 'LAMP', 1), 'lamp', 'what is served goes on');
SELECT alloc.set_partition(NULL, NULL);
SELECT is(alloc.add_batch('chair', 'CHAIR', 10), 'chair', 'and what was forgotten may come back');
SELECT is_empty('SELECT * FROM alloc.check()', 'which is sound');
SELECT * FROM finish();
