-- replay() of one sku reads that sku's part of the log, by the index event_sku;
-- and tells the same as without it, whatever the index knows.

\ir common.psql
SELECT plan(37);

-- blocks_of: how many blocks of the log a query reads.
CREATE FUNCTION blocks_of(query text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	before bigint := pg_stat_get_xact_blocks_fetched('alloc.event'::regclass);
BEGIN
	EXECUTE query;
	RETURN pg_stat_get_xact_blocks_fetched('alloc.event'::regclass) - before;
END
$$;
CREATE FUNCTION blocks_of_log() RETURNS bigint
LANGUAGE sql AS $$
	SELECT pg_relation_size('alloc.event') / current_setting('block_size')::bigint
$$;
-- quiet: waits until nobody else is here, so that VACUUM can remove all that is
-- dead; autovacuum comes and goes.
CREATE PROCEDURE quiet() LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 1..600 LOOP
		EXIT WHEN NOT EXISTS (
			SELECT FROM pg_stat_activity
			 WHERE datname = current_database() AND pid <> pg_backend_pid());
		COMMIT;
		PERFORM pg_sleep(0.1);
	END LOOP;
END
$$;
-- told: what the log tells of each sku, now and after some events of those
-- that are left of it.
CREATE FUNCTION told() RETURNS text
LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', s.sku, upto,
		(SELECT string_agg(r::text, ', ' ORDER BY ref) FROM alloc.replay(s.sku, upto) r),
		(SELECT md5(string_agg(h::text, ', ')) FROM alloc.history(s.sku) h)), E'\n'
		ORDER BY s.sku, upto)
	  FROM (SELECT sku FROM alloc.product WHERE sku IN ('RARE', 'DESK-1', 'DESK-50')
			 UNION ALL VALUES ('unknown')) s
	 CROSS JOIN (SELECT NULL::bigint AS upto UNION ALL
		SELECT event_id FROM alloc.event
		 WHERE event_id % 400 = 0
		   AND event_id > (SELECT coalesce(max(event_id), 0) FROM alloc.snapshot)) u
$$;
-- sell: lines of all the common skus, some of them freed again.
CREATE FUNCTION sell(orders text, n integer) RETURNS bigint
LANGUAGE sql AS $$
	SELECT count(*) FROM alloc.allocate_lines(ARRAY(
		SELECT ROW(format('%s-%s', orders, i), format('DESK-%s', i % 100), 1)::alloc.order_line
		  FROM generate_series(1, n) i));
	SELECT count(alloc.deallocate(format('%s-%s', orders, i), format('DESK-%s', i % 100)))
	  FROM generate_series(1, n, 7) i
$$;
CREATE FUNCTION as_batches() RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT p.sku FROM alloc.product p
	 WHERE (SELECT array_agg(r ORDER BY ref) FROM alloc.replay(p.sku) r)::text
		   IS DISTINCT FROM
		   (SELECT array_agg(b ORDER BY ref) FROM alloc.batches b WHERE b.sku = p.sku)::text
$$;

SELECT count(alloc.add_batch('desk ' || i, 'DESK-' || i, 100000)) FROM generate_series(0, 99) i;
SELECT alloc.add_batch('rare', 'RARE', 10);
SELECT sell('first', 3000);
SELECT alloc.allocate('r1', 'RARE', 3);
SELECT sell('second', 3000);
SELECT alloc.deallocate('r1', 'RARE'), alloc.allocate('r2', 'RARE', 4);

-- Nothing but the first page is in the index.

SELECT cmp_ok(blocks_of_log(), '>', 90::bigint, 'the log has many blocks');
SELECT is_empty('SELECT as_batches()', 'a new log: each sku is replayed as its batches are');
BEGIN;
DROP INDEX alloc.event_sku;
SELECT is_empty('SELECT as_batches()', '... without the index as well');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('RARE')$$), '>=', blocks_of_log(), '... which reads all of the log');
SELECT told() AS without \gset
ROLLBACK;
SELECT is(told(), :'without', 'with it all is told as without it');

-- All of it is.

CALL quiet();
VACUUM ANALYZE alloc.event;
SELECT is_empty('SELECT as_batches()', 'after VACUUM each sku is replayed as its batches are');
SELECT is(told(), :'without', '... and all is told as without the index');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('RARE')$$), '<=', 10::bigint, '... of which few blocks are read');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('RARE', 3000)$$), '<=', 10::bigint, '... up to an event as well');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('unknown')$$), '<=', 10::bigint, '... and of a sku that is not there');
SELECT cmp_ok(blocks_of('SELECT * FROM alloc.replay()'), '>=', blocks_of_log(), 'of all skus all is read');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.history('RARE')$$), '<=', 10::bigint, 'history() reads few blocks, too');

