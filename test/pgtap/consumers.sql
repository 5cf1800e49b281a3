-- Consumers: each has every committed event once, in causal order, and has had
-- what it fetched when its transaction commits.

\ir common.psql
SELECT plan(162);

-- given: the ids of the next events for a consumer, in the order given.
CREATE FUNCTION given(consumer text, max_events int DEFAULT 1000) RETURNS bigint[]
LANGUAGE sql AS $$
	SELECT coalesce(array_agg(f.event_id ORDER BY f.ordinality), '{}')
	  FROM alloc.fetch_events(consumer, max_events) WITH ORDINALITY AS f
$$;
-- logged: the ids of the events above one.
CREATE FUNCTION logged(above bigint) RETURNS bigint[]
LANGUAGE sql STABLE AS $$
	SELECT coalesce(array_agg(event_id ORDER BY event_id), '{}') FROM alloc.events WHERE event_id > above
$$;
CREATE FUNCTION last_event() RETURNS bigint
LANGUAGE sql STABLE AS 'SELECT max(event_id) FROM alloc.event';
CREATE FUNCTION pending(consumer text) RETURNS bigint
LANGUAGE sql STABLE AS 'SELECT pending FROM alloc.consumers WHERE name = consumer';
-- same: one test, that a fetch gave what is in the log above an event.
CREATE FUNCTION same(got bigint[], above bigint, what text) RETURNS text
LANGUAGE sql AS 'SELECT is(got, logged(above), what)';

-- Nothing there yet

SELECT is_empty('SELECT * FROM alloc.consumers', 'there is no consumer');
SELECT lives_ok($$SELECT alloc.create_consumer('empty')$$, 'a consumer of an empty log');
SELECT lives_ok($$SELECT alloc.create_consumer('empty, all', 'beginning')$$, '... from the beginning');
SELECT is(given('empty'), '{}', 'nothing is given');
SELECT is(given('empty, all'), '{}', '... from the beginning');
SELECT results_eq($$SELECT name, pending, last_event_id, last_fetch_at IS NULL FROM alloc.consumers ORDER BY name COLLATE "C"$$,
	$$VALUES ('empty', 0::bigint, NULL::bigint, false), ('empty, all', 0, NULL, false)$$, 'view consumers: fetched, and had nothing');

-- now and beginning

SELECT alloc.add_batch('b', 's', 1000), alloc.add_batch('later', 's', 5, '2030-01-01');
SELECT alloc.allocate('o1', 's', 1);
SELECT last_event() AS old \gset
SELECT alloc.create_consumer('now'), alloc.create_consumer('now, said', 'now'), alloc.create_consumer('all', 'beginning');
SELECT results_eq($$SELECT pending, last_event_id, last_fetch_at FROM alloc.consumers WHERE name = 'all'$$,
	$$VALUES (3::bigint, NULL::bigint, NULL::timestamptz)$$, 'view consumers: of one that never fetched all is pending');
SELECT is(pending('now'), 0::bigint, 'of one that begins now, nothing is');
SELECT alloc.allocate('o2', 's', 1), alloc.deallocate('o1', 's'), alloc.allocate('none', 's', 5000);
SELECT is(pending('now'), 3::bigint, 'what was committed since is pending');
SELECT is(pending('all'), 6::bigint, '... and what was there, for one from the beginning');
SELECT is(given('now'), logged(:old), 'now: what was committed since is given');
SELECT is(given('now, said'), logged(:old), 'now is the default');
SELECT is(given('all'), logged(0), 'beginning: all is given, in the order of ids');
SELECT is(given('empty'), logged(0), 'and all to those that were there before');
SELECT is(given('empty, all'), logged(0), '... from the beginning');
SELECT is(given('now'), '{}', 'nothing is given twice');
SELECT is(given('all'), '{}', '... from the beginning');
SELECT results_eq($$SELECT DISTINCT pending, last_event_id FROM alloc.consumers$$,
	$$VALUES (0::bigint, last_event())$$, 'view consumers: nothing is pending, and which was the last');
SELECT ok(bool_and(last_fetch_at BETWEEN now() - interval '1 minute' AND clock_timestamp()), 'view consumers: and when') FROM alloc.consumers;

-- Created in a transaction with events

