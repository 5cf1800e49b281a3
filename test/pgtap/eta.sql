-- change_batch_eta(): lines stay, what was promised to them changes, and so does
-- the preference.

\ir common.psql
SELECT no_plan();

-- delays: change_batch_eta(), its rows in words.
CREATE FUNCTION delays(ref text, eta date) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT format('%s %s %s: %s to %s', d.orderid, d.sku, d.qty, coalesce(d.old_eta::text, 'here'), coalesce(d.new_eta::text, 'here'))
	  FROM alloc.change_batch_eta(ref, eta) AS d
$$;
-- payloads: the new events as JSON, without what is always new.
CREATE FUNCTION payloads() RETURNS SETOF jsonb
LANGUAGE sql STABLE AS $$
	SELECT payload - ARRAY['event_id', 'at', 'sku'] FROM alloc.events
	 WHERE event_id > current_setting('test.mark')::bigint ORDER BY event_id
$$;

-- Answers and events

BEGIN;
SELECT alloc.add_batch('b1', 'lamp', 20, '2031-01-01'), alloc.add_batch('b2', 'lamp', 20, '2031-02-01'), alloc.add_batch('rug', 'rug', 20, '2031-01-01');
SELECT alloc.allocate('o' || n, 'lamp', n) FROM generate_series(3, 1, -1) n;
SELECT alloc.allocate('o9', 'lamp', 18), alloc.allocate('o1', 'rug', 1), alloc.deallocate('o2', 'lamp');
SELECT mark();
SELECT results_eq($$SELECT orderid, sku, qty, old_eta, new_eta FROM alloc.change_batch_eta(ref => 'b1', eta => '2031-01-10')$$,
	$$VALUES ('o3', 'lamp', 3::bigint, date '2031-01-01', date '2031-01-10'), ('o1', 'lamp', 1, '2031-01-01', '2031-01-10')$$,
	'a row for each line that the batch serves, oldest first');
SELECT results_eq('SELECT payloads()', ARRAY[
	'{"type": "batch_eta_changed", "batchref": "b1", "eta": "2031-01-10", "old_eta": "2031-01-01"}',
	'{"type": "promise_changed", "orderid": "o3", "qty": 3, "batchref": "b1", "eta": "2031-01-10", "old_eta": "2031-01-01"}',
	'{"type": "promise_changed", "orderid": "o1", "qty": 1, "batchref": "b1", "eta": "2031-01-10", "old_eta": "2031-01-01"}']::jsonb[],
	'the batch''s event, and one for each line, in this order');
SELECT results_eq($$SELECT orderid, batchref, eta FROM alloc.allocations WHERE sku = 'lamp' ORDER BY orderid$$,
	$$VALUES ('o1', 'b1', date '2031-01-10'), ('o3', 'b1', '2031-01-10'), ('o9', 'b2', '2031-02-01')$$, 'lines are where they were, with the new day');
SELECT results_eq($$SELECT ref, eta FROM alloc.batches ORDER BY ref$$,
	$$VALUES ('b1', date '2031-01-10'), ('b2', '2031-02-01'), ('rug', '2031-01-01')$$, 'of this batch only');
SELECT mark();
SELECT is_empty($$SELECT delays('b1', '2031-01-10')$$, 'the same day again: no row');
SELECT is_empty('SELECT news()', 'and no event');
SELECT results_eq($$SELECT delays('b1', NULL)$$, ARRAY['o3 lamp 3: 2031-01-10 to here', 'o1 lamp 1: 2031-01-10 to here'], 'it arrives');
SELECT results_eq('SELECT payloads()', ARRAY[
	'{"type": "batch_eta_changed", "batchref": "b1", "old_eta": "2031-01-10"}',
	'{"type": "promise_changed", "orderid": "o3", "qty": 3, "batchref": "b1", "old_eta": "2031-01-10"}',
	'{"type": "promise_changed", "orderid": "o1", "qty": 1, "batchref": "b1", "old_eta": "2031-01-10"}']::jsonb[], 'key eta is absent');
