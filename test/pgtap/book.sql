-- The tests of "Architecture Patterns with Python", by the book's own names
-- and numbers.

\ir common.psql
BEGIN;
SELECT plan(42);

-- Chapter 1, test_batches.py

SELECT alloc.add_batch('batch-001', 'SMALL-TABLE', 20);
SELECT is(alloc.allocate('order-ref', 'SMALL-TABLE', 2), 'batch-001',
	'allocating to a batch returns the batch');
SELECT is(available('batch-001'), 18::bigint,
	'allocating to a batch reduces the available quantity');

SELECT alloc.add_batch('batch-elegant', 'ELEGANT-LAMP', 20);
SELECT is(alloc.allocate('order-123', 'ELEGANT-LAMP', 2), 'batch-elegant',
	'can allocate if available greater than required');

SELECT alloc.add_batch('batch-small', 'SMALL-LAMP', 2);
SELECT is(alloc.allocate('order-123', 'SMALL-LAMP', 20), NULL,
	'cannot allocate if available smaller than required');
SELECT is(available('batch-small'), 2::bigint,
	'and nothing is taken then');

SELECT alloc.add_batch('batch-exact', 'EXACT-LAMP', 2);
SELECT is(alloc.allocate('order-123', 'EXACT-LAMP', 2), 'batch-exact',
	'can allocate if available equal to required');
SELECT is(available('batch-exact'), 0::bigint, 'and nothing is left then');

SELECT alloc.add_batch('batch-chair', 'UNCOMFORTABLE-CHAIR', 100);
SELECT throws_ok($$SELECT alloc.allocate('order-123', 'EXPENSIVE-TOASTER', 10)$$,
	'SK001', NULL, 'cannot allocate if skus do not match');
SELECT is(available('batch-chair'), 100::bigint,
	'and the batch of the other sku keeps its stock');

SELECT alloc.add_batch('batch-desk', 'ANGULAR-DESK', 20);
SELECT alloc.allocate('order-123', 'ANGULAR-DESK', 2);
SELECT is(alloc.allocate('order-123', 'ANGULAR-DESK', 2), 'batch-desk',
	'allocation is idempotent: the same batch');
SELECT is(available('batch-desk'), 18::bigint,
	'allocation is idempotent: charged once');

SELECT alloc.add_batch('batch-trinket', 'DECORATIVE-TRINKET', 20);
SELECT is(alloc.deallocate('order-123', 'DECORATIVE-TRINKET'), NULL,
	'can only deallocate allocated lines');
SELECT is(available('batch-trinket'), 20::bigint,
	'an unallocated line gives nothing back');

SELECT alloc.add_batch('batch-shade', 'EXPENSIVE-FOOTSTOOL', 20);
SELECT alloc.allocate('order-123', 'EXPENSIVE-FOOTSTOOL', 10);
SELECT is(alloc.deallocate('order-123', 'EXPENSIVE-FOOTSTOOL'), 'batch-shade',
	'deallocate returns the batch that the line leaves');
SELECT is(available('batch-shade'), 20::bigint,
	'deallocate gives back what the line had');

-- Chapter 1, test_allocate.py

SELECT alloc.add_batch('in-stock-batch', 'RETRO-CLOCK', 100, NULL);
SELECT alloc.add_batch('shipment-batch', 'RETRO-CLOCK', 100, current_date + 1);
SELECT is(alloc.allocate('oref', 'RETRO-CLOCK', 10), 'in-stock-batch',
	'prefers current stock batches to shipments');
SELECT is(available('in-stock-batch'), 90::bigint, 'and the stock is charged');
SELECT is(available('shipment-batch'), 100::bigint, 'and the shipment is not');

SELECT alloc.add_batch('speedy-batch', 'MINIMALIST-SPOON', 100, current_date);
SELECT alloc.add_batch('normal-batch', 'MINIMALIST-SPOON', 100, current_date + 1);
SELECT alloc.add_batch('slow-batch', 'MINIMALIST-SPOON', 100, current_date + 14);
SELECT is(alloc.allocate('order1', 'MINIMALIST-SPOON', 10), 'speedy-batch',
	'prefers earlier batches');
SELECT is(available('speedy-batch'), 90::bigint, 'and the earliest is charged');
SELECT is(available('normal-batch'), 100::bigint, 'and the next is not');
SELECT is(available('slow-batch'), 100::bigint, 'and the last is not');

SELECT alloc.add_batch('in-stock-batch-ref', 'HIGHBROW-POSTER', 100, NULL);
SELECT alloc.add_batch('shipment-batch-ref', 'HIGHBROW-POSTER', 100, current_date + 1);
SELECT is(alloc.allocate('oref', 'HIGHBROW-POSTER', 10), 'in-stock-batch-ref',
	'returns allocated batch ref');

