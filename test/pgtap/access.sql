-- Who may do what: nothing is for PUBLIC; EXECUTE is all that a command needs;
-- and no name is looked for along the caller's search_path.

\ir common.psql
BEGIN;
SELECT no_plan();

-- The functions' properties

CREATE TEMPORARY TABLE command (name text, call text);
INSERT INTO command VALUES
	('add_batch', $$SELECT alloc.add_batch('b9', 's', 1)$$),
	('allocate', $$SELECT alloc.allocate('o9', 's', 1)$$),
	('allocate_lines', $$SELECT * FROM alloc.allocate_lines('{"(o9,s,1)","(o8,s,2)"}')$$),
	('deallocate', $$SELECT alloc.deallocate('o1', 's')$$),
	('change_batch_quantity', $$SELECT * FROM alloc.change_batch_quantity('b1', 20)$$),
	('handle', $$SELECT alloc.handle('{"command": "allocate", "orderid": "o9", "sku": "s", "qty": 1, "message_id": "m"}')$$),
	('create_consumer', $$SELECT alloc.create_consumer(gen_random_uuid()::text)$$),
	('fetch_events', $$SELECT * FROM alloc.fetch_events('mail')$$),
	('drop_consumer', $$SELECT alloc.drop_consumer(set_config('test.n', (current_setting('test.n')::int + 1)::text, true))$$),
	('subscribe', $$SELECT alloc.subscribe(('{batch_created,batch_quantity_changed,batch_eta_changed,allocated,deallocated,out_of_stock,held,hold_released,hold_expired,confirmed}'::text[])[set_config('test.n', (current_setting('test.n')::int + 1)::text, true)::int], 'jsonb_typeof(jsonb)')$$),
	('unsubscribe', $$SELECT alloc.unsubscribe(('{batch_created,batch_quantity_changed,batch_eta_changed,allocated,deallocated,out_of_stock,held,hold_released,hold_expired,confirmed}'::text[])[set_config('test.n', (current_setting('test.n')::int + 1)::text, true)::int], 'jsonb_array_length(jsonb)')$$),
	('retry_dead_letters', $$SELECT alloc.retry_dead_letters()$$);
SELECT set_config('test.n', '0', true);
GRANT SELECT ON command TO PUBLIC;

SELECT volatility_is('alloc', name, 'volatile', name || '() is VOLATILE') FROM command;
SELECT is(proparallel, 'u', name || '() is PARALLEL UNSAFE')
  FROM command JOIN pg_proc p ON p.proname = name AND p.pronamespace = 'alloc'::regnamespace;
SELECT isnt_strict('alloc', name, name || '() sees a NULL, to refuse it') FROM command;
SELECT is(prosecdef, false, name || '() is not SECURITY DEFINER')
  FROM command JOIN pg_proc p ON p.proname = name AND p.pronamespace = 'alloc'::regnamespace;
SELECT volatility_is('alloc', 'event_payload', 'immutable', 'event_payload() is IMMUTABLE');

-- Nothing is granted to PUBLIC

SELECT is_empty($$
	SELECT p.oid::regprocedure, a.privilege_type
	  FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	 WHERE p.pronamespace = 'alloc'::regnamespace AND a.grantee = 0$$, 'no function is for PUBLIC');
SELECT is_empty($$
	SELECT c.oid::regclass, a.privilege_type
	  FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) a
	 WHERE c.relnamespace = 'alloc'::regnamespace AND c.relkind IN ('r', 'v', 'S') AND a.grantee = 0$$,
	'no table, view or sequence is for PUBLIC');
SELECT is_empty($$
	SELECT a.attrelid::regclass, a.attname FROM pg_attribute a
	 WHERE a.attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'alloc'::regnamespace) AND a.attacl IS NOT NULL$$,
	'no column is granted to anybody');
SELECT is_empty($$
	SELECT t.oid::regtype, a.privilege_type
	  FROM pg_type t, aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a
	 WHERE t.oid = 'alloc.order_line'::regtype AND a.grantee = 0$$, 'type order_line is not for PUBLIC');
SELECT is_empty($$
	SELECT a.privilege_type
	  FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
	 WHERE n.nspname = 'alloc' AND a.grantee = 0$$, 'the schema is not for PUBLIC');
SELECT is_empty($$
	SELECT DISTINCT a.grantee::regrole
	  FROM (SELECT proacl FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace
			UNION ALL SELECT relacl FROM pg_class WHERE relnamespace = 'alloc'::regnamespace
			UNION ALL SELECT nspacl FROM pg_namespace WHERE nspname = 'alloc') acls (acl), aclexplode(acl) a
	 WHERE a.grantee <> (SELECT extowner FROM pg_extension WHERE extname = 'alloc')$$, 'only the owner has any right');

-- A role without grants

SELECT alloc.add_batch('b1', 's', 10), alloc.add_batch('b2', 's', 10, '2011-01-01'), alloc.allocate('o1', 's', 4);
SELECT alloc.create_consumer('mail');
SELECT alloc.create_consumer(n::text) FROM generate_series(1, 99) n;
SELECT alloc.subscribe(type, 'jsonb_array_length(jsonb)')
  FROM unnest('{batch_created,batch_quantity_changed,batch_eta_changed,allocated,deallocated,out_of_stock,held,hold_released,hold_expired,confirmed}'::text[]) AS type;
