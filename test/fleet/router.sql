-- Makes the tables of the partitions visible in the router's database of
-- test/pgtap-fleet, where the pgTAP files look for them: as views, through which
-- they can also be written.  A router's own tables of these names are empty.

SET client_min_messages = warning;
CREATE SCHEMA fleet;
CREATE SCHEMA fleet_own;

CREATE FUNCTION fleet.number_ids(i_part integer[]) RETURNS SETOF text LANGUAGE plproxy AS $$
	CLUSTER 'fleet';
	SPLIT i_part;
	RUN ON i_part;
	SELECT fleet.number_ids(p)::text FROM unnest(i_part) AS p;
$$;
SELECT count(*) AS partitions FROM fleet.number_ids(ARRAY(SELECT n - 1 FROM alloc.router r, generate_series(1, cardinality(r.homes)) AS n)) \gset

CREATE FUNCTION fleet.execute(statement text) RETURNS SETOF bigint LANGUAGE plproxy AS $$
	CLUSTER 'fleet';
	RUN ON ALL;
	SELECT fleet.execute(statement);
$$;
CREATE FUNCTION fleet.execute_on(key text, statement text) RETURNS bigint LANGUAGE plproxy AS $$
	CLUSTER 'fleet';
	RUN ON alloc.partition_of(key);
	SELECT fleet.execute(statement);
$$;
CREATE FUNCTION fleet.save(at text) RETURNS SETOF boolean LANGUAGE plproxy AS $$
	CLUSTER 'fleet';
	RUN ON ALL;
	SELECT fleet.save(at);
$$;
CREATE FUNCTION fleet.restore(at text) RETURNS SETOF boolean LANGUAGE plproxy AS $$
	CLUSTER 'fleet';
	RUN ON ALL;
	SELECT fleet.restore(at);
$$;

-- A row is known by all its values.
CREATE FUNCTION fleet.write() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP <> 'INSERT' THEN
		PERFORM fleet.execute(format('DELETE FROM alloc.%I t WHERE t::text = %L', TG_TABLE_NAME, OLD::text));
	END IF;
	IF TG_OP = 'DELETE' THEN
		RETURN OLD;
	END IF;
	PERFORM fleet.execute_on(coalesce(to_jsonb(NEW)->>'sku', ''),
		format('INSERT INTO alloc.%I (%2$s) SELECT %2$s FROM jsonb_populate_record(NULL::alloc.%1$I, %3$L)',
			TG_TABLE_NAME,
			(SELECT string_agg(quote_ident(a.attname), ', ') FROM pg_attribute a
			  WHERE a.attrelid = format('fleet_own.%I', TG_TABLE_NAME)::regclass
			    AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
			to_jsonb(NEW)));
	RETURN NEW;
END
$$;

DO $$
DECLARE
	name text;
	defaults text;
BEGIN
	FOR name IN
		SELECT t.relname FROM pg_class t
		 WHERE t.relnamespace = 'alloc'::regnamespace AND t.relkind = 'r'
		   AND t.relname NOT LIKE 'router%'
		   AND t.relname NOT IN ('fleet_consumer', 'fleet_position', 'message', 'partition')
	LOOP
		EXECUTE format('ALTER TABLE alloc.%I SET SCHEMA fleet_own', name);
		EXECUTE format('CREATE FUNCTION fleet.%I() RETURNS SETOF fleet_own.%1$I LANGUAGE plproxy AS %L',
			name, format('CLUSTER ''fleet''; RUN ON ALL; SELECT * FROM alloc.%I;', name));
		EXECUTE format('CREATE VIEW alloc.%I AS SELECT * FROM fleet.%1$I()', name);
		SELECT string_agg(format('ALTER COLUMN %I SET DEFAULT %s', a.attname, pg_get_expr(d.adbin, d.adrelid)), ', ')
		  INTO defaults
		  FROM pg_attrdef d JOIN pg_attribute a ON (a.attrelid, a.attnum) = (d.adrelid, d.adnum)
		 WHERE d.adrelid = format('fleet_own.%I', name)::regclass AND a.attgenerated = '';
		IF defaults IS NOT NULL THEN
			EXECUTE format('ALTER VIEW alloc.%I %s', name, defaults);
		END IF;
		EXECUTE format('CREATE TRIGGER write INSTEAD OF INSERT OR UPDATE OR DELETE ON alloc.%I FOR EACH ROW EXECUTE FUNCTION fleet.write()', name);
	END LOOP;
END
$$;

-- In place of calls on each partition, which is what users do.
CREATE FUNCTION fleet.archive(before timestamptz) RETURNS SETOF alloc.events LANGUAGE plproxy AS $$
	CLUSTER 'fleet';
	RUN ON ALL;
	SELECT * FROM fleet.archive(before);
$$;
CREATE OR REPLACE FUNCTION alloc.archive_events(before timestamptz) RETURNS SETOF alloc.events
LANGUAGE plpgsql AS $$
DECLARE
	error_message text;
BEGIN
	RETURN QUERY SELECT * FROM fleet.archive($1);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS error_message = MESSAGE_TEXT;
	PERFORM alloc._raise_remote(SQLSTATE, error_message, '', '');
END
$$;

-- Its argument's type is a view's by now.
CREATE FUNCTION alloc.event_payload(e alloc.event) RETURNS jsonb
LANGUAGE sql STABLE AS $$
	SELECT alloc.event_payload(e::text::fleet_own.event)
$$;
