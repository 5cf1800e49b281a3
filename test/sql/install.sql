-- What CREATE EXTENSION makes, and what it refuses.
\set SHOW_CONTEXT never
SET client_min_messages = warning;

-- A schema that holds somebody's objects is refused: they could be taken for
-- ours.
CREATE SCHEMA alloc;
CREATE FUNCTION alloc.octet_length(text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE EXTENSION alloc;
\echo :LAST_ERROR_SQLSTATE
DROP FUNCTION alloc.octet_length(text);
CREATE OPERATOR alloc.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);
CREATE EXTENSION alloc;
\echo :LAST_ERROR_SQLSTATE
DROP OPERATOR alloc.= (text, text);
CREATE TABLE alloc.product (sku text);
CREATE EXTENSION alloc;
\echo :LAST_ERROR_SQLSTATE
DROP TABLE alloc.product;
CREATE DOMAIN alloc.bigint AS int;
CREATE EXTENSION alloc;
\echo :LAST_ERROR_SQLSTATE
DROP DOMAIN alloc.bigint;

-- So is a schema of another role, who could put something in it.
CREATE ROLE regress_alloc_other;
ALTER SCHEMA alloc OWNER TO regress_alloc_other;
CREATE EXTENSION alloc;
\echo :LAST_ERROR_SQLSTATE
ALTER SCHEMA alloc OWNER TO CURRENT_USER;

-- The schema's name is fixed.
CREATE EXTENSION alloc SCHEMA public;
\echo :LAST_ERROR_SQLSTATE

-- Only a superuser may.
SET ROLE regress_alloc_other;
CREATE EXTENSION alloc;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;

-- An empty schema of one's own is accepted.
CREATE EXTENSION alloc;
SELECT extversion = default_version AS newest, extrelocatable, extnamespace::regnamespace
  FROM pg_extension JOIN pg_available_extensions ON name = extname
 WHERE extname = 'alloc';

-- Its objects.  (The types of tables are listed from PostgreSQL 17 on.)
SELECT pg_describe_object(classid, objid, 0) COLLATE "C" AS object
  FROM pg_depend
 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'alloc')
   AND classid <> 'pg_type'::regclass
 ORDER BY object;

-- Functions: arguments and results.
SELECT proname, pg_get_function_arguments(oid) AS arguments, pg_get_function_result(oid) AS result
  FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace
 ORDER BY proname COLLATE "C";

-- Nothing in the schema that is not the extension's, but for what goes with
-- its tables.
SELECT pg_describe_object(d.classid, d.objid, 0) AS object
  FROM pg_depend d
 WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = 'alloc'::regnamespace
   AND d.classid <> 'pg_extension'::regclass
   AND NOT EXISTS (
	SELECT FROM pg_depend e
	 WHERE (e.classid, e.objid) = (d.classid, d.objid)
	   AND e.refclassid = 'pg_extension'::regclass AND e.deptype = 'e');

-- Functions, tables and views without a comment: none.
SELECT p.oid::regprocedure AS without_comment
  FROM pg_proc p
 WHERE p.pronamespace = 'alloc'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL;
SELECT c.oid::regclass AS without_comment
  FROM pg_class c
 WHERE c.relnamespace = 'alloc'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p')
   AND obj_description(c.oid, 'pg_class') IS NULL;

-- Tables and sequences that pg_dump would not carry, or not in whole: but for
-- the relay among the readers of the log, none.
SELECT c.oid::regclass AS not_dumped
  FROM pg_class c
 WHERE c.relnamespace = 'alloc'::regnamespace AND c.relkind IN ('r', 'p', 'S')
EXCEPT
SELECT dumped::regclass
  FROM pg_extension, unnest(extconfig, extcondition) AS config (dumped, condition)
 WHERE extname = 'alloc' AND condition = ''
 ORDER BY not_dumped;

-- Constraints and indexes.
SELECT conrelid::regclass AS table, conname, pg_get_constraintdef(oid) AS definition
  FROM pg_constraint
 WHERE connamespace = 'alloc'::regnamespace AND contype <> 'n'
 ORDER BY conrelid::regclass::text COLLATE "C", conname COLLATE "C";
SELECT pg_get_indexdef(indexrelid) AS index
  FROM pg_index
 WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'alloc'::regnamespace)
 ORDER BY indexrelid::regclass::text COLLATE "C";
SELECT c.oid::regclass AS table, amname, relpersistence, relreplident, reloptions
  FROM pg_class c JOIN pg_am am ON am.oid = relam
 WHERE relnamespace = 'alloc'::regnamespace AND relkind = 'r'
 ORDER BY c.oid::regclass::text COLLATE "C";

-- It goes, and leaves the schema empty.
SELECT alloc.add_batch('b', 's', 1), alloc.allocate('o', 's', 1);
DROP EXTENSION alloc;
SELECT pg_describe_object(classid, objid, 0) AS left_over
  FROM pg_depend
 WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'alloc'::regnamespace;
DROP SCHEMA alloc;

-- Without the schema it makes one, for its owner only, even where everything
-- new is for PUBLIC by default.
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
CREATE EXTENSION alloc;
SELECT pg_describe_object(classid, objid, 0) AS for_public
  FROM (SELECT 'pg_namespace'::regclass, oid, nspacl, 'n'::"char", nspowner FROM pg_namespace WHERE nspname = 'alloc'
		UNION ALL
		SELECT 'pg_class'::regclass, oid, relacl, CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner
		  FROM pg_class WHERE relnamespace = 'alloc'::regnamespace AND relkind IN ('r', 'v', 'S')
		UNION ALL
		SELECT 'pg_proc'::regclass, oid, proacl, 'f', proowner
		  FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace) AS object (classid, objid, acl, kind, owner),
	   aclexplode(coalesce(acl, acldefault(kind, owner))) AS granted
 WHERE granted.grantee = 0;
SELECT has_schema_privilege('regress_alloc_other', 'alloc', 'USAGE') AS usage,
	   has_schema_privilege('regress_alloc_other', 'alloc', 'CREATE') AS create;
DROP EXTENSION alloc;
DROP SCHEMA alloc;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM PUBLIC;
DROP ROLE regress_alloc_other;
