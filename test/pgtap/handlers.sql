-- subscribe(), unsubscribe() and synchronous handlers: what is refused, when
-- and with what a handler is called, and what it may do.

\ir common.psql
BEGIN;
SELECT no_plan();

CREATE ROLE regress_shop;
CREATE ROLE regress_buyer;
CREATE SCHEMA shop AUTHORIZATION regress_shop;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
GRANT USAGE ON SCHEMA alloc TO regress_shop, regress_buyer;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA alloc TO regress_shop, regress_buyer;

-- heard: what handlers were called with.
CREATE TABLE heard (id bigint GENERATED ALWAYS AS IDENTITY, by text DEFAULT current_user::text, event jsonb);
GRANT INSERT, SELECT ON heard TO regress_shop;
CREATE FUNCTION hear(event jsonb) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.heard (event) VALUES (event) $$;
CREATE FUNCTION says(function text, body text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE OR REPLACE FUNCTION %s(event jsonb) RETURNS void LANGUAGE plpgsql AS %L',
				   function, 'BEGIN ' || body || ' END');
END
$$;
-- words: of what was heard since it was asked last.
CREATE FUNCTION words() RETURNS SETOF text LANGUAGE sql AS $$
	WITH gone AS (DELETE FROM heard RETURNING *)
	SELECT concat_ws(' ', event->>'type', event->>'orderid', event->>'qty', event->>'batchref')
	  FROM gone ORDER BY id
$$;
CREATE FUNCTION subscriptions() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(' ', event_type, handler, mode, role) FROM alloc.subscription ORDER BY subscription_id
$$;

-- Arguments

