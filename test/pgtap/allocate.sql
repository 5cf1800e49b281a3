-- allocate(): which batch, how much, how often.

\ir common.psql
BEGIN;
SELECT plan(64);

-- The earliest, whatever the order in which batches were added

CREATE TABLE permutation AS
SELECT row_number() OVER (ORDER BY a, b, c, d) AS id, ARRAY[a, b, c, d] AS days
  FROM generate_series(0, 3) a, generate_series(0, 3) b,
	   generate_series(0, 3) c, generate_series(0, 3) d
 WHERE a NOT IN (b, c, d) AND b NOT IN (c, d) AND c <> d;
-- Day 0 is in the warehouse.
SELECT count(alloc.add_batch(format('p%s-day%s', id, day), 'p' || id, 10,
							 CASE WHEN day > 0 THEN date '2011-01-01' + day END))
  FROM (SELECT id, unnest(days) AS day FROM permutation ORDER BY id) AS batch;
SELECT is((SELECT count(*) FROM permutation), 24::bigint, 'four batches have 24 orders');
SELECT results_eq(
	format($$SELECT alloc.allocate(%L, 'p' || id, 6) FROM permutation ORDER BY id$$, 'order' || day),
	format($$SELECT 'p' || id || '-day%s' FROM permutation ORDER BY id$$, day),
	format('line %s of 4 gets day %s in all 24 orders of insertion', day + 1, day))
  FROM generate_series(0, 3) AS day;
SELECT results_eq($$SELECT alloc.allocate('fifth', 'p' || id, 6) FROM permutation ORDER BY id$$,
	'SELECT NULL::text FROM permutation', 'line 5 is out of stock in all of them');
SELECT sound('24 orders of insertion');

-- Ties

SELECT alloc.add_batch('z-added-first', 'tie', 5, '2011-01-01'),
	   alloc.add_batch('a-added-second', 'tie', 5, '2011-01-01'),
	   alloc.add_batch('z-stock', 'tie', 5),
	   alloc.add_batch('a-stock', 'tie', 5);
SELECT is(alloc.allocate('o1', 'tie', 5), 'z-stock',
	'of two in stock the one added first, not the lesser reference');
SELECT is(alloc.allocate('o2', 'tie', 5), 'a-stock', 'then the other');
SELECT is(alloc.allocate('o3', 'tie', 5), 'z-added-first',
	'of two of one day the one added first, not the lesser reference');
SELECT is(alloc.allocate('o4', 'tie', 5), 'a-added-second', 'then the other');

-- Exact fit, not one unit over, never split

SELECT alloc.add_batch('seven', 'fit', 7),
	   alloc.add_batch('eight', 'fit', 8, '2011-01-01'),
	   alloc.add_batch('nine', 'fit', 9, '2011-01-02');
SELECT mark();
SELECT is(alloc.allocate('ten', 'fit', 10), NULL,
	'one unit more than the largest batch: out of stock, a line is never split');
SELECT is(alloc.allocate('eight', 'fit', 8), 'eight',
	'one unit more than the preferred batch: the next that has it');
SELECT is(alloc.allocate('seven', 'fit', 7), 'seven', 'an exact fit is served');
SELECT is(available('seven'), 0::bigint, 'and leaves nothing');
SELECT is(alloc.allocate('one', 'fit', 1), 'nine', 'used up batches are passed over');
SELECT is(alloc.allocate('nine', 'fit', 9), NULL, 'not one unit over what is left');
SELECT is(alloc.allocate('rest', 'fit', 8), 'nine', 'exactly what is left');
SELECT is(alloc.allocate('last', 'fit', 1), NULL, 'then there is not one unit');
SELECT results_eq('SELECT news()', ARRAY[
	'out_of_stock ten fit 10',
	'allocated eight fit 8 eight',
	'allocated seven fit 7 seven',
	'allocated one fit 1 nine',
	'out_of_stock nine fit 9',
	'allocated rest fit 8 nine',
	'out_of_stock last fit 1'], 'each call recorded its event, in order');
SELECT results_eq($$SELECT available_qty FROM alloc.batches WHERE sku = 'fit'$$,
	ARRAY[0, 0, 0]::bigint[], 'all is allocated');
SELECT bag_eq($$SELECT orderid FROM alloc.allocations WHERE sku = 'fit'$$,
	ARRAY['eight', 'seven', 'one', 'rest'], 'lines out of stock are not in allocations');
SELECT is(alloc.allocate('huge', 'fit', 9223372036854775807), NULL,
	'2^63-1 units are out of stock, not an error');
SELECT sound('exact fits');

-- A smaller line after a larger one that had no place

