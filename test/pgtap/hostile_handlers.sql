-- Handlers of an attacker: a function that runs with the rights of another role
-- must not be one that its owner can replace, and one that runs as the attacker
-- must not get the rights of whoever causes the event.

\ir common.psql
BEGIN;
SELECT no_plan();
SET LOCAL client_min_messages = error;

CREATE ROLE regress_attacker;
CREATE ROLE regress_victim;
CREATE ROLE regress_seller;
CREATE SCHEMA evil AUTHORIZATION regress_attacker;
GRANT ALL ON SCHEMA evil TO PUBLIC;
CREATE SCHEMA shared;
GRANT ALL ON SCHEMA shared TO PUBLIC;
SELECT alloc.grant_access('regress_attacker', 'admin'), alloc.grant_access('regress_victim', 'admin'), alloc.grant_access('regress_seller', 'sell');
SELECT alloc.add_batch('b', 's', 1000);
CREATE TABLE ran (as_role text, session text);
GRANT INSERT ON ran TO PUBLIC;

CREATE FUNCTION as_role(role text, command text) RETURNS text LANGUAGE sql AS $$
	SELECT format('SET LOCAL ROLE %I; %s; RESET ROLE', role, command)
$$;
-- handler: a function of a role's, that says as whom it ran.
CREATE FUNCTION handler(name text, owner text, how text DEFAULT 'SECURITY INVOKER') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE FUNCTION %s(event jsonb) RETURNS void LANGUAGE sql %s AS ''INSERT INTO public.ran VALUES (current_user, session_user)''', name, how);
	EXECUTE format('ALTER FUNCTION %s OWNER TO %I', name, owner);
END
$$;
CREATE FUNCTION ran_as(orderid text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	roles text;
BEGIN
	DELETE FROM ran;
	PERFORM alloc.allocate(orderid, 's', 1);
	roles := (SELECT string_agg(as_role, ' ') FROM ran);
	RETURN roles;
END
$$;

-- Whose function may be subscribed

SELECT handler('evil.h', 'regress_attacker');
SELECT handler('evil.definer', 'regress_attacker', 'SECURITY DEFINER');
SELECT handler('shared.of_super', :'USER');
SELECT handler('shared.of_victim', 'regress_victim');
SELECT refused($$SELECT alloc.subscribe('allocated', 'evil.h(jsonb)', 'sync')$$, '42501',
	'evil.h(pg_catalog.jsonb) would run with rights that its owner does not have', 'a superuser subscribes an attacker''s function');
SELECT refused(as_role('regress_victim', format($$SELECT alloc.subscribe('allocated', 'evil.h(jsonb)', %L)$$, mode)), '42501',
	'evil.h(pg_catalog.jsonb) would run with rights that its owner does not have', 'a role subscribes an attacker''s function, ' || mode)
  FROM unnest('{sync,async}'::text[]) AS mode;
SELECT refused(as_role('regress_attacker', $$SELECT alloc.subscribe('allocated', 'shared.of_victim(jsonb)', 'sync')$$), '42501',
	'shared.of_victim(pg_catalog.jsonb) would%', 'the other way round');
SELECT refused(as_role('regress_seller', $$SELECT alloc.subscribe('allocated', 'evil.h(jsonb)', 'sync')$$), '42501',
	'permission denied for function subscribe', 'who may only sell');

SELECT lives_ok(as_role('regress_attacker', $$SELECT alloc.subscribe('allocated', 'shared.of_super(jsonb)', 'sync')$$), 'a superuser''s function may be subscribed by all');
SELECT is(ran_as('o1'), 'regress_attacker', 'and runs as the one who did, whoever calls');
SELECT alloc.unsubscribe('allocated', 'shared.of_super(jsonb)');
SELECT lives_ok(as_role('regress_victim', $$SELECT alloc.subscribe('allocated', 'shared.of_victim(jsonb)', 'sync')$$), 'a function of one''s own');
SELECT is(ran_as('o2'), 'regress_victim', 'runs as oneself');
SELECT alloc.unsubscribe('allocated', 'shared.of_victim(jsonb)');
GRANT regress_victim TO regress_attacker;
SELECT lives_ok(as_role('regress_victim', $$SELECT alloc.subscribe('allocated', 'evil.h(jsonb)', 'sync')$$), 'a function of a member, who may do all of that anyway');
SELECT is(ran_as('o3'), 'regress_victim', 'it runs as the group');
REVOKE regress_victim FROM regress_attacker;
SELECT refused($$SELECT alloc.allocate('o4', 's', 1)$$, '42501', 'evil.h(pg_catalog.jsonb) would%', 'not any more when it is no member');
SELECT alloc.unsubscribe('allocated', 'evil.h(jsonb)');

-- SECURITY DEFINER: it runs as its owner, and as nobody else

SELECT lives_ok($$SELECT alloc.subscribe('allocated', 'evil.definer(jsonb)', 'sync')$$, 'a function that has only its owner''s rights');
SELECT is(ran_as('o5'), 'regress_attacker', 'has them, though a superuser subscribed it');
SAVEPOINT s;
SELECT lives_ok(as_role('regress_attacker', 'ALTER FUNCTION evil.definer(jsonb) SECURITY INVOKER'), 'its owner lets it run with those of the subscriber');
SELECT refused($$SELECT alloc.allocate('o6', 's', 1)$$, '42501', 'evil.definer(pg_catalog.jsonb) would%', 'it is not called');
ROLLBACK TO s;
SELECT lives_ok(as_role('regress_attacker', $$CREATE OR REPLACE FUNCTION evil.definer(event jsonb) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'ALTER ROLE regress_attacker SUPERUSER'$$), 'or replaces it');
SELECT refused($$SELECT alloc.allocate('o7', 's', 1)$$, '42501', '%', 'it has no more rights than before');
SELECT alloc.unsubscribe('allocated', 'evil.definer(jsonb)');

-- A function that became the attacker's after it was subscribed

SELECT alloc.subscribe('allocated', 'shared.of_super(jsonb)', 'sync');
SELECT is(ran_as('o8'), :'USER'::text, 'a superuser''s function, subscribed by the superuser');
SAVEPOINT s;
ALTER FUNCTION shared.of_super(jsonb) OWNER TO regress_attacker;
SELECT refused($$SELECT alloc.allocate('o9', 's', 1)$$, '42501', 'shared.of_super(pg_catalog.jsonb) would%', 'given to the attacker');
ROLLBACK TO s;
DROP FUNCTION shared.of_super(jsonb);
SET LOCAL ROLE regress_attacker;
CREATE FUNCTION shared.of_super(jsonb) RETURNS void LANGUAGE sql AS 'ALTER ROLE regress_attacker SUPERUSER';
RESET ROLE;
SELECT refused($$SELECT alloc.allocate('o10', 's', 1)$$, '42501', 'shared.of_super(pg_catalog.jsonb) would%', 'dropped, and made by the attacker under its name');
SELECT is(rolsuper, false, 'the attacker has become nothing') FROM pg_roles WHERE rolname = 'regress_attacker';
SELECT alloc.unsubscribe('allocated', 'shared.of_super(jsonb)');

-- What the attacker's handler can do when a superuser causes the event

CREATE TABLE secret (x int);
CREATE FUNCTION tries(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE OR REPLACE FUNCTION evil.tries(event jsonb) RETURNS void LANGUAGE plpgsql AS %L',
		format('BEGIN EXECUTE %L; END', command));
	ALTER FUNCTION evil.tries(jsonb) OWNER TO regress_attacker;
	PERFORM alloc.allocate(command, 's', 1);
END
$$;
SELECT handler('evil.tries', 'regress_attacker');
SET LOCAL ROLE regress_attacker;
SELECT alloc.subscribe('allocated', 'evil.tries(jsonb)', 'sync');
RESET ROLE;
SELECT throws_ok(format('SELECT tries(%L)', command), state, NULL, 'refused in an attacker''s handler: ' || command)
  FROM (VALUES ('SET SESSION AUTHORIZATION ' || quote_ident(:'USER'), '42501'), ('SET LOCAL SESSION AUTHORIZATION DEFAULT', '42501'),
			   ('RESET SESSION AUTHORIZATION', '42501'), ('RESET ROLE', '42501'), ('SET ROLE NONE', '42501'),
			   ('SELECT set_config(''role'', ''none'', false)', '42501'), ('SELECT set_config(''session_authorization'', ''default'', false)', '42501'),
			   ('DISCARD ALL', '42501'),
			   ('ALTER ROLE regress_attacker SUPERUSER', '42501'), ('GRANT pg_read_all_data TO regress_attacker', '42501'),
			   ('ALTER FUNCTION evil.tries(jsonb) OWNER TO ' || quote_ident(:'USER'), '42501'),
			   ('INSERT INTO public.secret VALUES (1)', '42501'), ('SELECT FROM alloc.event', '42501'),
			   ('SELECT alloc.grant_access(''regress_attacker'', ''read'')', '42501'),
			   ('COPY (SELECT 1) TO PROGRAM ''true''', '42501'), ('SELECT pg_read_file(''PG_VERSION'')', '42501'),
			   ('PREPARE allocate AS SELECT 1', '42501'), ('LISTEN alloc_events', '42501'), ('CREATE TEMPORARY TABLE batch (x int)', '42501'),
			   ('DECLARE c CURSOR WITH HOLD FOR SELECT 1', '42501'), ('SET session_replication_role = replica', '42501'),
			   ('CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION evil.t()', '42501')) AS t (command, state);
SELECT is_empty('SELECT * FROM secret', 'and the secret is one');
SELECT is(rolsuper, false, 'and the attacker is no superuser') FROM pg_roles WHERE rolname = 'regress_attacker';

SET LOCAL alloc.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
SELECT lives_ok($$SELECT tries('RESET ALL')$$, 'it may reset all settings');
SELECT matches(current_setting('alloc.traceparent'), '^00-', 'which are as they were afterwards');

-- One whose owner is the caller's group, or whom the caller may become
GRANT regress_victim TO regress_attacker;
SELECT throws_ok($$SELECT tries('SET ROLE regress_victim')$$, '42501', NULL, 'it cannot even become what its role may');
SELECT alloc.unsubscribe('allocated', 'evil.tries(jsonb)');

SELECT sound('all of this');
SELECT * FROM finish();
ROLLBACK;
