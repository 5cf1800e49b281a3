-- replay(): the batches as the log tells them, up to any event; history() and
-- history_of_order(): the story.

\ir common.psql
SELECT plan(111);

-- differences: between replay() and view batches, of one sku or of all.
CREATE FUNCTION differences(of_sku text DEFAULT NULL) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	(SELECT 'only replayed: ' || r FROM (
		SELECT * FROM alloc.replay(of_sku)
		EXCEPT ALL SELECT * FROM alloc.batches WHERE of_sku IS NULL OR sku = of_sku) r)
	UNION ALL
	(SELECT 'only in batches: ' || b FROM (
		SELECT * FROM alloc.batches WHERE of_sku IS NULL OR sku = of_sku
		EXCEPT ALL SELECT * FROM alloc.replay(of_sku)) b)
$$;
-- as_batches: one test, that both are the same.
CREATE FUNCTION as_batches(after text) RETURNS text
LANGUAGE sql AS $$
	SELECT is_empty('SELECT differences()', after || ': replay() is as batches')
$$;

-- What was there after an event.
CREATE TABLE recorded (event_id bigint, batches alloc.batches[]);
CREATE FUNCTION record() RETURNS void
LANGUAGE sql AS $$
	INSERT INTO recorded
	SELECT (SELECT coalesce(max(event_id), 0) FROM alloc.event),
		   (SELECT coalesce(array_agg(b), '{}') FROM alloc.batches b)
$$;
-- forgotten: what replay(upto) does not tell as it was recorded.
CREATE FUNCTION forgotten(of_sku text DEFAULT NULL, after bigint DEFAULT -1) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT format('after event %s: %s', r.event_id, wrong)
	  FROM recorded r
	 CROSS JOIN LATERAL (
		(SELECT * FROM alloc.replay(of_sku, r.event_id)
		 EXCEPT ALL SELECT * FROM unnest(r.batches) WHERE of_sku IS NULL OR sku = of_sku)
		UNION ALL
		(SELECT * FROM unnest(r.batches) WHERE of_sku IS NULL OR sku = of_sku
		 EXCEPT ALL SELECT * FROM alloc.replay(of_sku, r.event_id))) wrong
	 WHERE r.event_id >= after
$$;
CREATE FUNCTION last_event() RETURNS bigint
LANGUAGE sql STABLE AS 'SELECT coalesce(max(event_id), 0) FROM alloc.event';
-- story: events in words.
CREATE FUNCTION story(e alloc.events) RETURNS text
LANGUAGE sql AS $$
	SELECT concat_ws(' ', e.type, e.orderid, e.sku, e.qty, e.batchref)
$$;

-- An empty log

SELECT is_empty('SELECT * FROM alloc.replay()', 'of an empty log nothing is replayed');
SELECT is_empty('SELECT * FROM alloc.replay(NULL, NULL)', '... with NULLs');
SELECT is_empty($$SELECT * FROM alloc.replay('s', 5)$$, '... of a sku');
SELECT is_empty($$SELECT * FROM alloc.history('s')$$, 'it has no history');
SELECT is_empty($$SELECT * FROM alloc.history_of_order('o')$$, 'nor has an order');
SELECT is_empty('SELECT * FROM alloc.check()', 'and it is sound');
CREATE VIEW replayed AS SELECT * FROM alloc.replay();
SELECT results_eq($$SELECT attname::text, atttypid::regtype::text FROM pg_attribute
	 WHERE attrelid = 'replayed'::regclass AND attnum > 0 ORDER BY attnum$$,
	$$SELECT attname::text, atttypid::regtype::text FROM pg_attribute
	 WHERE attrelid = 'alloc.batches'::regclass AND attnum > 0 ORDER BY attnum$$, 'columns and types are those of view batches');

-- All commands