SELECT results_eq($$SELECT on_hand_qty, incoming_qty FROM alloc.stock WHERE sku = 'lamp'$$, 'VALUES (16::bigint, 2::bigint)', 'its stock is on hand');
SELECT mark();
SELECT is_empty($$SELECT delays('b1', NULL)$$, 'it arrives again: no row');
SELECT is_empty('SELECT news()', 'and no event');
SELECT results_eq($$SELECT delays('b1', '2000-01-01')$$, ARRAY['o3 lamp 3: here to 2000-01-01', 'o1 lamp 1: here to 2000-01-01'], 'a batch that was here is not; day 0 is a day');
SELECT results_eq('SELECT payloads()', ARRAY[
	'{"type": "batch_eta_changed", "batchref": "b1", "eta": "2000-01-01"}',
	'{"type": "promise_changed", "orderid": "o3", "qty": 3, "batchref": "b1", "eta": "2000-01-01"}',
	'{"type": "promise_changed", "orderid": "o1", "qty": 1, "batchref": "b1", "eta": "2000-01-01"}']::jsonb[], 'key old_eta is absent');
SELECT mark();
SELECT results_eq($$SELECT delays('b1', NULL)$$, ARRAY['o3 lamp 3: 2000-01-01 to here', 'o1 lamp 1: 2000-01-01 to here'], 'from day 0 to here is a change');
SELECT is((SELECT string_agg(d::text, ' ') FROM (SELECT alloc.change_batch_eta('rug', '2031-03-01') AS d) s), '(o1,rug,1,2031-01-01,2031-03-01)',
	'it can be called in a select list as well');
SELECT is(pg_get_function_arguments('alloc.change_batch_eta'::regproc),
	'ref text, eta date, OUT orderid text, OUT sku text, OUT qty bigint, OUT old_eta date, OUT new_eta date', 'names and types of its columns are known to clients');
SELECT alloc.add_batch('idle', 'rug', 5);
SELECT mark();
SELECT is_empty($$SELECT delays('idle', '2031-01-01')$$, 'a batch that serves nobody: no row');
SELECT results_eq('SELECT news()', ARRAY['batch_eta_changed rug idle eta 2031-01-01'], 'but an event');
SELECT is(alloc.add_batch('idle', 'rug', 5, '2031-01-01'), 'idle', 'add_batch() with the new day is the same call again');
SELECT refused($$SELECT alloc.add_batch('idle', 'rug', 5)$$, '23505', '%"idle"%', 'add_batch() with the old one is not');
SELECT sound('change_batch_eta');
SELECT agrees('change_batch_eta');
ROLLBACK;

-- The preference

BEGIN;
SELECT alloc.add_batch('here', 'lamp', 10), alloc.add_batch('soon', 'lamp', 10, '2031-01-01'), alloc.add_batch('late', 'lamp', 10, '2031-02-01'),
	   alloc.add_batch('new', 'lamp', 10);
SELECT is(alloc.allocate('o1', 'lamp', 1), 'here', 'first of all what is here');
SELECT alloc.change_batch_eta('here', '2031-01-15');
SELECT is(alloc.allocate('o2', 'lamp', 1), 'new', 'a batch that has left the warehouse is behind one that is in it');
SELECT alloc.change_batch_eta('new', 'infinity');
SELECT is(alloc.allocate('o3', 'lamp', 1), 'soon', 'then by day');
SELECT alloc.change_batch_eta('soon', '2031-01-16');
SELECT is(alloc.allocate('o4', 'lamp', 1), 'here', 'as it is now');
SELECT alloc.change_batch_eta('late', '2031-01-15');
SELECT is(alloc.allocate('o5', 'lamp', 1), 'here', 'of one day, the batch added first');
SELECT alloc.change_batch_eta('late', NULL);
SELECT is(alloc.allocate('o6', 'lamp', 1), 'late', 'a batch that arrives moves to the front');
SELECT is((SELECT batchref FROM alloc.allocate_lines(ARRAY[('o7', 'lamp', 1)]::alloc.order_line[])), 'late', 'in bulk as well');
SELECT alloc.change_batch_eta('soon', NULL);
SELECT is(alloc.allocate('o8', 'lamp', 1), 'soon', 'of two that are here, the batch added first');
SELECT results_eq($$SELECT moves('soon', 1)$$, ARRAY['o8 lamp 1: soon to late'], 'lines that leave prefer likewise');
SELECT is(alloc.allocate('o9', 'lamp', 7), 'late', 'the rest of one that is here');
SELECT is(alloc.allocate('o10', 'lamp', 7), 'here', 'then by day');
SELECT is(alloc.allocate('o11', 'lamp', 9), 'new', 'what never comes is last');
SELECT alloc.change_batch_eta('new', '-infinity'), alloc.add_batch('bc', 'lamp', 1, '0044-03-15 BC');
SELECT mark();
SELECT results_eq($$SELECT delays('new', '5874897-12-31')$$, ARRAY['o2 lamp 1: -infinity to 5874897-12-31', 'o11 lamp 9: -infinity to 5874897-12-31'], 'the last day');
SELECT results_eq('SELECT news()', ARRAY['batch_eta_changed lamp new eta 5874897-12-31 eta was -infinity',
	'promise_changed o2 lamp 1 new eta 5874897-12-31 eta was -infinity', 'promise_changed o11 lamp 9 new eta 5874897-12-31 eta was -infinity'], 'is in the events');
