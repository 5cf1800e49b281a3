-- grant_access() and revoke_access(): whose they are, what they refuse, and what
-- is left when one of several scopes is taken back.

\ir common.psql
BEGIN;
SELECT no_plan();

CREATE ROLE regress_a;
CREATE ROLE "regress ""B"" c%s";

-- rights: of a role itself, as text.
CREATE FUNCTION rights(of_role regrole) RETURNS SETOF text LANGUAGE sql STABLE AS $$
	SELECT privilege_type || ' ' || name COLLATE "C"
	  FROM (SELECT oid::regprocedure::text AS name, proacl AS acl FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace
			UNION ALL SELECT oid::regclass::text, relacl FROM pg_class WHERE relnamespace = 'alloc'::regnamespace
			UNION ALL SELECT oid::regtype::text, typacl FROM pg_type WHERE typnamespace = 'alloc'::regnamespace
			UNION ALL SELECT 'schema', nspacl FROM pg_namespace WHERE nspname = 'alloc') o, aclexplode(acl) a
	 WHERE a.grantee = of_role
	 ORDER BY 1
$$;
CREATE TEMPORARY TABLE granted (scope text, rights text[]);
INSERT INTO granted SELECT scope, NULL FROM unnest('{read,sell,buy,admin}'::text[]) AS scope;

-- One scope, given and taken back

