-- What a partition of test/pgtap-fleet has besides the extension: the ways by
-- which the router's database gets at its tables.

SET client_min_messages = warning;
CREATE SCHEMA fleet;

-- Event ids and the like differ between partitions.
CREATE FUNCTION fleet.number_ids(partition integer) RETURNS bigint
LANGUAGE sql AS $$
	SELECT max(setval(s.oid::regclass, 1 + 1000000 * partition, false))
	  FROM pg_class s
	 WHERE s.relnamespace = 'alloc'::regnamespace AND s.relkind = 'S' AND partition > 0
$$;

CREATE FUNCTION fleet.execute(statement text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	EXECUTE statement;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;

-- The tables whose rows a rollback would bring back, and their columns.
CREATE FUNCTION fleet.tables(OUT name text, OUT columns text) RETURNS SETOF record
LANGUAGE sql AS $$
	SELECT t.relname, string_agg(quote_ident(a.attname), ', ')
	  FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
	 WHERE t.relnamespace = 'alloc'::regnamespace AND t.relkind = 'r'
	   AND t.relname NOT LIKE 'router%' AND t.relname <> 'partition'
	   AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
	 GROUP BY t.relname
$$;

-- At a name: a transaction's beginning, or one of its savepoints.
CREATE FUNCTION fleet.save(at text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
	t record;
BEGIN
	EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', 'saved_' || at);
	EXECUTE format('CREATE SCHEMA %I', 'saved_' || at);
	FOR t IN SELECT * FROM fleet.tables() LOOP
		EXECUTE format('CREATE TABLE %I.%I AS SELECT %s FROM alloc.%2$I', 'saved_' || at, t.name, t.columns);
	END LOOP;
	RETURN true;
END
$$;

CREATE FUNCTION fleet.restore(at text) RETURNS boolean
LANGUAGE plpgsql
SET session_replication_role = replica AS $$
DECLARE
	t record;
BEGIN
	FOR t IN SELECT * FROM fleet.tables() LOOP
		EXECUTE format('DELETE FROM alloc.%I', t.name);
		EXECUTE format('INSERT INTO alloc.%I (%s) SELECT %2$s FROM %3$I.%1$I', t.name, t.columns, 'saved_' || at);
	END LOOP;
	RETURN true;
END
$$;

-- A router does not archive; a partition without a log has nothing to.
CREATE FUNCTION fleet.archive(before timestamptz) RETURNS SETOF alloc.events
LANGUAGE plpgsql AS $$
BEGIN
	IF before IS NULL OR EXISTS (SELECT FROM alloc.event) THEN
		RETURN QUERY SELECT * FROM alloc.archive_events(before);
	END IF;
END
$$;