SELECT alloc.change_batch_eta('bc', '4713-01-01 BC');
SELECT is(alloc.allocate('o12', 'lamp', 1), 'bc', 'the first day');
SELECT sound('preference');
SELECT agrees('preference');
ROLLBACK;

-- Bad input

BEGIN;
SELECT alloc.add_batch('b1', 's1', 10, '2031-01-01'), alloc.allocate('o1', 's1', 4);
SELECT refused(format('SELECT alloc.change_batch_eta(%s, %s)', value, eta), state, pattern, format('ref %s, eta %s', what, eta))
  FROM (VALUES
	('NULL', 'that is NULL', '22004', '%ref%null%'),
	($$''$$, 'that is empty', '22023', '%ref%empty%""%'),
	($$repeat('k', 256)$$, 'of 256 bytes', '22001', '%ref%too long%"kkkkkkkk%'),
	($$repeat('é', 128)$$, 'of 128 characters in 256 bytes', '22001', '%ref%too long%"éééééééé%'),
	($$repeat('k', 10 * 1024 * 1024)$$, 'of 10 MB', '22001', '%ref%too long%"kkkkkkkk%'),
	($$'no such ref'$$, 'unknown', 'SK002', '%"no such ref"%'),
	($$'s1'$$, 'that is a sku', 'SK002', '%"s1"%'),
	($$'B1'$$, 'in another case', 'SK002', '%"B1"%'),
	($$repeat('u', 255)$$, 'unknown, of 255 bytes', 'SK002', '%"' || repeat('u', 60) || '%')) AS bad (value, what, state, pattern),
	unnest(ARRAY['NULL', $$'2031-01-02'$$]) AS eta;
SELECT refused($$SET LOCAL transaction_read_only = on; SELECT alloc.change_batch_eta('b1', NULL)$$, '25006', '%change_batch_eta()%read-only%', 'in a read-only transaction');
SELECT refused($$SET LOCAL transaction_read_only = on; SELECT alloc.change_batch_eta('b1', '2031-01-01')$$, '25006', '%change_batch_eta()%read-only%', 'though it is the same day');
SELECT alloc.add_batch(repeat('r', 255), 's1', 1);
SELECT is_empty($$SELECT delays(repeat('r', 255), '2031-01-01')$$, 'a ref of 255 bytes');

-- Savepoints

CREATE TEMPORARY TABLE before AS SELECT digest();
SAVEPOINT here;
SELECT isnt_empty($$SELECT delays('b1', NULL)$$, 'after a savepoint the day changes');
SELECT is(alloc.allocate('o2', 's1', 1), 'b1', 'and the preference');
ROLLBACK TO SAVEPOINT here;
SELECT is(digest(), (SELECT * FROM before), 'rolled back: all is as it was');
SELECT results_eq($$SELECT delays('b1', '2031-01-02')$$, ARRAY['o1 s1 4: 2031-01-01 to 2031-01-02'], 'with the day before');
SELECT results_eq($$SELECT delays('b1', '2031-01-03')$$, ARRAY['o1 s1 4: 2031-01-02 to 2031-01-03'], 'twice in a transaction');
SELECT results_eq($$SELECT delays('b1', '2031-01-01')$$, ARRAY['o1 s1 4: 2031-01-03 to 2031-01-01'], 'and back');
SELECT agrees('savepoints');
ROLLBACK;

-- A batch in many slots, with many lines