-- The end of it is not.

SELECT alloc.allocate('r3', 'RARE', 2);
SELECT sell('third', 400);
SELECT alloc.add_batch('rare too', 'RARE', 5, '2030-01-01'), moves('rare', 5);
BEGIN;
DROP INDEX alloc.event_sku;
SELECT told() AS without \gset
ROLLBACK;
SELECT is(told(), :'without', 'a new end of the log: all is told as without the index');
SELECT is_empty('SELECT as_batches()', '... each sku as its batches are');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('RARE')$$), '<=', 20::bigint, '... and the end is read besides');
BEGIN;
SELECT alloc.allocate('r4', 'RARE', 1), alloc.deallocate('r2', 'RARE');
SELECT is_empty('SELECT as_batches()', 'what the transaction has done is seen');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT is(told(), :'without', 'a serializable transaction is told the same');
COMMIT;

-- Pages that were freed are used again: they are in the index.

SELECT alloc.snapshot_log() AS cut \gset
SELECT count(*) FROM alloc.archive_events('infinity');
CALL quiet();
VACUUM alloc.event;
SELECT is_empty('SELECT as_batches()', 'archived: each sku is replayed as its batches are');
SELECT alloc.allocate('r5', 'RARE', 1);
SELECT sell('fourth', 1000);
SELECT alloc.deallocate('r5', 'RARE'), alloc.allocate('r6', 'RARE', 2);
SELECT sell('fifth', 2500);
SELECT alloc.allocate('r7', 'RARE', 1);
SELECT cmp_ok((SELECT count(*) FROM alloc.event
				WHERE (ctid::text::point)[0] < 60 AND event_id > :cut), '>', 500::bigint, 'pages are used again');
BEGIN;
DROP INDEX alloc.event_sku;
SELECT told() AS without \gset
ROLLBACK;
SELECT is(told(), :'without', '... and all is told as without the index');
SELECT is_empty('SELECT as_batches()', '... each sku as its batches are');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('RARE')$$), '<', blocks_of_log(), '... without reading all');
CALL quiet();
VACUUM alloc.event;
SELECT is(told(), :'without', '... after VACUUM, too');
REINDEX INDEX alloc.event_sku;
SELECT is(told(), :'without', '... and REINDEX');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('RARE')$$), '<=', 10::bigint, '... of few blocks');
SELECT is_empty('SELECT * FROM alloc.check()', 'all is sound');

-- Another index by its name: it is used if it can be.

DROP INDEX alloc.event_sku;
SELECT is(told(), :'without', 'no index: all is told the same');
CREATE INDEX event_sku ON alloc.event (sku text_pattern_ops);
SELECT is(told(), :'without', 'an index by bytes');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('RARE')$$), '<=', 10::bigint, '... is used');
DROP INDEX alloc.event_sku;
CREATE INDEX event_sku ON alloc.event (sku);
SELECT is(told(), :'without', 'one in the order of the database''s collation');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('RARE')$$), '<=', 10::bigint, '... is used');
DROP INDEX alloc.event_sku;
CREATE INDEX event_sku ON alloc.event USING brin (sku);
SELECT is(told(), :'without', 'a BRIN index of least and greatest');
DROP INDEX alloc.event_sku;
CREATE INDEX event_sku ON alloc.event USING hash (sku);
SELECT is(told(), :'without', 'a hash index');
SELECT cmp_ok(blocks_of($$SELECT * FROM alloc.replay('RARE')$$), '<=', 10::bigint, '... is used');
DROP INDEX alloc.event_sku;
CREATE INDEX event_sku ON alloc.event (sku) WHERE type = 'allocated';
SELECT is(told(), :'without', 'an index of a part is not');
DROP INDEX alloc.event_sku;
CREATE INDEX event_sku ON alloc.event (orderid, sku);
SELECT is(told(), :'without', 'nor one of another column');
DROP INDEX alloc.event_sku;
CREATE INDEX event_sku ON alloc.event (upper(sku));
SELECT is(told(), :'without', 'nor one of an expression');

SELECT * FROM finish();
