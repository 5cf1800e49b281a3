-- change_batch_quantity(): which lines leave, where they go, what is told.

\ir common.psql
BEGIN;
SELECT plan(79);

-- Grow, shrink within what is available, no change

SELECT alloc.add_batch('b', 'plain', 20), alloc.allocate('o', 'plain', 8);
SELECT mark();
SELECT is_empty($$SELECT moves('b', 50)$$, 'grow: no line moves');
SELECT is(available('b'), 42::bigint, 'grow: 30 units more are available');
SELECT is_empty($$SELECT moves('b', 9)$$, 'shrink to more than the lines have: no line moves');
SELECT is(available('b'), 1::bigint, 'shrink to one unit more than the lines have: one is available');
SELECT is_empty($$SELECT moves('b', 8)$$, 'shrink to what the lines have: no line moves');
SELECT is(available('b'), 0::bigint, 'shrink to what the lines have: nothing is available');
SELECT results_eq('SELECT news()', ARRAY[
	'batch_quantity_changed plain 50 b was 20',
	'batch_quantity_changed plain 9 b was 50',
	'batch_quantity_changed plain 8 b was 9'], 'each change is one event, with the quantity before');
SELECT mark();
SELECT is_empty($$SELECT moves('b', 8)$$, 'the same quantity: no row');
SELECT is_empty('SELECT news()', 'the same quantity: no event');
SELECT is_empty($$SELECT moves('b', 9223372036854775807)$$, 'grow to 2^63-1: no line moves');
SELECT is(available('b'), 9223372036854775799, 'grow to 2^63-1: all but the line''s 8 are available');
SELECT is_empty($$SELECT moves('b', 8)$$, 'and back: no line moves');
SELECT is((SELECT purchased_qty FROM alloc.batches WHERE ref = 'b'), 8::bigint,
	'the batch has the quantity that it was given last');
SELECT sound('grow and shrink within what is available');

-- The shape of the result

SELECT alloc.add_batch('shape', 'shape', 5), alloc.allocate('o', 'shape', 5);
SELECT results_eq($$SELECT orderid, sku, qty, old_batchref, new_batchref
					  FROM alloc.change_batch_quantity(ref => 'shape', qty => 4)$$,
	$$VALUES ('o', 'shape', 5::bigint, 'shape', NULL)$$,
	'rows are orderid, sku, qty, old_batchref, new_batchref');
SELECT alloc.change_batch_quantity('shape', 5), alloc.allocate('o', 'shape', 5);
SELECT is((SELECT alloc.change_batch_quantity('shape', 0)::text), '(o,shape,5,shape,)',
	'it can be called in a select list as well');
SELECT is(pg_get_function_arguments('alloc.change_batch_quantity'::regproc),
	'ref text, qty bigint, OUT orderid text, OUT sku text, OUT qty bigint, OUT old_batchref text, OUT new_batchref text',
	'names and types of its columns are known to clients');

-- A line moves to the next batch

SELECT alloc.add_batch('b1', 'move', 30), alloc.add_batch('b2', 'move', 30, '2011-01-01');
SELECT alloc.allocate('o1', 'move', 10), alloc.allocate('o2', 'move', 10), alloc.allocate('o3', 'move', 10);
SELECT mark();
SELECT results_eq($$SELECT moves('b1', 29)$$, ARRAY['o3 move 10: b1 to b2'],
	'one unit too few: the newest line leaves, and the next batch has room');
SELECT results_eq('SELECT news()', ARRAY[
	'deallocated o3 move 10 b1',
	'batch_quantity_changed move 29 b1 was 30',
	'allocated o3 move 10 b2'], 'events: the line goes, the quantity, the line comes');
SELECT is(available('b1'), 9::bigint, 'what the line does not need of the old batch is available');
SELECT is(available('b2'), 20::bigint, 'the new batch is charged');
SELECT results_eq($$SELECT batchref FROM alloc.allocations WHERE orderid = 'o3'$$, ARRAY['b2'],
	'allocations shows the new batch');