BEGIN;
SELECT alloc.allocate('before', 's', 1);
SELECT alloc.create_consumer('in between');
SELECT alloc.allocate('after', 's', 1);
SELECT given('in between') AS own \gset
COMMIT;
SELECT is(:'own'::bigint[], '{}', 'the events of the transaction itself are not given to a consumer that it creates');
SELECT is(given('in between'), logged(last_event() - 2), 'they are when it has been committed: it began before that');
BEGIN;
SELECT alloc.create_consumer('undone');
ROLLBACK;
SELECT throws_ok($$SELECT alloc.fetch_events('undone')$$, '42704', NULL, 'a consumer that was rolled back is unknown');
SELECT lives_ok($$SELECT alloc.create_consumer('undone')$$, 'its name is free');

-- Rows like those of view events

SELECT alloc.create_consumer('rows', 'beginning');
SELECT alloc.change_batch_quantity('b', 900);
BEGIN;
CREATE TEMPORARY TABLE fetched AS SELECT * FROM alloc.fetch_events('rows') WITH ORDINALITY;
COMMIT;
SELECT results_eq(
	'SELECT event_id, at, type, sku, orderid, batchref, qty, payload FROM fetched ORDER BY ordinality',
	'SELECT event_id, at, type, sku, orderid, batchref, qty, payload FROM alloc.events ORDER BY event_id',
	'rows and payloads are those of view events');
SELECT is(count(DISTINCT type), 5::bigint, 'events of all types were among them') FROM fetched;
SELECT results_eq($$SELECT attname::text, atttypid::regtype::text FROM pg_attribute
	 WHERE attrelid = 'fetched'::regclass AND attnum > 0 AND attname <> 'ordinality' ORDER BY attnum$$,
	$$SELECT attname::text, atttypid::regtype::text FROM pg_attribute
	 WHERE attrelid = 'alloc.events'::regclass AND attnum > 0 ORDER BY attnum$$, 'and so are columns and types');
DROP TABLE fetched;

-- max_events

SELECT alloc.create_consumer('one'), alloc.create_consumer('three'), alloc.create_consumer('exact'), alloc.create_consumer('max');
SELECT last_event() AS old \gset
SELECT alloc.allocate('m' || n, 's', 1) FROM generate_series(1, 7) n;
SELECT is(given('one', 1), ARRAY[:old + 1]::bigint[], 'max_events 1: the first');
SELECT is(pending('one'), 6::bigint, '... the others are pending');
SELECT is(given('one', 1), ARRAY[:old + 2]::bigint[], '... then the second');
SELECT is(given('three', 3), (logged(:old))[1:3], 'max_events 3');
SELECT is((SELECT last_event_id FROM alloc.consumers WHERE name = 'three'), (:old + 3)::bigint, 'view consumers: the last in the middle of a batch');
SELECT is(pending('three'), 4::bigint, '... and what is left of it');
SELECT alloc.allocate('m' || n, 's', 1) FROM generate_series(8, 10) n;
SELECT is(pending('three'), 7::bigint, 'what comes in the middle of a batch is pending');
SELECT is(given('three', 3), (logged(:old))[4:6], '... the batch goes on');
SELECT is(given('three', 3), (logged(:old))[7:9], '... over its end, without a gap');
SELECT is(given('three', 3), (logged(:old))[10:10], '... the rest');
SELECT is(given('three', 3), '{}', '... no more');
SELECT is(given('one', 2147483647), (logged(:old))[3:10], 'max_events may be as large as can be');
SELECT is(given('exact', 10), logged(:old), 'max_events as many as there are');
SELECT is(pending('exact'), 0::bigint, '... nothing is pending');
SELECT is(given('exact', 10), '{}', '... no more');
SELECT alloc.allocate_lines(array_agg(('many ' || n, 's', 1)::alloc.order_line)) FROM generate_series(1, 1234) n;
SELECT is(cardinality(given('exact')), 1000, 'by default at most 1000');
SELECT same(given('max', 2147483647), :old, 'and more if they are asked for');
SELECT is(given('exact'), (logged(:old))[1011:1244], 'the rest follows');

-- A fetch that is looked at in part, through a cursor, or not at all

