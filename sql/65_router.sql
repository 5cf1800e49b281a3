-- A fleet partitioned by sku: a database without stock that passes each call on
-- to the partition that has the sku, by PL/Proxy.
--
-- create_router() replaces the public functions and views of schema alloc, in
-- place, by such that ask the partitions; drop_router() puts the own ones back.
-- What PL/Proxy runs is in schema alloc_router, made and dropped with it: its
-- functions are 66_remote.sql, what calls them 67_routes.sql to 69.
--
-- The fleet's state is all on the partitions, so that there may be many routers;
-- but the positions of consumers are where they are committed with what was
-- fetched.  A router that is restored from a dump is a database without stock:
-- create it again, and its consumers.

CREATE TABLE alloc.router (
	cluster    text NOT NULL,
	partitions text[] NOT NULL,
	homes      integer[] NOT NULL
) USING heap;
CREATE UNIQUE INDEX router_is_one ON alloc.router ((true));
COMMENT ON TABLE alloc.router IS
	'if this database is a router: connection strings of the partitions; homes: of each number the first with the same string';

CREATE TABLE alloc.router_replaced (
	definition text NOT NULL
) USING heap;
COMMENT ON TABLE alloc.router_replaced IS
	'functions and views as they were before create_router()';

CREATE TABLE alloc.fleet_consumer (
	name text NOT NULL,
	turn integer NOT NULL DEFAULT 0,
	CONSTRAINT fleet_consumer_pkey PRIMARY KEY (name)
) USING heap;
COMMENT ON TABLE alloc.fleet_consumer IS
	'consumers that this router reads for; turn: the partition that is asked first';

-- A partition that took skus over begins to be read when the one that they came
-- from, follows, has no more of their events.
CREATE TABLE alloc.fleet_position (
	name      text NOT NULL,
	partition integer NOT NULL,
	counted   bigint NOT NULL DEFAULT 0,
	committed bigint NOT NULL DEFAULT 0,
	xact      xid8,
	follows   integer,
	CONSTRAINT fleet_position_pkey PRIMARY KEY (name, partition)
) USING heap;
COMMENT ON TABLE alloc.fleet_position IS
	'of each consumer and partition, how many fetches there were, counted, and how many before the transaction xact of the last one';

-- Numbers of fetches, in the order in which they were sent, whatever came of them.
CREATE SEQUENCE alloc.fleet_call_seq;

CREATE FUNCTION alloc._raise_remote(sqlstate text, message text, detail text, hint text)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_raise_remote'
LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT;
COMMENT ON FUNCTION alloc._raise_remote(text, text, text, text) IS
	'raises the error that a partition had, without what PL/Proxy has put around it';

CREATE FUNCTION alloc._gather_handler()
RETURNS fdw_handler
AS 'MODULE_PATHNAME', 'alloc_gather_handler'
LANGUAGE C STRICT;
COMMENT ON FUNCTION alloc._gather_handler() IS
	'reads foreign tables by a function that has conditions on them as arguments';

CREATE FOREIGN DATA WRAPPER alloc_gather HANDLER alloc._gather_handler;
COMMENT ON FOREIGN DATA WRAPPER alloc_gather IS
	'the views of a router';

CREATE FUNCTION alloc.create_router(cluster text, partitions text[])
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
#variable_conflict use_column
DECLARE
	homes integer[];
	error_message text;
	error_detail text;
	error_hint text;
BEGIN
	PERFORM alloc._require_writable('create_router()');
	PERFORM alloc._check_router_arguments(create_router.cluster, create_router.partitions);
	SELECT array_agg(array_position(create_router.partitions, p.string) - 1 ORDER BY p.n)
	  INTO homes
	  FROM unnest(create_router.partitions) WITH ORDINALITY AS p (string, n);
	LOCK TABLE alloc.router IN SHARE ROW EXCLUSIVE MODE;
	IF EXISTS (SELECT FROM alloc.router) THEN
		PERFORM alloc._change_partitions(create_router.cluster, create_router.partitions, homes);
		RETURN;
	END IF;
	PERFORM alloc._require_no_stock();
	IF EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'alloc_router') THEN
		RAISE EXCEPTION USING
			ERRCODE = 'duplicate_schema',
			MESSAGE = 'schema "alloc_router" already exists',
			HINT = 'If it is of a router that was restored from a dump, or whose extension was dropped, drop it and the servers alloc_gather and of the cluster, with CASCADE.';
	END IF;
	CREATE SCHEMA alloc_router;
	REVOKE ALL ON SCHEMA alloc_router FROM PUBLIC;
	EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER plproxy %s',
		create_router.cluster, alloc._server_options(create_router.partitions));
	EXECUTE format('CREATE USER MAPPING FOR PUBLIC SERVER %I', create_router.cluster);
	INSERT INTO alloc.router VALUES (create_router.cluster, create_router.partitions, homes);
	-- A command of before that waits for its lock is refused, and writes nothing here.
	DELETE FROM alloc.partition;
	INSERT INTO alloc.partition (number, count) VALUES (-2, 65536);
	PERFORM alloc._create_remote_functions(create_router.cluster);
	PERFORM alloc._require_shares(homes);
	PERFORM alloc._replace_views();
	PERFORM alloc._replace_functions();
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS error_message = MESSAGE_TEXT,
		error_detail = PG_EXCEPTION_DETAIL, error_hint = PG_EXCEPTION_HINT;
	PERFORM alloc._raise_remote(SQLSTATE, error_message, error_detail, error_hint);