CREATE FUNCTION give_and_take(scope text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	once text[];
BEGIN
	PERFORM alloc.grant_access('regress_a', scope);
	once := ARRAY(SELECT rights('regress_a'));
	UPDATE granted g SET rights = once WHERE g.scope = give_and_take.scope;
	RETURN NEXT cmp_ok(cardinality(once), '>', 5, scope || ' gives rights');
	PERFORM alloc.grant_access('regress_a', scope);
	RETURN NEXT is(ARRAY(SELECT rights('regress_a')), once, scope || ' again changes nothing');
	PERFORM alloc.revoke_access('regress_a', scope);
	RETURN NEXT is_empty($q$SELECT rights('regress_a')$q$, scope || ': nothing is left when it is taken back');
	PERFORM alloc.revoke_access('regress_a', scope);
	RETURN NEXT is_empty($q$SELECT rights('regress_a')$q$, scope || ': nor when that is done again');
END
$$;
SELECT give_and_take(scope) FROM granted;
SELECT is_empty('SELECT DISTINCT unnest(rights) FROM granted WHERE scope <> ''admin'' EXCEPT
	SELECT unnest(rights) FROM granted WHERE scope = ''admin''
	EXCEPT SELECT ''USAGE alloc.scope_'' || scope FROM granted', 'admin has what the others have');

-- Any two: one taken back leaves the other, whichever came first

CREATE FUNCTION keeps(one text, other text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	wanted CONSTANT text[] := (SELECT rights FROM granted WHERE scope = one);
BEGIN
	PERFORM alloc.grant_access('regress_a', one), alloc.grant_access('regress_a', other);
	PERFORM alloc.revoke_access('regress_a', other);
	RETURN NEXT is(ARRAY(SELECT rights('regress_a')), wanted, format('%s stays when %s, granted later, is taken back', one, other));
	PERFORM alloc.revoke_access('regress_a', one);
	PERFORM alloc.grant_access('regress_a', other), alloc.grant_access('regress_a', one);
	PERFORM alloc.revoke_access('regress_a', other);
	RETURN NEXT is(ARRAY(SELECT rights('regress_a')), wanted, format('%s stays when %s, granted before, is taken back', one, other));
	PERFORM alloc.revoke_access('regress_a', one);
	RETURN NEXT is_empty($q$SELECT rights('regress_a')$q$, format('nothing is left of %s and %s', one, other));
END
$$;
SELECT keeps(a.scope, b.scope) FROM granted a, granted b WHERE a.scope <> b.scope;

-- Others are not touched

SELECT alloc.grant_access('"regress ""B"" c%s"', 'sell'), alloc.grant_access('regress_a', 'sell');
SELECT alloc.revoke_access('regress_a', 'sell');
SELECT is(ARRAY(SELECT rights('"regress ""B"" c%s"')), (SELECT rights FROM granted WHERE scope = 'sell'), 'another role keeps its rights, whatever its name');
GRANT USAGE ON SCHEMA alloc TO regress_a;
GRANT EXECUTE ON FUNCTION alloc.fetch_events TO regress_a;
SELECT alloc.grant_access('regress_a', 'buy'), alloc.revoke_access('regress_a', 'buy');
SELECT results_eq($$SELECT rights('regress_a')$$, ARRAY['EXECUTE alloc.fetch_events(text,integer)', 'USAGE schema'],
	'what was granted otherwise stays, and the way to it');
SELECT alloc.revoke_access('regress_a', 'admin');
SELECT is_empty($$SELECT rights('regress_a')$$, 'but for what is in the scope that is taken back');

-- A group, and who is in it

CREATE ROLE regress_group;
CREATE ROLE regress_member IN ROLE regress_group;
SELECT alloc.grant_access('regress_group', 'read'), alloc.grant_access('regress_member', 'read');
SELECT alloc.revoke_access('regress_member', 'read');
SELECT ok(has_table_privilege('regress_member', 'alloc.stock', 'SELECT'), 'what a group has its members have');
SELECT alloc.revoke_access('regress_group', 'read');
SELECT ok(NOT has_table_privilege('regress_member', 'alloc.stock', 'SELECT'), 'as long as it has it');

-- A function that is replaced keeps who may call it; a new one is for nobody

SELECT alloc.grant_access('regress_a', 'sell');
SAVEPOINT replaced;
CREATE OR REPLACE FUNCTION alloc.deallocate(orderid text, sku text) RETURNS text LANGUAGE sql AS $$SELECT 'replaced'$$;
SELECT ok(has_function_privilege('regress_a', 'alloc.deallocate(text, text)', 'EXECUTE'), 'a function that is replaced in place keeps its rights');
CREATE FUNCTION alloc.deallocate(orderid text) RETURNS text LANGUAGE sql AS $$SELECT 'new'$$;
REVOKE ALL ON FUNCTION alloc.deallocate(text) FROM PUBLIC;
SELECT alloc.grant_access('regress_a', 'sell');
SELECT ok(has_function_privilege('regress_a', 'alloc.deallocate(text)', 'EXECUTE'), 'a function of the same name belongs to the same scope');
ROLLBACK TO replaced;
SELECT alloc.revoke_access('regress_a', 'sell');

-- What is refused

SELECT refused(format('SELECT alloc.%s(%s)', f, args), state, message, format('%s(%s)', f, args))
  FROM unnest('{grant_access,revoke_access}'::text[]) AS f,
	   (VALUES ($$NULL, 'read'$$, '22004', 'grantee must not be null'),
			   ($$'regress_a', NULL$$, '22004', 'scope must not be null'),
			   ('NULL, NULL', '22004', 'grantee must not be null'),
			   ($$'regress_a', 'all'$$, '22023', 'there is no scope "all"'),
			   ($$'regress_a', 'READ'$$, '22023', 'there is no scope "READ"'),
			   ($$'regress_a', ''$$, '22023', 'there is no scope ""'),
			   ($$'regress_a', 'owner'$$, '22023', 'there is no scope "owner"'),
			   ($$'regress_a', ' read'$$, '22023', 'there is no scope " read"'),
			   ($$'regress_a', 'read; DROP TABLE x'$$, '22023', 'there is no scope "read; DROP TABLE x"'),
			   ($$'regress_a', repeat('x', 1000000)$$, '22023', 'there is no scope "xxx%'),
			   ($$'regress_nobody', 'read'$$, '42704', 'role "regress_nobody" does not exist'),
			   ($$'public', 'read'$$, '42704', 'role "public" does not exist'),
			   ($$'-', 'read'$$, '42704', 'role 0 does not exist'),
			   ($$4294967295::oid::regrole, 'read'$$, '42704', 'role 4294967295 does not exist')) AS t (args, state, message);
SELECT is_empty($$SELECT rights('regress_a')$$, 'and nothing was granted by that');
SELECT is(alloc.grant_access(extowner::regrole, 'read')::text, '', 'the owner has it already') FROM pg_extension WHERE extname = 'alloc';
SELECT refused(format('SELECT alloc.revoke_access(%L, %L)', extowner::regrole, 'read'), '0LP01', 'role "%" owns the extension', 'from the owner')
  FROM pg_extension WHERE extname = 'alloc';
SELECT is((SELECT count(*) FROM alloc.stock), 0::bigint, 'who has all of it');

-- Whose they are

CREATE FUNCTION as_role(role text, command text) RETURNS text LANGUAGE sql AS $$
	SELECT format('SET LOCAL ROLE %I; %s; RESET ROLE', role, command)
$$;
CREATE ROLE regress_super SUPERUSER;
CREATE ROLE regress_later NOINHERIT IN ROLE regress_super;
SELECT refused(as_role('regress_a', $$SELECT alloc.grant_access('regress_a', 'admin')$$), '42501', 'permission denied for schema alloc', 'by a role that has nothing');
SELECT alloc.grant_access('regress_a', 'admin');
SELECT refused(as_role('regress_a', $$SELECT alloc.grant_access('regress_a', 'read')$$), '42501', 'permission denied for function grant_access', 'by an administrator');
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA alloc TO regress_a;
SELECT refused(as_role('regress_a', format('SELECT alloc.%s(''regress_a'', ''read'')', f)), '42501', 'must be owner of extension alloc', f || '() by one who may call all functions')
  FROM unnest('{grant_access,revoke_access}'::text[]) AS f;
SELECT refused(as_role('regress_a', $$SELECT alloc.grant_access(NULL, NULL)$$), '42501', 'must be owner of extension alloc', 'whatever is given');
SELECT lives_ok(as_role('regress_super', $$SELECT alloc.grant_access('regress_member', 'read')$$), 'another superuser may');
SELECT is((SELECT DISTINCT grantor::regrole::text FROM pg_class c, aclexplode(relacl) WHERE c.oid = 'alloc.stock'::regclass AND grantee = 'regress_member'::regrole),
	(SELECT extowner::regrole::text FROM pg_extension WHERE extname = 'alloc'), 'in the owner''s name');
DROP EXTENSION alloc;
DROP SCHEMA alloc;

-- An owner that is no superuser any more, and those who are as good as it

SET LOCAL ROLE regress_super;
CREATE EXTENSION alloc;
RESET ROLE;
ALTER ROLE regress_super NOSUPERUSER;
CREATE ROLE regress_deputy IN ROLE regress_super;
SELECT lives_ok(as_role('regress_super', $$SELECT alloc.grant_access('regress_a', 'sell')$$), 'the owner may');
SELECT lives_ok(as_role('regress_deputy', $$SELECT alloc.grant_access('regress_a', 'read')$$), 'a member of the owner may');
SELECT is(ARRAY(SELECT rights('regress_a')), ARRAY(SELECT DISTINCT unnest(rights) COLLATE "C" FROM granted WHERE scope IN ('sell', 'read') ORDER BY 1), 'with the same outcome');
SELECT lives_ok(as_role('regress_deputy', $$SELECT alloc.revoke_access('regress_a', 'sell')$$), 'and take back');
SELECT is(ARRAY(SELECT rights('regress_a')), (SELECT rights FROM granted WHERE scope = 'read'), 'what the owner gave');
SELECT lives_ok(format('SELECT alloc.grant_access(%L, %L)', 'regress_a', 'buy'), 'a superuser may, too');
SELECT throws_ok(as_role('regress_later', $$SELECT alloc.grant_access('regress_a', 'buy')$$), '42501', NULL, 'not a member that does not inherit');
SELECT throws_ok(as_role('regress_later', $$SET LOCAL ROLE regress_super; SELECT alloc.grant_access('regress_a', 'nothing')$$), '22023', NULL, 'until it has become the owner');
SELECT throws_ok(as_role('regress_super', $$SELECT alloc.revoke_access('regress_super', 'read')$$), '0LP01', NULL, 'nor may the owner take from itself');

-- What a dropped role leaves

DROP OWNED BY regress_a;
SELECT is_empty($$SELECT rights('regress_a')$$, 'DROP OWNED takes back all of it');
SELECT lives_ok('DROP ROLE regress_a', 'and the role can be dropped');

SELECT * FROM finish();
ROLLBACK;
