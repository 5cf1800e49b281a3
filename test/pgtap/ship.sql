-- ship(): the stock of a line leaves, once, and the line stays known until
-- purge_shipped().

\ir common.psql
SELECT no_plan();

-- quantities: of a batch, as view batches has them.
CREATE FUNCTION quantities(batchref text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT format('%s: %s shipped, %s allocated, %s available', purchased_qty, shipped_qty, allocated_qty, available_qty)
	  FROM alloc.batches WHERE ref = batchref
$$;

-- bulk: a call for one line.
CREATE FUNCTION bulk(orderid text, sku text, qty bigint) RETURNS text
LANGUAGE sql AS $$
	SELECT batchref FROM alloc.allocate_lines(ARRAY[ROW(orderid, sku, qty)]::alloc.order_line[])
$$;

-- message: what handle() answers to an allocate.
CREATE FUNCTION message(orderid text, sku text, qty bigint) RETURNS text
LANGUAGE sql AS $$
	SELECT alloc.handle(jsonb_build_object('command', 'allocate', 'orderid', orderid, 'sku', sku, 'qty', qty))->>'result'
$$;

-- One line, all lines of an order

BEGIN;
SELECT alloc.add_batch('b1', 'chair', 20), alloc.add_batch('b2', 'table', 10, '2031-01-01'), alloc.add_batch('b3', 'Desk', 5);
SELECT alloc.allocate('o1', sku, 2) FROM unnest(ARRAY['table', 'chair', 'Desk']) AS sku;
SELECT alloc.allocate('o2', 'chair', 5), alloc.allocate('o3', 'table', 1), alloc.allocate('o2', 'chairs', 1)
  FROM alloc.add_batch('b4', 'chairs', 5);
SELECT mark();
SELECT is(alloc.ship('o2', 'chair'), 1::bigint, 'one line is shipped');
SELECT results_eq('SELECT news()', ARRAY['shipped o2 chair 5 b1'], 'records shipped with the quantity and the batch');
SELECT results_eq($$SELECT payload - ARRAY['event_id', 'at'] FROM alloc.events ORDER BY event_id DESC LIMIT 1$$,
	ARRAY['{"type": "shipped", "orderid": "o2", "sku": "chair", "qty": 5, "batchref": "b1"}'::jsonb], 'its JSON has these keys');
SELECT is(quantities('b1'), '20: 5 shipped, 2 allocated, 13 available', 'its units are shipped, no longer allocated');
SELECT results_eq($$SELECT sku FROM alloc.allocations WHERE orderid = 'o2'$$, ARRAY['chairs'], 'it is gone from allocations');
SELECT results_eq($$SELECT shipped_qty, allocated_qty, available_qty, on_hand_qty FROM alloc.stock WHERE sku = 'chair'$$,
	'VALUES (5::bigint, 2::bigint, 13::bigint, 13::bigint)', 'view stock tells it');
SELECT results_eq($$SELECT a.event_id = e.event_id, a.shipped_at = e.at FROM alloc.allocation a, alloc.event e
					 WHERE a.orderid = 'o2' AND a.sku = 'chair' AND e.type = 'shipped'$$, 'VALUES (true, true)', 'its row has event and moment');
SELECT mark();
SELECT is(alloc.ship('o1'), 3::bigint, 'without a sku all lines of the order are shipped');
SELECT results_eq('SELECT news()', ARRAY['shipped o1 Desk 2 b3', 'shipped o1 chair 2 b1', 'shipped o1 table 2 b2'], 'by the bytes of their skus');
SELECT is(quantities('b2'), '10: 2 shipped, 1 allocated, 7 available', 'a batch that has not come can ship as well');
SELECT is((SELECT alloc.ship(orderid => 'o2', sku => NULL)), 1::bigint, 'sku NULL: all that is left of the order');
SELECT mark();
SELECT is(alloc.ship('o1'), 0::bigint, 'again: none');
SELECT is(alloc.ship('o2', 'chair'), 0::bigint, 'one line again: none');
SELECT is(alloc.ship('nobody'), 0::bigint, 'an order that nobody knows: none');
SELECT is(alloc.ship('o3', 'chair'), 0::bigint, 'a line that is not there: none');
SELECT is(alloc.ship('o3', 'nothing'), 0::bigint, 'a sku that nobody knows: none');
SELECT is(alloc.ship('O3'), 0::bigint, 'keys differ by case');
SELECT is(alloc.ship('o'), 0::bigint, 'the beginning of an orderid is another one');
SELECT is_empty('SELECT news()', 'none of this is an event');
SELECT is(alloc.allocate('o9', 'chair', 99), NULL, 'out of stock');
SELECT is(alloc.ship('o9', 'chair'), 0::bigint, 'a line that is out of stock cannot be shipped');
SELECT sound('ship');
SELECT agrees('ship');
ROLLBACK;

-- A shipped line stays known, and does nothing

BEGIN;
SELECT alloc.add_batch('b1', 'lamp', 10), alloc.add_batch('b2', 'lamp', 10, '2031-01-01');
SELECT alloc.allocate('o1', 'lamp', 4), alloc.allocate('o2', 'lamp', 5), alloc.allocate('o3', 'lamp', 4);
SELECT alloc.ship('o1'), alloc.ship('o3');
CREATE TEMPORARY TABLE before AS SELECT digest();
SELECT is(alloc.allocate('o1', 'lamp', 4), 'b1', 'allocate(): its batch');
SELECT is(alloc.allocate('o3', 'lamp', 4), 'b2', 'allocate(): its batch, though a better one has stock');
SELECT is(bulk('o1', 'lamp', 4), 'b1', 'allocate_lines(): its batch');
SELECT results_eq($$SELECT orderid, batchref FROM alloc.allocate_lines(ARRAY[('o3', 'lamp', 4), ('o2', 'lamp', 5), ('o1', 'lamp', 4), ('o3', 'lamp', 4)]::alloc.order_line[])$$,
	$$VALUES ('o3', 'b2'), ('o2', 'b1'), ('o1', 'b1'), ('o3', 'b2')$$, 'allocate_lines(): of many lines, too');
SELECT is(message('o1', 'lamp', 4), 'b1', 'handle(): its batch');
SELECT is(alloc.deallocate('o1', 'lamp'), NULL, 'deallocate(): it is not allocated');
SELECT is(digest(), (SELECT * FROM before), 'nothing of all this has changed anything');
SELECT refused($$SELECT alloc.allocate('o1', 'lamp', 5)$$, 'SK003', '%"o1"%"lamp"%4%5%', 'allocate() with another quantity');
SELECT refused($$SELECT bulk('o1', 'lamp', 3)$$, 'SK003', '%"o1"%"lamp"%4%3%', 'allocate_lines() with another quantity');
SELECT refused($$SELECT message('o1', 'lamp', 3)$$, 'SK003', '%"o1"%"lamp"%4%3%', 'handle() with another quantity');
SELECT is(bulk('o4', 'lamp', 1), 'b1', 'others are served');
SELECT mark();
SELECT results_eq($$SELECT moves('b1', 4)$$, ARRAY['o2 lamp 5: b1 to b2', 'o4 lamp 1: b1 to b2'], 'a shrunk batch sheds the lines that it has still to serve');
SELECT is(quantities('b1'), '4: 4 shipped, 0 allocated, 0 available', 'down to what was shipped');
SELECT results_eq($$SELECT orderid FROM alloc.allocation JOIN alloc.batch USING (batch_id) WHERE ref = 'b1'$$, ARRAY['o1'], 'the shipped line stays');
SELECT refused($$SELECT * FROM alloc.change_batch_quantity('b1', 3)$$, 'SK004', '%3%"b1"%4%', 'one unit less');
SELECT results_eq($$SELECT moves('b2', 9)$$, ARRAY['o4 lamp 1: b2 to nowhere'], 'newer lines that were shipped are passed over');
SELECT is(alloc.allocate('o3', 'lamp', 4), 'b2', 'and still known');
SELECT is_empty($$SELECT alloc.change_batch_eta('b1', '2032-01-01')$$, 'a batch that has shipped all has promised nothing more');
SELECT results_eq($$SELECT orderid FROM alloc.change_batch_eta('b2', '2032-01-01')$$, ARRAY['o2'], 'nor to lines that were shipped');
SELECT sound('shipped lines');
SELECT agrees('shipped lines');
ROLLBACK;

-- purge_shipped(): the line is forgotten, what was shipped is not

BEGIN;
SELECT alloc.add_batch('b1', 'lamp', 10), alloc.add_batch('b2', 'lamp', 10, '2031-01-01');
SELECT alloc.allocate('o1', 'lamp', 4), alloc.allocate('o2', 'lamp', 2), alloc.allocate('o3', 'lamp', 1);
SELECT alloc.ship('o1');
SELECT alloc.ship('o2');
SELECT is(alloc.purge_shipped((SELECT min(shipped_at) FROM alloc.allocation)), 0::bigint, 'none was shipped before the first');
SELECT is(alloc.purge_shipped('-infinity'), 0::bigint, 'nor before all times');
SELECT is(alloc.purge_shipped('2020-01-01'), 0::bigint, 'nor before 2020');
SELECT is(alloc.allocate('o1', 'lamp', 4), 'b1', 'so it is known');
SELECT mark();
SELECT is(alloc.purge_shipped((SELECT max(shipped_at) FROM alloc.allocation)), 1::bigint, 'one was shipped before the second');
SELECT agrees('purge');
SELECT is(alloc.purge_shipped((SELECT max(shipped_at) + interval '1 microsecond' FROM alloc.allocation)), 1::bigint, 'the other one a microsecond later');
SELECT is(alloc.purge_shipped('infinity'), 0::bigint, 'and that was all');
SELECT is_empty('SELECT news()', 'it is no event');
SELECT is(quantities('b1'), '10: 6 shipped, 1 allocated, 3 available', 'what was shipped stays shipped');
SELECT results_eq('SELECT orderid FROM alloc.allocations', ARRAY['o3'], 'lines that were not shipped stay');
SELECT is(alloc.ship('o1'), 0::bigint, 'a line that was forgotten cannot be shipped');
SELECT is(alloc.deallocate('o1', 'lamp'), NULL, 'nor freed');
SELECT is(alloc.allocate('o1', 'lamp', 7), 'b2', 'it may come again, as a new line with another quantity');
SELECT results_eq('SELECT news()', ARRAY['allocated o1 lamp 7 b2'], 'which is an event');
SELECT is(bulk('o2', 'lamp', 3), 'b1', 'in bulk as well');
SELECT is(alloc.ship('o1'), 1::bigint, 'and be shipped again');
SELECT is(alloc.deallocate('o2', 'lamp'), 'b1', 'or freed');
SELECT refused('SELECT alloc.purge_shipped(NULL)', '22004', 'before must not be null', 'purge_shipped() of NULL');
SELECT refused($$SET LOCAL transaction_read_only = on; SELECT alloc.purge_shipped('infinity')$$, '25006', '%purge_shipped()%read-only%', 'purge_shipped() in a read-only transaction');
SELECT sound('purge');
SELECT agrees('purge, and lines that came again');
ROLLBACK;

-- Bad input

BEGIN;
SELECT alloc.add_batch('b1', 's1', 10), alloc.allocate('o1', 's1', 4);
SELECT refused(format(call, value), state, format(pattern, argument), format('ship(): %s %s', argument, what))
  FROM (VALUES ('orderid', 'SELECT alloc.ship(%s)'), ('orderid', 'SELECT alloc.ship(%s, ''s1'')'), ('sku', 'SELECT alloc.ship(''o1'', %s)')) AS c (argument, call),
	   (VALUES
	('NULL', 'that is NULL', '22004', '%%%s%%null%%'),
	($$''$$, 'that is empty', '22023', '%%%s%%empty%%""%%'),
	($$repeat('k', 256)$$, 'of 256 bytes', '22001', '%%%s%%too long%%"kkkkkkkk%%'),
	($$repeat('é', 128)$$, 'of 128 characters in 256 bytes', '22001', '%%%s%%too long%%"éééééééé%%'),
	($$repeat('k', 10 * 1024 * 1024)$$, 'of 10 MB', '22001', '%%%s%%too long%%"kkkkkkkk%%')) AS bad (value, what, state, pattern)
 WHERE argument = 'orderid' OR value <> 'NULL';
SELECT refused($$SET LOCAL transaction_read_only = on; SELECT alloc.ship('o1', 's1')$$, '25006', '%ship()%read-only%', 'ship() in a read-only transaction');
SELECT refused($$SET LOCAL transaction_read_only = on; SELECT alloc.ship('nobody')$$, '25006', '%ship()%read-only%', 'though there is no such line');
SELECT alloc.add_batch(key, key, 1), alloc.allocate(key, key, 1) FROM repeat('k', 255) AS key;
SELECT is(alloc.ship(repeat('k', 255), repeat('k', 255)), 1::bigint, 'keys of 255 bytes');
SELECT alloc.add_batch('most', 'sand', 9223372036854775807), alloc.allocate('all', 'sand', 9223372036854775807);
SELECT is(alloc.ship('all'), 1::bigint, 'a line of 2^63-1 units');
SELECT is(quantities('most'), '9223372036854775807: 9223372036854775807 shipped, 0 allocated, 0 available', 'all of them are shipped');
SELECT refused($$SELECT * FROM alloc.change_batch_quantity('most', 9223372036854775806)$$, 'SK004', '%"most"%', 'not one unit less');
SELECT is(alloc.purge_shipped('infinity'), 2::bigint, 'both are forgotten');
SELECT is(alloc.allocate('all', 'sand', 1), NULL, 'and nothing is available');
SELECT sound('limits');
SELECT agrees('limits');
ROLLBACK;

-- Savepoints

BEGIN;
SELECT alloc.add_batch('b1', 'lamp', 10), alloc.allocate('o1', 'lamp', 4), alloc.allocate('o2', 'lamp', 2);
SELECT alloc.ship('o2');
CREATE TEMPORARY TABLE before AS SELECT digest();
SAVEPOINT here;
SELECT is(alloc.ship('o1'), 1::bigint, 'a line is shipped after a savepoint');
ROLLBACK TO SAVEPOINT here;
SELECT is(digest(), (SELECT * FROM before), 'rolled back: it is as it was');
SELECT is(alloc.purge_shipped('infinity'), 1::bigint, 'a line is forgotten');
ROLLBACK TO SAVEPOINT here;
SELECT is(digest(), (SELECT * FROM before), 'rolled back: it is known');
SELECT is(alloc.allocate('o2', 'lamp', 2), 'b1', 'and answered');
SELECT is(alloc.deallocate('o1', 'lamp'), 'b1', 'a line is freed');
SELECT is(alloc.ship('o1'), 0::bigint, 'and cannot be shipped');
ROLLBACK TO SAVEPOINT here;
SELECT is(alloc.ship('o1'), 1::bigint, 'rolled back: it can');
SELECT is(alloc.purge_shipped('infinity'), 2::bigint, 'in one transaction: shipped, forgotten');
SELECT is(alloc.allocate('o1', 'lamp', 1), 'b1', 'allocated');
SELECT is(alloc.ship('o1'), 1::bigint, 'and shipped again');
SELECT is(quantities('b1'), '10: 7 shipped, 0 allocated, 3 available', 'which adds up');
SELECT sound('savepoints');
SELECT agrees('savepoints');
ROLLBACK;

-- A spread batch ships from whatever slot

BEGIN;
SELECT alloc.add_batch('many', 'many', 5000);
INSERT INTO alloc.slot (batch_id, slot, available, spread, eta, ref, sku)
SELECT batch_id, 7 * n, 0, true, eta, ref, sku FROM alloc.slot, generate_series(1, 10) n WHERE ref = 'many' AND slot = 0;
SELECT count(alloc.allocate('o' || n, 'many', n)) FROM generate_series(1, 60) n;
SELECT is((SELECT sum(alloc.ship('o' || n)) FROM generate_series(1, 60, 2) n), 30::numeric, '30 of 60 lines are shipped');
SELECT cmp_ok((SELECT count(*) FROM alloc.slot WHERE shipped > 0), '>', 1::bigint, 'in several slots');
SELECT is(quantities('many'), '5000: 900 shipped, 930 allocated, 3170 available', 'which add up');
SELECT agrees('a spread batch');
SET LOCAL alloc.max_slots = 1;
SELECT is((SELECT sum(alloc.ship('o' || n)) FROM generate_series(2, 20, 2) n), 10::numeric, 'with fewer slots allowed than there are');
SELECT throws_ok($$SELECT alloc.change_batch_quantity('many', 1009)$$, 'SK004', NULL, 'what all slots have shipped counts');
SELECT results_eq($$SELECT count(*), min(substr(orderid, 2)::int) FROM alloc.change_batch_quantity('many', 1500)$$, 'VALUES (6::bigint, 50)',
	'the newest leave: of 820 allocated units 490 stay');
SELECT alloc.change_batch_quantity('many', 1010);
SELECT is(quantities('many'), '1010: 1010 shipped, 0 allocated, 0 available', 'slots that are merged keep it');
SELECT sound('a spread batch');
SELECT agrees('a spread batch, merged');
ROLLBACK;

-- Snapshots, the archive, rebuild() and repair()

SELECT alloc.add_batch('b1', 'lamp', 100), alloc.add_batch('b2', 'rug', 100, '2031-01-01');
SELECT count(alloc.allocate('o' || n, sku, n)) FROM generate_series(1, 9) n, unnest(ARRAY['lamp', 'rug']) sku;
SELECT alloc.ship('o1'), alloc.ship('o2', 'lamp'), alloc.ship('o8', 'rug');
SELECT alloc.purge_shipped('infinity');
SELECT alloc.ship('o3'), alloc.ship('o9', 'lamp');
SELECT alloc.allocate('o1', 'lamp', 3);
SELECT agrees('shipped, and some forgotten');
CREATE TABLE good AS SELECT * FROM alloc.allocation;
CREATE TABLE good_batches AS SELECT * FROM alloc.batches;
-- trial: what check() finds after some damage, what repair() does, and what is
-- not as it was in the end.  Nothing of it is left.
CREATE FUNCTION trial(damage text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE damage;
	RETURN QUERY SELECT concat_ws(' ', problem, batchref, orderid) FROM alloc.check() ORDER BY 1;
	RETURN QUERY SELECT 'mended: ' || concat_ws(' ', action, batchref, orderid) FROM alloc.repair(false);
	RETURN QUERY SELECT unlike_log();
	RETURN QUERY SELECT 'missing: ' || l FROM (TABLE good EXCEPT TABLE alloc.allocation) l;
	RETURN QUERY SELECT 'surplus: ' || l FROM (TABLE alloc.allocation EXCEPT TABLE good) l;
	RAISE EXCEPTION USING ERRCODE = 'UNDO1';
EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
	RETURN;
END
$$;
CREATE FUNCTION trials(state text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN NEXT results_eq($q$SELECT trial('UPDATE alloc.allocation SET shipped_at = now() WHERE orderid = ''o4'' AND sku = ''lamp''')$q$,
		ARRAY['line_differs b1 o4', 'not_conserved b1', 'mended: line_changed b1 o4'], state || ': shipped_at set by hand');
	RETURN NEXT results_eq($q$SELECT trial('UPDATE alloc.allocation SET shipped_at = NULL WHERE orderid = ''o3'' AND sku = ''lamp''')$q$,
		ARRAY['line_differs b1 o3', 'not_conserved b1', 'mended: line_changed b1 o3'],
		state || ': shipped_at cleared by hand');
	RETURN NEXT results_eq($q$SELECT trial('UPDATE alloc.allocation SET shipped_at = shipped_at - interval ''1 day'' WHERE orderid = ''o3'' AND sku = ''rug''')$q$,
		ARRAY['line_differs b2 o3', 'mended: line_changed b2 o3'], state || ': shipped_at changed by hand');
	RETURN NEXT results_eq($q$SELECT trial('UPDATE alloc.allocation SET qty = qty + 1 WHERE orderid = ''o3'' AND sku = ''rug''')$q$,
		ARRAY['line_differs b2 o3', 'mended: line_changed b2 o3'], state || ': the quantity of a shipped line');
	RETURN NEXT results_eq($q$SELECT trial('UPDATE alloc.allocation SET event_id = 3 WHERE orderid = ''o3'' AND sku = ''rug''')$q$,
		ARRAY['line_differs b2 o3', 'mended: line_changed b2 o3'], state || ': the event of a shipped line');
	RETURN NEXT results_eq($q$SELECT trial('UPDATE alloc.slot SET shipped = shipped - 1, available = available + 1 WHERE ref = ''b2''')$q$,
		ARRAY['stock_differs b2', 'mended: slots_rebuilt b2'], state || ': a unit less shipped');
	RETURN NEXT results_eq($q$SELECT trial('DELETE FROM alloc.slot WHERE ref = ''b1''')$q$,
		ARRAY['not_conserved b1', 'slot_missing b1', 'mended: slots_rebuilt b1'], state || ': no slot');
END
$$;
SELECT trials('the log');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.event WHERE type = ''shipped'' AND orderid = ''o9''') LIMIT 4$$,
	ARRAY['line_differs b1 o9', 'stock_differs b1', 'mended: line_changed b1 o9', 'mended: slots_rebuilt b1'], 'the event is gone: the line is not shipped');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.allocation WHERE orderid = ''o3'' AND sku = ''rug''')$$,
	(SELECT array_agg('missing: ' || g) FROM good g WHERE orderid = 'o3' AND sku = 'rug'), 'a shipped line that is gone was forgotten: no problem');
BEGIN;
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
SELECT lives_ok('SELECT * FROM alloc.rebuild()', 'rebuild() with shipped lines');
SELECT set_eq('TABLE alloc.batches', 'TABLE good_batches', 'batches are the same');
SELECT is_empty('SELECT orderid, sku, qty, event_id, shipped_at FROM good EXCEPT SELECT orderid, sku, qty, event_id, shipped_at FROM alloc.allocation', 'so are lines, those that were shipped, too');
SELECT is(alloc.allocate('o3', 'rug', 3), 'b2', 'a shipped line is known');
SELECT sound('rebuild()');
SELECT agrees('rebuild()');
ROLLBACK;

SELECT alloc.snapshot_log();
SELECT results_eq($$SELECT sku, orderid FROM alloc.snapshot_line WHERE shipped_at IS NOT NULL ORDER BY 1, 2$$,
	$$VALUES ('lamp', 'o3'), ('lamp', 'o9'), ('rug', 'o3')$$, 'a snapshot has shipped lines, but for those that were forgotten');
SELECT agrees('a snapshot');
SELECT trials('a snapshot');
SELECT cmp_ok((SELECT count(*) FROM alloc.archive_events('infinity')), '>', 20::bigint, 'all events are archived');
SELECT agrees('an archive');
SELECT trials('an archive');
BEGIN;
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
SELECT lives_ok('SELECT * FROM alloc.rebuild()', 'rebuild() from a snapshot with shipped lines');
SELECT set_eq('TABLE alloc.batches', 'TABLE good_batches', 'batches are the same');
SELECT set_eq('SELECT orderid, sku, qty, event_id, shipped_at FROM good', 'SELECT orderid, sku, qty, event_id, shipped_at FROM alloc.allocation', 'so are lines');
SELECT agrees('rebuild() from a snapshot');
SELECT results_eq($$SELECT count(*) FROM alloc.change_batch_quantity('b1', 15)$$, ARRAY[6::bigint], 'a batch can shrink to what was shipped');
ROLLBACK;
SELECT is(alloc.ship('o4'), 2::bigint, 'a line whose allocation was archived is shipped');
SELECT is(alloc.allocate('o3', 'rug', 3), 'b2', 'one that was shipped before is known');
SELECT agrees('after the archive');
SELECT alloc.snapshot_log();
SELECT count(*) FROM alloc.archive_events('infinity');
SELECT is(alloc.purge_shipped('infinity'), 5::bigint, 'shipped lines of before the archive are forgotten');
SELECT agrees('forgotten after the archive');
SELECT is(alloc.allocate('o3', 'rug', 5), 'b2', 'and may come again');
SELECT alloc.change_batch_quantity('b2', (SELECT shipped_qty + 5 FROM alloc.batches WHERE ref = 'b2'));
SELECT results_eq($$SELECT lines('b2')$$, ARRAY['o2 2'], 'the lines that are there leave, newest first');
SELECT agrees('a shrunk batch after the archive');
SELECT alloc.snapshot_log();
SELECT agrees('one more snapshot');

SELECT * FROM finish();