END
$$;
COMMENT ON FUNCTION alloc.create_router(text, text[]) IS
	'makes this database, which has PL/Proxy and no stock, the router of a fleet: the connection strings of its partitions, a power of two of them, in the order of their numbers; called again: changes them';

CREATE FUNCTION alloc.drop_router()
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
#variable_conflict use_column
DECLARE
	old text;
	this_cluster text;
BEGIN
	PERFORM alloc._require_writable('drop_router()');
	LOCK TABLE alloc.router IN SHARE ROW EXCLUSIVE MODE;
	DELETE FROM alloc.router r RETURNING r.cluster INTO this_cluster;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database is not a router';
	END IF;
	FOR old IN SELECT r.definition FROM alloc.router_replaced r LOOP
		EXECUTE old;
	END LOOP;
	DELETE FROM alloc.router_replaced;
	DELETE FROM alloc.partition;
	DELETE FROM alloc.fleet_position;
	DELETE FROM alloc.fleet_consumer;
	DROP SCHEMA alloc_router CASCADE;
	EXECUTE format('DROP SERVER %I CASCADE', this_cluster);
	DROP SERVER alloc_gather CASCADE;
END
$$;
COMMENT ON FUNCTION alloc.drop_router() IS
	'makes the database of a router an ordinary one again; the partitions stay as they are';

-- What follows is for these functions.

CREATE FUNCTION alloc._check_router_arguments(cluster text, partitions text[])
RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n integer := cardinality(partitions);
BEGIN
	PERFORM alloc._require_key(cluster, 'cluster');
	IF partitions IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'partitions must not be null';
	END IF;
	IF array_ndims(partitions) > 1 THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'partitions must be an array of one dimension';
	END IF;
	IF array_position(partitions, NULL) IS NOT NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = format('partition %s must not be null', array_position(partitions, NULL) - 1);
	END IF;
	IF n NOT BETWEEN 1 AND 65536 OR n & (n - 1) <> 0 THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('%s partitions are not a power of two', n),
			HINT = 'A connection string may be there many times: that partition serves several shares.';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_foreign_data_wrapper w WHERE w.fdwname = 'plproxy') THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'extension "plproxy" is not in this database',
			HINT = 'Install postgresql-NN-plproxy, and CREATE EXTENSION plproxy.';
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._check_router_arguments(text, text[]) IS
	'raises what is wrong with the arguments of create_router()';

CREATE FUNCTION alloc._require_no_stock()
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc._require_read_committed('create_router()');
	-- Waits for commands, and keeps them away until the router is there.
	LOCK TABLE alloc.partition IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE alloc.slot IN SHARE ROW EXCLUSIVE MODE;
	IF EXISTS (SELECT FROM alloc.product) OR EXISTS (SELECT FROM alloc.event) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database has stock of its own',
			HINT = 'Make the router in an empty database; this one can be a partition.';
	END IF;
	-- A router that was restored from a dump is not one, and serves nothing.
	IF EXISTS (SELECT FROM alloc.partition p WHERE p.number <> -2) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database is a partition of a fleet';
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._require_no_stock() IS
	'raises an error where a router would hide stock; keeps commands away';

-- Of the server that PL/Proxy knows the cluster by.
CREATE FUNCTION alloc._server_options(partitions text[])
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'OPTIONS (' || string_agg(format('p%s %L', p.n - 1, p.string), ', ' ORDER BY p.n) || ')'
	  FROM unnest(partitions) WITH ORDINALITY AS p (string, n)
$$;
COMMENT ON FUNCTION alloc._server_options(text[]) IS
	'the partitions as options of PL/Proxy''s server';

