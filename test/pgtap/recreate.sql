-- CREATE and DROP EXTENSION in the middle of a session that has used it.

\ir common.psql
SELECT plan(32);

-- ours: what of the extension is there.
CREATE FUNCTION ours() RETURNS bigint LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM pg_extension WHERE extname = 'alloc')
		 + (SELECT count(*) FROM pg_proc WHERE probin LIKE '%/alloc')
		 + (SELECT count(*) FROM pg_depend
			 WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'alloc'::regnamespace)
$$;

-- serves: a round of all commands, whose results are known.
CREATE FUNCTION serves(which text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN NEXT is(alloc.add_batch('b', 's', 10), 'b', which || ': add_batch()');
	RETURN NEXT is(alloc.allocate('o', 's', 10), 'b', which || ': allocate()');
	RETURN NEXT is((SELECT count(*) FROM alloc.change_batch_quantity('b', 5)), 1::bigint, which || ': change_batch_quantity()');
	RETURN NEXT is(alloc.deallocate('o', 's'), NULL, which || ': deallocate()');
	RETURN NEXT results_eq('SELECT event_id, type FROM alloc.events ORDER BY event_id', $q$
		VALUES (1::bigint, 'batch_created'), (2, 'allocated'), (3, 'deallocated'), (4, 'batch_quantity_changed'), (5, 'out_of_stock'), (6, 'backordered')$q$,
		which || ': the log begins with event 1');
END
$$;

SELECT serves('the first');
SELECT cmp_ok(ours(), '>', 10::bigint, 'ours() sees what the extension made');
DROP EXTENSION alloc;
SELECT is(ours(), 0::bigint, 'DROP EXTENSION leaves nothing but the empty schema');
SELECT throws_ok($$SELECT alloc.allocate('o', 's', 1)$$, '42883', NULL, 'without the extension there is no allocate()');
CREATE EXTENSION alloc;
SELECT is_empty('SELECT * FROM alloc.batches', 'a new extension is empty');
SELECT serves('the second');

-- In one transaction

BEGIN;
DROP EXTENSION alloc;
CREATE EXTENSION alloc;
SELECT serves('the third, in the transaction that created it');
COMMIT;
SELECT is(alloc.allocate('p', 's', 5), 'b', 'after that transaction');
SELECT sound('the third');

-- Rolled back

BEGIN;
DROP EXTENSION alloc;
ROLLBACK;
SELECT is(alloc.deallocate('p', 's'), 'b', 'after a DROP that was rolled back');
BEGIN;
DROP EXTENSION alloc;
CREATE EXTENSION alloc;
SELECT alloc.add_batch('b', 's', 100);
SELECT is(alloc.allocate('o', 's', 100), 'b', 'within a transaction that will be rolled back');
ROLLBACK;
SELECT is(alloc.cancel_backorder('o', 's'), true, 'the line of before waits');
SELECT is(alloc.allocate('o', 's', 5), 'b', 'the one of before serves again');
SELECT is((SELECT purchased_qty FROM alloc.batches), 5::bigint, 'with the batch of before');
BEGIN;
SELECT alloc.deallocate('o', 's');
SAVEPOINT here;
DROP EXTENSION alloc;
CREATE EXTENSION alloc;
SELECT alloc.add_batch('b', 's', 100);
ROLLBACK TO SAVEPOINT here;
SELECT is(alloc.allocate('q', 's', 4), 'b', 'after a DROP and CREATE that a savepoint undid');
COMMIT;
SELECT results_eq('SELECT lines($$b$$)', ARRAY['q 4'], 'and the transaction''s own work is there');

-- Twice is refused

SELECT throws_ok('CREATE EXTENSION alloc', '42710', NULL, 'there is one extension alloc in a database');
SELECT throws_ok('CREATE EXTENSION alloc SCHEMA public', '42710', NULL, 'not another one in another schema');
SELECT throws_ok('ALTER EXTENSION alloc SET SCHEMA public', '0A000', NULL, 'it cannot be moved to another schema');
SELECT sound('all of this');

SELECT * FROM finish();
