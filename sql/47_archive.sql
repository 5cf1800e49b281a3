-- Keeping the log short.

CREATE FUNCTION alloc.snapshot_log()
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	base bigint;
	upto bigint;
BEGIN
	PERFORM alloc._require_writable('snapshot_log()');
	PERFORM alloc._require_read_committed('snapshot_log()');
	-- One at a time.  Commands look for lines in snapshots: no lock of theirs
	-- may wait for this one, which is about to wait for them.
	LOCK TABLE alloc.snapshot IN SHARE UPDATE EXCLUSIVE MODE;
	base := alloc._newest_snapshot();
	upto := alloc._settle_log();
	IF upto > base THEN
		INSERT INTO alloc.snapshot (event_id, taken_at) VALUES (upto, now());
		INSERT INTO alloc.snapshot_batch
			(snapshot, created, purchased, shipped, allocated, eta, ref, sku)
		SELECT upto, f.created, f.purchased, f.shipped, f.allocated, f.eta, f.ref, f.sku
		  FROM alloc._fold_log(base, upto, NULL) f;
		INSERT INTO alloc.snapshot_line
			(snapshot, event_id, qty, expires_at, shipped_at, sku, batchref, orderid)
		SELECT upto, l.event_id, l.qty, l.expires_at, l.shipped_at, l.sku, l.batchref, l.orderid
		  FROM alloc._log_lines(base, upto, NULL) l
		 WHERE l.shipped_at IS NULL OR EXISTS (
			SELECT FROM alloc.allocation a
			 WHERE a.orderid = l.orderid AND a.sku = l.sku);
		INSERT INTO alloc.snapshot_backorder
			(snapshot, event_id, qty, since, sku, orderid)
		SELECT upto, l.event_id, l.qty, l.since, l.sku, l.orderid
		  FROM alloc._log_backorders(base, upto, NULL) l;
	END IF;
	RETURN greatest(base, upto);
END
$$;
COMMENT ON FUNCTION alloc.snapshot_log() IS
	'records what the log tells up to now, for replay() to begin with; returns the last event that is in it';

CREATE FUNCTION alloc.archive_events(before timestamptz)
RETURNS SETOF alloc.events
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	upto bigint;
BEGIN
	IF archive_events.before IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'before must not be null';
	END IF;
	PERFORM alloc._require_writable('archive_events()');
	PERFORM alloc._require_read_committed('archive_events()');
	-- create_consumer() takes this lock as well: nobody may begin with what is
	-- about to go.
	LOCK TABLE alloc.snapshot IN SHARE UPDATE EXCLUSIVE MODE;
	upto := alloc._archivable_to(before);
	IF alloc._newest_snapshot() = 0 THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'there is no snapshot of the log',
			HINT = 'Take one with snapshot_log(): replay() will begin with it.';
	END IF;
	IF upto <= alloc._archived_to() THEN
		RETURN;
	END IF;
	INSERT INTO alloc.archive (event_id, moved_at) VALUES (upto, now());
	DELETE FROM alloc.snapshot_line WHERE snapshot < upto;
	DELETE FROM alloc.snapshot_backorder WHERE snapshot < upto;
	DELETE FROM alloc.snapshot_batch WHERE snapshot < upto;
	DELETE FROM alloc.snapshot WHERE event_id < upto;
	RETURN QUERY
		WITH moved AS (
			DELETE FROM alloc.event e WHERE e.event_id <= upto
			RETURNING e.event_id, e.at, e.type, e.sku, e.orderid, e.batchref,
			          e.qty, alloc.event_payload(e) AS payload)
		SELECT * FROM moved m ORDER BY m.event_id;
END
$$;
COMMENT ON FUNCTION alloc.archive_events(timestamptz) IS
	'takes events of before that moment out of the log and returns them, to be put elsewhere: those that a snapshot has and every reader has had';

-- What follows is for these functions.

CREATE FUNCTION alloc._settle_log()
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_settle_log'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._settle_log() IS
	'waits until no event up to the last one can come any more, and returns that one';

-- The log is cut before the first event that has to stay.  A replay needs
-- those after the snapshot, readers those they have not had, handlers those
-- they failed on.
CREATE FUNCTION alloc._archivable_to(before timestamptz)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT least(
		alloc._newest_snapshot(),
		(SELECT e.event_id FROM alloc.event e
		  WHERE e.at >= before ORDER BY e.event_id LIMIT 1) - 1,
		alloc._first_unread() - 1,
		(SELECT min(d.event_id) FROM alloc.delivery d) - 1)
$$;
COMMENT ON FUNCTION alloc._archivable_to(timestamptz) IS
	'the last event that can be moved out of the log with all before it';

-- Handlers read only events of their type; the relay those it was told to send,
-- even if it never ran, or does so no more.
CREATE FUNCTION alloc._first_unread()
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT least(
		(SELECT min(unread.event_id)
		   FROM alloc.position p
		   JOIN alloc.consumer c USING (consumer_id)
		   LEFT JOIN alloc.subscription s
		     ON c.kind = 'handler' AND s.subscription_id::text = c.name
		  CROSS JOIN LATERAL (
			SELECT e.event_id FROM alloc.event e
			 WHERE e.event_id > p.marks[2]
			   AND (s.event_type IS NULL OR e.type = s.event_type)
			   AND (e.relay OR c.kind <> 'relay')
			   AND NOT alloc.was_given(p.seen_xmax, p.seen_open, p.upto_xmax,
			                           p.upto_open, p.given_to, e.event_id, e.xact)
			 ORDER BY e.event_id LIMIT 1) unread),
		(SELECT e.event_id FROM alloc.event e
		  WHERE e.relay AND e.xact >> 48 >= (SELECT count(*) FROM alloc.era)
		    AND NOT EXISTS (SELECT FROM alloc.position p WHERE p.consumer_id = 0)
		  ORDER BY e.event_id LIMIT 1))
$$;
COMMENT ON FUNCTION alloc._first_unread() IS
	'the first event that a reader has still to be given; NULL: there is none';