SELECT is(alloc.allocate('o3', 'move', 10), 'b2', 'and allocate() answers it');
SELECT sound('a line moves');

-- Newest leave first, oldest are placed first

SELECT alloc.add_batch('n1', 'order', 60), alloc.add_batch('n2', 'order', 25, '2011-01-01');
SELECT alloc.allocate('o1', 'order', 10), alloc.allocate('o2', 'order', 12), alloc.allocate('o3', 'order', 14),
	   alloc.allocate('o4', 'order', 11), alloc.allocate('o5', 'order', 13);
SELECT mark();
SELECT results_eq($$SELECT moves('n1', 10)$$, ARRAY[
	'o2 order 12: n1 to n2',
	'o3 order 14: n1 to nowhere',
	'o4 order 11: n1 to n2',
	'o5 order 13: n1 to nowhere'], 'four leave; o2 is placed first, o3 has no room, o4 has, o5 has not');
SELECT results_eq('SELECT news()', ARRAY[
	'deallocated o5 order 13 n1',
	'deallocated o4 order 11 n1',
	'deallocated o3 order 14 n1',
	'deallocated o2 order 12 n1',
	'batch_quantity_changed order 10 n1 was 60',
	'allocated o2 order 12 n2',
	'out_of_stock o3 order 14',
	'backordered o3 order 14',
	'allocated o4 order 11 n2',
	'out_of_stock o5 order 13',
	'backordered o5 order 13'], 'events: newest go first, then the quantity, oldest come first');
SELECT results_eq($$SELECT lines('n1')$$, ARRAY['o1 10'], 'the oldest line stays');
SELECT results_eq($$SELECT lines('n2')$$, ARRAY['o2 12', 'o4 11'], 'the others are in the next batch');
SELECT bag_eq($$SELECT orderid FROM alloc.allocations WHERE sku = 'order'$$, ARRAY['o1', 'o2', 'o4'],
	'a line without room is gone from allocations');
SELECT is(alloc.deallocate('o3', 'order'), NULL, 'and nothing can be freed of it');
SELECT results_eq($$SELECT waiting('order')$$, ARRAY['o3 14', 'o5 13'], 'it waits');
SELECT is(alloc.cancel_backorder('o3', 'order'), true, 'until that is cancelled');
SELECT is(alloc.allocate('o3', 'order', 2), 'n2', 'then it may come again, with another quantity');
SELECT sound('newest leave first');

-- What age is: since the line has this batch

SELECT alloc.add_batch('a1', 'age', 10), alloc.add_batch('a2', 'age', 20, '2011-01-01');
SELECT alloc.allocate('first', 'age', 6), alloc.allocate('second', 'age', 6);
SELECT results_eq($$SELECT moves('a1', 0)$$, ARRAY['first age 6: a1 to a2'],
	'the first line moves to the batch of the second');
SELECT results_eq($$SELECT lines('a2')$$, ARRAY['second 6', 'first 6'], 'where it is the newest');
SELECT results_eq($$SELECT moves('a2', 11)$$, ARRAY['first age 6: a2 to nowhere'],
	'and the first to leave');
SELECT sound('age');

-- Lines leave one by one, not the ones that would fit best

SELECT alloc.add_batch('w1', 'one by one', 20);
SELECT alloc.allocate('o1', 'one by one', 1), alloc.allocate('o2', 'one by one', 18), alloc.allocate('o3', 'one by one', 1);
SELECT results_eq($$SELECT moves('w1', 18)$$, ARRAY['o2 one by one 18: w1 to nowhere'],
	'2 units too few: o3, then o2 leave; o2 has no room in 17, o3 has');
SELECT results_eq($$SELECT lines('w1')$$, ARRAY['o1 1', 'o3 1'], 'o3 ended where it was');
SELECT is(available('w1'), 16::bigint, 'and 16 of 18 are available');

-- A shed line that fits again in the same batch is not touched