BEGIN;
SELECT alloc.add_batch('many', 'many', 5000, '2031-01-01'), alloc.add_batch('other', 'many', 5000, '2031-01-02');
INSERT INTO alloc.slot (batch_id, slot, available, spread, eta, ref, sku)
SELECT batch_id, 7 * n, 10 * (n % 3), true, eta, ref, sku FROM alloc.slot, generate_series(1, 10) n WHERE ref = 'many' AND slot = 0;
UPDATE alloc.slot SET available = available - 100 WHERE ref = 'many' AND slot = 0;
SELECT sound('slots by hand');
SELECT count(alloc.allocate('o' || n, 'many', 1 + n % 3)) FROM generate_series(1, 1500) n;
SELECT count(alloc.deallocate('o' || n, 'many')), sum(alloc.ship('o' || n + 1)) FROM generate_series(1, 1500, 10) n;
SELECT mark();
SELECT results_eq($$SELECT orderid, qty FROM alloc.change_batch_eta('many', '2031-01-03')$$,
	$$SELECT 'o' || n, 1::bigint + n % 3 FROM generate_series(1, 1500) n WHERE n % 10 NOT IN (1, 2)$$, 'all lines that it serves, and no others, oldest first');
SELECT is((SELECT count(*) FROM news()), 1201::bigint, 'with an event each');
SELECT is((SELECT count(DISTINCT coalesce(eta, 'infinity')) FROM alloc.slot WHERE ref = 'many'), 1::bigint, 'all slots have the day');
SELECT cmp_ok((SELECT count(*) FROM alloc.slot WHERE ref = 'many'), '>', 1::bigint, 'and there are as many');
SELECT is(alloc.allocate('next', 'many', 1), 'other', 'no slot is preferred any more');
SET LOCAL alloc.max_slots = 1;
SELECT is((SELECT count(*) FROM delays('many', NULL)), 1200::bigint, 'with fewer slots allowed than there are');
SELECT is(alloc.allocate('next but one', 'many', 1500), 'many', 'all of it is in front');
SELECT sound('many slots');
SELECT agrees('many slots');
SELECT alloc.change_batch_quantity('many', (SELECT shipped_qty FROM alloc.batches WHERE ref = 'many'));
SELECT is_empty($$SELECT delays('many', '2031-01-04')$$, 'when all lines have left nothing is promised');
SELECT agrees('many slots, merged');
ROLLBACK;

-- Lines of which the log has nothing any more

SELECT alloc.add_batch('b1', 'lamp', 50, '2031-01-01'), alloc.add_batch('b2', 'lamp', 50, '2031-01-01');
SELECT count(alloc.allocate('o' || n, 'lamp', 5)) FROM generate_series(1, 12) n;
SELECT alloc.change_batch_eta('b2', '2031-01-02'), alloc.ship('o2');
SELECT alloc.snapshot_log();
SELECT agrees('a snapshot');
SELECT is((SELECT count(*) FROM alloc.archive_events('infinity')), 18::bigint, 'all events are archived');
SELECT agrees('an archive');
SELECT alloc.allocate('o13', 'lamp', 1), alloc.deallocate('o3', 'lamp');
SELECT results_eq($$SELECT orderid FROM alloc.change_batch_eta('b1', '2031-01-05')$$, $$SELECT 'o' || n FROM generate_series(1, 10) n WHERE n NOT IN (2, 3)$$, 'lines of before');
SELECT results_eq($$SELECT orderid FROM alloc.change_batch_eta('b2', NULL)$$, ARRAY['o11', 'o12', 'o13'], 'lines of before and after');
SELECT agrees('after the archive');
CREATE TABLE good AS SELECT * FROM alloc.batches;
SELECT results_eq($$SELECT ref, eta FROM alloc.replay(NULL, (SELECT event_id FROM alloc.snapshot)) ORDER BY ref$$,
	$$VALUES ('b1', date '2031-01-01'), ('b2', '2031-01-02')$$, 'replay() knows the days of before');
UPDATE alloc.batch SET eta = '2031-01-01';
UPDATE alloc.slot SET eta = '2031-01-01';
SELECT results_eq('SELECT problem, batchref FROM alloc.check()', $$VALUES ('batch_differs', 'b1'), ('batch_differs', 'b2')$$, 'days changed by hand are found');
SELECT isnt_empty('SELECT * FROM alloc.repair(false)', 'and mended');
SELECT agrees('repair()');
SELECT set_eq('TABLE alloc.batches', 'TABLE good', 'to what they were');
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
SELECT lives_ok('SELECT * FROM alloc.rebuild()', 'rebuild()');
SELECT set_eq('TABLE alloc.batches', 'TABLE good', 'gives the days that there were last');
SELECT agrees('rebuild()');

SELECT * FROM finish();