SELECT alloc.add_batch('pair', 'pass', 2);
SELECT is(alloc.allocate('large', 'pass', 3), NULL, 'a line too large is out of stock');
SELECT is(alloc.allocate('small', 'pass', 2), 'pair', 'a smaller one after it is served');

-- The same line again

SELECT alloc.add_batch('cup', 'cup', 10), alloc.add_batch('cup-ship', 'cup', 10, '2011-01-01');
SELECT is(alloc.allocate('o', 'cup', 10), 'cup', 'a line is charged');
SELECT mark();
SELECT is(alloc.allocate('o', 'cup', 10), 'cup',
	'the same line twice: the same batch, though it has nothing left');
SELECT is(alloc.allocate('o', 'cup', 10), 'cup', 'and a third time');
SELECT is_empty('SELECT news()', 'the same line twice: no event');
SELECT is(available('cup'), 0::bigint, 'the same line twice: charged once');
SELECT is(available('cup-ship'), 10::bigint, 'and nothing from another batch');
SELECT alloc.add_batch('cup-early', 'cup', 10, '2010-01-01');
SELECT is(alloc.allocate('o', 'cup', 10), 'cup',
	'a better batch that came since does not move a line');
SELECT refused($$SELECT alloc.allocate('o', 'cup', 9)$$, 'SK003', '%"o"%"cup"%10%9%',
	'the same line with a lesser quantity');
SELECT refused($$SELECT alloc.allocate('o', 'cup', 11)$$, 'SK003', '%"o"%"cup"%10%11%',
	'the same line with a greater quantity');
SELECT refused($$SELECT alloc.allocate('o', 'cup', 9223372036854775807)$$, 'SK003', '%9223372036854775807%',
	'the same line with 2^63-1 units');

-- A line that was out of stock is not remembered

SELECT alloc.add_batch('late', 'wait', 1);
SELECT is(alloc.allocate('w', 'wait', 5), NULL, 'out of stock at first');
SELECT mark();
SELECT is(alloc.allocate('w', 'wait', 5), NULL, 'asked again, still out of stock');
SELECT results_eq('SELECT news()', ARRAY['out_of_stock w wait 5'], 'which is another event');
SELECT is(alloc.allocate('w', 'wait', 1), 'late',
	'with another quantity it is served: an unserved line binds nobody');

-- Orders and skus do not mix

SELECT alloc.add_batch('left', 'left', 3), alloc.add_batch('right', 'right', 3);
SELECT is(alloc.allocate('both', 'left', 3), 'left', 'one order, the first sku');
SELECT is(alloc.allocate('both', 'right', 2), 'right', 'one order, the second sku');
SELECT is(available('right'), 1::bigint, 'two skus are independent');
SELECT is(alloc.allocate('other', 'left', 1), NULL, 'one sku out of stock');
SELECT is(alloc.allocate('other', 'right', 1), 'right', 'the other one not');
SELECT is(alloc.allocate('ab', 'left', 1), NULL, 'keys are not run together: (ab, left)');
SELECT alloc.add_batch('c', 'c', 3), alloc.add_batch('bc', 'bc', 3);
SELECT is(alloc.allocate('ab', 'c', 1), 'c', 'keys are not run together: (ab, c)');
SELECT is(alloc.allocate('a', 'bc', 2), 'bc', 'keys are not run together: (a, bc)');
SELECT sound('several skus');

-- Savepoints

SELECT alloc.add_batch('save', 'save', 10);
SELECT alloc.allocate('kept', 'save', 1);
CREATE TEMPORARY TABLE digest_before AS SELECT digest();
SAVEPOINT here;
SELECT is(alloc.allocate('undone', 'save', 4), 'save', 'within a savepoint: served');
SELECT is(alloc.deallocate('kept', 'save'), 'save', 'within a savepoint: freed');
SELECT is(alloc.add_batch('undone', 'new sku', 4), 'undone', 'within a savepoint: a new product');
ROLLBACK TO SAVEPOINT here;
SELECT is(digest(), (SELECT * FROM digest_before),
	'rolled back to the savepoint: stock, lines, products and events as before');
SELECT is(alloc.allocate('kept', 'save', 1), 'save', 'the line of before is there');
SELECT is(alloc.allocate('undone', 'save', 9), 'save', 'the undone line can have another quantity');
SELECT throws_ok($$SELECT alloc.allocate('o', 'new sku', 1)$$, 'SK001', NULL,
	'the undone sku is unknown');
SAVEPOINT here;
SELECT alloc.deallocate('undone', 'save');
RELEASE SAVEPOINT here;
SELECT is(available('save'), 9::bigint, 'released, the work of a savepoint stays');
SELECT sound('savepoints');

SELECT * FROM finish();
ROLLBACK;
