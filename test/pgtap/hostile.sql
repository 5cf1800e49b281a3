-- An attacker whose schema comes first in the search_path, with operators,
-- functions, aggregates, types and tables of all names that we use: a superuser
-- calls each function and reads each view of ours, and nothing of the
-- attacker's runs.

\ir common.psql
SET client_min_messages = error;
SELECT no_plan();

CREATE ROLE regress_attacker;
CREATE SCHEMA evil AUTHORIZATION regress_attacker;
-- Not undone by a rollback: who has run anything of the attacker's is found
-- even if the error was caught.
CREATE SEQUENCE evil.ran;
GRANT ALL ON SEQUENCE evil.ran TO PUBLIC;
GRANT ALL ON SCHEMA evil TO PUBLIC;

-- hostile: the body of all of the attacker's functions.
CREATE FUNCTION hostile_body() RETURNS text IMMUTABLE LANGUAGE sql RETURN
	$$BEGIN PERFORM pg_catalog.nextval('evil.ran'::pg_catalog.regclass); RAISE EXCEPTION 'hostile' USING ERRCODE = 'XX999'; END$$;

-- Each function of pg_catalog and of ours by its own arguments; what works on
-- any element or array, on all that we have.
CREATE TEMPORARY TABLE made (kind text, n bigint);
CREATE FUNCTION make_functions() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	f record;
	n bigint := 0;
BEGIN
	FOR f IN
		SELECT DISTINCT p.proname, pg_catalog.oidvectortypes(CASE WHEN k.type IS NULL THEN p.proargtypes ELSE
		         (SELECT string_agg(CASE WHEN t IN ('anyarray'::regtype, 'anycompatiblearray'::regtype) THEN k.arrays
		                                 WHEN t IN ('anyelement'::regtype, 'anycompatible'::regtype, '"any"'::regtype) THEN k.type
		                                 ELSE t END::oid::text, ' ' ORDER BY i)
		            FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, i))::oidvector END) AS arguments,
		       p.pronargs
		  FROM pg_proc p
		  LEFT JOIN (VALUES ('bigint'::regtype::oid, 'bigint[]'::regtype::oid), ('text'::regtype, 'text[]'::regtype),
		                    ('numeric'::regtype, 'numeric[]'::regtype)) AS k (type, arrays)
		    ON p.proargtypes::oid[] && ARRAY['anyarray', 'anycompatiblearray', 'anyelement', 'anycompatible', '"any"']::regtype[]::oid[]
		 WHERE (p.pronamespace = 'pg_catalog'::regnamespace AND p.proname NOT LIKE 'pg\_%get\_%stat%'
		        AND p.provariadic = 0 AND p.pronargs <= 4
		        OR p.pronamespace = 'alloc'::regnamespace)
		   AND NOT p.proargtypes::oid[] && ARRAY['internal', 'cstring', 'anyrange', 'anymultirange', 'anyenum', 'anynonarray',
				'anycompatiblenonarray', 'anycompatiblerange', 'anycompatiblemultirange', 'record', 'record[]', 'trigger', 'event_trigger']::regtype[]::oid[]
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS text LANGUAGE plpgsql AS %L', f.proname, f.arguments, hostile_body());
			n := n + 1;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END LOOP;
	RETURN n;
END
$$;
-- Each operator as it is in pg_catalog, and for pairs of types that it does not
-- have: a better match is taken first.
CREATE FUNCTION make_operators() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	o record;
	n bigint := 0;
	usual CONSTANT oid[] := ARRAY['text', 'bigint', 'integer', 'boolean', 'date', 'timestamptz', 'oid', 'name']::regtype[]::oid[];
