-- snapshot_log(), archive_events() and rebuild(): the log can be cut, and only
-- where nobody reads any more; what is left, and a new database, go on from it.

\ir common.psql
SELECT plan(111);

CREATE FUNCTION logged() RETURNS bigint[]
LANGUAGE sql STABLE AS 'SELECT coalesce(array_agg(event_id ORDER BY event_id), ''{}'') FROM alloc.event';
CREATE FUNCTION given(consumer text, max_events int DEFAULT 1000) RETURNS bigint[]
LANGUAGE sql AS $$
	SELECT coalesce(array_agg(f.event_id ORDER BY f.ordinality), '{}')
	  FROM alloc.fetch_events(consumer, max_events) WITH ORDINALITY AS f
$$;
CREATE TABLE archived (LIKE alloc.events);
-- archive: moves events to a table; how many.
CREATE FUNCTION archive(before timestamptz DEFAULT 'infinity') RETURNS bigint
LANGUAGE sql AS $$
	WITH moved AS (INSERT INTO archived SELECT * FROM alloc.archive_events(before) RETURNING *)
	SELECT count(*) FROM moved
$$;
-- shed: a batch keeps its n oldest lines, which fill it; what is wrong with that.
CREATE FUNCTION shed(batchref text, n int) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	expected text[];
	moved text[];
	stays bigint;
BEGIN
	SELECT array_agg(orderid ORDER BY event_id) FILTER (WHERE place > n), coalesce(sum(qty) FILTER (WHERE place <= n), 0)
	  INTO expected, stays
	  FROM (SELECT a.*, row_number() OVER (ORDER BY event_id) AS place
			  FROM alloc.allocation a JOIN alloc.batch b USING (batch_id) WHERE b.ref = batchref) s;
	SELECT array_agg(m.orderid) INTO moved FROM alloc.change_batch_quantity(batchref, stays) m;
	IF moved IS DISTINCT FROM expected THEN
		RETURN NEXT format('%s left, not %s', moved, expected);
	END IF;
	RETURN QUERY SELECT unlike_log();
END
$$;

-- Nothing to do

SELECT is(alloc.snapshot_log(), 0::bigint, 'a snapshot of an empty log is none');
SELECT is_empty('SELECT * FROM alloc.snapshot', '... and is not kept');
SELECT throws_ok($$SELECT * FROM alloc.archive_events('infinity')$$, '55000', NULL, 'without a snapshot nothing is archived');
SELECT alloc.add_batch('lamp', 'LAMP', 1000), alloc.add_batch('later', 'LAMP', 50, '2030-01-01'), alloc.add_batch('rug', 'RUG', 2000);
SELECT throws_ok($$SELECT * FROM alloc.archive_events('infinity')$$, '55000', NULL, '... nor when there are events');
SELECT throws_ok('SELECT * FROM alloc.archive_events(NULL)', '22004', NULL, 'archive_events(NULL)');
SELECT throws_like('SELECT * FROM alloc.archive_events(NULL)', '%before%', '... names the argument');

-- snapshot_log()

SELECT alloc.allocate('a' || n, sku, n) FROM generate_series(1, 6) n, unnest(ARRAY['LAMP', 'RUG']) sku;
SELECT alloc.deallocate('a2', 'LAMP');
SELECT is(alloc.snapshot_log(), (SELECT max(event_id) FROM alloc.event), 'a snapshot returns the last event');
SELECT is(alloc.snapshot_log(), (SELECT max(event_id) FROM alloc.event), 'so does a second one');
SELECT is((SELECT count(*) FROM alloc.snapshot), 1::bigint, 'of one event there is one');
BEGIN;
SELECT alloc.allocate('a7', 'LAMP', 7);
SELECT is(alloc.snapshot_log(), (SELECT max(event_id) FROM alloc.event), 'it has what its own transaction did');
SELECT agrees('within a transaction');
ROLLBACK;
SELECT agrees('rolled back');
BEGIN;
SELECT alloc.allocate('undone', 'LAMP', 1);
ROLLBACK;
SELECT alloc.snapshot_log() AS snapshot \gset
SELECT cmp_ok(:'snapshot'::bigint, '>=', (SELECT max(event_id) FROM alloc.event), 'an event that was rolled back does no harm');
SELECT agrees('after that');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT throws_ok('SELECT * FROM alloc.rebuild()', '25000', NULL, 'rebuild() in REPEATABLE READ');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT throws_ok('SELECT alloc.snapshot_log()', '25000', NULL, 'snapshot_log() in REPEATABLE READ');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT throws_ok($$SELECT * FROM alloc.archive_events('infinity')$$, '25000', NULL, 'archive_events() in SERIALIZABLE');
ROLLBACK;

