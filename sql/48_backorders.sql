-- Order lines that wait for stock: what the log tells of them, what check()
-- compares, and what repair() mends.

CREATE FUNCTION alloc._log_backorders(base bigint, upto bigint, only_sku text)
RETURNS TABLE (orderid text, sku text, event_id bigint, qty bigint, since timestamptz)
LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
	SELECT l.orderid, l.sku, l.event_id, l.qty, l.at
	  FROM (
		SELECT DISTINCT ON (f.orderid COLLATE "C", f.sku COLLATE "C") f.*
		  FROM (
			SELECT s.orderid, s.sku, s.event_id, s.qty, s.since AS at,
			       'backordered' AS type
			  FROM alloc.snapshot_backorder s
			 WHERE s.snapshot = base
			   AND (only_sku IS NULL OR s.sku = only_sku)
			 UNION ALL
			SELECT e.orderid, e.sku, e.event_id, e.qty, e.at, e.type
			  FROM alloc.event e
			 WHERE e.event_id > base
			   AND (upto IS NULL OR e.event_id <= upto)
			   AND (only_sku IS NULL OR e.sku = only_sku)
			   AND e.type IN ('backordered', 'allocated', 'held', 'deallocated')
			   AND alloc._progress('events of waiting lines read')) f
		 ORDER BY f.orderid COLLATE "C", f.sku COLLATE "C", f.event_id DESC) l
	 WHERE l.type = 'backordered';
END;
COMMENT ON FUNCTION alloc._log_backorders(bigint, bigint, text) IS
	'the order lines that wait for stock, by the log: of a sku or of all, from a snapshot or from 0, up to an event or to the end';

CREATE FUNCTION alloc._wrong_backorders(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN w.orderid IS NULL THEN 'backorder_missing'
	            WHEN l.orderid IS NULL THEN 'backorder_unknown'
	            ELSE 'backorder_differs' END,
	       coalesce(l.sku, w.sku), NULL, coalesce(l.orderid, w.orderid),
	       CASE WHEN w.orderid IS NULL
	            THEN format('%s units wait since event %s', l.qty, l.event_id)
	            WHEN l.orderid IS NULL
	            THEN format('%s units, and the log does not tell that they wait', w.qty)
	            ELSE format('%s units since event %s at %s; by the log %s since event %s at %s',
	                        w.qty, w.event_id, w.since, l.qty, l.event_id, l.since) END
	  FROM alloc.backorder w
	  FULL JOIN alloc._log_backorders(alloc._first_base(), NULL, NULL) l
	    ON l.orderid COLLATE "C" = w.orderid COLLATE "C"
	   AND l.sku COLLATE "C" = w.sku COLLATE "C"
	 WHERE (w.qty, w.event_id, w.since) IS DISTINCT FROM (l.qty, l.event_id, l.since)
$$;
COMMENT ON FUNCTION alloc._wrong_backorders() IS
	'part of check(): order lines that wait for stock';

CREATE FUNCTION alloc._unmarked_slots(
	OUT problem text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'waiting_unmarked', s.sku, s.ref, NULL,
	       format('slot %s does not say that order lines wait', s.slot)
	  FROM alloc.slot s
	 WHERE NOT s.waiting
	   AND alloc._progress('slots read')
	   AND EXISTS (
		SELECT FROM alloc.backorder w
		 WHERE w.sku COLLATE "C" = s.sku COLLATE "C")
$$;
COMMENT ON FUNCTION alloc._unmarked_slots() IS
	'part of check(): rows of stock that must say that order lines wait for it';

CREATE FUNCTION alloc._wrong_snapshot_backorders(
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
		SELECT l.* FROM newest,
		       alloc._log_backorders(alloc._first_base(), newest.event_id, NULL) l),
	kept AS (
		SELECT b.* FROM newest
		  JOIN alloc.snapshot_backorder b ON b.snapshot = newest.event_id)
	SELECT 'snapshot_differs', coalesce(log.sku, kept.sku), NULL,
	       coalesce(log.orderid, kept.orderid),
	       format('snapshot %s: its waiting line is not as the log tells',
	              (SELECT event_id FROM newest))
	  FROM log
	  FULL JOIN kept
	    ON kept.orderid COLLATE "C" = log.orderid COLLATE "C"
	   AND kept.sku COLLATE "C" = log.sku COLLATE "C"
	 WHERE (log.qty, log.event_id, log.since)
	       IS DISTINCT FROM (kept.qty, kept.event_id, kept.since)
$$;
COMMENT ON FUNCTION alloc._wrong_snapshot_backorders() IS
	'part of check(): waiting lines of the newest snapshot, if the log still has what it is of';

CREATE FUNCTION alloc._mend_backorder(
	of_sku text, of_orderid text, dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	log record;
	state record;
BEGIN
	SELECT l.qty, l.event_id, l.since INTO log
	  FROM alloc._log_backorders(alloc._first_base(), NULL, of_sku) l
	 WHERE l.orderid = of_orderid;
	SELECT w.qty, w.event_id, w.since INTO state
	  FROM alloc.backorder w
	 WHERE w.orderid = of_orderid AND w.sku = of_sku;
	IF log IS NOT DISTINCT FROM state THEN
		RETURN;
	END IF;
	IF NOT dry_run THEN
		DELETE FROM alloc.backorder w
		 WHERE w.orderid = of_orderid AND w.sku = of_sku;
		IF log.qty IS NOT NULL THEN
			INSERT INTO alloc.backorder (event_id, qty, since, orderid, sku)
			VALUES (log.event_id, log.qty, log.since, of_orderid, of_sku);
			UPDATE alloc.slot s SET waiting = true
			 WHERE s.sku = of_sku AND NOT s.waiting;
		END IF;
		PERFORM alloc._record_repair(of_sku, NULL, of_orderid, log.qty, state.qty);
	END IF;
	RETURN QUERY SELECT
		CASE WHEN log.qty IS NULL THEN 'backorder_removed'
		     WHEN state.qty IS NULL THEN 'backorder_added'
		     ELSE 'backorder_changed' END,
		of_sku, NULL, of_orderid,
		CASE WHEN log.qty IS NOT NULL
		     THEN format('%s units wait since event %s', log.qty, log.event_id) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_backorder(text, text, boolean) IS
	'part of repair(): an order line that waits for stock';

CREATE FUNCTION alloc._lines_wait(of_sku text)
RETURNS boolean
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT EXISTS (SELECT FROM alloc.backorder w WHERE w.sku = of_sku);
END;
COMMENT ON FUNCTION alloc._lines_wait(text) IS
	'whether any order line waits for stock of a sku';

CREATE FUNCTION alloc._rebuild_backorders(base bigint)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO alloc.backorder (event_id, qty, since, orderid, sku)
	SELECT l.event_id, l.qty, l.since, l.orderid, l.sku
	  FROM alloc._log_backorders(base, NULL, NULL) l;
	UPDATE alloc.slot s SET waiting = true
	 WHERE alloc._lines_wait(s.sku)
$$;
COMMENT ON FUNCTION alloc._rebuild_backorders(bigint) IS
	'part of rebuild(): order lines that wait for stock';
