-- deallocate(): stock comes back, once.

\ir common.psql
BEGIN;
SELECT plan(23);

SELECT alloc.add_batch('b1', 'chair', 10), alloc.add_batch('b2', 'chair', 10, '2011-01-01');
SELECT alloc.allocate('o1', 'chair', 6), alloc.allocate('o2', 'chair', 6);

SELECT mark();
SELECT is(alloc.deallocate('o2', 'chair'), 'b2',
	'returns the batch that the line had, which need not be the preferred one');
SELECT is(available('b2'), 10::bigint, 'its units are available again');
SELECT is(available('b1'), 4::bigint, 'those of other batches are not');
SELECT results_eq('SELECT news()', ARRAY['deallocated o2 chair 6 b2'],
	'records deallocated with the quantity it had');
SELECT is_empty($$SELECT * FROM alloc.allocations WHERE orderid = 'o2'$$,
	'the line is gone from allocations');

SELECT mark();
SELECT is(alloc.deallocate('o2', 'chair'), NULL, 'again: NULL');
SELECT is(alloc.deallocate('o1', 'table'), NULL, 'a sku that nobody knows: NULL');
SELECT is(alloc.deallocate('nobody', 'chair'), NULL, 'an order that nobody knows: NULL');
SELECT is(alloc.deallocate('O1', 'chair'), NULL, 'keys differ by case');
SELECT is_empty('SELECT news()', 'what was not allocated is no event');
SELECT is(available('b1'), 4::bigint, 'and frees nothing');

SELECT is(alloc.allocate('o2', 'chair', 4), 'b1',
	'a freed line may come again with another quantity, to another batch');
SELECT is(alloc.deallocate('o1', 'chair'), 'b1', 'the first line goes');
SELECT is(alloc.allocate('o3', 'chair', 6), 'b1', 'what it had can be given to another order');
SELECT results_eq('SELECT lines($$b1$$)', ARRAY['o2 4', 'o3 6'], 'lines by age');

-- A line that goes and comes is a new one

SELECT alloc.deallocate('o2', 'chair'), alloc.allocate('o2', 'chair', 4);
SELECT results_eq('SELECT lines($$b1$$)', ARRAY['o3 6', 'o2 4'],
	'a line that went and came is the newest');
SELECT results_eq('SELECT moves($$b1$$, 6)', ARRAY['o2 chair 4: b1 to b2'],
	'and the first to leave');

-- Limits

SELECT alloc.add_batch('most', 'sand', 9223372036854775807);
SELECT alloc.allocate('all', 'sand', 9223372036854775807);
SELECT is(alloc.deallocate('all', 'sand'), 'most', 'a line of 2^63-1 units is freed');
SELECT is(available('most'), 9223372036854775807, 'and all of them are available');

-- A whole order at once, from the view that changes meanwhile

SELECT mark();
SELECT results_eq(
	$$SELECT alloc.deallocate(orderid, sku) FROM (SELECT * FROM alloc.allocations ORDER BY orderid OFFSET 0) a$$,
	ARRAY['b2', 'b1'], 'all lines of a view are freed by one statement');
SELECT results_eq('SELECT news()', ARRAY['deallocated o2 chair 4 b2', 'deallocated o3 chair 6 b1'],
	'with an event each');
SELECT is_empty('SELECT * FROM alloc.allocations', 'and none is left');

SELECT sound('deallocate');
SELECT * FROM finish();
ROLLBACK;