-- rebuild() from all of the log, and from one that is damaged

CREATE TABLE state AS SELECT * FROM alloc.allocations;
BEGIN;
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
SELECT results_eq('SELECT * FROM alloc.rebuild()', 'SELECT 3::bigint, count(*) FROM state', 'rebuild() from the beginning');
SELECT set_eq('SELECT * FROM alloc.allocations', 'SELECT * FROM state', 'the lines are the same');
SELECT agrees('rebuild()');
ROLLBACK;
BEGIN;
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
DELETE FROM alloc.event WHERE type = 'batch_created' AND batchref = 'lamp';
SELECT throws_ok('SELECT * FROM alloc.rebuild()', 'XX001', NULL, 'not from a log that lacks the creation of a batch');
ROLLBACK;
BEGIN;
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
UPDATE alloc.event SET qty = 5 WHERE type = 'batch_created' AND batchref = 'rug';
SELECT throws_like('SELECT * FROM alloc.rebuild()', 'the log is not complete', 'nor by which more was allocated than bought');
ROLLBACK;

-- Who has still to read

CREATE TABLE whole AS SELECT * FROM alloc.events;
SELECT alloc.create_consumer('all', 'beginning');
SELECT is(archive(), 0::bigint, 'a consumer that never fetched has all to read: nothing is archived');
SELECT given('all', 5) AS ids \gset
BEGIN;
SELECT is(archive(), 5::bigint, 'after a fetch of five events they are');
SELECT is((SELECT array_agg(event_id ORDER BY event_id) FROM archived), :'ids'::bigint[], '... these five, in the middle of its batch');
SELECT is_empty('SELECT * FROM archived EXCEPT SELECT * FROM whole', 'as view events had them');
SELECT is((SELECT pending FROM alloc.consumers), (SELECT count(*) FROM alloc.event), 'it has still to read what is left');
SELECT is(given('all'), logged(), 'and is given that');
SELECT agrees('a part is archived');
ROLLBACK;
SELECT set_eq('SELECT * FROM alloc.events', 'SELECT * FROM whole', 'a rollback brings them back');
SELECT is_empty('SELECT * FROM alloc.archive', 'nothing was archived');
SELECT is(given('all', 2), (logged())[6:7], 'the consumer goes on at the next event');
SELECT is(archive('2020-01-01'), 0::bigint, 'nothing is of before 2020');
SELECT is(archive('-infinity'), 0::bigint, 'nor of before all times');
SELECT is(archive((SELECT at FROM alloc.event ORDER BY event_id OFFSET 3 LIMIT 1)), 3::bigint, 'before the fourth event there were three');
SELECT is(archive(), 4::bigint, 'then those that were read');
SELECT is(archive(), 0::bigint, 'none is moved twice');
SELECT alloc.create_consumer('late', 'beginning');
SELECT is(given('late'), logged(), 'a consumer from the beginning begins with what is left');
SELECT is(given('all'), logged(), 'the other one goes on at the next event');
SELECT alloc.create_consumer('now');
SELECT alloc.allocate('b1', 'RUG', 3);
SELECT is(archive(), (SELECT count(*) - 7 FROM whole), 'what has been read by all goes, up to the snapshot');
SELECT set_eq('SELECT * FROM archived', 'SELECT * FROM whole', 'all is in the table');
SELECT is(cardinality(logged()), 1, 'one event is left');
SELECT is(given('all'), logged(), 'which is new to the first consumer');
SELECT is(given('late'), logged(), 'to the second');
SELECT is(given('now'), logged(), 'and to the third');
SELECT agrees('all is archived');

-- Handlers, and what they failed on

