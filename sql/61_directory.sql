-- What a partition of a fleet keeps for all of it: where each batch is, and how
-- far the fleet's consumers have come here.  Routers (65_router.sql) read and
-- write it; they have no state of their own but their consumers' positions.

-- Batches by reference.  A reference is on the partition of its own hash, so
-- that it is unique in the fleet; the batch is on that of its sku.
CREATE TABLE alloc.directory (
	ref text NOT NULL
		CONSTRAINT directory_ref_length CHECK (octet_length(ref) BETWEEN 1 AND 255),
	sku text NOT NULL,
	since timestamptz NOT NULL DEFAULT '-infinity'
) USING heap;
CREATE UNIQUE INDEX directory_ref ON alloc.directory (ref text_pattern_ops);
ALTER TABLE alloc.directory REPLICA IDENTITY USING INDEX directory_ref;
COMMENT ON TABLE alloc.directory IS
	'of a fleet: the sku, and so the partition, of each batch whose reference belongs here; since: when somebody last began to add the batch; it can be made again from the batches';

-- Readers of this partition's log who keep their position elsewhere, and say
-- with each fetch which one was the last that counted, and which one the last
-- that they have seen.  They go back to either when a transaction of theirs, or a
-- part of it, is rolled back.
CREATE TABLE alloc.fleet_place (
	LIKE alloc.position,
	fetches bigint NOT NULL,
	call    bigint NOT NULL,
	CONSTRAINT fleet_place_pkey PRIMARY KEY (consumer_id, fetches)
) USING heap;
COMMENT ON TABLE alloc.fleet_place IS
	'consumers of a fleet: the position of each after so many fetches here, from the last that was committed on; call: the router''s number of the fetch that led to it';

