-- A schema alloc that was there before the extension: what another role could
-- have put in it, or still could, would be taken for ours.

\ir common.psql
BEGIN;
SELECT no_plan();

CREATE ROLE regress_attacker;
CREATE ROLE regress_super SUPERUSER;
DROP EXTENSION alloc;
DROP SCHEMA alloc;
CREATE FUNCTION no_extension() RETURNS text LANGUAGE sql AS
	$$ SELECT is_empty('SELECT FROM pg_extension WHERE extname = ''alloc''', 'then nothing is created') $$;

SAVEPOINT nothing;
CREATE SCHEMA alloc AUTHORIZATION regress_attacker;
SELECT throws_ok('CREATE EXTENSION alloc', '42501', 'schema "alloc" belongs to another role', 'a schema of another role');
SELECT no_extension();
SET LOCAL ROLE regress_attacker;
CREATE FUNCTION alloc.sum(bigint) RETURNS numeric LANGUAGE sql AS 'SELECT 0.0';
RESET ROLE;
SELECT throws_ok('CREATE EXTENSION alloc', '42710', 'schema "alloc" already contains objects', 'a schema of another role, with something in it');
ALTER SCHEMA alloc OWNER TO CURRENT_USER;
SELECT throws_ok('CREATE EXTENSION alloc', '42710', NULL, 'what another role has put into a schema that became ours');
ROLLBACK TO nothing;

CREATE SCHEMA alloc;
SAVEPOINT empty_schema;
SELECT throws_ok(format('%s; CREATE EXTENSION alloc', command), '42710', 'schema "alloc" already contains objects', command)
  FROM unnest(ARRAY[
	'CREATE TABLE alloc.product (sku text)', 'CREATE VIEW alloc.x AS SELECT 1', 'CREATE SEQUENCE alloc.event_id_seq',
	'CREATE FUNCTION alloc.coalesce(bigint, integer) RETURNS bigint LANGUAGE sql AS ''SELECT 0''',
	'CREATE PROCEDURE alloc.p() LANGUAGE sql AS ''''', 'CREATE AGGREGATE alloc.sum(text) (SFUNC = textcat, STYPE = text)',
	'CREATE OPERATOR alloc.+ (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = int8mul)',
	'CREATE DOMAIN alloc.text AS pg_catalog.text', 'CREATE TYPE alloc.order_line AS (x int)', 'CREATE TYPE alloc.e AS ENUM ()',
	'CREATE COLLATION alloc."C" (locale = ''POSIX'')', 'CREATE OPERATOR FAMILY alloc.f USING btree',
	'CREATE CONVERSION alloc.c FOR ''LATIN1'' TO ''UTF8'' FROM iso8859_1_to_utf8',
	'CREATE TEXT SEARCH DICTIONARY alloc.d (TEMPLATE = simple)']) AS command;

-- Who may create something in it later

GRANT CREATE ON SCHEMA alloc TO regress_attacker;
SELECT throws_ok('CREATE EXTENSION alloc', '42501', 'others than its owner may create objects in schema "alloc"', 'a schema in which a role may create');
SELECT no_extension();
ROLLBACK TO empty_schema;
GRANT ALL ON SCHEMA alloc TO PUBLIC;
SELECT lives_ok('CREATE EXTENSION alloc', 'a schema in which all may create');
SELECT is(has_schema_privilege('regress_attacker', 'alloc', 'CREATE'), false, 'is closed');
ROLLBACK TO empty_schema;
GRANT CREATE ON SCHEMA alloc TO regress_attacker;
REVOKE CREATE ON SCHEMA alloc FROM regress_attacker;
GRANT USAGE ON SCHEMA alloc TO regress_attacker;
SELECT lives_ok('CREATE EXTENSION alloc', 'a schema that others may use');
SELECT is(has_schema_privilege('regress_attacker', 'alloc', 'CREATE'), false, 'in which they cannot create');
ROLLBACK TO empty_schema;
ALTER SCHEMA alloc OWNER TO regress_super;
SELECT lives_ok('CREATE EXTENSION alloc', 'a schema of another superuser: so it is when a dump is restored by another one');
ROLLBACK TO nothing;

-- Default privileges of the one who creates it

ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO PUBLIC;
CREATE EXTENSION alloc;
SELECT is_empty($$
	SELECT o.name, a.privilege_type
	  FROM (SELECT oid::regprocedure::text AS name, proacl AS acl FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace
			UNION ALL SELECT oid::regclass::text, relacl FROM pg_class WHERE relnamespace = 'alloc'::regnamespace) o, aclexplode(o.acl) a
	 WHERE a.grantee = 0$$, 'nothing is for PUBLIC, whatever the default is');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace AND proacl IS NULL$$, 'and that is written down');
ROLLBACK TO nothing;
ALTER DEFAULT PRIVILEGES GRANT CREATE ON SCHEMAS TO regress_attacker;
SELECT throws_ok('CREATE EXTENSION alloc', '42501', 'others than its owner may create objects in schema "alloc"', 'a schema that would be made for others by default');
ROLLBACK TO nothing;

-- Who may install it

CREATE ROLE regress_plain;
GRANT CREATE ON DATABASE :DBNAME TO regress_plain;
SELECT throws_ok('SET LOCAL ROLE regress_plain; CREATE EXTENSION alloc', '42501', 'permission denied to create extension "alloc"', 'who may create in the database cannot create the extension');
SELECT results_eq($$SELECT superuser, trusted FROM pg_available_extension_versions WHERE name = 'alloc' AND version = (SELECT extversion FROM pg_extension WHERE extname = 'alloc' UNION SELECT default_version FROM pg_available_extensions WHERE name = 'alloc')$$, 'VALUES (true, false)', 'it is for superusers, and not trusted');

SELECT * FROM finish();
ROLLBACK;