SELECT last_event() AS old \gset
SELECT alloc.allocate('c' || n, 's', 0 + n) FROM generate_series(1, 4) n;
SELECT count(*) FROM (SELECT event_id FROM alloc.fetch_events('max') LIMIT 1) AS first;
SELECT is(given('max'), '{}', 'events of which the caller looked at one only were given');
SELECT is((SELECT array_agg(event_id) FROM alloc.fetch_events('exact') WHERE type = 'none'), NULL, 'and those that it did not want');
SELECT is(given('exact'), '{}', '... as well');

-- Rollback

SELECT alloc.create_consumer('back');
SELECT last_event() AS old \gset
SELECT alloc.allocate('r' || n, 's', 1) FROM generate_series(1, 5) n;
BEGIN;
SELECT given('back', 2) AS first \gset
SELECT given('back') AS second \gset
ROLLBACK;
SELECT same(:'first'::bigint[] || :'second'::bigint[], :old, 'several fetches of a transaction give one event after the other');
SELECT is(pending('back'), 5::bigint, 'after a rollback all are pending');
SELECT is(given('back', 2), :'first'::bigint[], 'and are given again');
BEGIN;
SELECT given('back', 1) AS kept \gset
SAVEPOINT a;
SELECT given('back') AS first \gset
ROLLBACK TO SAVEPOINT a;
SELECT given('back', 1) AS second \gset
SAVEPOINT b;
SELECT given('back') AS third \gset
RELEASE b;
SELECT given('back') AS fourth \gset
COMMIT;
SELECT is(:'kept'::bigint[], (logged(:old))[3:3], 'savepoints: before the first');
SELECT is(:'first'::bigint[], (logged(:old))[4:5], '... within it');
SELECT is(:'second'::bigint[], (logged(:old))[4:4], '... after ROLLBACK TO SAVEPOINT again');
SELECT is(:'third'::bigint[], (logged(:old))[5:5], '... within one that is released');
SELECT is(:'fourth'::bigint[], '{}', '... and after it no more');
SELECT is(given('back'), '{}', '... nor after the commit');
SELECT alloc.allocate('error', 's', 1);
DO $$
BEGIN
	PERFORM given('back');
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
END
$$;
SELECT same(given('back'), last_event() - 1, 'an error after the fetch takes it back');
BEGIN;
SAVEPOINT a;
SELECT alloc.drop_consumer('back');
ROLLBACK TO a;
SELECT alloc.allocate('not dropped', 's', 1);
COMMIT;
SELECT same(given('back'), last_event() - 1, 'a drop that is rolled back is none');

-- What is rolled back is never given

SELECT last_event() AS old \gset
BEGIN;
SELECT alloc.allocate('never', 's', 1);
ROLLBACK;
BEGIN;
SELECT alloc.allocate('kept', 's', 1);
SAVEPOINT a;
SELECT alloc.allocate('never 2', 's', 1);
SAVEPOINT b;
SELECT alloc.allocate('never 3', 's', 1);
RELEASE b;
ROLLBACK TO a;
SELECT alloc.allocate('kept 2', 's', 1);
SAVEPOINT c;
SELECT alloc.allocate('kept 3', 's', 1);
SAVEPOINT d;
SELECT alloc.allocate('kept 4', 's', 1);
COMMIT;
DO $$
BEGIN
	PERFORM alloc.allocate('kept 5', 's', 1);
	BEGIN
		PERFORM alloc.allocate('never 4', 's', 1);
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM alloc.allocate('kept 6', 's', 1);
	END;
END
$$;
SELECT is(pending('back'), 6::bigint, 'what was rolled back is not pending');
SELECT results_eq($$SELECT orderid FROM alloc.fetch_events('back')$$, $$VALUES ('kept'), ('kept 2'), ('kept 3'), ('kept 4'), ('kept 5'), ('kept 6')$$,
	'events of subtransactions are given in order, none that was rolled back');
SELECT is(given('back'), '{}', '... once');

-- More subtransactions than a session keeps in shared memory

DO $$
BEGIN
	FOR n IN 1..200 LOOP
		BEGIN
			PERFORM alloc.allocate('sub ' || n, 's', 1);
			IF n % 3 = 0 THEN
				RAISE division_by_zero;
			END IF;
		EXCEPTION WHEN division_by_zero THEN
		END;
	END LOOP;