SELECT pg_catalog.pg_extension_config_dump('alloc.directory', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.fleet_place', '');

-- For what is kept by the hash of its own key: where that key has moved away, the
-- call is refused as a command on a sku is, and as exactly (see set_partition()).
CREATE FUNCTION alloc._require_kept(what text, key text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	LOCK TABLE alloc.slot IN ROW EXCLUSIVE MODE;
	IF NOT alloc._serves(key) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('%s "%s" is not kept by this partition', what, key),
			HINT = 'The router''s list of partitions may just be changing: call again.';
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._require_kept(text, text) IS
	'for routers: raises 55000 for a batch''s reference or an order that is kept elsewhere';

-- For calls on all partitions at once: each passes over the skus that it does
-- not serve.  So a router that does not know of a partition yet must not make
-- them.  homes: of each number, the partition that the router takes it to be on.
CREATE FUNCTION alloc._require_homes(homes integer[])
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	LOCK TABLE alloc.slot IN ROW EXCLUSIVE MODE;
	IF EXISTS (
		SELECT FROM alloc.partition p
		 WHERE (SELECT count(*) FROM unnest(homes) AS h WHERE h = p.number) * p.count
		       <> cardinality(homes))
	THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this partition serves other skus than the router knows',
			HINT = 'The router''s list of partitions may just be changing: call again.';
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._require_homes(integer[]) IS
	'for routers: raises 55000 where this partition has another share than the router takes it to have';

-- Takes a reference for a batch of a sku, unless it is taken; returns the sku
-- that it is of.  instead: the sku of an entry that proved to be of no batch.  That
-- may come yet, as _add_fleet_batch() says, unless one is sure.
CREATE FUNCTION alloc._claim_ref(ref text, sku text, instead text, sure boolean)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	there alloc.directory;
BEGIN
	PERFORM alloc._require_writable('add_batch()');
	PERFORM alloc._require_kept('batch', _claim_ref.ref);
	LOOP
		SELECT * INTO there FROM alloc.directory d WHERE d.ref = _claim_ref.ref;
		IF NOT FOUND THEN
			INSERT INTO alloc.directory AS d (ref, sku, since)
			VALUES (_claim_ref.ref, _claim_ref.sku, clock_timestamp())
			ON CONFLICT DO NOTHING;
		ELSIF there.sku = _claim_ref.sku THEN
			EXIT WHEN there.since > clock_timestamp() - interval '10 seconds';
			UPDATE alloc.directory d SET since = clock_timestamp()
			 WHERE d.ref = _claim_ref.ref AND d.sku = _claim_ref.sku;
		ELSIF there.sku IS DISTINCT FROM _claim_ref.instead THEN
			RETURN there.sku;
		ELSIF there.since > clock_timestamp() - interval '1 minute' AND NOT sure THEN
			RAISE EXCEPTION USING
				ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('batch "%s" is being added, or could not be added, with other values', _claim_ref.ref),
				DETAIL = format('It has sku "%s".', there.sku),
				HINT = 'Call again in a minute, or give a new batch a reference of its own.';
		ELSE
			UPDATE alloc.directory d SET sku = _claim_ref.sku, since = clock_timestamp()
			 WHERE d.ref = _claim_ref.ref AND d.sku = there.sku AND d.since = there.since;
		END IF;
		EXIT WHEN FOUND;
	END LOOP;
	RETURN _claim_ref.sku;
END
$$;
COMMENT ON FUNCTION alloc._claim_ref(text, text, text, boolean) IS
	'for routers: takes a batch''s reference in the directory; returns the sku that has it';

-- A batch whose reference was taken within the last ten seconds or so.  After a
-- minute somebody else may have the reference: who has waited for half of it has
-- to take it again.
CREATE FUNCTION alloc._add_fleet_batch(ref text, sku text, qty bigint, eta date)
RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc.add_batch(ref, sku, qty, eta);
	IF clock_timestamp() > statement_timestamp() + interval '30 seconds' THEN
		RAISE EXCEPTION USING
			ERRCODE = 'serialization_failure',
			MESSAGE = format('batch "%s" had to wait for too long', ref),
			HINT = 'Call add_batch() again.';
	END IF;
	RETURN ref;
END
$$;
COMMENT ON FUNCTION alloc._add_fleet_batch(text, text, bigint, date) IS
	'for routers: add_batch() on a partition';

CREATE FUNCTION alloc._sku_of_ref(ref text)
RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT d.sku FROM alloc.directory d WHERE d.ref = $1
$$;
COMMENT ON FUNCTION alloc._sku_of_ref(text) IS
	'for routers: the sku of a batch, by the directory';

CREATE FUNCTION alloc._sku_of_batch(ref text)
RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT b.sku FROM alloc.batch b WHERE b.ref = $1 AND alloc._serves(b.sku)
$$;
COMMENT ON FUNCTION alloc._sku_of_batch(text) IS
	'for routers: the sku of a batch that is here; no row: it is not';

-- All batches that are here.
CREATE FUNCTION alloc._batch_refs(OUT ref text, OUT sku text)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT b.ref, b.sku FROM alloc.batch b WHERE alloc._serves(b.sku)
$$;
COMMENT ON FUNCTION alloc._batch_refs() IS
	'for routers: references and skus of the batches that are here';

CREATE FUNCTION alloc._directory(OUT ref text, OUT sku text)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT d.ref, d.sku FROM alloc.directory d WHERE alloc._serves(d.ref)
$$;
COMMENT ON FUNCTION alloc._directory() IS
	'for routers: the directory''s entries that are here';

-- Puts entries into the directory, and those that differ right; returns how
-- many it has.
CREATE FUNCTION alloc._fill_directory(refs text[], skus text[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc._require_writable('rebuild_directory()');
	INSERT INTO alloc.directory AS d (ref, sku)
	SELECT f.ref, f.sku FROM unnest(refs, skus) AS f (ref, sku)
	ON CONFLICT (ref text_pattern_ops) DO UPDATE SET sku = excluded.sku
	 WHERE d.sku <> excluded.sku;
	RETURN cardinality(refs);
END
$$;
COMMENT ON FUNCTION alloc._fill_directory(text[], text[]) IS
	'for routers: makes entries of the directory';

-- A consumer that a router reads for.  The one of kind counted has the position
-- up to which the router's transactions have committed: it keeps the log.
CREATE FUNCTION alloc._create_fleet_consumer(name text, start text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- Events of skus that moved are in two logs until then.
	IF start = 'beginning' AND EXISTS (
		SELECT FROM alloc.product p WHERE NOT alloc._serves(p.sku))
	THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this partition has events of skus that it does not serve',
			HINT = 'Call drop_moved() there first.';
	END IF;
	PERFORM alloc.create_consumer(name, start);
	PERFORM alloc._begin_fleet_reader(name);
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._create_fleet_consumer(text, text) IS
	'for routers: create_consumer() on a partition';

-- A partition that took skus over is read from where it began to serve them,
-- whichever router was the first to know: what was copied is of an era before.
CREATE FUNCTION alloc._add_fleet_consumer(name text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	era CONSTANT bigint := (SELECT count(*) FROM alloc.era) << 48;
BEGIN
	-- What a router left that failed, or what came with a restore.
	PERFORM alloc._drop_fleet_consumer(_add_fleet_consumer.name);
	PERFORM alloc.create_consumer(_add_fleet_consumer.name, 'now');
	UPDATE alloc.position p
	   SET seen_xmax = era, seen_open = '{}',
	       marks = ARRAY[era, coalesce((
				SELECT e.event_id FROM alloc.event e WHERE e.xact < era
				 ORDER BY e.event_id DESC LIMIT 1), 0)]
	  FROM alloc.consumer c
	 WHERE c.consumer_id = p.consumer_id
	   AND c.kind = 'consumer' AND c.name = _add_fleet_consumer.name;
	PERFORM alloc._begin_fleet_reader(_add_fleet_consumer.name);
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._add_fleet_consumer(text) IS
	'for routers: a consumer that is to read this partition as well, from its beginning as one';

-- From where the consumer of that name is.
CREATE FUNCTION alloc._begin_fleet_reader(name text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	reader_id bigint;
	counted_id bigint;
BEGIN
	SELECT c.consumer_id INTO STRICT reader_id FROM alloc.consumer c
	 WHERE c.kind = 'consumer' AND c.name = _begin_fleet_reader.name;
	INSERT INTO alloc.consumer (consumer_id, kind, name)
	VALUES (nextval('alloc.consumer_id_seq'), 'counted', _begin_fleet_reader.name)
	RETURNING consumer_id INTO counted_id;
	PERFORM alloc._keep_place(reader_id, 0, 0);
	PERFORM alloc._go_to_place(counted_id, reader_id, 0);
END
$$;
COMMENT ON FUNCTION alloc._begin_fleet_reader(text) IS
	'makes a consumer one that a router reads for';

CREATE FUNCTION alloc._drop_fleet_consumer(name text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	gone bigint[];
BEGIN
	SELECT array_agg(c.consumer_id) INTO gone FROM alloc.consumer c
	 WHERE c.kind IN ('consumer', 'counted') AND c.name = _drop_fleet_consumer.name
	HAVING bool_or(c.kind = 'counted');
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	DELETE FROM alloc.position p WHERE p.consumer_id = ANY (gone);
	DELETE FROM alloc.consumer c WHERE c.consumer_id = ANY (gone);
	-- Somebody may have called drop_consumer() here.
	DELETE FROM alloc.fleet_place f
	 WHERE f.consumer_id NOT IN (SELECT c.consumer_id FROM alloc.consumer c);
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._drop_fleet_consumer(text) IS
	'for routers: drop_consumer() on a partition, if the consumer is there';

CREATE FUNCTION alloc._keep_place(reader_id bigint, fetches bigint, call bigint)
RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO alloc.fleet_place SELECT p.*, $2, $3 FROM alloc.position p WHERE p.consumer_id = $1
$$;
COMMENT ON FUNCTION alloc._keep_place(bigint, bigint, bigint) IS
	'keeps the position that a reader has after so many fetches';

CREATE FUNCTION alloc._go_to_place(to_id bigint, reader_id bigint, fetches bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	place alloc.position;
	times bigint;
BEGIN
	DELETE FROM alloc.position p WHERE p.consumer_id = to_id
	RETURNING p.moved INTO times;
	SELECT to_id, coalesce(times, 0) + 1, f.seen_xmax, f.upto_xmax, f.given_to, f.batch_end,
	       f.last_event_id, f.last_fetch_at, f.seen_open, f.upto_open, f.marks
	  INTO STRICT place
	  FROM alloc.fleet_place f
	 WHERE f.consumer_id = reader_id AND f.fetches = _go_to_place.fetches;
	INSERT INTO alloc.position SELECT place.*;
END
$$;
COMMENT ON FUNCTION alloc._go_to_place(bigint, bigint, bigint) IS
	'makes the position of a reader the one that was kept after so many fetches';

-- The next events for a consumer of the fleet.  The arrays have one element: the
-- partition's number at the router, how many fetches the router's transactions have
-- committed, and how many it knows of.  Whatever came after these was rolled back:
-- the events are given again.  call grows from one fetch of a router to the next: one
-- that comes when a later one was here would move the place that the router counts on.
CREATE FUNCTION alloc._fetch_fleet_events(
	this_part integer[], consumer text, committed_by_part bigint[], seen_by_part bigint[],
	max_events integer, call bigint,
	OUT part integer, OUT event_id bigint, OUT at timestamptz, OUT type text,
	OUT sku text, OUT orderid text, OUT batchref text, OUT qty bigint,
	OUT payload jsonb)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	reader_id bigint;
	counted_id bigint;
	places bigint[];
	latest_call bigint;
	committed CONSTANT bigint := committed_by_part[1];
	seen CONSTANT bigint := seen_by_part[1];
BEGIN
	PERFORM alloc._require_writable('fetch_events()');
	-- While a router's list changes, it may ask by the old one for a new number.
	IF EXISTS (SELECT FROM alloc.partition p WHERE p.number <> this_part[1]) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('this is not partition %s', this_part[1]),
			HINT = 'The router''s list of partitions may just be changing: call again.';
	END IF;
	SELECT c.consumer_id, k.consumer_id INTO reader_id, counted_id
	  FROM alloc.consumer c
	  JOIN alloc.consumer k ON k.kind = 'counted' AND k.name = c.name
	 WHERE c.kind = 'consumer' AND c.name = _fetch_fleet_events.consumer
	   FOR UPDATE OF k;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'undefined_object',
			MESSAGE = format('unknown consumer "%s" of the fleet', _fetch_fleet_events.consumer);
	END IF;
	SELECT array_agg(f.fetches), max(f.call) INTO places, latest_call
	  FROM alloc.fleet_place f WHERE f.consumer_id = reader_id;
	IF NOT coalesce(places, '{}') @> ARRAY[committed, seen] THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('consumer "%s" has fetched %s times, the router knows of %s',
				_fetch_fleet_events.consumer, (SELECT max(n) FROM unnest(places) AS n), seen),
			HINT = 'Another router reads for this consumer, or this database was restored.';
	ELSIF _fetch_fleet_events.call <= latest_call THEN
		RAISE EXCEPTION USING
			ERRCODE = 'serialization_failure',
			MESSAGE = format('a later fetch for consumer "%s" was first', _fetch_fleet_events.consumer);
	END IF;
	IF committed > ANY (places) THEN
		PERFORM alloc._go_to_place(counted_id, reader_id, committed);
	END IF;
	IF seen < ANY (places) THEN
		PERFORM alloc._go_to_place(reader_id, reader_id, seen);
	END IF;
	DELETE FROM alloc.fleet_place f
	 WHERE f.consumer_id = reader_id AND (f.fetches < committed OR f.fetches > seen);
	RETURN QUERY SELECT this_part[1], f.* FROM alloc.fetch_events(_fetch_fleet_events.consumer, _fetch_fleet_events.max_events) AS f;
	PERFORM alloc._keep_place(reader_id, seen + 1, _fetch_fleet_events.call);
END
$$;
COMMENT ON FUNCTION alloc._fetch_fleet_events(integer[], text, bigint[], bigint[], integer, bigint) IS
	'for routers: fetch_events() on a partition, after the fetches that the router knows of';