SELECT record();
SELECT alloc.add_batch('lamp', 'LAMP', 10);
SELECT record();
SELECT alloc.add_batch('lamp, later', 'LAMP', 20, '2030-05-01');
SELECT record();
SELECT alloc.add_batch('lamp, none', 'LAMP', 0, '2031-01-01');
SELECT record();
SELECT alloc.add_batch('rug', 'RUG', 5000);
SELECT record();
SELECT alloc.add_batch('infinite', 'RUG', 7, 'infinity'), alloc.add_batch('early', 'RUG', 7, '-infinity');
SELECT record();
SELECT is(alloc.allocate('o1', 'LAMP', 4), 'lamp', 'lines are served');
SELECT record();
SELECT alloc.allocate('o2', 'LAMP', 6), alloc.allocate('o1', 'RUG', 30);
SELECT record();
SELECT is(alloc.allocate('o3', 'LAMP', 100), NULL, 'one is out of stock');
SELECT record();
SELECT alloc.allocate('o3', 'LAMP', 3);
SELECT record();
SELECT as_batches('batches and lines');
SELECT count(*) FROM alloc.allocate_lines(ARRAY[('b1', 'LAMP', 2), ('b2', 'RUG', 7), ('b3', 'LAMP', 99), ('b1', 'RUG', 2500)]::alloc.order_line[]);
SELECT record();
SELECT as_batches('lines in bulk');
SELECT alloc.deallocate('o1', 'LAMP');
SELECT record();
SELECT as_batches('a line freed');
SELECT results_eq($$SELECT moves('lamp', 3)$$, ARRAY['o2 LAMP 6: lamp to lamp, later'], 'a line moves');
SELECT record();
SELECT as_batches('fewer units');
SELECT moves('lamp, later', 1);
SELECT record();
SELECT moves('lamp', 300);
SELECT record();
SELECT moves('lamp, none', 0);
SELECT record();
SELECT as_batches('more units, and none');
BEGIN;
SELECT alloc.allocate('t' || n, sku, n) FROM generate_series(1, 4) n, unnest(ARRAY['LAMP', 'RUG']) sku;
SELECT record();
SELECT alloc.deallocate('t2', 'RUG'), alloc.deallocate('t2', 'LAMP');
SELECT record();
SELECT as_batches('within a transaction');
SAVEPOINT a;
SELECT alloc.allocate('undone', 'LAMP', 5), alloc.add_batch('undone', 'LAMP', 5);
ROLLBACK TO a;
SELECT alloc.allocate('t2', 'RUG', 9);
SELECT record();
COMMIT;
SELECT as_batches('savepoints');
BEGIN;
SELECT alloc.allocate('undone', 'LAMP', 5), alloc.add_batch('undone', 'UNDONE', 5);
ROLLBACK;
SELECT as_batches('a rollback');
BEGIN;
UPDATE alloc.event SET at = '2020-02-20';
SELECT as_batches('all events at one microsecond');
SELECT is_empty('SELECT forgotten()', '... up to each event');
ROLLBACK;

-- Keys that have to be kept as they are

SELECT alloc.add_batch(key, key || '!', 10, day)
  FROM (VALUES (E'caf\u00e9', date '2030-01-01'), (E'cafe\u0301', NULL), ('it''s', NULL), ('"quoted"', '2029-01-01'), ('back\slash', NULL),
			   (' ', NULL), (E'line\nbreak', NULL), ('NULL', NULL), (E'\U0001F4E6\u4e2d', '2031-01-01'), ('%', NULL), ('_', NULL), (repeat('x', 254), NULL)) AS keys (key, day);
SELECT alloc.allocate(ref, sku, 3) FROM alloc.batches WHERE sku LIKE '%!';
SELECT record();
SELECT as_batches('awkward keys');
SELECT is((SELECT count(*) FROM alloc.replay()), 18::bigint, 'all are there');
SELECT is_empty($$SELECT differences(sku) FROM alloc.product$$, 'and sku by sku');
SELECT results_eq(format('SELECT ref, allocated_qty FROM alloc.replay(%L)', E'cafe\u0301!'),
	format('VALUES (%L, 3::bigint)', E'cafe\u0301'), 'keys that look the same are not');

-- Quantities near 2^63-1

SELECT alloc.add_batch('huge', 'huge', 9223372036854775807), alloc.add_batch('huge too', 'huge too', 9223372036854775806);
SELECT record();
SELECT as_batches('2^63-1 units');
SELECT alloc.allocate('huge', 'huge', 9223372036854775807);
SELECT record();
SELECT alloc.deallocate('huge', 'huge');
SELECT record();
SELECT alloc.allocate('huge', 'huge', 9223372036854775806), alloc.allocate('one', 'huge', 1);
SELECT record();
SELECT as_batches('... allocated');
SELECT is((SELECT r FROM alloc.replay('huge') r)::text, '(huge,huge,,9223372036854775807,0,9223372036854775807,0)', 'not one unit is lost');
SELECT moves('huge', 9223372036854775806);
SELECT record();
SELECT as_batches('one unit fewer');
SELECT moves('huge', 9223372036854775807), moves('huge too', 9223372036854775807);
SELECT record();
SELECT moves('huge', 0), moves('huge too', 1), moves('huge too', 9223372036854775807);
SELECT record();
SELECT as_batches('none, and all again');