BEGIN
	FOR o IN
		SELECT oprname AS name, oprleft::regtype AS l, oprright::regtype AS r
		  FROM pg_operator
		 WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b' AND oprright <> 'cstring'::regtype
		   AND NOT EXISTS (SELECT FROM pg_type WHERE oid IN (oprleft, oprright)
		                      AND (typtype = 'p' OR typcategory IN ('G', 'I', 'R')))
		UNION
		SELECT name, l::regtype, r::regtype
		  FROM unnest('{=,<>,<,>,<=,>=,||}'::text[]) AS name, unnest(usual) AS l, unnest(usual) AS r
	LOOP
		IF to_regprocedure(format('evil.operate(%s, %s)', o.l, o.r)) IS NULL THEN
			EXECUTE format('CREATE FUNCTION evil.operate(%s, %s) RETURNS boolean LANGUAGE plpgsql AS %L', o.l, o.r, hostile_body());
		END IF;
		EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.operate)', o.name, o.l, o.r);
		n := n + 1;
	END LOOP;
	RETURN n;
END
$$;
-- Casts cannot be replaced, but the names of types can.
CREATE FUNCTION make_types() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	t text;
	n bigint := 0;
BEGIN
	EXECUTE format('CREATE FUNCTION evil.refuse(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS %L', hostile_body());
	FOREACH t IN ARRAY '{text,int8,int4,int2,bool,date,timestamptz,interval,jsonb,bytea,oid,name,numeric,float8,regclass,regtype,regrole,regprocedure,regnamespace,pg_snapshot,order_line}'::text[] LOOP
		EXECUTE format('CREATE DOMAIN evil.%I AS pg_catalog.text CHECK (evil.refuse(VALUE))', t);
		n := n + 1;
	END LOOP;
	RETURN n;
END
$$;
CREATE FUNCTION make_relations() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	r record;
	n bigint := 0;
BEGIN
	EXECUTE format('CREATE FUNCTION evil.rows() RETURNS bigint LANGUAGE plpgsql AS %L', hostile_body());
	FOR r IN
		SELECT relname FROM pg_class
		 WHERE relnamespace IN ('alloc'::regnamespace, 'pg_catalog'::regnamespace) AND relkind IN ('r', 'v', 'S')
	LOOP
		CONTINUE WHEN to_regtype(format('evil.%I', r.relname)) IS NOT NULL;
		EXECUTE format('CREATE VIEW evil.%I AS SELECT evil.rows() AS event_id', r.relname);
		-- The session's temporary tables are no better.
		IF r.relname IN (SELECT relname FROM pg_class WHERE relnamespace = 'alloc'::regnamespace AND relkind = 'r') THEN
			EXECUTE format('CREATE TEMPORARY TABLE %I (hostile int)', r.relname);
		END IF;
		n := n + 1;
	END LOOP;
	RETURN n;
END
$$;
SELECT cmp_ok(make_functions(), '>', 1500::bigint, 'the attacker has many functions');
SELECT cmp_ok(make_operators(), '>', 500::bigint, 'and operators');
SELECT cmp_ok(make_types(), '>', 20::bigint, 'and types');
SELECT cmp_ok(make_relations(), '>', 100::bigint, 'and relations');
SELECT format('CREATE FUNCTION evil.step(bigint) RETURNS bigint LANGUAGE plpgsql AS %L', hostile_body())
\gexec
DROP FUNCTION evil.count();
CREATE AGGREGATE evil.count(*) (SFUNC = evil.step, STYPE = bigint, INITCOND = '0');

-- What a superuser does

