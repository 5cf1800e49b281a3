-- The log as a whole: state folded from it, and the story it tells.
--
-- replay() reads the tables directly, and checks nothing but EXECUTE.  The
-- others run as the extension's owner, because the tables are closed to all
-- others; they do nothing but what their comment says.

CREATE FUNCTION alloc.replay(
	sku text DEFAULT NULL, upto bigint DEFAULT NULL,
	OUT ref text, OUT sku text, OUT eta date, OUT purchased_qty bigint,
	OUT shipped_qty bigint, OUT allocated_qty bigint, OUT available_qty bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_replay'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc.replay(text, bigint) IS
	'the batches, of one sku or of all, as they were after an event, or as they are; computed from the event log alone';

CREATE FUNCTION alloc.history(sku text)
RETURNS SETOF alloc.events
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	PERFORM alloc._require_key(history.sku, 'sku');
	RETURN QUERY
		SELECT e.* FROM alloc.events e
		 WHERE e.sku = history.sku
		 ORDER BY e.event_id;
END
$$;
COMMENT ON FUNCTION alloc.history(text) IS
	'the events of a sku, in order';

CREATE FUNCTION alloc.history_of_order(orderid text)
RETURNS SETOF alloc.events
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	PERFORM alloc._require_key(history_of_order.orderid, 'orderid');
	RETURN QUERY
		SELECT e.* FROM alloc.events e
		 WHERE e.orderid = history_of_order.orderid
		 ORDER BY e.event_id;
END
$$;
COMMENT ON FUNCTION alloc.history_of_order(text) IS
	'the events of an order, in order';

-- What follows is for the functions of this and the next parts.  A name that
-- begins with _ is nobody else's business.

CREATE FUNCTION alloc._require_key(key text, name text)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_require_key'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION alloc._require_key(text, text) IS
	'raises the error that a bad key is';

CREATE FUNCTION alloc._progress(what text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'alloc_progress'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc._progress(text) IS
	'true, and in a long query a NOTICE from time to time';

CREATE FUNCTION alloc._fold_log(
	base bigint, upto bigint, sku text,
	OUT ref text, OUT sku text, OUT eta date, OUT purchased bigint,
	OUT shipped bigint, OUT allocated bigint, OUT available bigint,
	OUT created bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_fold_log'
LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc._fold_log(bigint, bigint, text) IS
	'replay() from a snapshot, or from 0, the beginning; with the event that created each batch';

CREATE FUNCTION alloc._archived_to()
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT coalesce(max(a.event_id), 0) FROM alloc.archive a;
END;
COMMENT ON FUNCTION alloc._archived_to() IS
	'the last event that was moved out of the log; 0: none was';

-- So that snapshots are not only believed but also seen to be right.
CREATE FUNCTION alloc._first_base()
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE WHEN alloc._archived_to() = 0 THEN 0
	            ELSE (SELECT min(s.event_id) FROM alloc.snapshot s
	                   WHERE s.event_id >= alloc._archived_to()) END;
END;
COMMENT ON FUNCTION alloc._first_base() IS
	'from where most of the log can be folded: 0, or the first snapshot that has what was archived';

CREATE FUNCTION alloc._newest_snapshot()
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT coalesce(max(s.event_id), 0) FROM alloc.snapshot s;
END;
COMMENT ON FUNCTION alloc._newest_snapshot() IS
	'the event of the newest snapshot; 0: there is none';

-- A hold that was extended or confirmed goes on being the line that the event
-- before it allocated.
CREATE FUNCTION alloc._log_lines(base bigint, upto bigint, only_sku text)
RETURNS TABLE (
	orderid text, sku text, event_id bigint, qty bigint, batchref text,
	expires_at timestamptz, shipped_at timestamptz)
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT l.orderid, l.sku, l.event_id, l.qty, l.batchref, l.expires_at, l.shipped_at
	  FROM (
		SELECT DISTINCT ON (f.orderid COLLATE "C", f.sku COLLATE "C") f.*
		  FROM (
			SELECT s.orderid, s.sku, s.event_id, s.event_id AS told_by, s.qty,
			       s.batchref, s.expires_at, s.shipped_at, 'allocated' AS type
			  FROM alloc.snapshot_line s
			 WHERE s.snapshot = base
			   AND (only_sku IS NULL OR s.sku = only_sku)
			 UNION ALL
			SELECT e.orderid, e.sku,
			       CASE WHEN e.type = 'confirmed' OR e.type = 'held' AND e.old_qty IS NOT NULL
			            THEN e.previous ELSE e.event_id END,
			       e.event_id, e.qty, e.batchref, e.expires_at,
			       CASE WHEN e.type = 'shipped' THEN e.at END, e.type
			  FROM alloc.event e
			 WHERE e.event_id > base
			   AND (upto IS NULL OR e.event_id <= upto)
			   AND (only_sku IS NULL OR e.sku = only_sku)
			   AND e.batchref IS NOT NULL
			   AND e.type IN ('allocated', 'deallocated', 'held', 'hold_released',
			                  'hold_expired', 'confirmed', 'shipped')
			   AND alloc._progress('events of order lines read')) f
		 ORDER BY f.orderid COLLATE "C", f.sku COLLATE "C", f.told_by DESC) l
	 WHERE l.type NOT IN ('deallocated', 'hold_released', 'hold_expired');
END;
COMMENT ON FUNCTION alloc._log_lines(bigint, bigint, text) IS
	'the order lines that are served or held, or were shipped, by the log: of a sku or of all, from a snapshot or from 0, up to an event or to the end';

-- Each event that allocated a line is in here, or another one of its batch
-- leads to it.  For all that were archived the newest one will do: from there
-- the list goes on in the snapshot.
CREATE FUNCTION alloc._line_heads(only_sku text)
RETURNS TABLE (sku text, batchref text, newest bigint, merged bigint[])
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT min(h.sku COLLATE "C"), h.batchref, max(h.event_id),
	       nullif((array_agg(h.event_id ORDER BY h.event_id DESC))[2:], '{}')
	  FROM (
		SELECT e.sku, e.batchref, e.event_id
		  FROM alloc.event e
		 WHERE (e.type = 'allocated' OR e.type = 'held' AND e.old_qty IS NULL)
		   AND (only_sku IS NULL OR e.sku = only_sku)
		   AND NOT EXISTS (
			SELECT FROM alloc.event f
			 WHERE f.previous = e.event_id
			   AND (f.type = 'allocated' OR f.type = 'held' AND f.old_qty IS NULL)
			   AND (only_sku IS NULL OR f.sku = only_sku))
		   AND NOT EXISTS (
			SELECT FROM alloc.event f, unnest(f.merged) AS m
			 WHERE m = e.event_id
			   AND (only_sku IS NULL OR f.sku = only_sku))
		 UNION ALL
		SELECT s.sku, s.batchref, max(s.event_id)
		  FROM alloc.snapshot_line s
		 WHERE s.snapshot = alloc._newest_snapshot()
		   AND s.event_id <= alloc._archived_to()
		   AND (only_sku IS NULL OR s.sku = only_sku)
		 GROUP BY s.sku, s.batchref) h
	 GROUP BY h.batchref;
END;
COMMENT ON FUNCTION alloc._line_heads(text) IS
	'where the list of each batch''s lines can begin, by the log: columns newest and merged of table slot';

CREATE FUNCTION alloc._listed_qty(batch_id bigint, enough bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_listed_qty'
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc._listed_qty(bigint, bigint) IS
	'units of the lines to which the list of a batch''s lines leads, as far as is enough';