-- The table of events is not in the order of ids for ever.

SELECT alloc.allocate('one', 'huge too', 9223372036854775807);
SELECT alloc.deallocate('one', 'huge too');
SELECT alloc.allocate('two', 'huge too', 9223372036854775807);
SELECT record();
CREATE TABLE kept AS SELECT * FROM alloc.event;
TRUNCATE alloc.event;
INSERT INTO alloc.event SELECT * FROM kept ORDER BY event_id DESC;
SELECT as_batches('events in reverse order in their table');
SELECT is_empty('SELECT forgotten()', '... up to each event');
TRUNCATE alloc.event;
INSERT INTO alloc.event SELECT * FROM kept ORDER BY type, event_id;
SELECT as_batches('... by type');
TRUNCATE alloc.event;
INSERT INTO alloc.event SELECT * FROM kept ORDER BY event_id;

-- Up to an event

SELECT cmp_ok((SELECT count(*) FROM recorded), '>', 20::bigint, 'states were recorded');
SELECT is_empty('SELECT forgotten()', 'replay(NULL, upto) is as it was recorded after each of these events');
SELECT is_empty('SELECT forgotten(sku) FROM alloc.product', 'replay(sku, upto) as well');
SELECT is_empty('SELECT * FROM alloc.replay(NULL, 0)', 'up to event 0 there is nothing');
SELECT is_empty(format('SELECT * FROM alloc.replay(NULL, %s)', n), format('nor up to %s', n))
  FROM unnest(ARRAY[-1, -9223372036854775808]) AS n;
SELECT results_eq('SELECT ref FROM alloc.replay(NULL, (SELECT min(event_id) FROM alloc.event))', ARRAY['lamp'], 'up to the first event there is one batch');
SELECT set_eq(format('SELECT * FROM alloc.replay(NULL, %s)', n), 'SELECT * FROM alloc.batches', format('up to %s there is all', n))
  FROM unnest(ARRAY[last_event(), last_event() + 1, 9223372036854775807]) AS n;
SELECT is_empty($$SELECT * FROM alloc.event e, alloc.replay(NULL, e.event_id) r
	 WHERE r.available_qty < 0 OR r.allocated_qty < 0 OR r.purchased_qty < 0 OR r.shipped_qty <> 0$$, 'after no event there was less than nothing');
SELECT set_eq($$SELECT * FROM alloc.replay(upto => last_event())$$, 'SELECT * FROM alloc.replay()', 'arguments can be named');

-- sku

SELECT results_eq($$SELECT ref FROM alloc.replay('LAMP') ORDER BY ref$$, ARRAY['lamp', 'lamp, later', 'lamp, none'], 'of one sku');
SELECT is_empty($$SELECT * FROM alloc.replay('unknown')$$, 'an unknown sku has no batches');
SELECT is_empty($$SELECT * FROM alloc.replay('lamp')$$, 'upper and lower case are not the same');
SELECT refused($$SELECT * FROM alloc.replay('')$$, '22023', '%sku%', 'an empty sku');
SELECT refused(format('SELECT * FROM alloc.replay(%L)', repeat('x', 256)), '22001', '%sku%', 'a sku of 256 bytes');
SELECT is((SELECT count(*) FROM alloc.replay(repeat('x', 254) || '!')), 1::bigint, 'one of 255 bytes is all right');
BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT as_batches('a read-only transaction');
COMMIT;

-- history

SELECT results_eq($$SELECT * FROM alloc.history('LAMP')$$,
	$$SELECT * FROM alloc.events WHERE sku = 'LAMP' ORDER BY event_id$$, 'history() has the events of a sku, as view events, in order');
SELECT results_eq($$SELECT story(h) FROM alloc.history('RUG') h LIMIT 5$$,
	ARRAY['batch_created RUG 5000 rug', 'batch_created RUG 7 infinite', 'batch_created RUG 7 early', 'allocated o1 RUG 30 rug', 'allocated b2 RUG 7 rug'], 'it tells the story');
SELECT is_empty($$SELECT * FROM alloc.history('unknown')$$, 'an unknown sku has none');
SELECT refused('SELECT * FROM alloc.history(NULL)', '22004', '%sku%', 'history() of NULL');
SELECT refused($$SELECT * FROM alloc.history('')$$, '22023', '%sku%', 'history() of an empty sku');
SELECT refused(format('SELECT * FROM alloc.history(%L)', repeat('x', 256)), '22001', '%sku%', 'history() of a sku of 256 bytes');
SELECT results_eq($$SELECT story(h) FROM alloc.history_of_order('o2') h$$,
	ARRAY['allocated o2 LAMP 6 lamp', 'deallocated o2 LAMP 6 lamp', 'allocated o2 LAMP 6 lamp, later', 'deallocated o2 LAMP 6 lamp, later', 'out_of_stock o2 LAMP 6'],
	'history_of_order() tells where its line has been');