END
$$;
SELECT results_eq($$SELECT orderid FROM alloc.fetch_events('back')$$, $$SELECT 'sub ' || n FROM generate_series(1, 200) n WHERE n % 3 <> 0$$,
	'200 subtransactions, a third of them rolled back');

-- The events of the transaction that fetches

SELECT last_event() AS old \gset
SELECT alloc.allocate('other', 's', 1);
BEGIN;
SELECT alloc.allocate('own 1', 's', 1);
SELECT given('back') AS first \gset
SELECT alloc.allocate('own 2', 's', 1);
SELECT given('back') AS second \gset
SAVEPOINT a;
SELECT alloc.allocate('own 3', 's', 1);
SELECT given('back') AS third \gset
COMMIT;
SELECT is(:'first'::bigint[], ARRAY[:old + 1]::bigint[], 'own events: those of others are given');
SELECT is(:'second'::bigint[] || :'third'::bigint[], '{}', 'own events are not before the commit');
SELECT is(pending('back'), 3::bigint, 'after it they are pending');
SELECT results_eq($$SELECT orderid FROM alloc.fetch_events('back')$$, $$VALUES ('own 1'), ('own 2'), ('own 3')$$, '... and given');
SELECT is(given('back'), '{}', '... once');
BEGIN;
SELECT given('back');
SELECT alloc.allocate('own 4', 's', 1);
COMMIT;
SELECT results_eq($$SELECT orderid FROM alloc.fetch_events('back')$$, $$VALUES ('own 4')$$, 'own events after the fetch: given later');
BEGIN;
SELECT alloc.allocate('own 5', 's', 1);
SELECT given('back', 1);
SELECT alloc.allocate('own 6', 's', 1);
ROLLBACK;
SELECT is(given('back'), '{}', 'own events that are rolled back: never');

-- Another isolation level, alone

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT alloc.allocate('rr 1', 's', 1);
SELECT given('back') AS first \gset
SELECT alloc.allocate('rr 2', 's', 1);
SELECT given('back') AS second \gset
COMMIT;
SELECT is(:'first'::bigint[] || :'second'::bigint[], '{}', 'REPEATABLE READ: own events are not given');
SELECT results_eq($$SELECT orderid FROM alloc.fetch_events('back')$$, $$VALUES ('rr 1'), ('rr 2')$$, '... but later');
BEGIN READ ONLY;
SELECT throws_ok($$SELECT alloc.fetch_events('back')$$, '25006', NULL, 'read-only: fetch_events() is refused');
SELECT throws_ok($$SELECT alloc.create_consumer('read only')$$, '25006', NULL, 'read-only: create_consumer() is refused');
SELECT throws_ok($$SELECT alloc.drop_consumer('back')$$, '25006', NULL, 'read-only: drop_consumer() is refused');
COMMIT;

-- Two consumers in one transaction, in turns

SELECT alloc.create_consumer('left'), alloc.create_consumer('right');
SELECT last_event() AS old \gset
SELECT alloc.allocate('t' || n, 's', 1) FROM generate_series(1, 4) n;
BEGIN;
SELECT given('left', 1) || given('right', 2) || given('left', 2) || given('right') || given('left') AS got \gset
COMMIT;
SELECT is(:'got'::bigint[], ARRAY[:old + 1, :old + 1, :old + 2, :old + 2, :old + 3, :old + 3, :old + 4, :old + 4]::bigint[],
	'each consumer has a position of its own');

-- Names, and how often

SELECT lives_ok(format('SELECT alloc.create_consumer(%L)', name), format('a consumer named %s is created', what))
  FROM (VALUES ('Bücher 椅子 🪑', 'in Unicode'), (E'tab\t"quote" ''apostrophe'' \\', 'with odd characters'),
	(repeat('n', 255), 'with 255 bytes'), (repeat('é', 127), 'with 254 bytes in two-byte characters'), (' ', 'blank'), ('NOW', 'NOW'), ('relay', 'relay')) AS odd (name, what);
SELECT last_event() AS old \gset
SELECT alloc.allocate('unicode', 's', 1);
SELECT same(given(name), :old, format('one named %s is given events', left(name, 10)))
  FROM unnest(ARRAY['Bücher 椅子 🪑', E'tab\t"quote" ''apostrophe'' \\', repeat('n', 255), repeat('é', 127), ' ', 'NOW', 'relay']) AS name;
