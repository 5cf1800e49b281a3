-- Is the state sound, and is it what the log tells?

CREATE FUNCTION alloc.check(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT b.* FROM alloc._wrong_batches() b
	 WHERE alloc._first_base() IS NOT NULL
	UNION ALL
	SELECT l.* FROM alloc._wrong_lines() l
	 WHERE alloc._first_base() IS NOT NULL
	UNION ALL
	SELECT * FROM alloc._wrong_holds()
	UNION ALL
	SELECT w.* FROM alloc._wrong_backorders() w
	 WHERE alloc._first_base() IS NOT NULL
	UNION ALL
	SELECT * FROM alloc._wrong_slots()
	UNION ALL
	SELECT * FROM alloc._unmarked_slots()
	UNION ALL
	SELECT * FROM alloc._wrong_snapshots()
	UNION ALL
	SELECT * FROM alloc._wrong_snapshot_backorders()
	UNION ALL
	SELECT * FROM alloc._wrong_positions()
	UNION ALL
	SELECT * FROM alloc._wrong_sequences()
$$;
COMMENT ON FUNCTION alloc.check() IS
	'what is wrong with the state, or not as the event log tells; no row: it is sound';

-- The parts of it.  Each is one query, so that all of them see one state of
-- the database, whatever goes on; each tells its progress.

CREATE FUNCTION alloc._wrong_batches(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH log AS (
		SELECT * FROM alloc._fold_log(alloc._first_base(), NULL, NULL)),
	state AS (
		SELECT b.batch_id, b.ref, b.sku, b.eta, b.purchased,
		       s.available, s.shipped, heads.ids AS heads,
		       coalesce(l.allocated, 0) AS allocated
		  FROM alloc.batch b
		  LEFT JOIN (
			SELECT batch_id, sum(available) AS available, sum(shipped) AS shipped
			  FROM alloc.slot
			 WHERE alloc._progress('slots read')
			 GROUP BY batch_id) s USING (batch_id)
		  LEFT JOIN (
			SELECT batch_id, array_agg(id) AS ids
			  FROM alloc.slot, unnest(newest || merged) AS id
			 GROUP BY batch_id) heads USING (batch_id)
		  LEFT JOIN (
			SELECT batch_id, sum(qty) AS allocated
			  FROM alloc.allocation
			 WHERE shipped_at IS NULL AND alloc._progress('order lines read')
			 GROUP BY batch_id) l USING (batch_id)),
	suspect AS MATERIALIZED (
		SELECT log.ref AS log_ref, log.sku AS log_sku, log.eta AS log_eta,
		       log.purchased AS log_purchased, log.shipped AS log_shipped,
		       log.available AS log_available, log.created AS log_created,
		       state.*,
		       p.sku IS NULL AS no_product,
		       -- Where all that nothing leads to is in the slots, they lead to
		       -- all.  Else the list is followed: lines that have left may be
		       -- what is missing.
		       CASE WHEN state.allocated > 0 AND state.available IS NOT NULL
		                 AND NOT coalesce(coalesce(cardinality(h.merged), 0) < 100
		                                  AND h.newest || h.merged <@ state.heads, false)
		            THEN alloc._listed_qty(state.batch_id,
				least(state.allocated, 9223372036854775807)::bigint)
				< state.allocated
		            ELSE false END AS unlisted
		  FROM log
		  FULL JOIN state ON state.ref COLLATE "C" = log.ref COLLATE "C"
		  LEFT JOIN alloc.product p ON p.sku COLLATE "C" = coalesce(log.sku, state.sku) COLLATE "C"
		  LEFT JOIN alloc._line_heads(NULL) h
		    ON h.batchref COLLATE "C" = state.ref COLLATE "C"
		 WHERE alloc._progress('batches compared')),
	wrong AS (
		SELECT * FROM suspect
		 WHERE (ref, sku, eta, purchased, available, shipped)
		       IS DISTINCT FROM
		       (log_ref, log_sku, log_eta, log_purchased, log_available, log_shipped)
		    OR purchased IS DISTINCT FROM available + shipped + allocated
		    OR log_available < 0 OR log_created = 0 OR no_product OR unlisted)
	SELECT found.problem, coalesce(log_sku, w.sku), coalesce(log_ref, w.ref),
	       NULL, found.detail
	  FROM wrong w
	 CROSS JOIN LATERAL (VALUES
		('batch_missing', ref IS NULL,
		 format('the log tells of %s units', log_purchased)),
		('batch_unknown', log_ref IS NULL,
		 format('%s units, and the log does not tell of it', purchased)),
		('batch_differs',
		 (w.sku, eta, purchased) IS DISTINCT FROM (log_sku, log_eta, log_purchased),
		 format('sku "%s", eta %s, %s units; by the log sku "%s", eta %s, %s units',
		        w.sku, coalesce(eta::text, 'none'), purchased,
		        log_sku, coalesce(log_eta::text, 'none'), log_purchased)),
		('slot_missing', available IS NULL, 'it has no slot'),
		('stock_differs',
		 available IS NOT NULL AND
		 (available, shipped) IS DISTINCT FROM (log_available, log_shipped),
		 format('%s available, %s shipped; by the log %s and %s',
		        available, shipped, log_available, log_shipped)),
		('not_conserved',
		 purchased IS DISTINCT FROM available + shipped + allocated,
		 format('%s purchased, but %s available, %s allocated and %s shipped',
		        purchased, available, allocated, shipped)),
		('product_missing', no_product,
		 format('there is no product "%s"', coalesce(log_sku, w.sku))),
		('lines_unlisted', unlisted,
		 'the list that begins in its slots does not lead to all of its lines')
	  ) AS found (problem, is_so, detail)
	 WHERE found.is_so
	   AND (w.ref IS NOT NULL
	        OR found.problem IN ('batch_missing', 'product_missing'))
	   AND (w.log_ref IS NOT NULL
	        OR found.problem IN ('batch_unknown', 'not_conserved'))
	UNION ALL
	SELECT 'log_contradicts', log_sku, log_ref, NULL,
	       CASE WHEN log_created = 0
	            THEN 'the log does not tell of its creation'
	            ELSE format('by the log %s units are available', log_available)
	       END
	  FROM suspect
	 WHERE log_available < 0 OR log_created = 0
	UNION ALL
	SELECT 'product_unknown', p.sku, NULL, NULL,
	       'the log does not tell of any batch of this sku'
	  FROM alloc.product p
	 WHERE NOT EXISTS (
		SELECT FROM suspect
		 WHERE suspect.log_sku COLLATE "C" = p.sku COLLATE "C")
$$;
COMMENT ON FUNCTION alloc._wrong_batches() IS
	'part of check(): batches and products';

CREATE FUNCTION alloc._wrong_lines(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH state AS (
		SELECT a.orderid, a.sku, a.qty, a.event_id, a.batch_id, a.expires_at,
		       a.shipped_at, b.ref, b.sku AS batch_sku,
		       count(*) OVER (
				PARTITION BY a.orderid COLLATE "C", a.sku COLLATE "C") AS rows
		  FROM alloc.allocation a
		  LEFT JOIN alloc.batch b USING (batch_id)
		 WHERE alloc._progress('order lines read')),
	wrong AS (
		SELECT s.orderid, s.sku, s.qty, s.event_id, s.batch_id, s.expires_at,
		       s.shipped_at, s.ref, s.batch_sku, s.rows,
		       l.orderid AS log_orderid, l.sku AS log_sku, l.qty AS log_qty,
		       l.event_id AS log_event_id, l.batchref AS log_ref,
		       l.expires_at AS log_expires_at, l.shipped_at AS log_shipped_at
		  FROM state s
		  FULL JOIN alloc._log_lines(alloc._first_base(), NULL, NULL) l
		    ON l.orderid COLLATE "C" = s.orderid COLLATE "C"
		   AND l.sku COLLATE "C" = s.sku COLLATE "C"
		 WHERE CASE WHEN alloc._progress('order lines compared') THEN
		       (s.orderid, s.qty, s.event_id, s.ref, s.expires_at, s.shipped_at,
		        s.batch_sku, s.rows)
		       IS DISTINCT FROM
		       (l.orderid, l.qty, l.event_id, l.batchref, l.expires_at, l.shipped_at,
		        l.sku, 1) END
		   -- a line that was shipped may have been purged
		   AND (s.orderid IS NOT NULL OR l.shipped_at IS NULL))
	SELECT found.problem, coalesce(log_sku, w.sku), coalesce(log_ref, w.ref),
	       coalesce(log_orderid, w.orderid), found.detail
	  FROM wrong w
	 CROSS JOIN LATERAL (VALUES
		('line_missing', w.orderid IS NULL,
		 format('%s units, allocated by event %s', log_qty, log_event_id)),
		('line_unknown', log_orderid IS NULL,
		 format('%s units, and the log does not tell that they are allocated', qty)),
		('line_differs',
		 w.orderid IS NOT NULL AND log_orderid IS NOT NULL AND
		 (qty, event_id, ref, expires_at, shipped_at) IS DISTINCT FROM
		 (log_qty, log_event_id, log_ref, log_expires_at, log_shipped_at),
		 format('%s units of batch "%s" by event %s%s%s; by the log %s of "%s" by event %s%s%s',
		        qty, ref, event_id, ', held until ' || expires_at,
		        CASE WHEN shipped_at IS NOT NULL THEN ', shipped' END,
		        log_qty, log_ref, log_event_id, ', held until ' || log_expires_at,
		        CASE WHEN log_shipped_at IS NOT NULL THEN ', shipped' END)),
		('line_twice', rows > 1, format('%s rows', rows)),
		('line_of_no_batch', w.orderid IS NOT NULL AND w.ref IS NULL,
		 format('there is no batch with batch_id %s', batch_id)),
		('line_of_other_sku', w.batch_sku <> w.sku,
		 format('its batch "%s" is of sku "%s"', ref, batch_sku))
	  ) AS found (problem, is_so, detail)
	 WHERE found.is_so
$$;
COMMENT ON FUNCTION alloc._wrong_lines() IS
	'part of check(): order lines';

CREATE FUNCTION alloc._wrong_holds(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH line AS (
		SELECT a.orderid, a.sku, a.qty, a.batch_id, a.expires_at, b.ref
		  FROM alloc.allocation a
		  LEFT JOIN alloc.batch b USING (batch_id)
		 WHERE a.expires_at IS NOT NULL AND a.shipped_at IS NULL),
	live AS (
		SELECT h.* FROM alloc.hold h WHERE NOT h.ended),
	wrong AS (
		SELECT coalesce(l.orderid, h.orderid) AS orderid,
		       coalesce(l.sku, h.sku) AS sku,
		       coalesce(l.batch_id, h.batch_id) AS batch_id,
		       l.orderid IS NULL AS no_line, h.orderid IS NULL AS no_hold,
		       h.qty, h.expires_at
		  FROM line l
		  FULL JOIN live h
		    ON h.orderid COLLATE "C" = l.orderid COLLATE "C"
		   AND h.sku COLLATE "C" = l.sku COLLATE "C"
		 WHERE (l.orderid, l.qty, l.batch_id, l.expires_at, l.ref) IS DISTINCT FROM
		       (h.orderid, h.qty, h.batch_id, h.expires_at, h.batchref))
	SELECT CASE WHEN w.no_line THEN 'hold_unknown'
	            WHEN w.no_hold THEN 'hold_missing'
	            ELSE 'hold_differs' END,
	       w.sku, b.ref, w.orderid,
	       CASE WHEN w.no_line THEN 'there is no such order line that is held'
	            WHEN w.no_hold THEN 'the order line says that it is held'
	            ELSE format('%s units until %s, other than the order line', w.qty, w.expires_at)
	       END
	  FROM wrong w
	  LEFT JOIN alloc.batch b USING (batch_id)
	UNION ALL
	SELECT 'hold_uncovered', b.sku, b.ref, NULL,
	       format('a hold ends at %s, and its slots say %s', h.expires_at,
	              coalesce(s.hold_until::text, 'never'))
	  FROM (
		SELECT batch_id, min(expires_at) AS expires_at FROM live GROUP BY batch_id) h
	  JOIN alloc.batch b USING (batch_id)
	 CROSS JOIN LATERAL (
		SELECT min(slot.hold_until) AS hold_until FROM alloc.slot
		 WHERE slot.batch_id = h.batch_id) s
	 WHERE s.hold_until IS NULL OR s.hold_until > h.expires_at
$$;
COMMENT ON FUNCTION alloc._wrong_holds() IS
	'part of check(): order lines that are held';

CREATE FUNCTION alloc._wrong_slots(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH wrong AS (
		SELECT s.*, b.ref AS batch_ref, b.sku AS batch_sku, b.eta AS batch_eta,
		       EXISTS (
				SELECT FROM alloc.slot t
				 WHERE t.batch_id = s.batch_id AND t.slot <> s.slot) AS has_others
		  FROM alloc.slot s
		  LEFT JOIN alloc.batch b USING (batch_id)
		 WHERE alloc._progress('slots read')
		   AND ((s.ref, s.sku, s.eta) IS DISTINCT FROM (b.ref, b.sku, b.eta)
		        OR s.available < 0 OR s.shipped < 0
		        OR s.exhausted <> (s.available = 0 AND s.hold_until IS NULL)
		        OR NOT s.spread AND EXISTS (
				SELECT FROM alloc.slot t
				 WHERE t.batch_id = s.batch_id AND t.slot <> s.slot)))
	SELECT found.problem, coalesce(w.batch_sku, w.sku),
	       coalesce(w.batch_ref, w.ref), NULL,
	       format('slot %s: %s', w.slot, found.detail)
	  FROM wrong w
	 CROSS JOIN LATERAL (VALUES
		('slot_of_no_batch', w.batch_ref IS NULL,
		 format('there is no batch with batch_id %s', w.batch_id)),
		('slot_differs',
		 w.batch_ref IS NOT NULL AND
		 (w.ref, w.sku, w.eta) IS DISTINCT FROM
		 (w.batch_ref, w.batch_sku, w.batch_eta),
		 format('ref "%s", sku "%s", eta %s', w.ref, w.sku,
		        coalesce(w.eta::text, 'none'))),
		('slot_negative', w.available < 0 OR w.shipped < 0,
		 format('%s available, %s shipped', w.available, w.shipped)),
		('slot_differs', w.exhausted <> (w.available = 0 AND w.hold_until IS NULL),
		 format('exhausted is %s with %s available, and holds until %s', w.exhausted,
		        w.available, coalesce(w.hold_until::text, 'never'))),
		('slot_differs', w.has_others AND NOT w.spread,
		 'spread is false, though the batch has several slots')
	  ) AS found (problem, is_so, detail)
	 WHERE found.is_so
$$;
COMMENT ON FUNCTION alloc._wrong_slots() IS
	'part of check(): the rows of stock';

CREATE FUNCTION alloc._wrong_snapshots(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH newest AS (
		SELECT s.event_id FROM alloc.snapshot s
		 WHERE s.event_id = alloc._newest_snapshot()
		   AND s.event_id > alloc._first_base()),
	log AS (
		SELECT f.* FROM newest,
		       alloc._fold_log(alloc._first_base(), newest.event_id, NULL) f),
	state AS (
		SELECT b.* FROM newest
		  JOIN alloc.snapshot_batch b ON b.snapshot = newest.event_id),
	lines AS (
		SELECT l.* FROM newest,
		       alloc._log_lines(alloc._first_base(), newest.event_id, NULL) l),
	kept AS (
		SELECT l.* FROM newest
		  JOIN alloc.snapshot_line l ON l.snapshot = newest.event_id)
	SELECT 'snapshot_differs', coalesce(log.sku, state.sku),
	       coalesce(log.ref, state.ref), NULL,
	       format('snapshot %s: its batch is not as the log tells',
	              (SELECT event_id FROM newest))
	  FROM log
	  FULL JOIN state ON state.ref COLLATE "C" = log.ref COLLATE "C"
	 WHERE (log.sku, log.eta, log.purchased, log.shipped, log.allocated, log.created)
	       IS DISTINCT FROM
	       (state.sku, state.eta, state.purchased, state.shipped,
	        state.allocated, state.created)
	UNION ALL
	SELECT 'snapshot_differs', coalesce(lines.sku, kept.sku),
	       coalesce(lines.batchref, kept.batchref),
	       coalesce(lines.orderid, kept.orderid),
	       format('snapshot %s: its order line is not as the log tells',
	              (SELECT event_id FROM newest))
	  FROM lines
	  FULL JOIN kept
	    ON kept.orderid COLLATE "C" = lines.orderid COLLATE "C"
	   AND kept.sku COLLATE "C" = lines.sku COLLATE "C"
	 WHERE (lines.qty, lines.event_id, lines.batchref, lines.expires_at, lines.shipped_at)
	       IS DISTINCT FROM
	       (kept.qty, kept.event_id, kept.batchref, kept.expires_at, kept.shipped_at)
	   AND (kept.orderid IS NOT NULL OR lines.shipped_at IS NULL)
	UNION ALL
	-- Where the log is gone, the snapshot's parts can still be compared.
	SELECT 'snapshot_differs', b.sku, b.ref, NULL,
	       format('snapshot %s: its batch has %s units allocated, its order lines have %s',
	              b.snapshot, b.allocated, coalesce(l.qty, 0))
	  FROM alloc.snapshot_batch b
	  LEFT JOIN (
		SELECT snapshot, sku, batchref, sum(qty) AS qty
		  FROM alloc.snapshot_line
		 WHERE shipped_at IS NULL
		 GROUP BY snapshot, sku, batchref) l
	    ON (l.snapshot, l.sku, l.batchref) = (b.snapshot, b.sku, b.ref)
	 WHERE b.snapshot = alloc._newest_snapshot()
	   AND b.snapshot = alloc._first_base()
	   AND coalesce(l.qty, 0) <> b.allocated
	UNION ALL
	SELECT 'snapshot_missing', NULL, NULL, NULL,
	       format('events up to %s were archived, and no snapshot has them',
	              alloc._archived_to())
	 WHERE alloc._first_base() IS NULL
$$;
COMMENT ON FUNCTION alloc._wrong_snapshots() IS
	'part of check(): the newest snapshot of the log, if the log still has what it is of';

-- Transactions of an era before this one compare as older, whatever their ids.
CREATE FUNCTION alloc._wrong_positions(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH now AS (
		SELECT ((SELECT count(*) FROM alloc.era) << 48)
		       + pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax,
		       (SELECT last_value - (NOT is_called)::integer
		          FROM alloc.event_id_seq) AS last_event_id),
	readers AS (
		SELECT coalesce(c.kind || ' "' || c.name || '"',
		                'position ' || p.consumer_id) AS reader,
		       c.consumer_id IS NULL AS no_reader,
		       p.consumer_id IS NULL AS no_position,
		       p.*
		  FROM alloc.consumer c
		  FULL JOIN alloc.position p USING (consumer_id))
	SELECT found.problem, NULL, NULL, NULL, format('%s: %s', reader, found.detail)
	  FROM readers r
	 CROSS JOIN now
	 CROSS JOIN LATERAL (VALUES
		('position_missing', no_position, 'it has no position'),
		('position_of_no_reader', no_reader, 'there is no such reader'),
		('position_unsound', r.seen_xmax > now.xmax OR r.upto_xmax > now.xmax,
		 'it has seen transactions that have not begun'),
		('position_unsound', r.upto_xmax < r.seen_xmax,
		 'its batch ends before it begins'),
		('position_unsound',
		 (SELECT bool_or(x >= r.seen_xmax) FROM unnest(r.seen_open) AS x)
		 OR (SELECT bool_or(x >= r.upto_xmax) FROM unnest(r.upto_open) AS x),
		 'transactions count as open that it has not seen at all'),
		('position_unsound',
		 r.seen_open IS DISTINCT FROM ARRAY(
			SELECT x FROM unnest(r.seen_open) AS x ORDER BY x)
		 OR r.upto_open IS DISTINCT FROM CASE WHEN r.upto_open IS NOT NULL THEN ARRAY(
			SELECT x FROM unnest(r.upto_open) AS x ORDER BY x) END,
		 'its open transactions are not in order'),
		('position_unsound',
		 (r.upto_xmax IS NULL) <> (r.upto_open IS NULL)
		 OR (r.upto_xmax IS NULL) <> (r.given_to IS NULL)
		 OR (r.upto_xmax IS NULL) <> (r.batch_end IS NULL),
		 'half of a batch is missing'),
		('position_unsound',
		 greatest(r.last_event_id, r.batch_end, r.given_to, r.marks[2])
		 > now.last_event_id,
		 format('it is beyond the last event, %s', now.last_event_id)),
		('position_unsound',
		 cardinality(r.marks) < 2 OR cardinality(r.marks) % 2 <> 0,
		 'its marks are not pairs')
	  ) AS found (problem, is_so, detail)
	 WHERE found.is_so
	   AND (found.problem = 'position_missing' OR NOT r.no_position)
	UNION ALL
	SELECT 'position_missing', NULL, NULL, NULL,
	       format('handler %s of %s: it has no position', s.handler, s.event_type)
	  FROM alloc.subscription s
	 WHERE s.mode = 'async'
	   AND NOT EXISTS (
		SELECT FROM alloc.consumer c
		 WHERE c.kind = 'handler' AND c.name = s.subscription_id::text)
$$;
COMMENT ON FUNCTION alloc._wrong_positions() IS
	'part of check(): how far consumers, handlers and the relay have come';

CREATE FUNCTION alloc._wrong_sequences(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'sequence_behind', NULL, NULL, NULL,
	       format('%s has given %s, and %s is in use', s.name, s.given, s.used)
	  FROM (
		SELECT 'event_id_seq',
		       last_value - (NOT is_called)::integer,
		       alloc._last_event_id()
		  FROM alloc.event_id_seq
		UNION ALL
		SELECT 'batch_id_seq',
		       last_value - (NOT is_called)::integer,
		       (SELECT max(batch_id) FROM alloc.batch)
		  FROM alloc.batch_id_seq) AS s (name, given, used)
	 WHERE s.used > s.given
$$;
COMMENT ON FUNCTION alloc._wrong_sequences() IS
	'part of check(): numbers that would be given twice';

CREATE FUNCTION alloc._last_event_id()
RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT greatest((SELECT max(e.event_id) FROM alloc.event e),
	                alloc._archived_to(), alloc._newest_snapshot());
END;
COMMENT ON FUNCTION alloc._last_event_id() IS
	'the last event of the log, in it or moved out of it';
