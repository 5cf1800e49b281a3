-- Whom archive_events() waits for: a consumer that has not had an event, and a
-- handler only if the event is of its type.

\ir common.psql
SELECT plan(8);

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

-- A relay that was there once waits for what it is to send, and for nothing else.
SELECT alloc.unsubscribe('out_of_stock', 'hear(jsonb)');
INSERT INTO alloc.consumer (consumer_id, kind, name) VALUES (0, 'relay', 'relay');
INSERT INTO alloc.position (consumer_id, moved, seen_xmax, seen_open, marks)
SELECT 0, 1, pg_snapshot_xmax(pg_current_snapshot())::text::bigint, '{}', ARRAY[0, 0];
UPDATE alloc.position p SET seen_xmax = r.seen_xmax, seen_open = r.seen_open, marks = r.marks
  FROM alloc.position r JOIN alloc.consumer c USING (consumer_id)
 WHERE p.consumer_id = 0 AND c.name = 'reader';
SELECT alloc.allocate('three', 'LAMP', 1);
SELECT alloc.snapshot_log();
SELECT is((SELECT count(*) FROM alloc.fetch_events('reader')), 1::bigint, 'an event that no relay is to send');
UPDATE alloc.event SET relay = true WHERE orderid = 'three';
SELECT is((SELECT count(*) FROM alloc.archive_events('infinity') WHERE orderid = 'three'), 0::bigint, 'one that it is to send stays');
UPDATE alloc.event SET relay = false WHERE orderid = 'three';
SELECT is((SELECT count(*) FROM alloc.archive_events('infinity') WHERE orderid = 'three'), 1::bigint, 'others go');
SELECT is_empty('SELECT * FROM alloc.check()', 'sound');

SELECT * FROM finish();
