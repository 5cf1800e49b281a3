-- What else a router does: orders by their id, readers, and the fleet as a whole.

-- An order whose lines are held on one partition is confirmed there; on several
-- it is taken as allocate_order() takes it, so that it is confirmed as a whole.
-- One that was left in the middle of that is finished first: a row that is left
-- after the answer would bring lines back that are freed later.
CREATE FUNCTION alloc._fleet_confirm(orderid text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	trace text := alloc._trace();
	skus text[];
	qtys bigint[];
	parts integer[];
	was_left boolean;
	settled bigint;
	earlier record;
BEGIN
	BEGIN
		SELECT array_agg(h.sku) FILTER (WHERE h.sku IS NOT NULL),
		       array_agg(h.qty) FILTER (WHERE h.sku IS NOT NULL),
		       bool_or(h.sku IS NULL)
		  INTO skus, qtys, was_left
		  FROM alloc_router.held_lines(orderid, alloc._homes(), trace) AS h;
	EXCEPTION WHEN SQLSTATE 'SK005' THEN
		-- Unless a call before this one has decided it while it was time.
		SELECT * INTO earlier FROM alloc._settle_left_order(orderid);
		IF earlier.outcome = 'finished' THEN
			RETURN earlier.lines;
		END IF;
		RAISE;
	END;
	IF was_left THEN
		SELECT * INTO earlier FROM alloc._settle_left_order(orderid);
		IF earlier.outcome = 'finished' THEN
			settled := earlier.lines;
		END IF;
		SELECT array_agg(h.sku), array_agg(h.qty) INTO skus, qtys
		  FROM alloc_router.held_lines(orderid, alloc._homes(), trace) AS h
		 WHERE h.sku IS NOT NULL;
	END IF;
	IF skus IS NULL THEN
		RETURN coalesce(settled, 0);
	END IF;
	parts := alloc._homes_of(skus);
	IF NOT (SELECT bool_or(p <> parts[1]) FROM unnest(parts) AS p) THEN
		RETURN (SELECT sum(n) FROM alloc_router.confirm(orderid, alloc._homes(), trace) AS n);
	END IF;
	IF (SELECT bool_or(t.status <> 'allocated') FROM alloc._take_order(orderid, parts, skus, qtys, 'all') AS t) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'SK005',
			MESSAGE = format('a hold of order "%s" is over', orderid);
	END IF;
	RETURN cardinality(skus);
END
$$;
COMMENT ON FUNCTION alloc._fleet_confirm(text) IS
	'confirm() of a router';

-- Nothing leaves a partition if another would refuse.
CREATE FUNCTION alloc._fleet_ship(orderid text, sku text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	trace text := alloc._trace();
BEGIN
	IF sku IS NOT NULL THEN
		RETURN alloc_router.ship_line(orderid, sku, trace);
	END IF;
	PERFORM alloc_router.require_shippable(orderid, alloc._homes(), trace);
	RETURN (SELECT sum(n) FROM alloc_router.ship(orderid, alloc._homes(), trace) AS n);
END
$$;
COMMENT ON FUNCTION alloc._fleet_ship(text, text) IS
	'ship() of a router';

CREATE FUNCTION alloc._fleet_history_of_order(orderid text)
RETURNS SETOF alloc.events
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT * FROM alloc_router.history_of_order($1, alloc._trace()) AS h
	 ORDER BY h.at, h.event_id
$$;
COMMENT ON FUNCTION alloc._fleet_history_of_order(text) IS
	'history_of_order() of a router';

-- Event ids are each partition's own: an upto is of one sku.
CREATE FUNCTION alloc._fleet_replay(
	of_sku text, upto bigint,
	OUT ref text, OUT sku text, OUT eta date, OUT purchased_qty bigint,
	OUT shipped_qty bigint, OUT allocated_qty bigint, OUT available_qty bigint)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
#variable_conflict use_column
DECLARE
	error_message text;
	error_detail text;
	error_hint text;
BEGIN
	IF of_sku IS NOT NULL THEN
		RETURN QUERY SELECT * FROM alloc_router.replay_sku(of_sku, upto, alloc._trace());
	ELSIF upto IS NOT NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'feature_not_supported',
			MESSAGE = format('event %s is another one on each partition', upto),
			HINT = 'Name the sku.';
	ELSE
		RETURN QUERY SELECT * FROM alloc_router.replay(alloc._trace());
	END IF;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS error_message = MESSAGE_TEXT,
		error_detail = PG_EXCEPTION_DETAIL, error_hint = PG_EXCEPTION_HINT;
	PERFORM alloc._raise_remote(SQLSTATE, error_message, error_detail, error_hint);
END
$$;
COMMENT ON FUNCTION alloc._fleet_replay(text, bigint) IS
	'replay() of a router';

-- Each partition's, and batches that the directory does not find.
CREATE FUNCTION alloc._fleet_check(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY SELECT * FROM alloc_router.check(alloc._trace());
	RETURN QUERY
		SELECT 'directory', b.sku, b.ref, NULL::text,
		       format('the directory has it under sku %s; rebuild_directory() puts that right', coalesce('"' || d.sku || '"', 'none'))
		  FROM alloc_router.batch_refs(alloc._trace()) AS b
		  LEFT JOIN alloc_router.directory(alloc._trace()) AS d ON d.ref = b.ref
		 WHERE d.sku IS DISTINCT FROM b.sku;
END
$$;
COMMENT ON FUNCTION alloc._fleet_check() IS
	'check() of a router';

-- What a partition takes out of its log it has committed before its rows are
-- anywhere else: a router that fails then would have lost them.
CREATE FUNCTION alloc._fleet_archive_events(before timestamptz)
RETURNS SETOF alloc.events
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RAISE EXCEPTION USING
		ERRCODE = 'feature_not_supported',
		MESSAGE = 'a router does not archive events',
		DETAIL = 'They would be gone from the partitions before your transaction has committed.',
		HINT = 'Call archive_events() on each partition.';
END
$$;
COMMENT ON FUNCTION alloc._fleet_archive_events(timestamptz) IS
	'archive_events() of a router';

CREATE FUNCTION alloc._fleet_create_consumer(name text, start text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	IF octet_length(name) BETWEEN 1 AND 255 THEN
		INSERT INTO alloc.fleet_consumer AS c (name) VALUES (name) ON CONFLICT DO NOTHING;
		IF NOT FOUND THEN
			RAISE EXCEPTION USING
				ERRCODE = 'duplicate_object',
				MESSAGE = format('consumer "%s" already exists', name);
		END IF;
		INSERT INTO alloc.fleet_position (name, partition)
		SELECT name, h FROM unnest(alloc._all_homes()) AS h;
	END IF;
	-- What is left there by a call that failed here.
	PERFORM alloc_router.drop_consumer(name, alloc._trace());
	PERFORM alloc_router.create_consumer(name, start, alloc._trace());
END
$$;
COMMENT ON FUNCTION alloc._fleet_create_consumer(text, text) IS
	'create_consumer() of a router';

CREATE FUNCTION alloc._fleet_drop_consumer(name text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc._require_key(name, 'name');
	PERFORM alloc._lock_fleet_consumer(name);
	DELETE FROM alloc.fleet_position p WHERE p.name = _fleet_drop_consumer.name;
	DELETE FROM alloc.fleet_consumer c WHERE c.name = _fleet_drop_consumer.name;
	PERFORM alloc_router.drop_consumer(name, alloc._trace());
END
$$;
COMMENT ON FUNCTION alloc._fleet_drop_consumer(text) IS
	'drop_consumer() of a router';

CREATE FUNCTION alloc._lock_fleet_consumer(name text)
RETURNS integer
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	turn integer;
BEGIN
	SELECT c.turn INTO turn FROM alloc.fleet_consumer c
	 WHERE c.name = _lock_fleet_consumer.name FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'undefined_object',
			MESSAGE = format('unknown consumer "%s"', name),
			HINT = 'Create it with create_consumer().';
	END IF;
	-- Where one snapshot decides, 40001 has to come before any partition is asked.
	PERFORM FROM alloc.fleet_position p
	  WHERE p.name = _lock_fleet_consumer.name FOR UPDATE;
	RETURN turn;
END
$$;
COMMENT ON FUNCTION alloc._lock_fleet_consumer(text) IS
	'for routers: waits for others who fetch for a consumer; returns whose turn it is';

-- Each partition gives its share of max_events, so that none has to wait for
-- another; if that would be less than one, they take turns, until one has any.
CREATE FUNCTION alloc._fleet_fetch_events(
	consumer text, max_events integer,
	OUT event_id bigint, OUT at timestamptz, OUT type text, OUT sku text,
	OUT orderid text, OUT batchref text, OUT qty bigint, OUT payload jsonb)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	parts integer[];
	committed bigint[];
	seen bigint[];
	asked integer[] := '{}';
	given bigint := 0;
	first integer;
BEGIN
	PERFORM alloc._require_fetch(consumer, max_events);
	first := alloc._lock_fleet_consumer(consumer);
	-- One that followed another may be read as soon as that has no more: nobody
	-- is told that there is nothing before it was asked, too.
	LOOP
		SELECT array_agg(q.partition ORDER BY q.place), array_agg(q.committed ORDER BY q.place),
		       array_agg(q.counted ORDER BY q.place)
		  INTO parts, committed, seen
		  FROM (SELECT p.partition, p.counted,
		               CASE WHEN p.xact = pg_current_xact_id() THEN p.committed ELSE p.counted END AS committed,
		               row_number() OVER (ORDER BY p.partition < first, p.partition) AS place
		          FROM alloc.fleet_position p
		         WHERE p.name = consumer AND p.follows IS NULL AND p.partition <> ALL (asked)) AS q
		 WHERE q.place <= max_events;
		EXIT WHEN given > 0 OR parts IS NULL;
		RETURN QUERY
			SELECT e.event_id, e.at, e.type, e.sku, e.orderid, e.batchref, e.qty, e.payload
			  FROM alloc._fetch_from(consumer, parts, committed, seen, max_events / cardinality(parts)) AS e;
		GET DIAGNOSTICS given = ROW_COUNT;
		asked := asked || parts;
	END LOOP;
	UPDATE alloc.fleet_consumer c SET turn = coalesce(parts[1], 0)
	 WHERE c.name = consumer AND c.turn <> coalesce(parts[1], 0);
END
$$;
COMMENT ON FUNCTION alloc._fleet_fetch_events(text, integer) IS
	'fetch_events() of a router';

-- Of some partitions.  One that has given all it had is done with the skus that
-- moved away from it: who took them over may be read.
CREATE FUNCTION alloc._fetch_from(
	consumer text, parts integer[], committed bigint[], seen bigint[], share integer,
	OUT event_id bigint, OUT at timestamptz, OUT type text, OUT sku text,
	OUT orderid text, OUT batchref text, OUT qty bigint, OUT payload jsonb)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	call bigint := nextval('alloc.fleet_call_seq');
	given integer[] := '{}';
	e record;
BEGIN
	IF NOT EXISTS (SELECT FROM alloc.fleet_position p WHERE p.name = consumer AND p.follows IS NOT NULL) THEN
		RETURN QUERY
			SELECT e.event_id, e.at, e.type, e.sku, e.orderid, e.batchref, e.qty, e.payload
			  FROM alloc_router.fetch_events(parts, consumer, committed, seen, share, call, alloc._trace()) AS e;
	ELSE
		FOR e IN SELECT * FROM alloc_router.fetch_events(parts, consumer, committed, seen, share, call, alloc._trace()) LOOP
			SELECT e.event_id, e.at, e.type, e.sku, e.orderid, e.batchref, e.qty, e.payload
			  INTO event_id, at, type, sku, orderid, batchref, qty, payload;
			given := given || e.part::integer;
			RETURN NEXT;
		END LOOP;
		UPDATE alloc.fleet_position p SET follows = NULL
		 WHERE p.name = consumer AND p.follows = ANY (parts)
		   AND (SELECT count(*) FROM unnest(given) AS g WHERE g = p.follows) < share;
	END IF;
	UPDATE alloc.fleet_position p
	   SET counted = p.counted + 1, xact = pg_current_xact_id(),
	       committed = CASE WHEN p.xact = pg_current_xact_id() THEN p.committed ELSE p.counted END
	 WHERE p.name = consumer AND p.partition = ANY (parts);
END
$$;
COMMENT ON FUNCTION alloc._fetch_from(text, integer[], bigint[], bigint[], integer) IS
	'for routers: the next events of partitions';

CREATE FUNCTION alloc._require_fetch(consumer text, max_events integer)
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc._require_key(consumer, 'consumer');
	IF max_events IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'max_events must not be null';
	ELSIF max_events < 1 THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('max_events %s is not positive', max_events);
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._require_fetch(text, integer) IS
	'raises what is wrong with the arguments of fetch_events()';

-- The router asks other partitions than before.  A new one took its skus over
-- from the one that had its number when there were fewer.
CREATE FUNCTION alloc._follow_partitions(old_homes integer[], homes integer[])
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	part integer;
	reader text;
BEGIN
	FOR part IN
		SELECT DISTINCT h FROM unnest(homes) AS h
		EXCEPT SELECT h FROM unnest(old_homes) AS h
	LOOP
		FOR reader IN SELECT c.name FROM alloc.fleet_consumer c LOOP
			PERFORM alloc_router.add_consumer(ARRAY[part], reader, alloc._trace());
			INSERT INTO alloc.fleet_position (name, partition, follows)
			VALUES (reader, part, old_homes[1 + (part & (cardinality(old_homes) - 1))]);
		END LOOP;
	END LOOP;
	DELETE FROM alloc.fleet_position p WHERE p.partition <> ALL (homes);
END
$$;
COMMENT ON FUNCTION alloc._follow_partitions(integer[], integer[]) IS
	'for routers: consumers read new partitions as well';
