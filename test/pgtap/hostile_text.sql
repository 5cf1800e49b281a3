-- Text that is made to be taken for something else: as key, message_id, name of
-- a consumer or of a handler.  What keys.sql does for the first commands, for
-- the others.

\ir common.psql
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;

CREATE TEMPORARY TABLE hostile (what text, key text);
INSERT INTO hostile VALUES
	('SQL', $$'; DROP TABLE alloc.batch; --$$),
	('SQL in a comment', '*/ SELECT 1; /*'),
	('quotes', E'\'"`\'\'""'),
	('backslashes', E'\\\\\'\\'),
	('an escape', E'E''\\x27\\047'),
	('dollar quotes', '$$; SELECT $1; $_$'),
	('a format', '%s %n %1$s %I %L %% %*d %'),
	('JSON', E'"}, "qty": 1000, {"\\u0000": ["'),
	('a JSON escape', E'\\u0000\\ud800\\"'),
	('a row', E'(a,"b\\\\",,)'),
	('an array', E'{a,"NULL",{}}'),
	('newlines', E'a\r\nb\n\n\\.\n'),
	('all control characters', (SELECT string_agg(chr(n), '' ORDER BY n) FROM generate_series(1, 31) n) || chr(127)),
	('right to left, and overridden', U&'\202Eabc\202C\200F'),
	('a psql variable', ':key :''key'' :"key"'),
	('85 characters in 255 bytes', repeat('€', 85)),
	('63 characters in 255 bytes, and an end', repeat('🪔', 63) || 'abc'),
	('255 percent signs', repeat('%', 255)),
	('255 control characters', repeat(chr(31), 255));

CREATE TABLE feed (ref text, sku text, qty bigint, eta date);

-- shown: a key in a message, whole or as many characters as 64 bytes have.
CREATE FUNCTION shown(key text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN octet_length(key) <= 64 THEN key
	            ELSE (SELECT left(key, max(n)) FROM generate_series(0, 64) n WHERE octet_length(left(key, n)) <= 64) || '...' END
$$;

CREATE FUNCTION trip(key text, what text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	answer jsonb;
	name text;
BEGIN
	PERFORM mark();
	INSERT INTO feed VALUES (key, key, 10, NULL);
	RETURN NEXT results_eq($q$SELECT action, ref, sku FROM alloc.sync_batches('feed')$q$, format('VALUES (%L, %L, %L)', 'create', key, key),
		what || ': sync_batches()');
	RETURN NEXT is(alloc.hold(key, key, 1, '1 hour'), key, what || ': hold()');
	RETURN NEXT is(alloc.extend_hold(key, '2 hours') + alloc.release(key), 2::bigint, what || ': extend_hold(), release()');
	RETURN NEXT is(alloc.hold(key, key, 2, '1 hour'), key, what || ': hold() again');
	RETURN NEXT is(alloc.confirm(key), 1::bigint, what || ': confirm()');
	RETURN NEXT is(alloc.ship(key, key), 1::bigint, what || ': ship()');
	RETURN NEXT results_eq(format('SELECT * FROM alloc.allocate_lines(ARRAY[ROW(%1$L, %2$L, 1)]::alloc.order_line[])', left(key, -1) || '1', key),
		format('VALUES (%1$L, %2$L, 1::bigint, %2$L)', left(key, -1) || '1', key), what || ': allocate_lines()');
	RETURN NEXT results_eq(format('SELECT * FROM alloc.allocate_order(%1$L, ARRAY[ROW(%1$L, %2$L, 100)]::alloc.order_line[], ''backorder'')', left(key, -1) || '2', key),
		format('VALUES (%L, 100::bigint, NULL, ''backordered'')', key), what || ': allocate_order()');
	RETURN NEXT results_eq(format('SELECT * FROM alloc.promise(%L, 1)', key), format('VALUES (%L, NULL::date)', key), what || ': promise()');
	RETURN NEXT is(alloc.available_to_promise(key), 7::bigint, what || ': available_to_promise()');
	RETURN NEXT results_eq(format('SELECT orderid, new_eta FROM alloc.change_batch_eta(%L, %L)', key, '2031-01-01'),
		format('VALUES (%L, %L::date)', left(key, -1) || '1', '2031-01-01'), what || ': change_batch_eta()');
	RETURN NEXT results_eq(format('SELECT ref, sku, available_qty FROM alloc.replay(%L)', key), format('VALUES (%1$L, %1$L, 7::bigint)', key), what || ': replay()');
	RETURN NEXT is((SELECT string_agg(DISTINCT e.sku, '') FROM alloc.history(key) e), key, what || ': history()');
	RETURN NEXT is((SELECT string_agg(DISTINCT e.orderid, '') FROM alloc.history_of_order(key) e), key, what || ': history_of_order()');
	-- As a message
	answer := alloc.handle(jsonb_build_object('command', 'allocate', 'orderid', left(key, -1) || '3', 'sku', key, 'qty', 1, 'message_id', key));
	RETURN NEXT is(answer, jsonb_build_object('result', key), what || ': handle()');
	RETURN NEXT is(alloc.handle(jsonb_build_object('command', 'allocate', 'orderid', left(key, -1) || '3', 'sku', key, 'qty', 1.0, 'message_id', key)), answer,
		what || ': handle() again');
	RETURN NEXT throws_ok(format('SELECT alloc.handle(%L)', jsonb_build_object('command', 'ship', 'orderid', key, 'message_id', key)), 'SK006',
		format('message_id "%s" is that of another message', shown(key)), what || ': message_id in an error');
	RETURN NEXT throws_ok(format('SELECT alloc.handle(%L)', jsonb_build_object('command', key)), '22023', format('unknown command "%s"', shown(key)), what || ': a command');
	RETURN NEXT throws_ok(format('SELECT alloc.handle(%L)', jsonb_build_object('command', 'ship', 'orderid', 'o', key, 1)), '22023', NULL, what || ': a key that no argument has');
	-- As a name
	PERFORM alloc.create_consumer(key, 'beginning');
	RETURN NEXT is((SELECT count(*) FROM alloc.consumers c WHERE c.name = key AND c.pending > 10), 1::bigint, what || ': create_consumer()');
	-- What this transaction has done nobody is given yet.
	RETURN NEXT is((SELECT count(*) FROM alloc.fetch_events(key)), 0::bigint, what || ': fetch_events()');
	PERFORM alloc.drop_consumer(key);
	RETURN NEXT throws_ok(format('SELECT alloc.fetch_events(%L)', key), '42704', NULL, what || ': drop_consumer()');
	RETURN NEXT throws_ok(format('SELECT alloc.subscribe(%L, ''jsonb_typeof(jsonb)'')', key), '22023', format('there is no event type "%s"', shown(key)), what || ': an event type');
	RETURN NEXT throws_ok(format('SELECT alloc.subscribe(''held'', ''jsonb_typeof(jsonb)'', %L)', key), '22023',
		format('mode "%s" is neither "sync" nor "async"', shown(key)), what || ': a mode of subscribe()');
	RETURN NEXT throws_ok(format('SELECT alloc.allocate_order(''o'', ''{"(,s,1)"}'', %L)', key), '22023', NULL, what || ': a mode of allocate_order()');
	RETURN NEXT throws_ok(format('SELECT alloc.create_consumer(''c'', %L)', key), '22023', NULL, what || ': a start');
	RETURN NEXT throws_ok(format('SELECT alloc.grant_access(current_user::regrole, %L)', key), '22023', NULL, what || ': a scope');
	RETURN NEXT throws_ok(format('SET LOCAL alloc.traceparent = %L', key), '22023', NULL, what || ': a traceparent');
	RETURN NEXT throws_ok(format('SELECT alloc.ship(%L, %L)', '?' || key, key), CASE WHEN octet_length(key) = 255 THEN '22001' END, NULL, what || ': one byte more')
	  WHERE octet_length(key) = 255;
	-- A handler, its schema, and the table of a feed are names of 63 bytes
	name := left(key, 15);
	EXECUTE format('CREATE SCHEMA %1$I; CREATE TABLE %1$I.%1$I (LIKE feed); INSERT INTO %1$I.%1$I SELECT * FROM feed;
		CREATE FUNCTION %1$I.%1$I(jsonb) RETURNS void LANGUAGE sql AS %2$L', name, 'INSERT INTO public.heard VALUES ($1)');
	RETURN NEXT is((SELECT count(*) FROM alloc.sync_batches(format('%1$I.%1$I', name)::regclass)), 1::bigint, what || ': the name of a feed');
	PERFORM alloc.subscribe('deallocated', format('%1$I.%1$I(jsonb)', name)::regprocedure, 'sync');
	DELETE FROM heard;
	PERFORM alloc.deallocate(left(key, -1) || '1', key);
	RETURN NEXT is((SELECT string_agg(event->>'sku', ' ') FROM heard), key, what || ': the name of a handler');
	PERFORM alloc.unsubscribe('deallocated', format('%1$I.%1$I(jsonb)', name)::regprocedure);
END
$$;
CREATE TABLE heard (event jsonb);
SELECT trip(key, what) FROM hostile;
SELECT agrees('all of it');
SELECT is((SELECT count(*) FROM alloc.batches), (SELECT count(*) FROM hostile), 'each has its batch');

-- In an orderid, and in what check() says of it

UPDATE alloc.allocation SET qty = qty + 1;
SELECT lives_ok('SELECT * FROM alloc.check()', 'check() can speak of them');
SELECT lives_ok('SELECT * FROM alloc.repair(false)', 'repair() can mend them');
SELECT agrees('repair()');

SELECT * FROM finish();
ROLLBACK;