SELECT throws_ok($$SELECT alloc.fetch_events('bücher 椅子 🪑')$$, '42704', 'unknown consumer "bücher 椅子 🪑"', 'names are compared byte by byte');
SELECT throws_ok(format('SELECT alloc.fetch_events(%L)', U&'Bu\0308cher 椅子 🪑'), '42704', NULL, 'another form of the same letter is another name');
SELECT throws_ok($$SELECT alloc.create_consumer('Bücher 椅子 🪑')$$, '42710', 'consumer "Bücher 椅子 🪑" already exists', 'the same name twice: 42710');
SELECT throws_ok($$SELECT alloc.create_consumer('Bücher 椅子 🪑', 'beginning')$$, '42710', NULL, 'with another start as well');
SELECT lives_ok($$SELECT alloc.drop_consumer('Bücher 椅子 🪑')$$, 'it is dropped');
SELECT throws_ok(format('SELECT alloc.%s(%L)', command, name), '42704', format('unknown consumer "%s"', name), format('%s() of a consumer that %s: 42704', command, what))
  FROM unnest(ARRAY['fetch_events', 'drop_consumer']) command,
	   (VALUES ('Bücher 椅子 🪑', 'was dropped'), ('nobody', 'never was'), ('lef', 'has a longer name')) AS unknown (name, what);
SELECT is_empty($$SELECT * FROM alloc.position WHERE consumer_id NOT IN (SELECT consumer_id FROM alloc.consumer)$$, 'a drop leaves no position');
SELECT lives_ok($$SELECT alloc.create_consumer('Bücher 椅子 🪑', 'beginning')$$, 'and is created again');
SELECT is(given('Bücher 椅子 🪑', 10), (logged(0))[1:10], '... with a new position');

-- Bad input

SELECT throws_ok(format('SELECT alloc.%s(%s)', command, value), state, NULL, format('%s() with a name %s: %s', command, what, state))
  FROM unnest(ARRAY['create_consumer', 'drop_consumer', 'fetch_events']) command,
	   (VALUES ('NULL', 'that is NULL', '22004'), ($$''$$, 'that is empty', '22023'), ($$repeat('n', 256)$$, 'of 256 bytes', '22001'),
		($$repeat('é', 128)$$, 'of 128 characters in 256 bytes', '22001'), ($$repeat('n', 10 * 1024 * 1024)$$, 'of 10 MB', '22001')) AS bad (value, what, state);
SELECT throws_like(format('SELECT alloc.create_consumer(%s)', value), pattern, 'the message: ' || pattern)
  FROM (VALUES ('NULL', '%name%null%'), ($$''$$, '%name%empty%""%'), ($$repeat('n', 10 * 1024 * 1024)$$, '%name%too long%"nnnnnnnn%')) AS bad (value, pattern);
SELECT throws_ok(format('SELECT alloc.create_consumer(%L, %s)', 'bad', start), state, NULL, format('start %s: %s', left(start, 30), state))
  FROM (VALUES ('NULL', '22004'), ($$''$$, '22023'), ($$'NOW'$$, '22023'), ($$'now '$$, '22023'), ($$'end'$$, '22023'), ('42::text', '22023'), ($$repeat('now', 4000000)$$, '22023')) AS bad (start, state);
SELECT throws_like($$SELECT alloc.create_consumer('bad', 'end')$$, '%"end"%"now"%"beginning"%', 'the message has the start, and what it may be');
SELECT throws_ok(format('SELECT alloc.fetch_events(%L, %s)', 'left', max_events), state, NULL, format('max_events %s: %s', max_events, state))
  FROM (VALUES ('NULL', '22004'), ('0', '22023'), ('-1', '22023'), ('-2147483648', '22023')) AS bad (max_events, state);
SELECT throws_like($$SELECT alloc.fetch_events('left', -5)$$, '%max_events%-5%', 'the message has max_events');
SELECT throws_ok($$SELECT alloc.fetch_events('nobody', 0)$$, '22023', NULL, 'max_events 0 for an unknown consumer: 22023');
SELECT same(given('left'), :old, 'after that all is given as before');

-- The trace