SELECT results_eq($$SELECT sku, type FROM alloc.history_of_order('o1')$$,
	$$VALUES ('LAMP', 'allocated'), ('RUG', 'allocated'), ('LAMP', 'deallocated')$$, 'of all its skus, in order');
SELECT results_eq(format('SELECT type FROM alloc.history_of_order(%L)', E'line\nbreak'), ARRAY['allocated'], 'of an awkward key');
SELECT is_empty($$SELECT * FROM alloc.history_of_order('undone')$$, 'an order that was rolled back has none');
SELECT refused('SELECT * FROM alloc.history_of_order(NULL)', '22004', '%orderid%', 'history_of_order() of NULL');
SELECT refused($$SELECT * FROM alloc.history_of_order('')$$, '22023', '%orderid%', 'history_of_order() of an empty key');
SELECT refused(format('SELECT * FROM alloc.history_of_order(%L)', repeat('x', 256)), '22001', '%orderid%', 'history_of_order() of a key of 256 bytes');

-- Snapshots of the log

SELECT is((SELECT alloc.snapshot_log()), last_event(), 'a snapshot has all events');
SELECT last_event() AS first_snapshot \gset
SELECT as_batches('a snapshot');
SELECT is_empty('SELECT forgotten()', '... and up to each event, before and at it');
SELECT alloc.allocate('s1', 'RUG', 5), alloc.deallocate('o1', 'RUG'), alloc.add_batch('rug 2', 'RUG', 8);
SELECT record();
SELECT moves('rug', 10);
SELECT record();
SELECT as_batches('commands after it');
SELECT is_empty('SELECT forgotten()', '... up to each event');
SELECT is_empty('SELECT forgotten(sku) FROM alloc.product', '... of each sku');
SELECT is((SELECT alloc.snapshot_log()), last_event(), 'a second one');
SELECT as_batches('two snapshots');
SELECT alloc.allocate('s2', 'LAMP', 1);
SELECT record();
SELECT is_empty('SELECT forgotten()', '... up to each event');

-- Events moved out of the log

SELECT count(*) AS moved, max(event_id) AS cut FROM alloc.archive_events('infinity') \gset
SELECT is(:'cut'::bigint, (SELECT max(event_id) FROM alloc.snapshot), 'the events of the snapshot are archived');
SELECT as_batches('archived');
SELECT is_empty('SELECT differences(sku) FROM alloc.product', '... of each sku');
SELECT is_empty(format('SELECT forgotten(NULL, %s)', :cut), 'from the snapshot on all is as it was recorded');
SELECT throws_ok(format('SELECT * FROM alloc.replay(%s, %s)', sku, n), '55000', NULL, format('replay(%s, %s) cannot be computed', sku, n))
  FROM unnest(ARRAY['NULL', '''RUG''', '''unknown''']) AS sku, unnest(ARRAY[0, 1, :cut - 1]) AS n;
SELECT throws_like('SELECT * FROM alloc.replay(NULL, 3)', '%after event 3%', 'the message names the event');
SELECT throws_ok('SELECT * FROM alloc.replay(NULL, -1)', '55000', NULL, 'nor before the beginning');
SELECT is_empty($$SELECT * FROM alloc.replay('unknown')$$, 'an unknown sku has no batches');
SELECT results_eq($$SELECT event_id FROM alloc.history('LAMP')$$, ARRAY[last_event()], 'history() has what is left of the log');
SELECT is_empty($$SELECT * FROM alloc.history_of_order('o2')$$, 'and so has history_of_order()');
SELECT is_empty('SELECT * FROM alloc.check()', 'all is sound');
BEGIN;
DELETE FROM alloc.snapshot;
SELECT is(alloc._first_base(), NULL, 'without a snapshot there is nothing to begin with');
SELECT throws_ok('SELECT * FROM alloc._fold_log(alloc._first_base(), NULL, NULL)', '55000', NULL, '... and nothing is folded');
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation;
SELECT throws_ok('SELECT alloc.rebuild()', 'XX001', 'the log is not complete', '... or rebuilt');
ROLLBACK;

SELECT * FROM finish();
