-- Lines that wait for stock, by the log: check(), repair(), snapshots, the
-- archive, rebuild().

\ir common.psql
SELECT plan(49);

-- found: what check() says, in words.
CREATE FUNCTION found() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT concat_ws(' ', problem, sku, batchref, orderid)
	  FROM alloc.check() ORDER BY 1
$$;
-- repairs: what repair() says, in words.
CREATE FUNCTION repairs(dry_run boolean) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT concat_ws(' ', action, sku, batchref, orderid, detail) FROM alloc.repair(dry_run)
$$;
-- archive: all that can be archived; how many events.
CREATE FUNCTION archive() RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM alloc.archive_events('infinity')
$$;
-- mended: damage, what check() finds and repair() does, and that all is as
-- before; five tests.
CREATE FUNCTION mended(damage text, problems text[], actions text[], what text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	before text := (SELECT string_agg(w::text, ' ' ORDER BY w.event_id) FROM alloc.backorder w);
BEGIN
	EXECUTE damage;
	RETURN NEXT results_eq('SELECT found()', problems, what || ': found');
	RETURN NEXT results_eq('SELECT repairs(true)', actions, what || ': what would be done');
	RETURN NEXT results_eq('SELECT repairs(false)', actions, what || ': done');
	RETURN NEXT is((SELECT string_agg(w::text, ' ' ORDER BY w.event_id) FROM alloc.backorder w), before, what || ': as before');
	RETURN NEXT agrees(what);
END
$$;

SELECT alloc.add_batch('a', 'LAMP', 10), alloc.add_batch('b', 'LAMP', 10, '2031-01-01'), alloc.add_batch('r', 'RUG', 4);
SELECT alloc.allocate('o' || n, 'LAMP', n) FROM generate_series(1, 5) n;
SELECT alloc.allocate('o1', 'RUG', 4);
SELECT alloc.change_batch_quantity('b', 0), alloc.change_batch_quantity('a', 6), alloc.change_batch_quantity('r', 3);
SELECT results_eq($$SELECT waiting('LAMP')$$, ARRAY['o5 5', 'o4 4'], 'two lines wait for a lamp');
SELECT results_eq($$SELECT waiting('RUG')$$, ARRAY['o1 4'], 'one waits for a rug');
SELECT agrees('lines wait');

-- repair()

SELECT mended($$DELETE FROM alloc.backorder WHERE orderid = 'o5'$$,
	ARRAY['backorder_missing LAMP o5'], ARRAY['backorder_added LAMP o5 5 units wait since event ' || event_id], 'missing')
  FROM alloc.backorder WHERE orderid = 'o5';
SELECT mended($$INSERT INTO alloc.backorder VALUES (1, 2, now(), 'ghost', 'RUG')$$,
	ARRAY['backorder_unknown RUG ghost'], ARRAY['backorder_removed RUG ghost'], 'unknown');
SELECT mended($$UPDATE alloc.backorder SET qty = 3 WHERE orderid = 'o4'$$,
	ARRAY['backorder_differs LAMP o4'], ARRAY['backorder_changed LAMP o4 4 units wait since event ' || event_id], 'another quantity')
  FROM alloc.backorder WHERE orderid = 'o4';
SELECT mended($$UPDATE alloc.slot SET waiting = false WHERE ref = 'b'$$,
	ARRAY['waiting_unmarked LAMP b'], ARRAY['slots_rebuilt LAMP b 0 units available, 0 shipped'], 'unmarked');
SELECT mended($$DELETE FROM alloc.backorder; UPDATE alloc.slot SET waiting = false$$,
	ARRAY['backorder_missing LAMP o4', 'backorder_missing LAMP o5', 'backorder_missing RUG o1'],
	ARRAY(SELECT format('backorder_added %s %s %s units wait since event %s', sku, orderid, qty, event_id)
			FROM alloc.backorder ORDER BY sku, orderid), 'all is gone');
SELECT sound('repaired');

-- Snapshots and the archive

SELECT alloc.snapshot_log();
SELECT agrees('a snapshot');
SELECT is((SELECT count(*) FROM alloc.snapshot_backorder), 3::bigint, 'it has the lines that wait');
BEGIN;
UPDATE alloc.snapshot_backorder SET qty = 7 WHERE sku = 'RUG';
SELECT results_eq('SELECT found()', ARRAY['snapshot_differs RUG o1'], 'check() compares it with the log');
ROLLBACK;
SELECT cmp_ok(archive(), '>', 10::bigint, 'the log before it is archived');
SELECT agrees('archived');
SELECT alloc.cancel_backorder('o4', 'LAMP');
SELECT agrees('one that the snapshot has is cancelled');
SELECT alloc.snapshot_log();
SELECT agrees('a snapshot from a snapshot');
SELECT archive();
SELECT is((SELECT count(*) FROM alloc.snapshot_backorder), 2::bigint, 'only the newest one is left');
SELECT mended($$DELETE FROM alloc.backorder WHERE orderid = 'o5'$$,
	ARRAY['backorder_missing LAMP o5'], ARRAY['backorder_added LAMP o5 5 units wait since event ' || event_id], 'missing, and archived')
  FROM alloc.backorder WHERE orderid = 'o5';

-- rebuild()

SELECT throws_ok('SELECT alloc.rebuild()', '55000', NULL, 'rebuild() is for an empty database');
CREATE TABLE before AS TABLE alloc.backorders;
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation;
SELECT throws_ok('SELECT alloc.rebuild()', '55000', NULL, 'one in which no line waits');
TRUNCATE alloc.backorder;
SELECT alloc.rebuild();
SELECT results_eq('TABLE alloc.backorders', 'TABLE before', 'it makes the lines that wait');
SELECT agrees('rebuild()');
SELECT alloc.change_batch_quantity('b', 20);
SELECT results_eq($$SELECT lines('b')$$, ARRAY['o5 5'], 'and they are served');
SELECT agrees('served');
SELECT alloc.snapshot_log();
SELECT agrees('a snapshot of one that is served');

SELECT * FROM finish();
