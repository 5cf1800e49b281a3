-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION alloc" to load this file. \quit

-- Everything below resolves names in schema alloc.  If the schema was there
-- before, whoever made it must not have put anything in it, or a function or
-- an operator of his would be taken for ours and run with our rights.
DO $guard$
BEGIN
	IF EXISTS (
		SELECT FROM pg_catalog.pg_depend d
		 WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
		   AND d.refobjid OPERATOR(pg_catalog.=) 'alloc'::pg_catalog.regnamespace::pg_catalog.oid
		   AND d.deptype OPERATOR(pg_catalog.=) 'n'
		   AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass)
	THEN
		RAISE EXCEPTION USING
			ERRCODE = 'duplicate_object',
			MESSAGE = 'schema "alloc" already contains objects',
			HINT = 'Drop what is in it, or the schema, then create the extension again.';
	END IF;
	IF NOT EXISTS (
		SELECT FROM pg_catalog.pg_namespace n
		  JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
		 WHERE n.nspname OPERATOR(pg_catalog.=) 'alloc'
		   AND r.rolsuper)
	THEN
		RAISE EXCEPTION USING
			ERRCODE = 'insufficient_privilege',
			MESSAGE = 'schema "alloc" belongs to another role',
			HINT = 'Drop the schema; CREATE EXTENSION makes its own.';
	END IF;
	-- Nor may anybody put something in it later.  What PUBLIC may is taken away at
	-- the end.
	IF EXISTS (
		SELECT FROM pg_catalog.pg_namespace n
		 CROSS JOIN pg_catalog.aclexplode(n.nspacl) a
		 WHERE n.nspname OPERATOR(pg_catalog.=) 'alloc'
		   AND a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
		   AND a.grantee OPERATOR(pg_catalog.<>) ALL (ARRAY[0, n.nspowner]))
	THEN
		RAISE EXCEPTION USING
			ERRCODE = 'insufficient_privilege',
			MESSAGE = 'others than its owner may create objects in schema "alloc"',
			HINT = 'Revoke that, or drop the schema; CREATE EXTENSION makes its own.';
	END IF;
END
$guard$;