CREATE FUNCTION fail(event jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
SELECT alloc.subscribe('allocated', 'fail(jsonb)');
SELECT alloc.allocate('h1', 'RUG', 1);
SELECT alloc.snapshot_log();
SELECT given('all'), given('late'), given('now');
SELECT is(archive(), 1::bigint, 'what a handler has still to be called with stays');
SELECT is(cardinality(logged()), 1, '... that one');
SELECT alloc.unsubscribe('allocated', 'fail(jsonb)');
INSERT INTO alloc.delivery VALUES (1, 1, (logged())[1], now(), NULL, 3, 'fail(jsonb)', 'no');
SELECT is(archive(), 0::bigint, 'what a handler has failed on stays');
DELETE FROM alloc.delivery;
SELECT is(archive(), 1::bigint, 'until that is settled');
-- Of the relay: it never ran here, but was to send them.
SELECT alloc.allocate('h2', 'RUG', 1);
UPDATE alloc.event SET relay = true;
SELECT alloc.snapshot_log();
SELECT given('all'), given('late'), given('now');
SELECT is(archive(), 0::bigint, 'what the relay has to send stays');
UPDATE alloc.event SET relay = false;
SELECT is(archive(), 1::bigint, 'until it need not');
SELECT agrees('handlers');

-- The lines of a batch on both sides of the cut

SELECT alloc.allocate('c' || n, sku, 1 + n % 3) FROM generate_series(1, 30) n, unnest(ARRAY['LAMP', 'RUG']) sku;
SELECT alloc.deallocate('c5', 'LAMP'), alloc.deallocate('c6', 'RUG');
SELECT alloc.snapshot_log();
SELECT alloc.allocate('d' || n, sku, 1 + n % 3) FROM generate_series(1, 10) n, unnest(ARRAY['LAMP', 'RUG']) sku;
SELECT alloc.deallocate('c7', 'LAMP'), alloc.deallocate('a3', 'RUG'), alloc.deallocate('d3', 'LAMP');
SELECT given('all'), given('late'), given('now');
SELECT cmp_ok(archive(), '>', 60::bigint, 'many lines lose their events');
SELECT agrees('lines on both sides');
SELECT results_eq($$SELECT left(orderid, 1), count(*) FROM lines('rug') l (orderid) GROUP BY 1 ORDER BY 1$$,
	$$VALUES ('a', 5::bigint), ('b', 1), ('c', 29), ('d', 10), ('h', 2)$$, 'lines of one batch, of before and after');
SELECT alloc.change_batch_quantity('later', 0);
SELECT is_empty($$SELECT shed('rug', 42)$$, 'the newest leave, those after the cut');
SELECT is_empty($$SELECT shed('rug', 30)$$, 'more of them, on both sides');
SELECT is_empty($$SELECT shed('rug', 29)$$, 'one of before');
SELECT alloc.change_batch_quantity('rug', 2000), alloc.allocate('e' || n, 'RUG', 1) FROM generate_series(1, 5) n;
SELECT is_empty($$SELECT shed('rug', 25)$$, 'with new lines on top');
SELECT alloc.snapshot_log();
SELECT given('all'), given('late'), given('now');
SELECT cmp_ok(archive(), '>', 10::bigint, 'again events go');
SELECT agrees('a second cut');
SELECT is_empty($$SELECT shed('rug', 20)$$, 'all lines are of before the cut: the newest leave');
SELECT is_empty($$SELECT shed('rug', 0)$$, 'and the rest');
SELECT is_empty($$SELECT shed('lamp', 3)$$, 'of another batch, which nothing happened to');
SELECT is((SELECT count(*) FROM alloc.snapshot), 1::bigint, 'of snapshots the last one is left');
SELECT is_empty($$SELECT * FROM alloc.history('LAMP') WHERE event_id NOT IN (SELECT event_id FROM alloc.event)$$, 'history() has what is left');
SELECT is((SELECT count(*) FROM alloc.history('LAMP')), (SELECT count(*) FROM alloc.event WHERE sku = 'LAMP'), '... all of it');
SELECT is((SELECT array_agg(event_id ORDER BY event_id) FROM (
		SELECT event_id FROM archived UNION ALL SELECT event_id FROM alloc.event WHERE event_id <= (SELECT max(event_id) FROM archived)) e),
	(SELECT array_agg(DISTINCT event_id ORDER BY event_id) FROM archived), 'no event is in both, none twice');

-- Damage to what was archived

SELECT moves('rug', 1000), moves('later', 70), alloc.add_batch('desk', 'DESK', 2000);
SELECT alloc.allocate('f' || n, sku, n) FROM generate_series(1, 9) n, unnest(ARRAY['LAMP', 'RUG', 'DESK']) sku;
SELECT alloc.snapshot_log();
SELECT given('all'), given('late'), given('now');
SELECT cmp_ok(archive(), '>', 10::bigint, 'lines that only the snapshot has');
SELECT alloc.allocate('g1', 'RUG', 1), alloc.deallocate('f4', 'RUG');
SELECT agrees('before the damage');
CREATE TABLE good AS SELECT * FROM alloc.allocations;
-- mended: all that is not as it should be after some damage and repair().
CREATE FUNCTION mended(damage text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE damage;
	IF NOT EXISTS (SELECT FROM alloc.check()) THEN
		RETURN NEXT 'check() has found nothing';
	END IF;
	PERFORM alloc.repair(false);
	RETURN QUERY SELECT unlike_log();
	RETURN QUERY SELECT 'line ' || l FROM (SELECT * FROM good EXCEPT SELECT * FROM alloc.allocations) l;
	RETURN QUERY SELECT 'surplus line ' || l FROM (SELECT * FROM alloc.allocations EXCEPT SELECT * FROM good) l;
	RETURN QUERY SELECT b || ': ' || shed(b, 6) FROM unnest(ARRAY['rug', 'lamp', 'desk', 'later']) b;
	PERFORM alloc.allocate('afterwards', 'RUG', 1), alloc.add_batch('new', 'RUG', 1);
	RETURN QUERY SELECT unlike_log();
	RAISE EXCEPTION USING ERRCODE = 'UNDO1';
EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
	RETURN;
END
$$;
SELECT is_empty(format('SELECT mended(%L)', damage), damage)
  FROM unnest(ARRAY[
	'DELETE FROM alloc.allocation WHERE orderid = ''f1''',
	'UPDATE alloc.allocation SET qty = 1, event_id = 1 WHERE orderid = ''f2''',
	'DELETE FROM alloc.slot WHERE sku = ''DESK''',
	'DELETE FROM alloc.slot WHERE sku = ''RUG''',
	'UPDATE alloc.slot SET newest = NULL, merged = NULL',
	'UPDATE alloc.slot SET available = 0, spread = true',
	'DELETE FROM alloc.batch WHERE ref = ''desk''',
	'DELETE FROM alloc.batch; DELETE FROM alloc.slot; DELETE FROM alloc.product; DELETE FROM alloc.allocation',
	'UPDATE alloc.batch SET purchased = 0, eta = NULL']) AS damage;

-- rebuild() from what is left

CREATE TABLE good_batches AS SELECT * FROM alloc.batches;
CREATE FUNCTION rebuilt() RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT 'missing line ' || l FROM (SELECT * FROM good EXCEPT SELECT * FROM alloc.allocations) l
	UNION ALL SELECT 'surplus line ' || l FROM (SELECT * FROM alloc.allocations EXCEPT SELECT * FROM good) l
	UNION ALL SELECT 'missing batch ' || l FROM (SELECT * FROM good_batches EXCEPT SELECT * FROM alloc.batches) l
	UNION ALL SELECT 'surplus batch ' || l FROM (SELECT * FROM alloc.batches EXCEPT SELECT * FROM good_batches) l
	UNION ALL SELECT unlike_log()
$$;
SELECT throws_ok('SELECT * FROM alloc.rebuild()', '55000', NULL, 'rebuild() is not for a database with state');
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
SELECT throws_ok(format('INSERT INTO alloc.%s; SELECT * FROM alloc.rebuild()', what), '55000', NULL, 'not even with one row: ' || what)
  FROM unnest(ARRAY['product VALUES (''x'')', 'batch VALUES (1, 1, NULL, ''x'', ''x'')', 'slot (batch_id, available, ref, sku) VALUES (1, 1, ''x'', ''x'')', 'allocation VALUES (1, 1, 1, NULL, NULL, ''x'', ''x'')']) AS what;
BEGIN;
DELETE FROM alloc.snapshot;
SELECT throws_ok('SELECT * FROM alloc.rebuild()', 'XX001', NULL, 'nor for a log whose snapshot is gone');
ROLLBACK;
BEGIN;
DELETE FROM alloc.snapshot_batch WHERE ref = 'rug';
SELECT throws_ok('SELECT * FROM alloc.rebuild()', 'XX001', NULL, 'nor for a snapshot that lacks a batch');
ROLLBACK;
SELECT results_eq('SELECT * FROM alloc.rebuild()', 'SELECT (SELECT count(*) FROM good_batches), (SELECT count(*) FROM good)', 'rebuild() returns how many batches and lines it has made');
SELECT is_empty('SELECT rebuilt()', 'all is as it was');
SELECT is(given('all'), (logged())[cardinality(logged()) - 1:], 'consumers go on at the next event');
SELECT is_empty($$SELECT b || ': ' || shed(b, 6) FROM unnest(ARRAY['rug', 'lamp', 'desk', 'later']) b$$, 'batches shrink, the newest lines leave');
SELECT moves('rug', 1000);
SELECT is(alloc.allocate('new', 'RUG', 1), 'rug', 'commands go on');
SELECT agrees('after that');
SELECT throws_ok('SELECT * FROM alloc.rebuild()', '55000', NULL, 'it cannot be rebuilt twice');

-- Another database, with the log alone

CREATE EXTENSION dblink;
SELECT format('host=%L port=%L user=%L dbname=', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_user) AS server \gset
SELECT :'DBNAME' || '_other' AS other \gset
CREATE DATABASE :"other";
SELECT dblink_connect('other', :'server' || :'other') AS connected \gset
CREATE FUNCTION there(command text) RETURNS SETOF text
LANGUAGE sql AS 'SELECT * FROM dblink(''other'', command) AS answer (answer text)';
SELECT dblink_exec('other', 'CREATE EXTENSION alloc; CREATE EXTENSION dblink');
-- copied: rows of a table that are there now.
CREATE FUNCTION copied(of text, connection text) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT there(format('WITH rows AS (INSERT INTO alloc.%1$I SELECT (json_populate_record(NULL::alloc.%1$I, row::json)).*
		  FROM dblink(%2$L, %3$L) AS from_here (row text) RETURNING 1) SELECT count(*) FROM rows',
		of, connection, format('SELECT row_to_json(t) FROM alloc.%I t', of)))
$$;
CREATE FUNCTION same_there(query text, what text) RETURNS text
LANGUAGE sql AS $$
	SELECT set_eq(format('SELECT s::text FROM (%s) s', query), ARRAY(SELECT there(format('SELECT s::text FROM (%s) s', query))), what)
$$;
SELECT copied(t, :'server' || :'DBNAME') FROM unnest(ARRAY['event', 'snapshot', 'snapshot_batch', 'snapshot_line', 'archive']) t;
SELECT is(ARRAY(SELECT there('SELECT row(r.*) FROM alloc.rebuild() r')), ARRAY(SELECT format('(%s,%s)', (SELECT count(*) FROM alloc.batches), (SELECT count(*) FROM alloc.allocations))), 'rebuild() in another database');
SELECT same_there('SELECT * FROM alloc.batches', 'the batches are the same');
SELECT same_there('SELECT orderid, sku, qty, event_id, b.ref FROM alloc.allocation JOIN (SELECT batch_id, ref FROM alloc.batch) b USING (batch_id)', 'the lines are');
SELECT same_there('SELECT * FROM alloc.product', 'the products are');
SELECT same_there('SELECT * FROM alloc.stock', 'the stock is');
SELECT same_there('SELECT * FROM alloc.replay()', 'and what the log tells');
SELECT is(ARRAY(SELECT there('SELECT problem FROM alloc.check()')), '{}', 'it is sound');
SELECT is(ARRAY(SELECT there('SELECT (SELECT count(*) FROM alloc.era) > max(xact >> 48) FROM alloc.event')), '{t}', 'its era is another one than that of the events');
SELECT there('SELECT alloc.create_consumer(''here'', ''beginning'')'), there('SELECT alloc.create_consumer(''since'')');
SELECT is(ARRAY(SELECT there('SELECT event_id FROM alloc.fetch_events(''here'', 3)')), (logged())[1:3]::text[], 'a consumer from the beginning has what came from elsewhere');
SELECT is(ARRAY(SELECT there('SELECT alloc.allocate(''there'', ''RUG'', 1)')), ARRAY['rug'], 'a command there');
SELECT is(ARRAY(SELECT there('SELECT event_id FROM alloc.event WHERE orderid = ''there''')), ARRAY[((logged())[cardinality(logged())] + 1)::text], 'ids go on');
SELECT is(ARRAY(SELECT there('SELECT event_id FROM alloc.fetch_events(''since'')')), ARRAY[((logged())[cardinality(logged())] + 1)::text], 'a consumer from now has that event alone');
SELECT is(ARRAY(SELECT there('SELECT event_id FROM alloc.fetch_events(''here'')')), (logged())[4:]::text[] || ((logged())[cardinality(logged())] + 1)::text, 'the other one the rest and that');
SELECT is(ARRAY(SELECT there('SELECT alloc.add_batch(''there'', ''RUG'', 10)')), ARRAY['there'], 'a new batch there');
SELECT is(ARRAY(SELECT there('SELECT problem FROM alloc.check()')), '{}', 'still sound');
SELECT is(ARRAY(SELECT there('SELECT orderid FROM alloc.change_batch_quantity(''desk'', 6)')),
	ARRAY(SELECT orderid FROM alloc.change_batch_quantity('desk', 6)), 'the same lines leave here and there');
SELECT is(ARRAY(SELECT there('SELECT problem FROM alloc.check()')), '{}', 'sound');
SELECT dblink_disconnect('other');
DROP DATABASE :"other";

SELECT * FROM finish();