CREATE TABLE feed (ref text, sku text, qty bigint, eta date);
INSERT INTO feed VALUES ('b1', 's', 30, NULL), ('b2', 's', 30, '2031-01-01'), ('b3', 't', 5, NULL);
CREATE FUNCTION public.hears(jsonb) RETURNS void LANGUAGE sql AS '';
CREATE TABLE call (n int, what text, call text);
INSERT INTO call VALUES
	(1, 'add_batch', $$SELECT alloc.add_batch('b1', 's', 10); SELECT alloc.add_batch('b2', 's', 20, '2031-01-01'); SELECT alloc.add_batch('b9', 'u', 3)$$),
	(2, 'allocate', $$SELECT alloc.allocate('o1', 's', 4)$$),
	(3, 'allocate_lines', $$SELECT * FROM alloc.allocate_lines('{"(o2,s,1)","(o3,s,2)","(o4,s,100)"}')$$),
	(4, 'allocate_order', $$SELECT * FROM alloc.allocate_order('o5', '{"(,s,1)","(,s,2)"}'); SELECT * FROM alloc.allocate_order('o6', '{"(,s,1)","(,s,200)"}', 'backorder')$$),
	(5, 'deallocate', $$SELECT alloc.deallocate('o2', 's')$$),
	(6, 'hold', $$SELECT alloc.hold('o7', 's', 1, '1 hour'); SELECT alloc.hold('o8', 's', 1, '1 hour')$$),
	(7, 'extend_hold', $$SELECT alloc.extend_hold('o7', '2 hours')$$),
	(8, 'confirm', $$SELECT alloc.confirm('o7')$$),
	(9, 'release', $$SELECT alloc.release('o8')$$),
	(10, 'ship', $$SELECT alloc.ship('o3'); SELECT alloc.ship('o1', 's')$$),
	(11, 'change_batch_eta', $$SELECT * FROM alloc.change_batch_eta('b2', '2031-02-01')$$),
	(12, 'change_batch_quantity', $$SELECT * FROM alloc.change_batch_quantity('b1', 7); SELECT * FROM alloc.change_batch_quantity('b1', 12)$$),
	(13, 'cancel_backorder', $$SELECT alloc.cancel_backorder('o6', 's')$$),
	(14, 'sync_batches', $$SELECT * FROM alloc.sync_batches('public.feed', true); SELECT * FROM alloc.sync_batches('public.feed')$$),
	(15, 'handle', $$SELECT alloc.handle('{"command": "allocate", "orderid": "o10", "sku": "s", "qty": 1, "message_id": "m1"}');
		SELECT alloc.handle('{"command": "allocate", "orderid": "o10", "sku": "s", "qty": 1, "message_id": "m1"}');
		SELECT alloc.handle('{"command": "allocate_lines", "lines": [{"orderid": "o11", "sku": "s", "qty": 1}]}')$$),
	(16, 'create_consumer', $$SELECT alloc.create_consumer('bus', 'beginning')$$),
	(17, 'fetch_events', $$SELECT * FROM alloc.fetch_events('bus', 3)$$),
	(18, 'subscribe', $$SELECT alloc.subscribe('allocated', 'public.hears(pg_catalog.jsonb)', 'sync'); SELECT alloc.allocate('o12', 's', 1)$$),
	(19, 'unsubscribe', $$SELECT alloc.unsubscribe('allocated', 'public.hears(pg_catalog.jsonb)')$$),
	(20, 'retry_dead_letters', $$SELECT alloc.retry_dead_letters()$$),
	(21, 'available_to_promise', $$SELECT alloc.available_to_promise('s'); SELECT alloc.available_to_promise('s', '2032-01-01')$$),
	(22, 'promise', $$SELECT * FROM alloc.promise('s', 2)$$),
	(23, 'replay', $$SELECT * FROM alloc.replay(); SELECT * FROM alloc.replay('s', 5)$$),
	(24, 'history', $$SELECT * FROM alloc.history('s')$$),
	(25, 'history_of_order', $$SELECT * FROM alloc.history_of_order('o1')$$),
	(26, 'event_payload', $$SELECT alloc.event_payload(ROW(1, 'epoch', 5, 1, 2, NULL, NULL, NULL, NULL, false, 'allocated', 's', 'o', 'b', NULL, NULL))$$),
	(27, 'was_given', $$SELECT alloc.was_given(1, '{}', NULL, NULL, NULL, 1, 1)$$),
	(28, 'check', $$SELECT * FROM alloc.check()$$),
	(29, 'snapshot_log', $$SELECT alloc.snapshot_log(); SELECT * FROM alloc.check()$$),
	(30, 'repair', $$UPDATE alloc.batch SET purchased = 99; DELETE FROM alloc.slot; DELETE FROM alloc.product; DELETE FROM alloc.hold; DELETE FROM alloc.allocation;
		SELECT * FROM alloc.repair(); SELECT * FROM alloc.repair(false); SELECT * FROM alloc.check()$$),
	(31, 'rebuild', $$DELETE FROM alloc.batch; DELETE FROM alloc.slot; DELETE FROM alloc.product; DELETE FROM alloc.hold; DELETE FROM alloc.allocation; DELETE FROM alloc.backorder;
		SELECT * FROM alloc.rebuild()$$),
	(32, 'drop_consumer', $$SELECT alloc.drop_consumer('bus')$$),
	(33, 'archive_events', $$SELECT alloc.snapshot_log(); SELECT * FROM alloc.archive_events('infinity'); SELECT * FROM alloc.check()$$),
	(34, 'purge_shipped', $$SELECT alloc.purge_shipped('infinity')$$),
	(35, 'grant_access', $$SELECT alloc.grant_access('regress_attacker', 'read'); SELECT alloc.grant_access('regress_attacker', 'admin')$$),
	(36, 'revoke_access', $$SELECT alloc.revoke_access('regress_attacker', 'admin'); SELECT alloc.revoke_access('regress_attacker', 'read')$$);
