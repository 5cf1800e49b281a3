-- A fleet: databases that share the skus between them.  What is here is inside
-- of one of them: which share it serves.

CREATE FUNCTION alloc.partition_of(sku text)
RETURNS integer
AS 'MODULE_PATHNAME', 'alloc_partition_of'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION alloc.partition_of(text) IS
	'31 bits of a hash of the sku, the one of PARTITION BY HASH (sku); of n partitions, a power of two, number partition_of(sku) & (n - 1) serves it';

-- No row: all skus are served.  Number -1: none yet, it is being filled; -2: none,
-- it is a router.
CREATE TABLE alloc.partition (
	number integer NOT NULL,
	count  integer NOT NULL
		CONSTRAINT partition_count_power_of_two
			CHECK (count BETWEEN 1 AND 65536 AND count & (count - 1) = 0),
	CONSTRAINT partition_number_below_count
		CHECK (number >= 0 AND number < count OR number IN (-1, -2) AND count > 1)
) USING heap;
CREATE UNIQUE INDEX partition_only_one ON alloc.partition ((true));
-- It has no key; but a publication of all tables must not forbid to change it.
ALTER TABLE alloc.partition REPLICA IDENTITY FULL;
COMMENT ON TABLE alloc.partition IS
	'which share of the skus this database serves, if not all: those with partition_of(sku) & (count - 1) = number; one row at most';

SELECT pg_catalog.pg_extension_config_dump('alloc.partition', '');

CREATE FUNCTION alloc.set_partition(number integer, count integer)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF (set_partition.number IS NULL) <> (set_partition.count IS NULL) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = format('%s must not be null',
			                 CASE WHEN set_partition.number IS NULL THEN 'number' ELSE 'count' END),
			HINT = 'With both null every sku is served.';
	END IF;
	IF set_partition.count NOT BETWEEN 1 AND 65536
	   OR set_partition.count & (set_partition.count - 1) <> 0 THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('count must be a power of two from 1 to 65536: %s',
			                 set_partition.count);
	END IF;
	IF set_partition.number NOT BETWEEN 0 AND set_partition.count - 1 THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('number must be from 0 to %s: %s',
			                 set_partition.count - 1, set_partition.number);
	END IF;
	PERFORM alloc._require_writable('set_partition()');
	PERFORM alloc._require_read_committed('set_partition()');
	-- One at a time, and not while drop_moved() is at work; then, with nothing
	-- that a command could wait for, all commands: they lock slots first.
	LOCK TABLE alloc.partition IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE alloc.slot IN SHARE ROW EXCLUSIVE MODE;
	PERFORM alloc._require_no_router();
	DELETE FROM alloc.partition;
	IF set_partition.count IS NOT NULL THEN
		INSERT INTO alloc.partition (number, count)
		VALUES (set_partition.number, set_partition.count);
	END IF;
END
$$;
COMMENT ON FUNCTION alloc.set_partition(integer, integer) IS
	'makes this database partition number (from 0) of count, a power of two, or with NULL and NULL one that serves every sku; waits for transactions with commands, and who comes later is held to it';

-- A database that takes skus over is filled by logical replication, as
-- doc/scale.md shows: prepare_partition() comes before, settle_partition() after.
-- Until then it serves nothing: no command, and no relay that ends holds, is to
-- write between what is copied.  What comes from elsewhere is of an era before,
-- so that the relay and consumers here take it for old.

CREATE FUNCTION alloc.prepare_partition(era bigint)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF prepare_partition.era IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'era must not be null',
			HINT = 'It is SELECT count(*) FROM alloc.era where the skus are now.';
	END IF;
	IF prepare_partition.era NOT BETWEEN 1 AND 30000 THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('era must be from 1 to 30000: %s', prepare_partition.era);
	END IF;
	PERFORM alloc._require_writable('prepare_partition()');
	PERFORM alloc._require_read_committed('prepare_partition()');
	LOCK TABLE alloc.partition IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE alloc.slot IN SHARE ROW EXCLUSIVE MODE;
	PERFORM alloc._require_no_router();
	IF EXISTS (SELECT FROM alloc.product) OR EXISTS (SELECT FROM alloc.event) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database has stock of its own',
			HINT = 'Fill an empty one.';
	END IF;
	DELETE FROM alloc.partition;
	INSERT INTO alloc.partition (number, count) VALUES (-1, 65536);
	PERFORM alloc._begin_era(prepare_partition.era);
END
$$;
COMMENT ON FUNCTION alloc.prepare_partition(bigint) IS
	'makes an empty database one that serves no sku until settle_partition(), because it is filled from another partition; era: how many rows table era has there';