SELECT alloc.add_batch('t1', 'touch', 40), alloc.add_batch('t2', 'touch', 30, '2011-01-01');
SELECT alloc.allocate('o1', 'touch', 10), alloc.allocate('o2', 'touch', 20), alloc.allocate('o3', 'touch', 5), alloc.allocate('o4', 'touch', 5);
CREATE TEMPORARY TABLE touch_before AS
SELECT a.*, a.ctid::text AS place FROM alloc.allocation a WHERE sku = 'touch';
SELECT mark();
SELECT results_eq($$SELECT moves('t1', 25)$$, ARRAY['o2 touch 20: t1 to t2'],
	'o4, o3 and o2 are shed; o3 and o4 fit again: one row');
SELECT results_eq('SELECT news()', ARRAY[
	'deallocated o2 touch 20 t1',
	'batch_quantity_changed touch 25 t1 was 40',
	'allocated o2 touch 20 t2'], 'and no event of o3 and o4');
SELECT set_eq($$SELECT a.*, a.ctid::text AS place FROM alloc.allocation a WHERE orderid IN ('o3', 'o4') AND sku = 'touch'$$,
	$$SELECT * FROM touch_before WHERE orderid IN ('o3', 'o4')$$,
	'and their rows were not written');
SELECT is(available('t1'), 5::bigint, '10 + 5 + 5 of 25 are allocated');
SELECT results_eq($$SELECT lines('t1')$$, ARRAY['o1 10', 'o3 5', 'o4 5'], 'they keep their age');
SELECT sound('lines that are not touched');

-- Allocated again by the rules: also to a better batch

SELECT alloc.add_batch('r1', 'rules', 10), alloc.add_batch('r2', 'rules', 20, '2011-01-02');
SELECT alloc.allocate('o1', 'rules', 10), alloc.allocate('o2', 'rules', 5), alloc.allocate('o3', 'rules', 5);
SELECT alloc.deallocate('o1', 'rules');
SELECT results_eq($$SELECT moves('r2', 9)$$, ARRAY['o3 rules 5: r2 to r1'],
	'a shed line goes to a better batch that has room since, not a worse one');
SELECT results_eq($$SELECT lines('r2')$$, ARRAY['o2 5'],
	'a line that need not leave stays, though a better batch has room');
SELECT alloc.add_batch('r0', 'rules', 6, '2011-01-01');
SELECT alloc.change_batch_quantity('r1', 5);
SELECT results_eq($$SELECT moves('r2', 4)$$, ARRAY['o2 rules 5: r2 to r0'],
	'or to a batch that was added since, by its day');
SELECT sound('allocated again by the rules');

-- Down to nothing

SELECT alloc.add_batch('z1', 'zero', 30), alloc.add_batch('z2', 'zero', 10, '2011-01-01'),
	   alloc.add_batch('z3', 'zero', 10, '2011-01-02');
SELECT alloc.allocate('o1', 'zero', 10), alloc.allocate('o2', 'zero', 10), alloc.allocate('o3', 'zero', 10);
SELECT results_eq($$SELECT moves('z1', 0)$$, ARRAY[
	'o1 zero 10: z1 to z2', 'o2 zero 10: z1 to z3', 'o3 zero 10: z1 to nowhere'],
	'to 0: all leave, the oldest to the earliest');
SELECT results_eq($$SELECT purchased_qty, allocated_qty, available_qty FROM alloc.batches WHERE ref = 'z1'$$,
	'VALUES (0::bigint, 0::bigint, 0::bigint)', 'to 0: the batch is there, with nothing');
SELECT is(alloc.allocate('o4', 'zero', 1), NULL, 'and serves nobody');
SELECT is_empty($$SELECT moves('z1', 1)$$, 'from 0 to 1: no line moves by itself');
SELECT is(alloc.allocate('o4', 'zero', 1), 'z1', 'and it serves again, first of all');
SELECT sound('down to nothing');

