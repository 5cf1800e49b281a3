-- add_batch(): what it creates, and that it is idempotent.

\ir common.psql
BEGIN;
SELECT plan(40);

-- A new batch

SELECT mark();
SELECT is(alloc.add_batch('ship', 'lamp', 30, '2011-01-02'), 'ship',
	'returns the reference');
SELECT results_eq('SELECT * FROM alloc.batches',
	$$VALUES ('ship', 'lamp', date '2011-01-02', 30::bigint, 0::bigint, 0::bigint, 30::bigint)$$,
	'a new batch is available in whole');
SELECT results_eq('SELECT sku FROM alloc.product', ARRAY['lamp'],
	'a new product is created');
SELECT results_eq('SELECT news()', ARRAY['batch_created lamp 30 ship eta 2011-01-02'],
	'records batch_created with its eta');
SELECT results_eq('SELECT slot, available, shipped FROM alloc.slot',
	'VALUES (0::smallint, 30::bigint, 0::bigint)', 'it has one slot');

SELECT mark();
SELECT is(alloc.add_batch('store', 'lamp', 7), 'store', 'eta may be left out');
SELECT is((SELECT eta FROM alloc.batches WHERE ref = 'store'), NULL,
	'without eta it is in the warehouse');
SELECT results_eq('SELECT news()', ARRAY['batch_created lamp 7 store'],
	'records batch_created without eta');
SELECT is((SELECT count(*) FROM alloc.product), 1::bigint,
	'a known product is not created again');

SELECT is(alloc.add_batch(sku => 'rug', eta => NULL, qty => 1, ref => 'named'), 'named',
	'arguments have the names ref, sku, qty, eta');

-- Quantities

SELECT is(alloc.add_batch('empty', 'lamp', 0), 'empty', 'quantity 0 is a batch');
SELECT is(available('empty'), 0::bigint, 'of which nothing is available');
SELECT is(alloc.allocate('o', 'rug', 1), 'named', 'the rug is taken');
SELECT is(alloc.add_batch('most', 'sand', 9223372036854775807), 'most',
	'quantity 2^63-1 is a batch');
SELECT is(alloc.allocate('o', 'sand', 9223372036854775807), 'most',
	'and one line can have it all');
SELECT is((SELECT allocated_qty FROM alloc.stock WHERE sku = 'sand'), 9223372036854775807,
	'and the stock view shows it');
SELECT is(alloc.add_batch('none', 'sand', 0), 'none',
	'beside 2^63-1 there is room for a batch of 0');

-- Days

SELECT is(alloc.add_batch('never', 'clock', 1, 'infinity'), 'never', 'eta may be infinity');
SELECT is(alloc.add_batch('always', 'clock', 1, '-infinity'), 'always',
	'eta may be -infinity');
SELECT is(alloc.add_batch('ides', 'clock', 1, '0044-03-15 BC'), 'ides',
	'eta may be before Christ');
SELECT is(alloc.allocate('first', 'clock', 1), 'always', '-infinity is the earliest');
SELECT is(alloc.allocate('second', 'clock', 1), 'ides', 'then comes a day');
SELECT is(alloc.allocate('third', 'clock', 1), 'never', 'then infinity');

-- The same again

SELECT mark();
SELECT is(alloc.add_batch('ship', 'lamp', 30, '2011-01-02'), 'ship',
	'the same call again returns the reference');
SELECT is(alloc.add_batch('store', 'lamp', 7), 'store',
	'and so it does without eta');
SELECT is_empty('SELECT news()', 'the same call again records no event');
SELECT is((SELECT purchased_qty FROM alloc.stock WHERE sku = 'lamp'), 37::bigint,
	'the same call again adds no stock');
SELECT alloc.allocate('o', 'lamp', 5);
SELECT mark();
SELECT is(alloc.add_batch('store', 'lamp', 7), 'store',
	'it compares what was purchased, not what is available');
SELECT is(available('store'), 2::bigint, 'and gives nothing back');
SELECT is(alloc.add_batch('most', 'sand', 9223372036854775807), 'most',
	'the same call again does not overflow the sum');
SELECT is_empty('SELECT news()', 'and none of this is an event');

-- After a change of quantity the current one counts

SELECT alloc.change_batch_quantity('ship', 40);
SELECT mark();
SELECT is(alloc.add_batch('ship', 'lamp', 40, '2011-01-02'), 'ship',
	'after change_batch_quantity the new quantity is the same');
SELECT is_empty('SELECT news()', 'and no event');
SELECT refused($$SELECT alloc.add_batch('ship', 'lamp', 30, '2011-01-02')$$,
	'23505', '%"ship"%', 'after change_batch_quantity the first quantity');

SELECT sound('add_batch');
SELECT is(available('ship'), 40::bigint, 'the batch is as changed');
SELECT is(alloc.add_batch('ref is not sku', 'ship', 1), 'ref is not sku',
	'a sku may be called like a batch');
SELECT is(alloc.add_batch('lamp', 'lamp', 1, '2030-01-01'), 'lamp',
	'a batch may be called like its sku');
SELECT * FROM finish();
ROLLBACK;