CREATE FUNCTION alloc.settle_partition(number integer, count integer)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	subscriber text;
BEGIN
	IF settle_partition.number IS NULL OR settle_partition.count IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = format('%s must not be null',
			                 CASE WHEN settle_partition.number IS NULL THEN 'number' ELSE 'count' END);
	END IF;
	PERFORM alloc._require_writable('settle_partition()');
	PERFORM alloc._require_read_committed('settle_partition()');
	LOCK TABLE alloc.partition IN SHARE ROW EXCLUSIVE MODE;
	IF NOT EXISTS (SELECT FROM alloc.partition p WHERE p.number = -1) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database is not being filled',
			HINT = 'prepare_partition() comes first; set_partition() is for one that has its skus.';
	END IF;
	SELECT s.subname INTO subscriber
	  FROM pg_subscription s
	  JOIN pg_subscription_rel r ON r.srsubid = s.oid
	  JOIN pg_class c ON c.oid = r.srrelid
	 WHERE c.relnamespace = 'alloc'::regnamespace
	   AND s.subdbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
	 LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('subscription "%s" still fills this database', subscriber),
			HINT = 'Drop it when it has all that was there when the skus were taken away.';
	END IF;
	PERFORM alloc.set_partition(settle_partition.number, settle_partition.count);
	-- The newest event is of the last era of those that were copied.
	PERFORM alloc._begin_era((SELECT e.xact >> 48 FROM alloc.event e
	                           ORDER BY e.event_id DESC LIMIT 1));
	PERFORM alloc._mend_sequences(false);
	-- Attempts of here are other ones than those of there.
	PERFORM setval('alloc.fleet_attempt_seq', greatest(s.last_value, (SELECT count(*) FROM alloc.era) << 40))
	   FROM alloc.fleet_attempt_seq s;
END
$$;
COMMENT ON FUNCTION alloc.settle_partition(integer, integer) IS
	'the database that prepare_partition() prepared has been filled, and from now on serves the skus of partition number (from 0) of count';

-- An event that a reader has still to be given stays, and with it all there is
-- of its sku, so that the log goes on telling what the tables have.
--
-- Each call reads log and order lines once, whatever it forgets: hence the
-- collations, with which no index on a sku fits.
CREATE FUNCTION alloc.drop_moved(max_skus integer DEFAULT 1000)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	first_unread bigint;
	gone text[];
BEGIN
	IF drop_moved.max_skus IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'max_skus must not be null';
	END IF;
	IF drop_moved.max_skus < 1 THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('max_skus must be at least 1: %s', drop_moved.max_skus);
	END IF;
	PERFORM alloc._require_writable('drop_moved()');
	PERFORM alloc._require_read_committed('drop_moved()');
	-- What is served stays as it is, nobody takes a snapshot of the log or
	-- begins to read it; then slots first, as commands do.
	LOCK TABLE alloc.partition IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE alloc.snapshot IN SHARE UPDATE EXCLUSIVE MODE;
	LOCK TABLE alloc.slot IN ROW EXCLUSIVE MODE;
	IF NOT EXISTS (SELECT FROM alloc.partition p WHERE p.number >= 0) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database is not a partition',
			DETAIL = CASE (SELECT p.number FROM alloc.partition p)
			         WHEN -1 THEN 'It is being filled.' WHEN -2 THEN 'It is a router.'
			         ELSE 'It serves every sku.' END,
			HINT = 'set_partition() says which of them it is to serve.';
	END IF;
	DELETE FROM alloc.directory d WHERE NOT alloc._serves(d.ref);
	DELETE FROM alloc.fleet_order o WHERE NOT alloc._serves(o.orderid);
	first_unread := alloc._first_unread();
	gone := ARRAY(
		SELECT p.sku COLLATE "C" FROM alloc.product p
		 WHERE NOT alloc._serves(p.sku)
		EXCEPT (
		SELECT e.sku FROM alloc.event e
		 WHERE e.event_id >= first_unread
		 UNION ALL
		SELECT e.sku FROM alloc.delivery d
		  JOIN alloc.event e USING (event_id))
		LIMIT max_skus);
	IF gone = '{}' THEN
		RETURN 0;
	END IF;
	DELETE FROM alloc.slot s USING alloc.batch b
	 WHERE s.batch_id = b.batch_id AND b.sku IN (SELECT unnest(gone));
	DELETE FROM alloc.batch b WHERE b.sku IN (SELECT unnest(gone));
	DELETE FROM alloc.product p WHERE p.sku IN (SELECT unnest(gone));
	DELETE FROM alloc.backorder w WHERE w.sku IN (SELECT unnest(gone));
	DELETE FROM alloc.allocation a
	 WHERE a.sku COLLATE "C" IN (SELECT unnest(gone));
	DELETE FROM alloc.hold h
	 WHERE h.sku COLLATE "C" IN (SELECT unnest(gone));
	DELETE FROM alloc.event e
	 WHERE e.sku COLLATE "C" IN (SELECT unnest(gone));
	DELETE FROM alloc.snapshot_batch b
	 WHERE b.sku COLLATE "C" IN (SELECT unnest(gone));
	DELETE FROM alloc.snapshot_line l
	 WHERE l.sku COLLATE "C" IN (SELECT unnest(gone));
	DELETE FROM alloc.snapshot_backorder w
	 WHERE w.sku COLLATE "C" IN (SELECT unnest(gone));
	RETURN cardinality(gone);
END
$$;
COMMENT ON FUNCTION alloc.drop_moved(integer) IS
	'forgets skus that this partition does not serve, up to max_skus of them, with all there is of each; returns how many; 0: none is left, but for those of which a reader has still to be given events';

-- What follows is for these functions.

CREATE FUNCTION alloc._require_no_router()
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM alloc.router) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'this database is a router',
			HINT = 'Call drop_router() first.';
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._require_no_router() IS
	'raises an error in a router, which is no partition';

CREATE FUNCTION alloc._partition_changed()
RETURNS trigger
AS 'MODULE_PATHNAME', 'alloc_partition_changed'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._partition_changed() IS
	'trigger of table partition: tells all sessions that it has changed';
CREATE TRIGGER partition_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON alloc.partition
	FOR EACH STATEMENT EXECUTE FUNCTION alloc._partition_changed();
