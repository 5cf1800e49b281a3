-- Batches of a fleet: by sku, and by reference through the directory.
--
-- A reference is taken in the directory before the batch is there, by
-- add_batch(); so an entry may be of no batch, when that has failed, or is not
-- done yet.  It is looked at where it would be in the way.

CREATE FUNCTION alloc._fleet_claim_ref(ref text, sku text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	trace text := alloc._trace();
	taken_by text;
	instead text;
BEGIN
	LOOP
		taken_by := alloc_router.claim_ref(ref, sku, instead, false, trace);
		EXIT WHEN taken_by = sku;
		IF EXISTS (SELECT FROM alloc_router.sku_of_batch(taken_by, ref, trace)) THEN
			RAISE EXCEPTION USING
				ERRCODE = 'unique_violation',
				MESSAGE = format('batch "%s" already exists with other values', ref),
				DETAIL = format('It has sku "%s".', taken_by),
				HINT = 'Give a new batch a reference of its own.';
		END IF;
		instead := taken_by;
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc._fleet_claim_ref(text, text) IS
	'for routers: takes a reference in the directory for a batch that is to be';

CREATE FUNCTION alloc._fleet_add_batch(ref text, sku text, qty bigint, eta date)
RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	began timestamptz;
BEGIN
	-- What is wrong is told by the partition, and needs no entry.
	IF octet_length(ref) BETWEEN 1 AND 255 AND octet_length(sku) BETWEEN 1 AND 255 AND qty >= 0 THEN
		-- See _add_fleet_batch().
		LOOP
			began := clock_timestamp();
			PERFORM alloc._fleet_claim_ref(ref, sku);
			EXIT WHEN clock_timestamp() < began + interval '10 seconds';
		END LOOP;
	END IF;
	RETURN alloc_router.add_batch(ref, sku, qty, eta, alloc._trace());
END
$$;
COMMENT ON FUNCTION alloc._fleet_add_batch(text, text, bigint, date) IS
	'add_batch() of a router';

-- The sku of a batch: by the directory, or where that does not know it, or is
-- wrong, by asking every partition.  NULL: there is none of this reference.
CREATE FUNCTION alloc._fleet_sku_of_ref(ref text)
RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	trace text := alloc._trace();
	of_sku text;
	noted text := alloc_router.sku_of_ref(ref, trace);
BEGIN
	IF noted IS NOT NULL AND EXISTS (SELECT FROM alloc_router.sku_of_batch(noted, ref, trace)) THEN
		RETURN noted;
	END IF;
	IF octet_length(ref) BETWEEN 1 AND 255 THEN
		SELECT f INTO of_sku FROM alloc_router.find_batch(ref, trace) AS f;
	END IF;
	IF of_sku IS NOT NULL THEN
		PERFORM alloc_router.claim_ref(ref, of_sku, noted, true, trace);
	END IF;
	RETURN of_sku;
END
$$;
COMMENT ON FUNCTION alloc._fleet_sku_of_ref(text) IS
	'for routers: the sku of a batch';

-- Any partition tells what is wrong with a reference that nobody has.  The
-- directory's answer is tried first: a batch that is not there is rare.
CREATE FUNCTION alloc._fleet_change_batch_quantity(
	of_ref text, new_qty bigint,
	OUT orderid text, OUT sku text, OUT qty bigint,
	OUT old_batchref text, OUT new_batchref text)
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
	of_sku text;
BEGIN
	PERFORM alloc._require_writable('change_batch_quantity()');
	of_sku := coalesce(alloc_router.sku_of_ref(of_ref, alloc._trace()), alloc._fleet_sku_of_ref(of_ref), of_ref);
	BEGIN
		RETURN QUERY SELECT * FROM alloc_router.change_batch_quantity(of_sku, of_ref, new_qty, alloc._trace());
	EXCEPTION WHEN SQLSTATE 'SK002' THEN
		of_sku := coalesce(alloc._fleet_sku_of_ref(of_ref), of_ref);
		RETURN QUERY SELECT * FROM alloc_router.change_batch_quantity(of_sku, of_ref, new_qty, alloc._trace());
	END;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS error_message = MESSAGE_TEXT,
		error_detail = PG_EXCEPTION_DETAIL, error_hint = PG_EXCEPTION_HINT;
	PERFORM alloc._raise_remote(SQLSTATE, error_message, error_detail, error_hint);
END
$$;
COMMENT ON FUNCTION alloc._fleet_change_batch_quantity(text, bigint) IS
	'change_batch_quantity() of a router';

CREATE FUNCTION alloc._fleet_change_batch_eta(
	of_ref text, eta date,
	OUT orderid text, OUT sku text, OUT qty bigint,
	OUT old_eta date, OUT new_eta date)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	of_sku text := coalesce(alloc_router.sku_of_ref(of_ref, alloc._trace()), alloc._fleet_sku_of_ref(of_ref), of_ref);
BEGIN
	RETURN QUERY SELECT * FROM alloc_router.change_batch_eta(of_sku, of_ref, $2, alloc._trace());
EXCEPTION WHEN SQLSTATE 'SK002' THEN
	of_sku := coalesce(alloc._fleet_sku_of_ref(of_ref), of_ref);
	RETURN QUERY SELECT * FROM alloc_router.change_batch_eta(of_sku, of_ref, $2, alloc._trace());
END
$$;
COMMENT ON FUNCTION alloc._fleet_change_batch_eta(text, date) IS
	'change_batch_eta() of a router';

-- Reads the feed as its caller, and goes on as its owner: nobody who may call it
-- needs a right on what is below.
CREATE FUNCTION alloc._fleet_sync_batches(
	source regclass, dry_run boolean DEFAULT false,
	OUT action text, OUT ref text, OUT sku text,
	OUT old_qty bigint, OUT new_qty bigint, OUT old_eta date, OUT new_eta date)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_fleet_sync_batches'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._fleet_sync_batches(regclass, boolean) IS
	'sync_batches() of a router';

-- First every partition plans; then what is new is put into the directory; then
-- each does what it has planned, in a transaction of its own.
CREATE FUNCTION alloc._sync_fleet(
	refs text[], skus text[], qtys bigint[], etas date[], dry_run boolean,
	OUT action text, OUT ref text, OUT sku text,
	OUT old_qty bigint, OUT new_qty bigint, OUT old_eta date, OUT new_eta date)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
#variable_conflict use_column
DECLARE
	trace text := alloc._trace();
	homes integer[] := (SELECT r.homes FROM alloc.router r);
	everywhere integer[] := alloc._all_homes();
	parts integer[];
	planned record;
BEGIN
	PERFORM alloc._require_refs_once(refs);
	SELECT array_agg(alloc._home(f.sku, homes) ORDER BY f.n)
	  INTO parts FROM unnest(skus) WITH ORDINALITY AS f (sku, n);
	-- Every partition is asked, if only to retire: each has a row of NULLs.
	parts := parts || everywhere;
	refs := refs || array_fill(NULL::text, ARRAY[cardinality(everywhere)]);
	skus := skus || array_fill(NULL::text, ARRAY[cardinality(everywhere)]);
	qtys := qtys || array_fill(NULL::bigint, ARRAY[cardinality(everywhere)]);
	etas := etas || array_fill(NULL::date, ARRAY[cardinality(everywhere)]);
	FOR planned IN
		SELECT * FROM alloc_router.sync_batches(parts, refs, skus, qtys, etas, true, trace)
	LOOP
		IF dry_run THEN
			action := planned.action;
			ref := planned.ref;
			sku := planned.sku;
			old_qty := planned.old_qty;
			new_qty := planned.new_qty;
			old_eta := planned.old_eta;
			new_eta := planned.new_eta;
			RETURN NEXT;
		ELSIF planned.action = 'create' THEN
			PERFORM alloc._fleet_claim_ref(planned.ref, planned.sku);
		END IF;
	END LOOP;
	IF NOT dry_run THEN
		RETURN QUERY SELECT * FROM alloc_router.sync_batches(parts, refs, skus, qtys, etas, false, trace);
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._sync_fleet(text[], text[], bigint[], date[], boolean) IS
	'for routers: sync_batches() of rows, on all partitions';

CREATE FUNCTION alloc._require_refs_once(refs text[])
RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	twice text;
BEGIN
	SELECT u INTO twice FROM unnest(refs) AS u GROUP BY u HAVING count(*) > 1 LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('the feed has batch "%s" more than once', twice),
			HINT = 'Nothing was changed.';
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._require_refs_once(text[]) IS
	'raises an error where a feed says two things of a batch';

CREATE FUNCTION alloc.rebuild_directory()
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc._require_writable('rebuild_directory()');
	PERFORM alloc._require_router();
END
$$;
COMMENT ON FUNCTION alloc.rebuild_directory() IS
	'on a router: makes the directory of the fleet''s batches again from the batches; returns how many there are';

CREATE FUNCTION alloc._fleet_rebuild_directory()
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	homes integer[] := (SELECT r.homes FROM alloc.router r);
	parts integer[];
	refs text[];
	skus text[];
BEGIN
	SELECT array_agg(b.ref ORDER BY b.ref), array_agg(b.sku ORDER BY b.ref),
	       array_agg(alloc._home(b.ref, homes) ORDER BY b.ref)
	  INTO refs, skus, parts
	  FROM alloc_router.batch_refs(alloc._trace()) AS b;
	IF cardinality(refs) > (SELECT count(DISTINCT u) FROM unnest(refs) AS u) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'unique_violation',
			MESSAGE = format('batch "%s" is on more than one partition',
				(SELECT u FROM unnest(refs) AS u GROUP BY u HAVING count(*) > 1 LIMIT 1));
	END IF;
	RETURN coalesce((SELECT sum(n) FROM alloc_router.fill_directory(parts, refs, skus, alloc._trace()) AS n), 0);
END
$$;
COMMENT ON FUNCTION alloc._fleet_rebuild_directory() IS
	'rebuild_directory() of a router';
