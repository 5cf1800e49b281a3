-- Whom archive_events() waits for: a consumer that has not had an event, and a
-- handler only if the event is of its type.

\ir common.psql
SELECT plan(5);

CREATE FUNCTION hear(jsonb) RETURNS void LANGUAGE sql AS '';
SELECT alloc.subscribe('out_of_stock', 'hear(jsonb)');
SELECT alloc.create_consumer('reader');
SELECT alloc.add_batch('batch', 'LAMP', 100);
SELECT alloc.allocate('one', 'LAMP', 1);
SELECT alloc.snapshot_log();

SELECT is((SELECT count(*) FROM alloc.archive_events('infinity')), 0::bigint, 'a consumer has not had the events: they stay');
SELECT is((SELECT count(*) FROM alloc.fetch_events('reader')), 2::bigint, 'now it has');
SELECT is((SELECT count(*) FROM alloc.archive_events('infinity')), 2::bigint, 'a handler of another type is not waited for');

SELECT alloc.allocate('too many', 'LAMP', 1000);
SELECT alloc.allocate('two', 'LAMP', 1);
SELECT count(*) FROM alloc.fetch_events('reader');
SELECT alloc.snapshot_log();
SELECT is((SELECT count(*) FROM alloc.archive_events('infinity')), 0::bigint, 'it is waited for when there is an event for it');
SELECT is_empty('SELECT * FROM alloc.check()', 'sound');

SELECT * FROM finish();