INSERT INTO call VALUES
	(40, 'partition_of', $$SELECT alloc.partition_of('s')$$),
	(41, 'set_partition', $$SELECT alloc.set_partition(0, 2)$$),
	(42, 'drop_moved', $$SELECT alloc.drop_moved(); SELECT alloc.set_partition(NULL, NULL)$$),
	(43, 'counters', $$SELECT * FROM alloc.counters()$$),
	-- What routers call.
	(44, '_claim_ref', $$SELECT alloc.add_batch('fb', 's', 90), alloc._claim_ref('r', 's', NULL, false), alloc._claim_ref('r', 't', 's', true), alloc._add_fleet_batch('fc', 's', 90, NULL), alloc._sku_of_ref('r');
		SELECT alloc._sku_of_batch('b1'); SELECT alloc._fill_directory('{r2}', '{s}'); SELECT * FROM alloc._directory(); SELECT * FROM alloc._batch_refs()$$),
	(45, '_prepare_order', $$SELECT * FROM alloc._find_order('f1'); SELECT alloc._begin_order('f1', 'all', '{s}', '{1}');
		SELECT * FROM alloc._prepare_order('f1', 1, '{s}', '{1}', 'all', '1 minute'); SELECT * FROM alloc._held_lines('f1');
		SELECT alloc._move_order('f1', 1, 'begun', 'decided', '{s}'); SELECT * FROM alloc._finish_order('f1', 1, '{s}', '{1}', 'all');
		SELECT alloc._require_shippable('f1'); SELECT alloc._undo_order('f1', 1, '{s}', '{1}', '{s}'); SELECT alloc._forget_attempt('f1', 1);
		SELECT * FROM alloc._left_orders(); SELECT * FROM alloc._old_attempts('{0}'); SELECT alloc._has_attempt('f1', 1); SELECT alloc._unlock_order('f1')$$),
	(46, '_allocate_share', $$SELECT * FROM alloc._allocate_share('{0}', ARRAY['{"(f2,s,1)"}']);
		SELECT * FROM alloc._sync_share('{fb9}', '{fs9}', '{1}', '{NULL}', false)$$),
	(47, '_fetch_fleet_events', $$SELECT alloc._create_fleet_consumer('fleet', 'beginning');
		SELECT * FROM alloc._fetch_fleet_events('{0}', 'fleet', '{0}', '{0}', 10, 1); SELECT * FROM alloc._fetch_fleet_events('{0}', 'fleet', '{1}', '{1}', 10, 2);
		SELECT alloc._drop_fleet_consumer('fleet')$$),
	(48, '_take_share', $$SELECT * FROM alloc._take_share(0, 1); SELECT alloc._require_homes('{0}'); SELECT alloc.set_partition(NULL, NULL)$$),
	(49, '_add_fleet_consumer', $$SELECT alloc._add_fleet_consumer('fleet'); SELECT alloc._drop_fleet_consumer('fleet')$$),
	(52, 'discard_dead_letters', $$SELECT alloc.discard_dead_letters(); SELECT alloc.discard_dead_letters('evil.hears(jsonb)')$$),
	-- One that has stock is not filled; this one was, as it were.
	(50, 'prepare_partition', $$DO 'BEGIN PERFORM alloc.prepare_partition(1); EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL; END'$$),
	(51, 'settle_partition', $$INSERT INTO alloc.partition VALUES (-1, 2); SELECT alloc.settle_partition(0, 1); SELECT alloc.set_partition(NULL, NULL)$$);