-- Other skus are left alone

SELECT alloc.add_batch('x1', 'apple', 5), alloc.add_batch('y1', 'pear', 5);
SELECT alloc.allocate('o', 'apple', 5), alloc.allocate('o', 'pear', 3);
SELECT results_eq($$SELECT moves('x1', 4)$$, ARRAY['o apple 5: x1 to nowhere'],
	'a line does not go to a batch of another sku');
SELECT results_eq($$SELECT lines('y1')$$, ARRAY['o 3'], 'and lines of another sku stay');
SELECT is(available('y1'), 2::bigint, 'with what was available');

-- Shipped stock is gone: not below it

SELECT alloc.add_batch('s1', 'ship', 20), alloc.add_batch('s2', 'ship', 20, '2011-01-01');
SELECT alloc.allocate('gone', 'ship', 6), alloc.allocate('o1', 'ship', 5), alloc.allocate('o2', 'ship', 5);
SELECT alloc.ship('gone', 'ship');
SELECT sound('six units are shipped');
SELECT refused($$SELECT * FROM alloc.change_batch_quantity('s1', 5)$$, 'SK004', '%5%"s1"%6%',
	'one unit below what has been shipped');
SELECT refused($$SELECT * FROM alloc.change_batch_quantity('s1', 0)$$, 'SK004', '%0%"s1"%6%',
	'to 0 when some is shipped');
SELECT results_eq($$SELECT moves('s1', 11)$$, ARRAY['o2 ship 5: s1 to s2'],
	'shipped units count as used: 11 is enough for 6 and one line of 5');
SELECT results_eq($$SELECT moves('s1', 6)$$, ARRAY['o1 ship 5: s1 to s2'],
	'exactly what has been shipped: all lines leave');
SELECT results_eq($$SELECT purchased_qty, shipped_qty, allocated_qty, available_qty FROM alloc.batches WHERE ref = 's1'$$,
	'VALUES (6::bigint, 6::bigint, 0::bigint, 0::bigint)', 'and nothing is available');
SELECT is_empty($$SELECT moves('s1', 10)$$, 'it may grow again');
SELECT is(alloc.allocate('o3', 'ship', 4), 's1', 'and serve what it has more');
SELECT sound('shipped stock');

-- Savepoints

CREATE TEMPORARY TABLE digest_before AS SELECT digest();
SAVEPOINT here;
SELECT alloc.change_batch_quantity('z2', 0), alloc.change_batch_quantity('n1', 100);
SELECT isnt(digest(), (SELECT * FROM digest_before), 'within a savepoint: lines moved');
ROLLBACK TO SAVEPOINT here;
SELECT is(digest(), (SELECT * FROM digest_before),
	'rolled back to the savepoint: quantities, lines and events as before');

-- Many lines: those that leave, and no others

SELECT alloc.add_batch('m1', 'many', 5000), alloc.add_batch('m2', 'many', 600, '2011-01-01');
SELECT count(alloc.allocate('o' || n, 'many', 1)) FROM generate_series(1, 5000) AS n;
SELECT mark();
SELECT results_eq($$SELECT count(*), count(new_batchref), min(substr(orderid, 2)::int), max(substr(orderid, 2)::int)
					  FROM alloc.change_batch_quantity('m1', 4000)$$,
	'VALUES (1000::bigint, 600::bigint, 4001, 5000)', '1,000 of 5,000 lines leave, 600 have room');
SELECT is((SELECT string_agg(orderid, ',' ORDER BY event_id) FROM alloc.event
			WHERE type = 'out_of_stock' AND sku = 'many'),
	(SELECT string_agg('o' || n, ',' ORDER BY n) FROM generate_series(4601, 5000) n),
	'the 400 newest are out of stock, oldest first');
SELECT is((SELECT count(*) FROM news()), 2401::bigint, 'with two events each, one more of each that waits, and one of the quantity');
SELECT sound('many lines');

SELECT * FROM finish();
ROLLBACK;