CREATE ROLE regress_stranger;
GRANT TEMPORARY ON DATABASE :DBNAME TO regress_stranger;
CREATE FUNCTION as_stranger(command text, path text DEFAULT 'pg_catalog') RETURNS text
LANGUAGE sql AS $$
	SELECT format('SET LOCAL ROLE regress_stranger; SET LOCAL search_path = %s; %s; RESET search_path; RESET ROLE', path, command)
$$;

CREATE TEMPORARY TABLE relation AS
SELECT relname::text AS name, relkind FROM pg_class
 WHERE relnamespace = 'alloc'::regnamespace AND relkind IN ('r', 'v', 'S');

SELECT refused(as_stranger(call), '42501', '%schema alloc%', name || '() without any grant') FROM command;
SELECT throws_ok(as_stranger('SELECT FROM alloc.' || name), '42501', NULL, name || ' without any grant')
  FROM relation ORDER BY name;

GRANT USAGE ON SCHEMA alloc TO regress_stranger;
SELECT refused(as_stranger(call), '42501', '%function ' || name || '%', name || '() with USAGE on the schema only') FROM command;
SELECT throws_ok(as_stranger('SELECT FROM alloc.' || name), '42501', NULL, name || ' with USAGE on the schema only')
  FROM relation ORDER BY name;
SELECT throws_ok(as_stranger('SELECT alloc.event_payload(ROW(1, now(), 5, NULL, NULL, NULL, NULL, NULL, NULL, false, $$t$$, $$s$$, NULL, NULL, NULL, NULL))'), '42501', NULL, 'event_payload() with USAGE on the schema only');
SELECT throws_ok(as_stranger($$SELECT nextval('alloc.event_id_seq')$$), '42501', NULL, 'an event id with USAGE on the schema only');
SELECT throws_ok(as_stranger($$CREATE TABLE alloc.mine (x int)$$), '42501', NULL, 'creating in the schema with USAGE only');
SELECT throws_ok(as_stranger($$CREATE TEMPORARY TABLE mine (line alloc.order_line)$$), '42501', NULL, 'a column of type order_line with USAGE on the schema only');

-- EXECUTE is enough for a command, tables stay closed

GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA alloc TO regress_stranger;
SELECT lives_ok(as_stranger(call), name || '() with EXECUTE, without a right on any table') FROM command;
SELECT throws_ok(as_stranger('SELECT FROM alloc.' || name), '42501', NULL, name || ' is closed to those who have EXECUTE')
  FROM relation ORDER BY name;
SELECT results_eq($$SELECT allocated_qty, available_qty FROM alloc.batches WHERE ref = 'b1'$$, 'VALUES (3::bigint, 17::bigint)',
	'and what the role did is there');

-- SELECT on a view needs none on its tables

GRANT SELECT ON alloc.allocations, alloc.backorders, alloc.batches, alloc.stock, alloc.events, alloc.consumers, alloc.dead_letters,
	alloc.stats TO regress_stranger;
SELECT lives_ok(as_stranger('SELECT * FROM alloc.' || name), 'view ' || name || ' with SELECT on it and EXECUTE on functions')
  FROM relation WHERE relkind = 'v' ORDER BY name;

-- A hostile search_path

CREATE SCHEMA hostile AUTHORIZATION regress_stranger;
CREATE TABLE hostile.called (what text);
GRANT ALL ON hostile.called TO PUBLIC;
CREATE FUNCTION hostile.octet_length(text) RETURNS int LANGUAGE plpgsql AS
	$$ BEGIN RAISE 'hostile octet_length' USING ERRCODE = 'XX999'; END $$;
CREATE FUNCTION hostile.equal(text, text) RETURNS bool LANGUAGE plpgsql AS
	$$ BEGIN RAISE 'hostile =' USING ERRCODE = 'XX999'; END $$;
CREATE FUNCTION hostile.minus(bigint, bigint) RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN RAISE 'hostile -' USING ERRCODE = 'XX999'; END $$;
CREATE FUNCTION hostile.at_least(bigint, int) RETURNS bool LANGUAGE plpgsql AS
	$$ BEGIN RAISE 'hostile >=' USING ERRCODE = 'XX999'; END $$;
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equal);
CREATE OPERATOR hostile.- (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.minus);
CREATE OPERATOR hostile.>= (LEFTARG = bigint, RIGHTARG = int, FUNCTION = hostile.at_least);
CREATE FUNCTION hostile.nextval(regclass) RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN RAISE 'hostile nextval' USING ERRCODE = 'XX999'; END $$;
CREATE FUNCTION hostile.add_batch(text, text, bigint, date DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS
	$$ BEGIN RAISE 'hostile add_batch' USING ERRCODE = 'XX999'; END $$;
CREATE TABLE hostile.product (sku text);
CREATE TABLE hostile.batch (ref text);
CREATE TABLE hostile.event (event_id bigint);
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
SELECT throws_ok(as_stranger($$SELECT 'a'::text = 'a'::text$$, 'hostile, pg_catalog'), 'XX999', NULL,
	'the hostile search_path is one');
SELECT lives_ok(as_stranger(call, 'hostile, pg_catalog'), name || '() under a hostile search_path') FROM command;
SELECT lives_ok(as_stranger('SELECT * FROM alloc.' || name, 'hostile, pg_catalog'), name || ' under a hostile search_path')
  FROM relation WHERE relkind = 'v' ORDER BY name;
SELECT lives_ok(as_stranger(call, ''''''), name || '() under an empty search_path') FROM command;

SELECT sound('strangers');
SELECT * FROM finish();
ROLLBACK;
