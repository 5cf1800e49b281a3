-- Nothing of what is new is for PUBLIC.  What was there before has its initial
-- privileges recorded, and is left as its owner made it: a REVOKE here would
-- make what he granted initial, too, and pg_dump would no longer carry it.
DO $privileges$
DECLARE
	object record;
BEGIN
	FOR object IN
		SELECT CASE
		       WHEN p.oid IS NOT NULL THEN 'FUNCTION'
		       WHEN t.oid IS NOT NULL THEN 'TYPE'
		       WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE'
		       ELSE 'TABLE' END AS kind,
		       coalesce(p.oid::pg_catalog.regprocedure::text,
		                c.oid::pg_catalog.regclass::text,
		                t.oid::pg_catalog.regtype::text) AS name
		  FROM pg_catalog.pg_depend d
		  LEFT JOIN pg_catalog.pg_proc p
		    ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
		   AND p.oid OPERATOR(pg_catalog.=) d.objid
		  LEFT JOIN pg_catalog.pg_class c
		    ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
		   AND c.oid OPERATOR(pg_catalog.=) d.objid
		   AND c.relkind OPERATOR(pg_catalog.<>) 'c'
		  -- Not those that tables have, nor arrays.
		  LEFT JOIN pg_catalog.pg_type t
		    ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
		   AND t.oid OPERATOR(pg_catalog.=) d.objid
		   AND t.typelem OPERATOR(pg_catalog.=) 0
		   AND (t.typrelid OPERATOR(pg_catalog.=) 0 OR EXISTS (
			SELECT FROM pg_catalog.pg_class r
			 WHERE r.oid OPERATOR(pg_catalog.=) t.typrelid
			   AND r.relkind OPERATOR(pg_catalog.=) 'c'))
		 WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
		   AND d.refobjid OPERATOR(pg_catalog.=) (
			SELECT e.oid FROM pg_catalog.pg_extension e
			 WHERE e.extname OPERATOR(pg_catalog.=) 'alloc')
		   AND d.deptype OPERATOR(pg_catalog.=) 'e'
		   AND (p.oid IS NOT NULL OR c.oid IS NOT NULL OR t.oid IS NOT NULL)
		   AND NOT EXISTS (
			SELECT FROM pg_catalog.pg_init_privs i
			 WHERE i.classoid OPERATOR(pg_catalog.=) d.classid
			   AND i.objoid OPERATOR(pg_catalog.=) d.objid)
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM PUBLIC', object.kind, object.name);
	END LOOP;
END
$privileges$;