SELECT alloc.add_batch('batch1', 'SMALL-FORK', 10, current_date);
SELECT is(alloc.allocate('order1', 'SMALL-FORK', 10), 'batch1',
	'the first order takes all of the forks');
SELECT mark();
SELECT is(alloc.allocate('order2', 'SMALL-FORK', 1), NULL,
	'out of stock: NULL, not an error');
SELECT results_eq('SELECT news()', ARRAY['out_of_stock order2 SMALL-FORK 1'],
	'records out of stock event if cannot allocate');

-- Chapters 8 to 11, test_handlers.py

SELECT is(alloc.add_batch('b1', 'CRUNCHY-ARMCHAIR', 100, NULL), 'b1',
	'add batch for new product');
SELECT ok(EXISTS (SELECT FROM alloc.product WHERE sku = 'CRUNCHY-ARMCHAIR'),
	'and the product is there');
SELECT alloc.add_batch('g1', 'GARISH-RUG', 100, NULL);
SELECT alloc.add_batch('g2', 'GARISH-RUG', 99, NULL);
SELECT set_eq($$SELECT ref FROM alloc.batches WHERE sku = 'GARISH-RUG'$$,
	ARRAY['g1', 'g2'], 'add batch for existing product');

SELECT alloc.add_batch('batch-arm', 'COMPLICATED-LAMP', 100, NULL);
SELECT is(alloc.allocate('o1', 'COMPLICATED-LAMP', 10), 'batch-arm',
	'allocates');
SELECT is(available('batch-arm'), 90::bigint, 'and reduces what is available');
SELECT throws_ok($$SELECT alloc.allocate('o1', 'NONEXISTENTSKU', 10)$$,
	'SK001', 'unknown sku "NONEXISTENTSKU"', 'errors for invalid sku');

SELECT alloc.add_batch('batch-seat', 'ADORABLE-SETTEE', 100, NULL);
SELECT is_empty($$SELECT * FROM alloc.change_batch_quantity('batch-seat', 50)$$,
	'changes available quantity: no line has to leave');
SELECT is(available('batch-seat'), 50::bigint, 'changes available quantity');

SELECT alloc.add_batch('batch-table1', 'INDIFFERENT-TABLE', 50, NULL);
SELECT alloc.add_batch('batch-table2', 'INDIFFERENT-TABLE', 50, current_date);
SELECT alloc.allocate('order1', 'INDIFFERENT-TABLE', 20);
SELECT alloc.allocate('order2', 'INDIFFERENT-TABLE', 20);
SELECT is(available('batch-table1'), 10::bigint, 'two orders of 20 leave 10 of 50');
SELECT is(available('batch-table2'), 50::bigint, 'and all of the other batch');
SELECT results_eq($$SELECT * FROM alloc.change_batch_quantity('batch-table1', 25)$$,
	$$VALUES ('order2', 'INDIFFERENT-TABLE', 20::bigint, 'batch-table1', 'batch-table2')$$,
	'reallocates if necessary');
SELECT is(available('batch-table1'), 5::bigint, 'order1 or order2 is deallocated: 25 - 20');
SELECT is(available('batch-table2'), 30::bigint, 'and 20 are taken of the next batch');

-- Chapter 12, test_views.py

SELECT alloc.add_batch('sku1batch', 'sku1', 50, NULL);
SELECT alloc.add_batch('sku2batch', 'sku2', 50, current_date);
SELECT alloc.allocate('order-view', 'sku1', 20);
SELECT alloc.allocate('order-view', 'sku2', 20);
SELECT alloc.add_batch('sku1batch-later', 'sku1', 50, current_date);
SELECT alloc.allocate('otherorder', 'sku1', 30);
SELECT alloc.allocate('otherorder', 'sku2', 10);
SELECT results_eq(
	$$SELECT sku, batchref FROM alloc.allocations WHERE orderid = 'order-view' ORDER BY sku$$,
	$$VALUES ('sku1', 'sku1batch'), ('sku2', 'sku2batch')$$,
	'allocations view: sku and batchref of an order');
SELECT alloc.add_batch('view1', 'VIEW-SKU', 50, NULL);
SELECT alloc.add_batch('view2', 'VIEW-SKU', 50, current_date);
SELECT alloc.allocate('o-view', 'VIEW-SKU', 40);
SELECT alloc.change_batch_quantity('view1', 10);
SELECT results_eq(
	$$SELECT sku, batchref FROM alloc.allocations WHERE orderid = 'o-view'$$,
	$$VALUES ('VIEW-SKU', 'view2')$$,
	'allocations view: a deallocated line is seen with its new batch');

SELECT sound('the book');
SELECT * FROM finish();
ROLLBACK;
