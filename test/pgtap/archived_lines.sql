-- The list of a batch's lines goes on in a snapshot when the events that it
-- leads to were moved out of the log: for batches that shrink, more than once,
-- and for slots that were made anew.

\ir common.psql
SELECT plan(12);

SELECT alloc.add_batch('batch', 'LAMP', 100);
SELECT alloc.allocate('old ' || n, 'LAMP', 1) FROM generate_series(1, 20) n;
SELECT alloc.add_batch('quiet', 'RUG', 5);
SELECT alloc.allocate('old', 'RUG', 5);
SELECT alloc.snapshot_log();
CREATE TABLE moved AS SELECT * FROM alloc.archive_events('infinity');
SELECT alloc.allocate('new ' || n, 'LAMP', 1) FROM generate_series(1, 3) n;

CREATE FUNCTION leave(qty bigint) RETURNS text LANGUAGE sql
BEGIN ATOMIC
	SELECT string_agg(orderid, ', ' ORDER BY orderid COLLATE "C")
	  FROM alloc.change_batch_quantity('batch', qty);
END;

SELECT is((SELECT count(*) FROM moved), 23::bigint, 'the events of the old lines are not in the log');
SELECT is_empty('SELECT * FROM alloc.check()', 'sound');
SELECT is(leave(18), 'new 1, new 2, new 3, old 19, old 20', 'the newest lines leave, the last of them from the snapshot');
SELECT is_empty('SELECT * FROM alloc.check()', 'the list leads to the rest');
SELECT is(leave(16), 'old 17, old 18', 'the next ones leave');
SELECT is_empty('SELECT * FROM alloc.check()', 'and it still does');

UPDATE alloc.slot SET available = available + 1;
SELECT is((SELECT string_agg(action, ' ') FROM alloc.repair(false)), 'slots_rebuilt slots_rebuilt', 'slots are made anew');
SELECT is_empty('SELECT * FROM alloc.check()', 'the list begins with the snapshot');
SELECT is(leave(15), 'old 16', 'the next one leaves');

TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
SELECT alloc.rebuild();
SELECT is_empty('SELECT * FROM alloc.check()', 'made anew from snapshot and log: sound');
SELECT is((SELECT orderid FROM alloc.change_batch_quantity('quiet', 1)), 'old', 'a line leaves that only the snapshot has');
SELECT is(leave(13), 'old 14, old 15', 'and the next ones leave');

SELECT * FROM finish();
