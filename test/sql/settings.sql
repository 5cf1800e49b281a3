-- The setting alloc.notify: its values, and who may set them.
\set SHOW_CONTEXT never
SET client_min_messages = error;
CREATE EXTENSION alloc;
CREATE ROLE regress_alloc_clerk;
GRANT USAGE ON SCHEMA alloc TO regress_alloc_clerk;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA alloc TO regress_alloc_clerk;

-- It is known as soon as the library is loaded, by any call.
\c -
SELECT count(*) FROM pg_settings WHERE name LIKE 'alloc.%';
SELECT alloc.deallocate('o', 's');
SELECT name, setting, context, vartype, enumvals, boot_val, source
  FROM pg_settings WHERE name LIKE 'alloc.%' ORDER BY name COLLATE "C";
SELECT name, short_desc, extra_desc FROM pg_settings WHERE name = 'alloc.notify';

-- Values
SET alloc.notify = off;
SHOW alloc.notify;
SET alloc.notify = commit;
SHOW alloc.notify;
SET alloc.notify = 'AUTO';
SHOW alloc.notify;
SET alloc.notify = on;
\echo :LAST_ERROR_SQLSTATE
SET alloc.notify = '';
\echo :LAST_ERROR_SQLSTATE
SET alloc.notify = 'commit, off';
\echo :LAST_ERROR_SQLSTATE
SHOW alloc.notify;
SET alloc.notify TO DEFAULT;
SHOW alloc.notify;
-- There is no relay in a server that has not preloaded the library
SET alloc.notify = relay;
\echo :LAST_ERROR_SQLSTATE
SHOW alloc.notify;
SET alloc.notfiy = off;
\echo :LAST_ERROR_SQLSTATE

-- For a transaction
BEGIN;
SET LOCAL alloc.notify = off;
SHOW alloc.notify;
SAVEPOINT a;
SET alloc.notify = commit;
ROLLBACK TO SAVEPOINT a;
SHOW alloc.notify;
COMMIT;
SHOW alloc.notify;

-- For a function
CREATE FUNCTION setting() RETURNS text LANGUAGE sql SET alloc.notify = off AS
	$$ SELECT current_setting('alloc.notify') $$;
SELECT setting(), current_setting('alloc.notify');
DROP FUNCTION setting();

-- Superusers only
SET ROLE regress_alloc_clerk;
SET alloc.notify = off;
\echo :LAST_ERROR_SQLSTATE
SHOW alloc.notify;
RESET ROLE;
GRANT SET ON PARAMETER alloc.notify TO regress_alloc_clerk;
SET ROLE regress_alloc_clerk;
SET alloc.notify = off;
SHOW alloc.notify;
RESET alloc.notify;
RESET ROLE;
REVOKE SET ON PARAMETER alloc.notify FROM regress_alloc_clerk;

-- What was set before the library is loaded counts if it was allowed
\c -
SET client_min_messages = error;
SET SESSION AUTHORIZATION regress_alloc_clerk;
SET alloc.notify = off;
SELECT alloc.deallocate('o', 's');
SHOW alloc.notify;
\c -
SET client_min_messages = error;
SET alloc.notify = off;
SELECT alloc.deallocate('o', 's');
SHOW alloc.notify;
\c -
SET client_min_messages = error;
SET alloc.notify = nonsense;
SET alloc.notfiy = off;
SELECT alloc.deallocate('o', 's');
SHOW alloc.notify;
SHOW alloc.notfiy;
\echo :LAST_ERROR_SQLSTATE

-- For a role
ALTER ROLE regress_alloc_clerk SET alloc.notify = off;
SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'regress_alloc_clerk'::regrole;

DROP OWNED BY regress_alloc_clerk;
DROP ROLE regress_alloc_clerk;
DROP EXTENSION alloc;
DROP SCHEMA alloc;