-- Those of a router need PL/Proxy, and partitions; reset_stats() the library preloaded.
SELECT is_empty($$
	SELECT object FROM alloc._scopes() WHERE object NOT IN (SELECT what FROM call)
	   AND to_regclass('alloc.' || object) IS NULL AND object NOT LIKE '\_%' AND object <> ALL ('{reset_stats,subscriptions_changed,create_router,drop_router,recover_orders,rebuild_directory}')$$,
	'each function is called here');
INSERT INTO call
SELECT 100 + row_number() OVER (ORDER BY relname), 'view ' || relname, 'SELECT * FROM alloc.' || relname
  FROM pg_class WHERE relnamespace = 'alloc'::regnamespace AND relkind = 'v';

-- walk: all of it under a search_path, in one transaction; what went wrong.
-- The body must not use anything that the attacker has.
CREATE FUNCTION walk(path text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	calls CONSTANT text[] := ARRAY(SELECT c.call FROM call c ORDER BY c.n);
	names CONSTANT text[] := ARRAY(SELECT c.what FROM call c ORDER BY c.n);
	command text;
	outcome text;
	outcomes text[] := '{}';
BEGIN
	FOREACH command IN ARRAY calls LOOP
		outcome := 'done';
		BEGIN
			PERFORM pg_catalog.set_config('search_path', path, true);
			EXECUTE command;
			PERFORM pg_catalog.set_config('search_path', 'public', true);
		EXCEPTION WHEN OTHERS THEN
			PERFORM pg_catalog.set_config('search_path', 'public', true);
			outcome := SQLSTATE || ' ' || SQLERRM;
		END;
		outcomes := outcomes || outcome;
	END LOOP;
	FOR i IN 1 .. cardinality(names) LOOP
		RETURN NEXT is(outcomes[i], 'done', format('%s: %s', path, names[i]));
	END LOOP;
END
$$;

-- tried: something under a search_path, whether it met the attacker.
CREATE FUNCTION tried(path text, command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('search_path', path, true);
	EXECUTE command;
	PERFORM pg_catalog.set_config('search_path', 'public', true);
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SELECT is(tried('evil, pg_catalog', command), 'XX999', 'it is met by: ' || command)
  FROM unnest(ARRAY[$$SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text$$, 'SELECT 1::bigint + 1::bigint', 'SELECT now()', 'SELECT count(*)',
	'SELECT * FROM stock', 'SELECT * FROM pg_class', $$SELECT 'x'::text$$, $$SELECT octet_length('x')$$, $$SELECT allocate('o', 's', 1::bigint)$$,
	'SELECT sum(1::bigint)', 'SELECT lower(''x''::name)']) AS command;
SELECT ok(is_called, 'which shows') FROM evil.ran;
ALTER SEQUENCE evil.ran RESTART;

-- First where the session has no plans, then where it has.
BEGIN;
SELECT walk('evil, pg_catalog');
ROLLBACK;
BEGIN;
SELECT walk('public');
ROLLBACK;
BEGIN;
SELECT walk('evil');
ROLLBACK;
BEGIN;
SELECT walk('evil, alloc, public, pg_catalog, pg_temp');
ROLLBACK;
BEGIN;
SELECT walk('pg_temp, evil, pg_catalog, alloc');
ROLLBACK;
SELECT ok(NOT is_called, 'nothing of the attacker''s has run') FROM evil.ran;

-- And CREATE EXTENSION itself
DROP EXTENSION alloc CASCADE;
DROP SCHEMA alloc;
BEGIN;
SET LOCAL search_path = evil, pg_catalog;
CREATE EXTENSION alloc;
SET LOCAL search_path = public;
SELECT ok(NOT is_called, 'nor while the extension is created') FROM evil.ran;
SELECT walk('evil, pg_catalog');
ROLLBACK;
SELECT ok(NOT is_called, 'nor in what that has made') FROM evil.ran;

SELECT * FROM finish();
DROP OWNED BY regress_attacker CASCADE;
DROP ROLE regress_attacker;