SELECT alloc.create_consumer('trace');
SELECT last_event() AS old \gset
SET alloc.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
SELECT alloc.add_batch('traced', 'traced', 50), alloc.allocate('traced', 'traced', 1), alloc.allocate('too many', 'traced', 500), alloc.deallocate('traced', 'traced');
SELECT alloc.allocate_lines(ARRAY[('bulk', 'traced', 1)]::alloc.order_line[]);
SELECT alloc.change_batch_quantity('traced', 40);
SELECT is(array_agg(DISTINCT payload->>'traceparent'), ARRAY['00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'], 'every command stores the traceparent')
  FROM alloc.events WHERE event_id > :old;
SELECT is(count(*), 6::bigint, '... of all its events') FROM alloc.events WHERE event_id > :old AND payload ? 'traceparent';
SELECT results_eq($$SELECT payload FROM alloc.fetch_events('trace')$$, format('SELECT payload FROM alloc.events WHERE event_id > %s ORDER BY event_id', :old),
	'fetch_events() has it too');
BEGIN;
SET LOCAL alloc.traceparent = '';
SELECT alloc.allocate('untraced', 'traced', 1);
SET LOCAL alloc.traceparent = 'cc-ffffffffffffffffffffffffffffffff-0000000000000001-00';
SELECT alloc.allocate('other trace', 'traced', 1);
COMMIT;
RESET alloc.traceparent;
SELECT alloc.allocate('no trace', 'traced', 1);
SELECT results_eq($$SELECT orderid, payload->>'traceparent' FROM alloc.fetch_events('trace')$$,
	$$VALUES ('untraced', NULL), ('other trace', 'cc-ffffffffffffffffffffffffffffffff-0000000000000001-00'), ('no trace', NULL)$$,
	'each event has the traceparent that was set when it was recorded');
SELECT is(count(*), 2::bigint, 'without one, the key is absent') FROM alloc.events
 WHERE orderid IN ('untraced', 'no trace') AND NOT payload ? 'traceparent';

\set file `mktemp`
LISTEN alloc_allocated;
SET alloc.notify = commit;
SET alloc.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00';
\o :file
SELECT alloc.allocate('heard', 'traced', 1);
\o
\set printed `cat :file`
\setenv file :file
\! rm -f "$file"
UNLISTEN *;
RESET alloc.notify;
SELECT matches(:'printed'::text, '"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"', 'NOTIFY has the traceparent');

SELECT throws_ok(format('SET alloc.traceparent = %L', value), '22023', NULL, format('traceparent %s: 22023', what))
  FROM (VALUES ('x', 'of one letter'),
	('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0', 'that is too short'),
	('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011', 'that is too long'),
	('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what', 'with more behind it'),
	('00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01', 'in capitals'),
	('00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01', 'that is not hexadecimal'),
	('00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01', 'with other dashes'),
	('ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', 'of version ff'),
	('00-00000000000000000000000000000000-b7ad6b7169203331-01', 'without a trace'),
	('00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01', 'without a parent'),
	(' 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0', 'with a blank'),
	('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-é', 'that is not ASCII'),
	(repeat('0', 10000), 'of 10000 digits')) AS bad (value, what);
SELECT throws_like($$SET alloc.traceparent = 'x'$$, '%alloc.traceparent%"x"%', 'the message has the name and the value');
SELECT is(current_setting('alloc.traceparent'), '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00', 'the setting is as it was');

-- Once more, all of it: whoever began at the beginning has had the log

SELECT alloc.create_consumer('whole log', 'beginning');
SELECT is(given('whole log', 1000000), logged(0), 'the whole log in one fetch');
SELECT given('all', 1000000) AS rest \gset
SELECT is(pending('all'), 0::bigint, 'and nothing is pending');

-- In the middle of a restore: the log is there, its sequence not yet set

SELECT last_value AS last_value FROM alloc.event_id_seq \gset
SELECT alloc.create_consumer('restored', 'beginning');
SELECT setval('alloc.event_id_seq', 1, false) AS unset \gset
SELECT is(given('restored', 1000000), logged(0), 'the log is given, whatever the sequence says');
SELECT setval('alloc.event_id_seq', :last_value) AS set \gset
SELECT is(pending('restored'), 0::bigint, 'and nothing is pending when it is set');
SELECT sound('consumers');
SELECT * FROM finish();