-- Each partition has to know its share, or learns it now: so connection strings
-- in another order than before are refused, whatever was meant.
CREATE FUNCTION alloc._require_shares(homes integer[])
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	share record;
	there record;
BEGIN
	FOR share IN SELECT * FROM alloc._shares(homes) LOOP
		EXECUTE 'SELECT * FROM alloc_router.take_share($1, $2, $3, NULL)'
		   INTO there USING ARRAY[share.number], share.number, share.count;
		IF there.number = -2 THEN
			RAISE EXCEPTION USING
				ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('partition %s of %s is a router', share.number, share.count);
		ELSIF there.number = -1 THEN
			RAISE EXCEPTION USING
				ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('partition %s of %s is still being filled', share.number, share.count),
				HINT = 'Call settle_partition() there when it has its skus.';
		ELSIF there.number <> share.number OR there.count <> share.count THEN
			RAISE EXCEPTION USING
				ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('partition %s of %s says that it is partition %s of %s',
					share.number, share.count, there.number, there.count),
				HINT = 'The connection strings are to be in the order of the partitions'' numbers.';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc._require_shares(integer[]) IS
	'each partition is the one that the router takes it for';

-- The share of each partition: a number of as few as describe it.
CREATE FUNCTION alloc._shares(homes integer[], OUT number integer, OUT count integer)
RETURNS SETOF record
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n integer := cardinality(homes);
	numbers integer[];
BEGIN
	FOR number IN SELECT DISTINCT h FROM unnest(homes) AS h ORDER BY h LOOP
		SELECT array_agg(i ORDER BY i) INTO numbers
		  FROM generate_series(0, n - 1) AS i WHERE homes[i + 1] = number;
		count := n / cardinality(numbers);
		IF numbers <> ARRAY(SELECT i FROM generate_series(number % greatest(count, 1), n - 1, greatest(count, 1)) AS i)
			OR number >= count
		THEN
			RAISE EXCEPTION USING
				ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('partition %s has numbers %s of %s, which is no share of the skus', number, numbers, n),
				HINT = 'A connection string that is there many times is at every second, fourth... place.';
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc._shares(integer[]) IS
	'which share of the skus each partition serves';

CREATE FUNCTION alloc._take_share(
	wanted_number integer, wanted_count integer,
	OUT number integer, OUT count integer)
RETURNS record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	-- PL/Proxy passes dates on as text, in this session's style.
	IF current_setting('DateStyle') NOT LIKE 'ISO,%' THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('partition %s of %s has DateStyle "%s"', wanted_number, wanted_count,
			                 current_setting('DateStyle')),
			HINT = 'A router reads dates in style ISO: give its connection string options=''-c datestyle=ISO''.';
	END IF;
	SELECT p.number, p.count INTO number, count FROM alloc.partition p;
	IF NOT FOUND THEN
		PERFORM alloc.set_partition(wanted_number, wanted_count);
		number := wanted_number;
		count := wanted_count;
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._take_share(integer, integer) IS
	'for routers: a partition learns its share, unless it knows it; returns what it knows';

-- For create_router() of a router.
CREATE FUNCTION alloc._change_partitions(cluster text, partitions text[], homes integer[])
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	old alloc.router;
	n integer := cardinality(partitions);
BEGIN
	SELECT * INTO STRICT old FROM alloc.router;
	IF old.cluster <> _change_partitions.cluster THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('this database is the router of cluster "%s"', old.cluster),
			HINT = 'Call drop_router() first.';
	END IF;
	EXECUTE format('ALTER SERVER %I %s', old.cluster,
		(SELECT 'OPTIONS (' || string_agg(CASE
			WHEN i > n THEN format('DROP p%s', i - 1)
			WHEN i > cardinality(old.partitions) THEN format('ADD p%s %L', i - 1, partitions[i])
			ELSE format('SET p%s %L', i - 1, partitions[i]) END, ', ') || ')'
		   FROM generate_series(1, greatest(n, cardinality(old.partitions))) AS i));
	UPDATE alloc.router SET partitions = _change_partitions.partitions,
		homes = _change_partitions.homes;
	PERFORM alloc._require_shares(homes);
	PERFORM alloc._follow_partitions(old.homes, homes);
END
$$;
COMMENT ON FUNCTION alloc._change_partitions(text, text[], integer[]) IS
	'makes a router ask other partitions';

CREATE FUNCTION alloc._require_router()
RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM alloc.router) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database is not a router',
			HINT = 'Call create_router() in a database that has PL/Proxy.';
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._require_router() IS
	'raises an error where there is no router';