CREATE FUNCTION two(jsonb, int DEFAULT 1) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION takes(text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION takes(json) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION takes(anyelement) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION takes_many(VARIADIC jsonb[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION many(jsonb) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION tab(jsonb) RETURNS TABLE (x int) LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE proc(jsonb) LANGUAGE sql AS '';
CREATE FUNCTION closed(jsonb) RETURNS void LANGUAGE sql AS '';
REVOKE EXECUTE ON FUNCTION closed(jsonb) FROM PUBLIC;
CREATE AGGREGATE agg(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);

SELECT function_returns('alloc', 'subscribe', ARRAY['text', 'regprocedure', 'text'], 'void');
SELECT function_returns('alloc', 'unsubscribe', ARRAY['text', 'regprocedure'], 'void');
SELECT function_returns('alloc', 'retry_dead_letters', '{}'::name[], 'bigint');
SELECT function_returns('alloc', 'discard_dead_letters', ARRAY['text'], 'bigint');

SELECT refused(format('SELECT alloc.subscribe(%s)', args), state, message, 'subscribe(' || args || ')')
  FROM (VALUES ($$NULL, 'hear(jsonb)'$$, '22004', 'event_type must not be null'),
			   ($$'allocated', NULL$$, '22004', 'handler must not be null'),
			   ($$'allocated', 'hear(jsonb)', NULL$$, '22004', 'mode must not be null'),
			   ($$'Allocated', 'hear(jsonb)'$$, '22023', 'there is no event type "Allocated"'),
			   ($$'', 'hear(jsonb)'$$, '22023', 'there is no event type ""'),
			   ($$repeat('x', 100000), 'hear(jsonb)'$$, '22023', 'there is no event type "xxx%'),
			   ($$'allocated', 'hear(jsonb)', 'SYNC'$$, '22023', 'mode "SYNC" is neither "sync" nor "async"'),
			   ($$'allocated', 'hear(jsonb)', ''$$, '22023', 'mode "" is neither "sync" nor "async"'),
			   ($$'allocated', 'nobody(jsonb)'$$, '42883', '%nobody(jsonb)%'),
			   ($$'allocated', 4294967295::oid::regprocedure$$, '42883', 'function 4294967295 does not exist'),
			   ($$'allocated', 'two(jsonb, int)'$$, '22023', 'public.two(%) cannot be a handler'),
			   ($$'allocated', 'nothing()'$$, '22023', 'public.nothing() cannot be a handler'),
			   ($$'allocated', 'takes(text)'$$, '22023', 'public.takes(pg_catalog.text) cannot be a handler'),
			   ($$'allocated', 'takes(json)'$$, '22023', 'public.takes(%json) cannot be a handler'),
			   ($$'allocated', 'takes(anyelement)'$$, '22023', 'public.takes(pg_catalog.anyelement) cannot be a handler'),
			   ($$'allocated', 'takes_many(jsonb[])'$$, '22023', 'public.takes_many(%) cannot be a handler'),
			   ($$'allocated', 'many(jsonb)'$$, '22023', 'public.many(pg_catalog.jsonb) cannot be a handler'),
			   ($$'allocated', 'tab(jsonb)'$$, '22023', 'public.tab(pg_catalog.jsonb) cannot be a handler'),
			   ($$'allocated', 'proc(jsonb)'$$, '22023', 'public.proc(pg_catalog.jsonb) cannot be a handler'),
			   ($$'allocated', 'agg(jsonb)'$$, '22023', 'public.agg(pg_catalog.jsonb) cannot be a handler'))
	   AS bad (args, state, message);
SELECT refused(format('SELECT alloc.unsubscribe(%s)', args), state, message, 'unsubscribe(' || args || ')')
  FROM (VALUES ($$NULL, 'hear(jsonb)'$$, '22004', 'event_type must not be null'),
			   ($$'allocated', NULL$$, '22004', 'handler must not be null'),
			   ($$'sold', 'hear(jsonb)'$$, '22023', 'there is no event type "sold"'),
			   ($$'allocated', 'nobody(jsonb)'$$, '42883', '%nobody(jsonb)%'),
			   ($$'allocated', 'hear(jsonb)'$$, '42704', 'public.hear(pg_catalog.jsonb) does not handle "allocated"'))
	   AS bad (args, state, message);
SET LOCAL ROLE regress_shop;
SELECT throws_ok($$SELECT alloc.subscribe('allocated', 'closed(jsonb)')$$, '42501', 'permission denied for function public.closed(pg_catalog.jsonb)',
	'who may not call a function cannot subscribe it');
RESET ROLE;
SELECT is_empty('SELECT subscriptions()', 'what was refused is not there');
SELECT is(alloc.retry_dead_letters(), 0::bigint, 'retry_dead_letters() without any');
SELECT is(alloc.discard_dead_letters(), 0::bigint, 'discard_dead_letters() without any');

SELECT lives_ok(format('SELECT alloc.subscribe(%L, %L, %L)', type, 'hear(jsonb)', 'async'), 'there is type ' || type)
  FROM unnest('{batch_created,batch_quantity_changed,batch_eta_changed,allocated,deallocated,out_of_stock,held,hold_released,hold_expired,confirmed,backordered,shipped,promise_changed}'::text[]) AS type;
SELECT throws_ok($$SELECT alloc.subscribe('allocated', 'hear(jsonb)')$$, '42710', 'public.hear(pg_catalog.jsonb) already handles "allocated"',
	'the same twice');
SELECT throws_ok($$SELECT alloc.subscribe('allocated', 'hear(jsonb)', 'sync')$$, '42710', NULL, 'in another mode it is the same');
SET LOCAL ROLE regress_shop;
SELECT throws_ok($$SELECT alloc.subscribe('allocated', 'public.hear(jsonb)')$$, '42710', NULL, 'as another role it is the same');
RESET ROLE;
SELECT lives_ok($$SELECT alloc.unsubscribe('held', 'hear(jsonb)')$$, 'unsubscribe()');
SELECT throws_ok($$SELECT alloc.unsubscribe('held', 'hear(jsonb)')$$, '42704', NULL, 'unsubscribe() again');
SELECT lives_ok(format('SELECT alloc.unsubscribe(%L, %L)', event_type, handler), 'unsubscribe from ' || event_type)
  FROM (SELECT event_type, handler FROM alloc.subscription OFFSET 0) s;
SELECT is_empty($$SELECT * FROM alloc.consumer WHERE kind = 'handler'$$, 'of asynchronous subscriptions nothing is left');
SELECT is_empty('SELECT * FROM alloc.position WHERE consumer_id <> 0', 'nor a position');

-- Called with each event, once, in order, by all ways

SELECT alloc.subscribe(type, 'hear(jsonb)', 'sync')
  FROM unnest('{batch_created,batch_quantity_changed,allocated,deallocated,out_of_stock,backordered}'::text[]) AS type;
SELECT mark();
SELECT alloc.add_batch('b1', 's', 10), alloc.add_batch('b2', 's', 4, '2011-01-02');
SELECT results_eq('SELECT event FROM heard ORDER BY id',
	$$SELECT payload FROM alloc.events WHERE event_id > current_setting('test.mark')::bigint ORDER BY event_id$$,
	'the payload is that of view events');
SELECT results_eq('SELECT words()', ARRAY['batch_created 10 b1', 'batch_created 4 b2'], 'add_batch(): one call for an event');
SELECT alloc.add_batch('b1', 's', 10), alloc.deallocate('o0', 's');
SELECT is_empty('SELECT words()', 'without an event there is no call');
SELECT alloc.allocate('o' || n, 's', 4) FROM generate_series(1, 2) n;
SELECT alloc.allocate('o1', 's', 4), alloc.allocate('big', 's', 100);
SELECT results_eq('SELECT words()', ARRAY['allocated o1 4 b1', 'allocated o2 4 b1', 'out_of_stock big 100'], 'allocate()');
SELECT moves('b1', 3);
SELECT results_eq('SELECT event FROM heard ORDER BY id',
	$$SELECT payload FROM alloc.events WHERE event_id > (SELECT max(event_id) FROM alloc.events WHERE orderid = 'big') ORDER BY event_id$$,
	'change_batch_quantity(): payloads in the order of the log');
SELECT is(count(*), 6::bigint, 'change_batch_quantity(): one for the batch, two that leave, one that finds another, two for one that does not') FROM words();
SELECT * FROM alloc.allocate_lines('{"(l1,s,1)","(l2,s,50)","(l1,s,1)","(l3,s,2)"}');
SELECT results_eq('SELECT words()', ARRAY['allocated l1 1 b1', 'out_of_stock l2 50', 'allocated l3 2 b1'], 'allocate_lines(): in input order');
SELECT alloc.deallocate('l1', 's');
SELECT results_eq('SELECT words()', ARRAY['deallocated l1 1 b1'], 'deallocate()');
SELECT alloc.add_batch('many', 'many', 20000);
SELECT count(*) FROM alloc.allocate_lines((SELECT array_agg((n, 'many', 1)::alloc.order_line) FROM generate_series(1, 5000) n));
SELECT is(array_agg(event->>'orderid' ORDER BY id), (SELECT array_agg(n::text ORDER BY n) FROM generate_series(1, 5000) n), 'allocate_lines(): many, each once and in order')
  FROM heard WHERE event->>'type' = 'allocated';
DELETE FROM heard;

-- What the command did can be seen

CREATE TABLE seen (what text);
GRANT INSERT, SELECT ON seen TO regress_shop;
SELECT says('look', $$INSERT INTO public.seen SELECT concat_ws(' ', a.orderid, a.batchref, b.available_qty)
	FROM alloc.allocations a JOIN alloc.batches b ON b.ref = a.batchref WHERE a.orderid = event->>'orderid';
	INSERT INTO public.seen SELECT 'in view events' FROM alloc.events WHERE payload = event;$$);
SELECT alloc.subscribe('allocated', 'look(jsonb)', 'sync');
SELECT alloc.add_batch('v', 'v', 10), alloc.allocate('seen', 'v', 3);
SELECT results_eq('SELECT * FROM seen', ARRAY['seen v 7', 'in view events'], 'the handler sees line, stock and event');
TRUNCATE seen;
SELECT alloc.deallocate('seen', 'v');
SELECT alloc.allocate('seen 2', 'v', 9) FROM (SELECT alloc.allocate('seen 1', 'v', 9)) s;
SELECT alloc.unsubscribe('allocated', 'look(jsonb)');
SELECT results_eq('SELECT words()', ARRAY['batch_created 10 v', 'allocated seen 3 v', 'deallocated seen 3 v', 'allocated seen 1 9 v', 'out_of_stock seen 2 9'],
	'several calls in one statement');

-- An error undoes the command

SELECT says('fail', 'RAISE ''no %'', event->>''type'' USING ERRCODE = ''P0042'';');
SELECT alloc.subscribe(type, 'fail(jsonb)', 'sync') FROM unnest('{batch_created,batch_quantity_changed,allocated,deallocated,out_of_stock}'::text[]) AS type;
SELECT refused(command, 'P0042', 'no ' || type, command)
  FROM (VALUES ($$SELECT alloc.add_batch('new', 'new', 1)$$, 'batch_created'), ($$SELECT alloc.allocate('new', 's', 1)$$, 'allocated'),
			   ($$SELECT alloc.allocate('new', 's', 1000)$$, 'out_of_stock'), ($$SELECT alloc.deallocate('l3', 's')$$, 'deallocated'),
			   ($$SELECT moves('b2', 0)$$, 'deallocated'),
			   ($$SELECT * FROM alloc.allocate_lines('{"(n1,v,1)","(n2,v,50)"}')$$, 'allocated')) AS c (command, type);
SELECT is_empty('SELECT words()', 'what other handlers did is undone as well');
SELECT alloc.unsubscribe(event_type, 'fail(jsonb)') FROM (SELECT event_type FROM alloc.subscription WHERE handler LIKE '%fail%' OFFSET 0) s;
SELECT is(alloc.allocate('n3', 'v', 1), 'v', 'after unsubscribe() it is not called');
SELECT results_eq('SELECT words()', ARRAY['allocated n3 1 v'], 'and the others are');
SELECT throws_ok($$SELECT alloc.allocate('unknown', 'unknown', 1)$$, 'SK001', NULL, 'a command that fails');
SELECT is_empty('SELECT words()', 'calls nobody');
SELECT sound('errors in handlers');

-- Handlers call commands

SELECT moves('v', 60);
DELETE FROM heard;
SELECT says('reorder', $$PERFORM alloc.add_batch('for ' || (event->>'orderid'), event->>'sku', (event->>'qty')::bigint);
	PERFORM alloc.allocate('again ' || (event->>'orderid'), event->>'sku', (event->>'qty')::bigint);$$);
SELECT alloc.subscribe('out_of_stock', 'reorder(jsonb)', 'sync');
SELECT is(alloc.allocate('r', 'v', 77), NULL, 'a reorder on out_of_stock does not change the answer');
SELECT results_eq('SELECT words()', ARRAY['out_of_stock r 77', 'batch_created 77 for r', 'allocated again r 77 for r'],
	'events of a handler are handled as well');
SELECT count(*) FROM alloc.allocate_lines('{"(p,v,80)","(q,v,1)","(t,v,90)"}');
SELECT set_eq('SELECT words()', ARRAY['out_of_stock p 80', 'batch_created 80 for p', 'allocated again p 80 for p', 'allocated q 1 v',
	'out_of_stock t 90', 'batch_created 90 for t', 'allocated again t 90 for t'], 'each once, in the middle of many');
SELECT alloc.unsubscribe('out_of_stock', 'reorder(jsonb)');
SELECT says('forever', $$PERFORM alloc.deallocate(event->>'orderid', event->>'sku'); PERFORM alloc.allocate(event->>'orderid', event->>'sku', 1);$$);
SELECT alloc.subscribe('allocated', 'forever(jsonb)', 'sync');
SELECT refused($$SELECT alloc.allocate('deep', 'v', 1)$$, '54001', 'stack depth limit exceeded', 'a handler that causes its own event');
SELECT alloc.unsubscribe('allocated', 'forever(jsonb)');
SELECT is(alloc.allocate('deep', 'v', 1), 'v', 'after that all is as before');
SELECT says('wave', $$IF event->>'orderid' ~ '^wave [0-9]$' THEN
	PERFORM alloc.allocate('wave ' || substr(event->>'orderid', 6)::int + 1, event->>'sku', 1); END IF;$$);
SELECT alloc.subscribe('allocated', 'wave(jsonb)', 'sync');
DELETE FROM heard;
SELECT alloc.allocate('wave 7', 'v', 1);
SELECT results_eq('SELECT words()', ARRAY['allocated wave 7 1 v', 'allocated wave 8 1 v', 'allocated wave 9 1 v', 'allocated wave 10 1 v'],
	'a handler may cause its own event if it comes to an end');
SELECT alloc.unsubscribe('allocated', 'wave(jsonb)');
SELECT sound('commands in handlers');

-- A handler that catches what a command of its own raised

SELECT says('careful', $$PERFORM alloc.allocate('caught', 'unknown', 1); EXCEPTION WHEN SQLSTATE 'SK001' THEN
	PERFORM alloc.add_batch('caught', 'caught', 1);$$);
SELECT alloc.subscribe('deallocated', 'careful(jsonb)', 'sync');
SELECT is(alloc.deallocate('wave 7', 'v'), 'v', 'a handler that catches the error of a command');
SELECT results_eq('SELECT words()', ARRAY['deallocated wave 7 1 v', 'batch_created 1 caught'], 'and goes on');
SELECT alloc.unsubscribe('deallocated', 'careful(jsonb)');

-- Subscriptions that are undone or changed while they are in use

SAVEPOINT here;
SELECT alloc.subscribe('allocated', 'fail(jsonb)', 'sync');
SELECT throws_ok($$SELECT alloc.allocate('c1', 'v', 1)$$, 'P0042', NULL, 'a subscription is in force at once');
ROLLBACK TO here;
SELECT is(alloc.allocate('c1', 'v', 1), 'v', 'one that is rolled back is forgotten');
SELECT alloc.unsubscribe('allocated', 'hear(jsonb)');
SELECT alloc.allocate('c2', 'v', 1);
ROLLBACK TO here;
SELECT alloc.allocate('c2', 'v', 1);
SELECT results_eq('SELECT words()', ARRAY['allocated c2 1 v'], 'one whose end is rolled back goes on');
TRUNCATE seen;
SELECT says('once', $$PERFORM alloc.unsubscribe('allocated', 'once(jsonb)'); INSERT INTO public.seen VALUES ('once');$$);
SELECT alloc.subscribe('allocated', 'once(jsonb)', 'sync');
SELECT * FROM alloc.allocate_lines('{"(c3,v,1)","(c4,v,1)"}');
SELECT results_eq('SELECT * FROM seen', ARRAY['once'], 'a handler that ends its subscription is not called with the next event');
SELECT says('hire', $$PERFORM alloc.subscribe('allocated', 'look(jsonb)', 'sync'); PERFORM alloc.unsubscribe('deallocated', 'hire(jsonb)');$$);
SELECT alloc.subscribe('deallocated', 'hire(jsonb)', 'sync');
TRUNCATE seen;
SELECT alloc.deallocate('c3', 'v'), alloc.allocate('c5', 'v', 1);
SELECT is(count(*), 2::bigint, 'one that subscribes another one: it is called with what comes then') FROM seen;
SELECT alloc.unsubscribe('allocated', 'look(jsonb)');

-- As whom, and with which settings

SELECT says('shop.who', $$INSERT INTO public.seen SELECT concat_ws(' ', current_user, current_setting('role'), current_schemas(false)::text);
	INSERT INTO things VALUES (event->>'orderid');$$);
ALTER FUNCTION shop.who(jsonb) OWNER TO regress_shop;
SET LOCAL ROLE regress_shop;
CREATE TABLE shop.things (what text);
SET LOCAL search_path = shop, public;
SELECT alloc.subscribe('allocated', 'who(jsonb)', 'sync');
RESET search_path;
SET LOCAL ROLE regress_buyer;
SET LOCAL search_path = pg_catalog;
-- Not to be found by the handler
CREATE TEMPORARY TABLE things (what int);
SELECT alloc.allocate('who', 'v', 1);
SELECT current_user AS caller, current_setting('search_path') AS path \gset
RESET search_path;
RESET ROLE;
SELECT is(:'caller'::text, 'regress_buyer', 'afterwards the caller is who it was');
SELECT is(:'path'::text, 'pg_catalog', 'with its search_path');
SELECT results_eq('SELECT * FROM shop.things', ARRAY['who'], 'the handler finds its own tables, whatever temporary ones there are');
SELECT matches((SELECT what FROM seen WHERE what LIKE 'regress%'), '^regress_shop regress_buyer \{shop,public,pg_temp_\d+\}$',
	'it runs as the role that subscribed, with its search_path');
SELECT alloc.unsubscribe('allocated', 'shop.who(jsonb)');
SELECT results_eq($$SELECT by COLLATE "C" FROM heard WHERE event->>'orderid' = 'who'$$, ARRAY[session_user::text],
	'a handler of the owner runs as the owner, whoever calls');

CREATE TABLE secret (x int);
CREATE FUNCTION tries(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM says('shop.tries', 'EXECUTE ' || quote_literal(command) || ';');
	ALTER FUNCTION shop.tries(jsonb) OWNER TO regress_shop;
	SET LOCAL ROLE regress_shop;
	EXECUTE $q$SELECT alloc.subscribe('allocated', 'shop.tries(jsonb)', 'sync')$q$;
	RESET ROLE;
	PERFORM alloc.allocate('tries', 'v', 1);
	RETURN 'done';
END
$$;
SELECT throws_ok(format('SELECT tries(%L)', command), state, message, 'refused in a handler: ' || command)
  FROM (VALUES ('SET ROLE regress_buyer', '42501', 'cannot set parameter "role" within security-definer function'),
			   ('SET LOCAL ROLE NONE', '42501', 'cannot set parameter "role" within security-definer function'),
			   ('RESET ROLE', '42501', 'cannot set parameter "role" within security-definer function'),
			   ('SET SESSION AUTHORIZATION DEFAULT', '42501', 'cannot set parameter "session_authorization" within security-definer function'),
			   ('RESET SESSION AUTHORIZATION', '42501', 'cannot set parameter "session_authorization" within security-definer function'),
			   ('INSERT INTO public.secret VALUES (1)', '42501', 'permission denied for table secret'),
			   ('SELECT * FROM alloc.event', '42501', 'permission denied for table event'),
			   ('COMMIT', '0A000', NULL), ('DO ''BEGIN COMMIT; END''', '2D000', NULL)) AS c (command, state, message);
SELECT is(tries('SET work_mem = ''77MB'''), 'done', 'a handler may set a parameter');
SELECT isnt(current_setting('work_mem'), '77MB', 'which is as it was afterwards');
SELECT alloc.unsubscribe('allocated', 'shop.tries(jsonb)'), alloc.deallocate('tries', 'v');
SELECT is(tries('SET LOCAL search_path = alloc'), 'done', 'even search_path');
SELECT matches(current_setting('search_path'), 'public', 'which is as it was');
SELECT alloc.unsubscribe('allocated', 'shop.tries(jsonb)'), alloc.deallocate('tries', 'v');

-- What a handler leaves for the end of the transaction does not run as the
-- caller

CREATE FUNCTION shop.late() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.secret VALUES (1); RETURN NULL; EXCEPTION WHEN insufficient_privilege THEN RETURN NULL; END $$;
ALTER FUNCTION shop.late() OWNER TO regress_shop;
SET LOCAL ROLE regress_shop;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON shop.things
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION shop.late();
RESET ROLE;
CREATE FUNCTION tries_late() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM tries('INSERT INTO shop.things VALUES (1)');
	SET CONSTRAINTS ALL IMMEDIATE;
	RETURN 'done';
EXCEPTION WHEN insufficient_privilege OR object_not_in_prerequisite_state THEN RETURN 'refused';
END
$$;
SELECT tries_late();
SELECT is_empty('SELECT * FROM secret', 'a deferred trigger of a handler''s work has no right of the caller');
SET CONSTRAINTS ALL DEFERRED;
SELECT alloc.unsubscribe(event_type, 'shop.tries(jsonb)'), alloc.deallocate('tries', 'v')
  FROM (SELECT event_type FROM alloc.subscription WHERE handler LIKE '%tries%' OFFSET 0) s;

-- What a handler may return, and its end

CREATE FUNCTION returns_jsonb(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION returns_null(jsonb) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
CREATE FUNCTION returns_row(jsonb, OUT a int, OUT b text) LANGUAGE sql AS 'SELECT 1, ''x''';
CREATE FUNCTION returns_record(jsonb, OUT a int, OUT b text) LANGUAGE plpgsql AS 'BEGIN a := 1; END';
CREATE FUNCTION changes(INOUT e jsonb) LANGUAGE plpgsql AS 'BEGIN e := NULL; END';
CREATE FUNCTION strict(jsonb) RETURNS void LANGUAGE sql STRICT STABLE AS 'SELECT';
SELECT alloc.subscribe('allocated', name::regprocedure, 'sync')
  FROM unnest('{returns_jsonb(jsonb),returns_null(jsonb),returns_row(jsonb),returns_record(jsonb),changes(jsonb),strict(jsonb),pg_catalog.jsonb_typeof(jsonb)}'::text[]) AS name;
SELECT is(alloc.allocate('returns', 'v', 1), 'v', 'whatever handlers return');
CREATE SCHEMA "Odd. ""schema";
CREATE FUNCTION "Odd. ""schema"."Odd,(name"(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.seen VALUES ('odd') $$;
SELECT alloc.subscribe('deallocated', '"Odd. ""schema"."Odd,(name"(jsonb)', 'sync');
SELECT alloc.deallocate('returns', 'v');
SELECT is(count(*), 1::bigint, 'a name that needs quotes') FROM seen WHERE what = 'odd';
DROP FUNCTION "Odd. ""schema"."Odd,(name"(jsonb);
SELECT refused($$SELECT alloc.deallocate('who', 'v')$$, '42883', 'function "%" does not exist', 'a handler that was dropped');
CREATE FUNCTION "Odd. ""schema"."Odd,(name"(jsonb) RETURNS void LANGUAGE sql AS '';
SELECT is(alloc.deallocate('who', 'v'), 'v', 'created again it is found by its name');
SET LOCAL ROLE regress_shop;
SELECT alloc.subscribe('deallocated', 'shop.tries(jsonb)', 'sync');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION shop.tries(jsonb) FROM PUBLIC, regress_shop;
SELECT refused($$SELECT alloc.deallocate('deep', 'v')$$, '42501', 'permission denied for function shop.tries(pg_catalog.jsonb)',
	'a handler that its role may not call any more');
DROP OWNED BY regress_shop, regress_buyer;
DROP ROLE regress_shop;
SELECT refused($$SELECT alloc.deallocate('deep', 'v')$$, '42704', 'role %, which subscribed, does not exist', 'a role that was dropped');
SELECT sound('all of this');

SELECT * FROM finish();
ROLLBACK;
