-- Every function and view by every scope, from the catalog; and that each scope
-- is enough for its work, and for no other.

\ir common.psql
BEGIN;
SELECT no_plan();

CREATE ROLE regress_none;
CREATE ROLE regress_read;
CREATE ROLE regress_sell;
CREATE ROLE regress_buy;
CREATE ROLE regress_admin;
CREATE TEMPORARY TABLE scope (scope text, role text);
INSERT INTO scope VALUES ('none', 'regress_none'), ('read', 'regress_read'), ('sell', 'regress_sell'),
	('buy', 'regress_buy'), ('admin', 'regress_admin');

-- object: all that is not internal.
CREATE TEMPORARY VIEW object AS
SELECT proname::text AS name, 'function' AS kind, oid::regprocedure::text AS called
  FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace AND proname NOT LIKE '\_%'
UNION ALL
SELECT relname, CASE relkind WHEN 'c' THEN 'type' ELSE 'view' END, oid::regclass::text
  FROM pg_class WHERE relnamespace = 'alloc'::regnamespace AND relkind IN ('v', 'm', 'f', 'c');

-- may: does a role have the right that goes with the kind?
CREATE FUNCTION may(role name, kind text, called text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN CASE kind WHEN 'function' THEN has_function_privilege(role, called, 'EXECUTE')
	                 WHEN 'view' THEN has_table_privilege(role, called, 'SELECT')
	                 ELSE has_type_privilege(role, called, 'USAGE') END;
END
$$;

-- Each object has a decision

SELECT is_empty('SELECT kind, called FROM object WHERE name NOT IN (SELECT object FROM alloc._scopes())',
	'of each object it is written to which scopes it belongs');
SELECT is_empty('SELECT object FROM alloc._scopes() WHERE object NOT LIKE ''\_%'' AND object NOT IN (SELECT name FROM object)',
	'and of nothing that does not exist');
SELECT is_empty('SELECT object, scope FROM alloc._scopes() GROUP BY 1, 2 HAVING count(*) > 1', 'once');
SELECT is_empty($$SELECT object FROM alloc._scopes() GROUP BY object HAVING bool_or(scope IN ('owner', 'admin')) AND count(*) > 1$$,
	'what is the owner''s or the administrator''s is nobody else''s');
SELECT set_eq('SELECT DISTINCT scope FROM alloc._scopes()', ARRAY['read', 'sell', 'buy', 'admin', 'owner'], 'the scopes');
-- called: what is internal, but called as the reader of a view, or by a router.
CREATE TEMPORARY VIEW called AS
SELECT 'read' AS scope, p.oid::regprocedure AS called, p.proname::text AS name
  FROM pg_depend d
  JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
  JOIN pg_class v ON v.oid = r.ev_class AND v.relnamespace = 'alloc'::regnamespace
  JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
 WHERE p.proname LIKE '\_%'
UNION
SELECT 'admin', p.oid, p.proname
  FROM alloc._remote_functions() r
  JOIN pg_proc p ON p.proname = substring(r.call FROM '^alloc\.(\_\w+)\(') AND p.pronamespace = 'alloc'::regnamespace
UNION
SELECT 'admin', p.oid, p.proname
  FROM pg_proc f, regexp_matches(f.prosrc, 'alloc\.(_\w+)\(i_homes\)', 'g') AS called_name (part)
  JOIN pg_proc p ON p.proname = part[1] AND p.pronamespace = 'alloc'::regnamespace
 WHERE f.proname = '_create_remote_functions'
UNION
SELECT 'admin', p.oid, p.proname
  FROM alloc._remote_functions() r
  JOIN pg_proc f ON f.proname = substring(r.call FROM '^alloc\.(\_\w+)\(') AND f.pronamespace = 'alloc'::regnamespace
 CROSS JOIN regexp_matches(f.prosrc, 'alloc\.(_\w+)\(', 'g') AS called_name (part)
  JOIN pg_proc p ON p.proname = part[1] AND p.pronamespace = 'alloc'::regnamespace
 WHERE NOT f.prosecdef;
SELECT set_eq($$SELECT scope, object FROM alloc._scopes() WHERE object LIKE '\_%'$$, 'SELECT scope, name FROM called',
	'what is internal is in no scope, but for what is called as the client, or by a router');

-- The matrix

SELECT is(alloc.grant_access(role::regrole, scope)::text, '', 'grant_access() for ' || scope)
  FROM scope WHERE scope <> 'none';

CREATE FUNCTION matrix(after text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT is(may(s.role, o.kind, o.called),
	          EXISTS (SELECT FROM alloc._scopes() x
	                   WHERE x.object = o.name
	                     AND (x.scope = s.scope OR s.scope = 'admin' AND x.scope <> 'owner')),
	          format('%s: scope %s, %s %s', after, s.scope, o.kind, o.called))
	  FROM object o, scope s
	 ORDER BY o.kind, o.called, s.scope
$$;
SELECT matrix('granted');
SELECT is_empty($$SELECT called FROM object WHERE may('public', kind, called)$$, 'PUBLIC may do nothing of it');
SELECT is_empty($$
	SELECT s.role, p.oid::regprocedure FROM scope s, pg_proc p
	 WHERE p.pronamespace = 'alloc'::regnamespace AND p.proname LIKE '\_%'
	   AND has_function_privilege(s.role, p.oid, 'EXECUTE')
	   AND NOT EXISTS (SELECT FROM called c WHERE c.called = p.oid AND s.scope IN (c.scope, 'admin'))$$, 'what is internal is closed to all scopes');
SELECT is_empty($$
	SELECT s.role, c.oid::regclass, p FROM scope s, pg_class c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p
	 WHERE c.relnamespace = 'alloc'::regnamespace AND c.relkind IN ('r', 'p')
	   AND (has_table_privilege(s.role, c.oid, p)
	        OR p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(s.role, c.oid, p))$$,
	'tables are closed to all scopes');
SELECT is_empty($$
	SELECT s.role, c.oid::regclass, p FROM scope s, pg_class c, unnest('{USAGE,SELECT,UPDATE}'::text[]) AS p
	 WHERE c.relnamespace = 'alloc'::regnamespace AND c.relkind = 'S' AND has_sequence_privilege(s.role, c.oid, p)$$,
	'sequences are closed to all scopes');
SELECT is_empty($$
	SELECT s.role, c.oid::regclass, p FROM scope s, pg_class c, unnest('{INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p
	 WHERE c.relnamespace = 'alloc'::regnamespace AND c.relkind = 'v' AND has_table_privilege(s.role, c.oid, p)$$,
	'views are for reading only');
SELECT is(has_schema_privilege(role, 'alloc', 'USAGE'), scope <> 'none', 'USAGE on the schema: ' || scope) FROM scope;
SELECT is(has_schema_privilege(role, 'alloc', 'CREATE'), false, 'CREATE in the schema: ' || scope) FROM scope;
SELECT is_empty($$
	SELECT o.name, a.grantee::regrole
	  FROM (SELECT proname AS name, proacl AS acl FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace
			UNION ALL SELECT relname, relacl FROM pg_class WHERE relnamespace = 'alloc'::regnamespace
			UNION ALL SELECT typname, typacl FROM pg_type WHERE typnamespace = 'alloc'::regnamespace) o, aclexplode(acl) a
	 WHERE a.is_grantable AND a.grantee <> (SELECT extowner FROM pg_extension WHERE extname = 'alloc')$$,
	'nobody may pass on what was granted');

-- does: the one value that a command gives to a role.
CREATE FUNCTION does(role text, command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	PERFORM set_config('role', role, true);
	IF command LIKE 'SELECT%' THEN
		EXECUTE command INTO answer;
	ELSE
		EXECUTE command;
	END IF;
	PERFORM set_config('role', 'none', true);
	RETURN answer;
END
$$;
-- outcome: the same, or the SQLSTATE.
CREATE FUNCTION outcome(role text, command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN does(role, command);
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;

-- buy

CREATE SCHEMA regress_buy AUTHORIZATION regress_buy;
SELECT is(does('regress_buy', command), answer, 'buy: ' || command)
  FROM (VALUES
	(1, $$SELECT alloc.add_batch('b1', 's', 10)$$, 'b1'),
	(2, $$SELECT alloc.add_batch('b2', 's', 10, '2011-01-01')$$, 'b2'),
	(3, $$SELECT count(*) FROM alloc.change_batch_quantity('b1', 12)$$, '0'),
	(4, $$SELECT count(*) FROM alloc.change_batch_eta('b2', '2012-01-01')$$, '0'),
	(5, $$CREATE TABLE regress_buy.feed (ref text, sku text, qty bigint, eta date)$$, NULL),
	(6, $$INSERT INTO regress_buy.feed VALUES ('b1', 's', 20), ('b3', 't', 5)$$, NULL),
	(7, $$SELECT string_agg(action || ' ' || ref, ', ') FROM alloc.sync_batches('regress_buy.feed', true)$$, 'change_quantity b1, retire b2, create b3'),
	(8, $$SELECT string_agg(action || ' ' || ref, ', ') FROM alloc.sync_batches('regress_buy.feed')$$, 'change_quantity b1, retire b2, create b3')
	) AS t (n, command, answer)
 ORDER BY n;
CREATE TABLE another_feed (ref text, sku text, qty bigint, eta date);
SELECT is(outcome('regress_buy', $$SELECT count(*) FROM alloc.sync_batches('another_feed')$$), '42501', 'buy: not from a table that the role may not read');
SELECT is(outcome('regress_buy', command), '42501', 'not buy: ' || command)
  FROM unnest(ARRAY[$$SELECT alloc.allocate('o', 's', 1)$$, $$SELECT alloc.ship('o')$$, 'SELECT count(*) FROM alloc.batches',
	$$SELECT alloc.promise('s', 1)$$, $$SELECT alloc.handle('{"command": "add_batch", "ref": "b", "sku": "s", "qty": 1}')$$,
	$$SELECT alloc.create_consumer('c')$$, 'SELECT count(*) FROM alloc.batch', 'SELECT last_value FROM alloc.batch_id_seq']) AS command;

-- sell

CREATE SCHEMA regress_sell AUTHORIZATION regress_sell;
SELECT is(does('regress_sell', command), answer, 'sell: ' || command)
  FROM (VALUES
	(1, $$SELECT batchref FROM alloc.promise('s', 2)$$, 'b1'),
	(2, $$SELECT alloc.available_to_promise('s')$$, '20'),
	(3, $$SELECT alloc.allocate('o1', 's', 2)$$, 'b1'),
	(4, $$SELECT string_agg(batchref, ' ') FROM alloc.allocate_lines(ARRAY[ROW('o2', 's', 1), ROW('o3', 't', 1)]::alloc.order_line[])$$, 'b1 b3'),
	(5, $$SELECT string_agg(status, ' ') FROM alloc.allocate_order('o4', ARRAY[ROW(NULL, 's', 1), ROW(NULL, 't', 100)]::alloc.order_line[], 'backorder')$$, 'allocated backordered'),
	(6, $$SELECT alloc.cancel_backorder('o4', 't')$$, 'true'),
	(7, $$SELECT alloc.deallocate('o2', 's')$$, 'b1'),
	(8, $$SELECT alloc.hold('o5', 's', 1, '1 hour')$$, 'b1'),
	(9, $$SELECT alloc.extend_hold('o5', '2 hours')$$, '1'),
	(10, $$SELECT alloc.confirm('o5')$$, '1'),
	(11, $$SELECT alloc.hold('o6', 's', 1, '1 hour')$$, 'b1'),
	(12, $$SELECT alloc.release('o6')$$, '1'),
	(13, $$SELECT alloc.ship('o5')$$, '1'),
	(14, $$CREATE TABLE regress_sell.wanted (line alloc.order_line)$$, NULL),
	(15, $$CREATE FUNCTION regress_sell.take(alloc.order_line[]) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM alloc.allocate_lines($1)'$$, NULL)
	) AS t (n, command, answer)
 ORDER BY n;
SELECT is(outcome('regress_sell', command), '42501', 'not sell: ' || command)
  FROM unnest(ARRAY[$$SELECT alloc.add_batch('b', 's', 1)$$, $$SELECT count(*) FROM alloc.change_batch_quantity('b1', 1)$$,
	'SELECT count(*) FROM alloc.events', 'SELECT count(*) FROM alloc.stock', $$SELECT count(*) FROM alloc.history('s')$$,
	$$SELECT alloc.purge_shipped(now())$$, $$SELECT alloc.subscribe('allocated', 'jsonb_typeof(jsonb)', 'sync')$$,
	'SELECT count(*) FROM alloc.fetch_events(''c'')', 'SELECT count(*) FROM alloc.allocation', 'SELECT nextval(''alloc.event_id_seq'')']) AS command;

-- read

SELECT alloc.create_consumer('mail', 'beginning');
SELECT cmp_ok(does('regress_read', 'SELECT count(*) FROM ' || called)::bigint, '>=', CASE WHEN name IN ('backorders', 'dead_letters') THEN 0 ELSE 1 END::bigint,
	'read: ' || called)
  FROM object WHERE kind = 'view';
SELECT is(does('regress_read', command), answer, 'read: ' || command)
  FROM (VALUES
	($$SELECT payload ->> 'ref' IS NULL AND payload ->> 'batchref' = 'b1' FROM alloc.events WHERE event_id = 1$$, 'true'),
	($$SELECT pending > 10 FROM alloc.consumers$$, 'true'),
	($$SELECT batchref FROM alloc.promise('s', 2)$$, 'b1'),
	($$SELECT alloc.available_to_promise('t')$$, '4'),
	($$SELECT count(*) FROM alloc.replay()$$, '3'),
	($$SELECT count(*) FROM alloc.replay('s')$$, '2'),
	($$SELECT count(*) FROM alloc.history('t')$$, '5'),
	($$SELECT count(*) FROM alloc.history_of_order('o3')$$, '1'),
	($$SELECT count(*) FROM alloc.check()$$, '0')) AS t (command, answer);
SELECT is(outcome('regress_read', command), '42501', 'not read: ' || command)
  FROM unnest(ARRAY[$$SELECT alloc.allocate('o', 's', 1)$$, $$SELECT alloc.add_batch('b', 's', 1)$$, 'SELECT count(*) FROM alloc.fetch_events(''mail'')',
	'SELECT count(*) FROM alloc.repair()', 'SELECT alloc.snapshot_log()', 'SELECT count(*) FROM alloc.event', 'SELECT count(*) FROM alloc._wrong_slots()',
	'SELECT alloc._last_event_id()', 'DELETE FROM alloc.events', 'DELETE FROM alloc.backorders']) AS command;

-- admin

SELECT is(does('regress_admin', command), answer, 'admin: ' || command)
  FROM (VALUES
	(1, $$SELECT alloc.handle('{"command": "add_batch", "ref": "b4", "sku": "u", "qty": 3, "message_id": "m"}')$$, '{"result": "b4"}'),
	(2, $$SELECT alloc.handle('{"command": "allocate", "orderid": "o9", "sku": "u", "qty": 3}')$$, '{"result": "b4"}'),
	(3, $$SELECT alloc.create_consumer('bus')$$, ''),
	(4, $$SELECT alloc.deallocate('o9', 'u')$$, 'b4'),
	(5, $$SELECT count(*) FROM alloc.fetch_events('bus')$$, '0'),
	(6, $$SELECT alloc.drop_consumer('bus')$$, ''),
	(7, $$SELECT alloc.subscribe('allocated', 'jsonb_typeof(jsonb)', 'sync')$$, ''),
	(8, $$SELECT alloc.unsubscribe('allocated', 'jsonb_typeof(jsonb)')$$, ''),
	(9, $$SELECT alloc.retry_dead_letters()$$, '0'),
	(10, $$SELECT alloc.discard_dead_letters('nobody')$$, '0'),
	(11, $$SELECT count(*) FROM alloc.check()$$, '0'),
	(12, $$SELECT count(*) FROM alloc.repair(false)$$, '0'),
	(13, $$SELECT alloc.purge_shipped('infinity')$$, '1'),
	(14, $$SELECT count(*) FROM alloc.stock$$, '3')) AS t (n, command, answer)
 ORDER BY n;
-- Neither is refused for want of a right.
SELECT is(outcome('regress_admin', 'SELECT alloc.rebuild()'), '55000', 'admin: rebuild(), where there is something');
SELECT is(outcome('regress_admin', 'SELECT count(*) FROM alloc.archive_events(now())'), '55000', 'admin: archive_events(), where there is no snapshot');
SELECT is(outcome('regress_admin', 'SELECT alloc.snapshot_log() > 0'), 'true', 'admin: snapshot_log()');
SELECT is(outcome('regress_admin', command), '42501', 'not admin: ' || command)
  FROM unnest(ARRAY[$$SELECT alloc.grant_access('regress_none', 'read')$$, $$SELECT alloc.revoke_access('regress_read', 'read')$$,
	'SELECT count(*) FROM alloc.allocation', 'DELETE FROM alloc.event', 'SELECT alloc._settle_log()', $$SELECT nextval('alloc.event_id_seq')$$,
	'CREATE TABLE alloc.mine ()', 'DROP EXTENSION alloc']) AS command;
SELECT agrees('what all of them did');

-- No scope

SELECT is(outcome('regress_none', 'SELECT count(*) FROM ' || called), '42501', 'none: ' || called) FROM object WHERE kind = 'view';
SELECT is(outcome('regress_none', $$SELECT alloc.allocate('o', 's', 1)$$), '42501', 'none: allocate()');

SELECT * FROM finish();
ROLLBACK;
