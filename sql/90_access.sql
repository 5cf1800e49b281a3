-- If PUBLIC could create in the schema, somebody may have done so while this ran,
-- and it may have been taken for ours.
DO $guard$
BEGIN
	IF EXISTS (
		SELECT FROM pg_catalog.pg_depend d
		 WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
		   AND d.refobjid OPERATOR(pg_catalog.=) 'alloc'::pg_catalog.regnamespace::pg_catalog.oid
		   AND d.deptype OPERATOR(pg_catalog.=) 'n'
		   AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass
		   AND NOT EXISTS (
			SELECT FROM pg_catalog.pg_depend e
			 WHERE e.classid OPERATOR(pg_catalog.=) d.classid
			   AND e.objid OPERATOR(pg_catalog.=) d.objid
			   AND e.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
			   AND e.deptype OPERATOR(pg_catalog.=) 'e'))
	THEN
		RAISE EXCEPTION USING
			ERRCODE = 'duplicate_object',
			MESSAGE = 'somebody has created an object in schema "alloc"',
			HINT = 'Drop what is in it, or the schema, then create the extension again.';
	END IF;
END
$guard$;

-- Nothing is for PUBLIC: the owner decides who may do what.

REVOKE ALL ON SCHEMA alloc FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA alloc FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA alloc FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA alloc FROM PUBLIC;
REVOKE ALL ON TYPE alloc.order_line FROM PUBLIC;
REVOKE ALL ON TYPE alloc.scope_read, alloc.scope_sell, alloc.scope_buy, alloc.scope_admin FROM PUBLIC;
