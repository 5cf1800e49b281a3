-- Backorders: which lines wait, what serves them, and how they leave.

\ir common.psql

-- queue: lines of quantities that wait for a sku: o1, o2... of one batch that
-- is lost.
CREATE FUNCTION queue(of_sku text, VARIADIC quantities bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.add_batch('lost ' || of_sku, of_sku, (SELECT sum(q)::bigint FROM unnest(quantities) q), '2040-01-01');
	FOR i IN 1 .. cardinality(quantities) LOOP
		PERFORM alloc.allocate('o' || i, of_sku, quantities[i]);
	END LOOP;
	PERFORM alloc.change_batch_quantity('lost ' || of_sku, 0);
	PERFORM mark();
END
$$;

BEGIN;
SELECT plan(111);

-- A line that loses its batch waits

SELECT alloc.add_batch('b', 'lose', 10);
SELECT alloc.allocate('first', 'lose', 3), alloc.allocate('second', 'lose', 4), alloc.allocate('third', 'lose', 2);
SELECT mark();
SELECT results_eq($$SELECT moves('b', 3)$$, ARRAY['second lose 4: b to nowhere', 'third lose 2: b to nowhere'],
	'two lines lose their batch');
SELECT results_eq('SELECT news()', ARRAY[
	'deallocated third lose 2 b',
	'deallocated second lose 4 b',
	'batch_quantity_changed lose 3 b was 10',
	'out_of_stock second lose 4',
	'backordered second lose 4',
	'out_of_stock third lose 2',
	'backordered third lose 2'], 'events: each is out of stock, then waits');
SELECT results_eq($$SELECT waiting('lose')$$, ARRAY['second 4', 'third 2'], 'they wait in the order of their age');
SELECT results_eq($$SELECT since FROM alloc.backorders WHERE orderid = 'third'$$,
	$$SELECT at FROM alloc.event WHERE type = 'backordered' AND orderid = 'third'$$,
	'since is the moment of the event');
SELECT is((SELECT array_agg(key ORDER BY ordinality) FROM json_object_keys(
	(SELECT row_to_json(b) FROM alloc.backorders b LIMIT 1)) WITH ORDINALITY AS key (key, ordinality)),
	'{orderid,sku,qty,since}', 'the columns of the view');
SELECT is(alloc.deallocate('third', 'lose'), NULL, 'deallocate() of a line that waits is NULL');
SELECT is(alloc.ship('third'), 0::bigint, 'ship() has nothing to ship of it');
SELECT results_eq($$SELECT waiting('lose')$$, ARRAY['second 4', 'third 2'], 'and it goes on waiting');
SELECT sound('lines that wait');

-- What serves: a new batch

SELECT queue('buy', 5, 3, 4);
SELECT is(alloc.add_batch('buy1', 'buy', 2), 'buy1', 'a batch too small for any');
SELECT results_eq('SELECT news()', ARRAY['batch_created buy 2 buy1'], 'serves nobody');
SELECT ok((SELECT bool_and(waiting) FROM alloc.slot WHERE sku = 'buy'), 'and its slot says that lines wait');
SELECT mark();
SELECT alloc.add_batch('buy2', 'buy', 9, '2031-01-01');
SELECT results_eq('SELECT news()', ARRAY[
	'batch_created buy 9 buy2 eta 2031-01-01',
	'allocated o1 buy 5 buy2',
	'allocated o2 buy 3 buy2'], 'a new batch serves, first come first served');
SELECT results_eq($$SELECT lines('buy2')$$, ARRAY['o1 5', 'o2 3'], 'the lines are its lines');
SELECT results_eq($$SELECT waiting('buy')$$, ARRAY['o3 4'], 'the last one goes on waiting');
SELECT is(available('buy2'), 1::bigint, 'what no line takes is available');
SELECT sound('a new batch');
SELECT alloc.add_batch('buy3', 'buy', 4);
SELECT is_empty($$SELECT waiting('buy')$$, 'the queue is empty');
SELECT ok(NOT (SELECT bool_or(waiting) FROM alloc.slot WHERE ref = 'buy3'), 'then a slot that is written says so');
SELECT sound('the last one is served');

-- A line too large for what is there is passed over

SELECT queue('pass', 9, 2, 8, 3);
SELECT alloc.add_batch('pass1', 'pass', 6);
SELECT results_eq('SELECT news()', ARRAY[
	'batch_created pass 6 pass1',
	'allocated o2 pass 2 pass1',
	'allocated o4 pass 3 pass1'], 'what fits is served');
SELECT results_eq($$SELECT waiting('pass')$$, ARRAY['o1 9', 'o3 8'], 'the others keep their places');
SELECT sound('passed over');

-- Lines of the same quantity, and an order between quantities

SELECT queue('same', 2, 1, 2, 1, 2, 1);
SELECT alloc.add_batch('same1', 'same', 6);
SELECT results_eq('SELECT news()', ARRAY[
	'batch_created same 6 same1',
	'allocated o1 same 2 same1',
	'allocated o2 same 1 same1',
	'allocated o3 same 2 same1',
	'allocated o4 same 1 same1'], 'by age, whatever they want');
SELECT results_eq($$SELECT waiting('same')$$, ARRAY['o5 2', 'o6 1'], 'the younger ones wait');
SELECT sound('same quantities');

-- What serves: a larger quantity

SELECT queue('grow', 5, 3);
SELECT alloc.add_batch('grow1', 'grow', 1);
SELECT mark();
SELECT is_empty($$SELECT moves('grow1', 3)$$, 'a larger quantity: no row is about those that waited');
SELECT results_eq('SELECT news()', ARRAY[
	'batch_quantity_changed grow 3 grow1 was 1',
	'allocated o2 grow 3 grow1'], 'the line that fits is served');
SELECT mark();
SELECT alloc.change_batch_quantity('grow1', 8);
SELECT results_eq('SELECT news()', ARRAY[
	'batch_quantity_changed grow 8 grow1 was 3',
	'allocated o1 grow 5 grow1'], 'and the other one later');
SELECT is(available('grow1'), 0::bigint, 'nothing is left');
SELECT sound('a larger quantity');
SELECT alloc.change_batch_quantity('lost grow', 1000);
SELECT is(alloc.allocate('o9', 'grow', 600), 'lost grow', 'a batch that has grown serves as ever');
SELECT sound('grown with nobody waiting');

-- What serves: a line that is freed

SELECT queue('free', 4, 2, 2);
SELECT alloc.add_batch('free1', 'free', 5), alloc.add_batch('free2', 'free', 5);
SELECT results_eq($$SELECT waiting('free')$$, ARRAY[]::text[], 'all are served');
SELECT alloc.change_batch_quantity('free1', 4);
SELECT alloc.allocate('big', 'free', 1);
SELECT results_eq($$SELECT lines('free1')$$, ARRAY['o1 4'], 'the first batch is full');
SELECT is((SELECT count(*) FROM alloc.change_batch_quantity('free2', 0)), 3::bigint, 'the other one is lost');
SELECT results_eq($$SELECT waiting('free')$$, ARRAY['o2 2', 'o3 2', 'big 1'], 'its lines wait');
SELECT mark();
SELECT is(alloc.deallocate('o1', 'free'), 'free1', 'a line is freed');
SELECT results_eq('SELECT news()', ARRAY[
	'deallocated o1 free 4 free1',
	'allocated o2 free 2 free1',
	'allocated o3 free 2 free1'], 'and those that waited are served in the same command');
SELECT mark();
SELECT is(alloc.deallocate('o2', 'free'), 'free1', 'one of them is freed');
SELECT results_eq('SELECT news()', ARRAY['deallocated o2 free 2 free1', 'allocated big free 1 free1'],
	'that serves the last one');
SELECT is(alloc.deallocate('o3', 'free'), 'free1', 'freed with nobody waiting');
SELECT is(available('free1'), 3::bigint, 'its units are available');
SELECT ok(NOT (SELECT bool_or(waiting) FROM alloc.slot WHERE ref = 'free1'), 'and the slot says that nobody waits');
SELECT sound('freed');

-- What serves: units that lines had, and that stay when a batch shrinks

SELECT alloc.add_batch('rest', 'rest', 20);
SELECT alloc.allocate('o1', 'rest', 1), alloc.allocate('o2', 'rest', 18), alloc.allocate('o3', 'rest', 1);
SELECT alloc.add_batch('other', 'rest', 7, '2031-01-01'), alloc.allocate('w1', 'rest', 4), alloc.allocate('w2', 'rest', 3);
SELECT alloc.change_batch_quantity('other', 0);
SELECT results_eq($$SELECT waiting('rest')$$, ARRAY['w1 4', 'w2 3'], 'two lines wait');
SELECT mark();
SELECT results_eq($$SELECT moves('rest', 8)$$, ARRAY['o2 rest 18: rest to nowhere'], 'a large line has to leave');
SELECT results_eq('SELECT news()', ARRAY[
	'deallocated o2 rest 18 rest',
	'batch_quantity_changed rest 8 rest was 20',
	'out_of_stock o2 rest 18',
	'backordered o2 rest 18',
	'allocated w1 rest 4 rest'], 'what it does not need any more serves one that waited');
SELECT results_eq($$SELECT waiting('rest')$$, ARRAY['w2 3', 'o2 18'], 'it waits itself, behind the others');
SELECT results_eq($$SELECT lines('rest')$$, ARRAY['o1 1', 'o3 1', 'w1 4'], 'the lines of the batch');
SELECT is(available('rest'), 2::bigint, 'two units are left');
SELECT sound('what stays');

-- What serves: a feed

SELECT queue('feed', 5, 3);
CREATE TEMPORARY TABLE feed (ref text, sku text, qty bigint, eta date);
INSERT INTO feed SELECT ref, sku, purchased_qty, eta FROM alloc.batches;
INSERT INTO feed VALUES ('feed1', 'feed', 4);
UPDATE feed SET qty = 5 WHERE ref = 'lost feed';
SELECT mark();
SELECT bag_eq($$SELECT action, ref FROM alloc.sync_batches('feed')$$,
	$$VALUES ('create', 'feed1'), ('change_quantity', 'lost feed')$$, 'a feed brings a batch and more of another one');
SELECT is_empty($$SELECT waiting('feed')$$, 'both serve');
SELECT sound('a feed');

-- cancel_backorder

SELECT queue('cancel', 5, 3);
SELECT is(alloc.cancel_backorder('o1', 'cancel'), true, 'a line that waits is taken out of the queue');
SELECT results_eq('SELECT news()', ARRAY['deallocated o1 cancel 5'], 'the event names no batch');
SELECT results_eq($$SELECT waiting('cancel')$$, ARRAY['o2 3'], 'it does not wait any more');
SELECT mark();
SELECT is(alloc.cancel_backorder('o1', 'cancel'), false, 'once more: it does not wait');
SELECT is(alloc.cancel_backorder('nobody', 'nothing'), false, 'nor does a line that nobody knows');
SELECT is_empty('SELECT news()', 'and there is no event');
SELECT alloc.add_batch('cancel1', 'cancel', 10);
SELECT results_eq($$SELECT lines('cancel1')$$, ARRAY['o2 3'], 'a new batch does not serve it');
SELECT is(alloc.allocate('o1', 'cancel', 4), 'cancel1', 'and it may come again with another quantity');
SELECT sound('cancelled');
SELECT refused($$SELECT alloc.cancel_backorder(NULL, 's')$$, '22004', 'orderid must not be null', 'a NULL orderid');
SELECT refused($$SELECT alloc.cancel_backorder('o', '')$$, '22023', 'sku must not be empty%', 'an empty sku');

-- allocate() of a line that waits

SELECT queue('again', 5, 3);
SELECT is(alloc.allocate('o1', 'again', 5), NULL, 'out of stock as before');
SELECT results_eq('SELECT news()', ARRAY['out_of_stock o1 again 5'], 'which is an event');
SELECT results_eq($$SELECT waiting('again')$$, ARRAY['o1 5', 'o2 3'], 'it keeps its place');
SELECT refused($$SELECT alloc.allocate('o1', 'again', 4)$$, 'SK003',
	'order line ("o1", "again") exists with quantity 5, not 4', 'another quantity, out of stock');
SELECT alloc.add_batch('again1', 'again', 2);
SELECT refused($$SELECT alloc.allocate('o1', 'again', 2)$$, 'SK003',
	'order line ("o1", "again") exists with quantity 5, not 2', 'another quantity that could be served');
SELECT refused($$SELECT * FROM alloc.allocate_lines(ARRAY[('o9', 'again', 1), ('o1', 'again', 1)]::alloc.order_line[])$$,
	'SK003', 'order line ("o1", "again") exists with quantity 5, not 1', 'the same of many lines');
SELECT refused($$SELECT * FROM alloc.allocate_lines(ARRAY[('o9', 'again', 1), ('o1', 'again', 9)]::alloc.order_line[])$$,
	'SK003', 'order line ("o1", "again") exists with quantity 5, not 9', 'the same of many lines, out of stock');
SELECT is(alloc.allocate('o9', 'again', 1), 'again1', 'another line gets what is too little for those that wait');
SELECT results_eq($$SELECT batchref FROM alloc.allocate_lines(ARRAY[('o8', 'again', 1), ('o1', 'again', 5)]::alloc.order_line[])$$,
	$$VALUES ('again1'), (NULL)$$, 'many lines: one is served, one goes on waiting');
SELECT results_eq($$SELECT waiting('again')$$, ARRAY['o1 5', 'o2 3'], 'both still wait');
SELECT sound('allocate() of a line that waits');

-- A line may be in the queue by hand though stock is there: allocate() takes
-- it out

UPDATE alloc.slot SET available = 10 WHERE ref = 'again1';
UPDATE alloc.batch SET purchased = 12 WHERE ref = 'again1';
SELECT is(alloc.allocate('o1', 'again', 5), 'again1', 'allocate() serves a line that waits');
SELECT results_eq($$SELECT waiting('again')$$, ARRAY['o2 3'], 'which does not wait any more');
SELECT results_eq($$SELECT batchref FROM alloc.allocate_lines(ARRAY[('o2', 'again', 3)]::alloc.order_line[])$$,
	$$VALUES ('again1')$$, 'so does allocate_lines()');
SELECT is_empty($$SELECT waiting('again')$$, 'likewise');
SELECT sound('served otherwise');

-- Rolled back to a savepoint

SELECT queue('undo', 4);
SELECT alloc.add_batch('undo1', 'undo', 3);
SELECT mark();
SAVEPOINT before;
SELECT alloc.change_batch_quantity('undo1', 4);
SELECT is_empty($$SELECT waiting('undo')$$, 'served');
ROLLBACK TO before;
SELECT results_eq($$SELECT waiting('undo')$$, ARRAY['o1 4'], 'rolled back: it waits again');
SAVEPOINT before;
SELECT alloc.cancel_backorder('o1', 'undo');
ROLLBACK TO before;
SELECT alloc.change_batch_quantity('undo1', 5);
SELECT results_eq($$SELECT lines('undo1')$$, ARRAY['o1 4'], 'and is served later');
SELECT sound('rolled back');

-- A message

SELECT queue('message', 4);
SELECT is(alloc.handle('{"command": "cancel_backorder", "orderid": "o1", "sku": "message"}'), '{"result": true}'::jsonb,
	'a message may cancel');
SELECT is_empty($$SELECT waiting('message')$$, 'and it does');

-- Slots

SELECT queue('slots', 600);
SELECT alloc.add_batch('slots1', 'slots', 500);
INSERT INTO alloc.slot (batch_id, available, slot, spread, waiting, ref, sku)
SELECT batch_id, 0, 7, true, true, ref, sku FROM alloc.slot WHERE ref = 'slots1' AND slot = 0;
UPDATE alloc.slot SET spread = true WHERE ref = 'slots1';
SELECT alloc.allocate('o9', 'slots', 100);
SELECT is(alloc.deallocate('o9', 'slots'), 'slots1', 'a line is freed that is too small for the one that waits');
SELECT is((SELECT count(*) FROM alloc.slot WHERE ref = 'slots1'), 2::bigint, 'then slots stay as they are');
SELECT sound('slots');
SELECT alloc.change_batch_quantity('slots1', 600);
SELECT results_eq($$SELECT lines('slots1')$$, ARRAY['o1 600'], 'a line may take from several slots');
SELECT sound('from several slots');

-- Many wait

SELECT alloc.add_batch('many', 'many', 100000);
DO $$
BEGIN
	PERFORM FROM alloc.allocate_lines(ARRAY(
		SELECT ('m' || i, 'many', 1 + i % 9)::alloc.order_line FROM generate_series(1, 20000) AS i));
	PERFORM FROM alloc.change_batch_quantity('many', 0);
END
$$;
SELECT is((SELECT count(*) FROM alloc.backorders WHERE sku = 'many'), 20000::bigint, '20000 lines wait');
SELECT mark();
CREATE FUNCTION tuples_read() RETURNS bigint LANGUAGE sql AS $$
	SELECT pg_stat_get_xact_tuples_fetched(c.oid) + pg_stat_get_xact_tuples_returned(c.oid)
	       + pg_stat_get_xact_tuples_returned('alloc.backorder_queue'::regclass)
	  FROM pg_class c WHERE c.oid = 'alloc.backorder'::regclass
$$;
CREATE TEMPORARY TABLE read AS SELECT tuples_read() AS before;
SELECT alloc.add_batch('few', 'many', 3);
SELECT results_eq('SELECT news()', ARRAY[
	'batch_created many 3 few', 'allocated m1 many 2 few', 'allocated m9 many 1 few'],
	'3 units serve two of them');
SELECT cmp_ok((SELECT tuples_read() - before FROM read), '<', 30::bigint, 'and hardly any other is looked at');
SELECT mark();
DELETE FROM read;
INSERT INTO read SELECT tuples_read();
SELECT alloc.deallocate('m9', 'many');
SELECT results_eq('SELECT news()', ARRAY['deallocated m9 many 1 few', 'allocated m18 many 1 few'],
	'a unit that is freed serves the next one');
SELECT cmp_ok((SELECT tuples_read() - before FROM read), '<', 30::bigint, 'likewise');
SELECT sound('many');
SELECT * FROM finish();
ROLLBACK;
