-- Making the state equal to the log again.

CREATE FUNCTION alloc.repair(
	dry_run boolean DEFAULT true,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	wrong record;
BEGIN
	IF repair.dry_run IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'dry_run must not be null';
	END IF;
	IF NOT repair.dry_run THEN
		PERFORM alloc._stop_commands('repair()');
	END IF;
	-- What has been mended may have hidden something.
	FOR pass IN 1 .. CASE WHEN repair.dry_run THEN 1 ELSE 2 END LOOP
		FOR wrong IN
			SELECT * FROM alloc._repairs_needed() r
			 WHERE pass = 1 OR r.step < 7
			 ORDER BY r.step, r.problem, r.sku, r.batchref, r.orderid
		LOOP
			CASE wrong.step
			WHEN 1 THEN
				RETURN QUERY SELECT * FROM alloc._mend_sequences(repair.dry_run);
			WHEN 2 THEN
				RETURN QUERY SELECT * FROM alloc._mend_product(wrong.sku, repair.dry_run);
			WHEN 3 THEN
				RETURN QUERY SELECT * FROM alloc._mend_batch(wrong.sku, wrong.batchref, repair.dry_run);
			WHEN 4 THEN
				RETURN QUERY SELECT * FROM alloc._mend_line(wrong.sku, wrong.orderid, repair.dry_run);
				RETURN QUERY SELECT * FROM alloc._mend_backorder(wrong.sku, wrong.orderid, repair.dry_run);
			WHEN 5 THEN
				RETURN QUERY SELECT * FROM alloc._mend_hold(wrong.sku, wrong.orderid, repair.dry_run);
			WHEN 6 THEN
				RETURN QUERY SELECT * FROM alloc._mend_slots(wrong.sku, wrong.batchref, wrong.unlisted, repair.dry_run);
			ELSE
				RETURN QUERY SELECT 'not_mended', wrong.sku, wrong.batchref, NULL,
					wrong.problem || ': the tables cannot be made right from the log';
			END CASE;
		END LOOP;
		EXIT WHEN NOT FOUND;
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc.repair(boolean) IS
	'what makes the state equal to the event log again; with dry_run false it is done, and recorded as events';

CREATE FUNCTION alloc.rebuild(OUT batches bigint, OUT lines bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	base CONSTANT bigint := alloc._first_base();
	wrong record;
BEGIN
	PERFORM alloc._stop_commands('rebuild()');
	IF EXISTS (SELECT FROM alloc.product) OR EXISTS (SELECT FROM alloc.batch)
	   OR EXISTS (SELECT FROM alloc.slot) OR EXISTS (SELECT FROM alloc.allocation)
	   OR EXISTS (SELECT FROM alloc.hold) OR EXISTS (SELECT FROM alloc.backorder) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'rebuild() is for a database that has only the log',
			DETAIL = 'There are products, batches or order lines.',
			HINT = 'repair() makes them equal to the log.';
	END IF;
	IF base IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'data_corrupted',
			MESSAGE = 'the log is not complete',
			DETAIL = 'Events were archived, and there is no snapshot.';
	END IF;
	SELECT * INTO wrong FROM alloc._fold_log(base, NULL, NULL)
	 WHERE available < 0 OR created = 0 LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'data_corrupted',
			MESSAGE = 'the log is not complete',
			DETAIL = format('By it batch "%s" has %s units available, and event %s created it.',
			                wrong.ref, wrong.available, wrong.created);
	END IF;
	-- The log may come from where transactions have other ids.
	PERFORM alloc._begin_era((SELECT max(xact >> 48) FROM alloc.event));
	PERFORM alloc._mend_sequences(false);
	INSERT INTO alloc.batch (batch_id, purchased, eta, ref, sku)
	SELECT nextval('alloc.batch_id_seq'), f.purchased, f.eta, f.ref, f.sku
	  FROM (SELECT * FROM alloc._fold_log(base, NULL, NULL) ORDER BY created) f;
	GET DIAGNOSTICS batches = ROW_COUNT;
	INSERT INTO alloc.product (sku) SELECT DISTINCT b.sku FROM alloc.batch b;
	INSERT INTO alloc.allocation
		(batch_id, event_id, qty, expires_at, shipped_at, orderid, sku)
	SELECT b.batch_id, l.event_id, l.qty, l.expires_at, l.shipped_at, l.orderid, l.sku
	  FROM alloc._log_lines(base, NULL, NULL) l
	  JOIN alloc.batch b ON b.ref = l.batchref;
	GET DIAGNOSTICS lines = ROW_COUNT;
	INSERT INTO alloc.hold (batch_id, qty, expires_at, orderid, sku, batchref)
	SELECT a.batch_id, a.qty, a.expires_at, a.orderid, a.sku, b.ref
	  FROM alloc.allocation a
	  JOIN alloc.batch b USING (batch_id)
	 WHERE a.expires_at IS NOT NULL;
	INSERT INTO alloc.slot
		(batch_id, available, shipped, newest, hold_until, eta, ref, sku, merged)
	SELECT b.batch_id, f.available, f.shipped, h.newest, alloc._next_expiry(b.batch_id),
	       b.eta, b.ref, b.sku, h.merged
	  FROM alloc.batch b
	  JOIN alloc._fold_log(base, NULL, NULL) f ON f.ref = b.ref
	  LEFT JOIN alloc._line_heads(NULL) h ON h.batchref = b.ref;
	PERFORM alloc._rebuild_backorders(base);
END
$$;
COMMENT ON FUNCTION alloc.rebuild() IS
	'makes products, batches and order lines from the event log alone, where there are none; returns how many batches and lines';

-- What follows is for these functions.

CREATE FUNCTION alloc._stop_commands(command text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc._require_writable(command);
	PERFORM alloc._require_read_committed(command);
	-- All commands lock slots first.
	LOCK TABLE alloc.slot, alloc.allocation, alloc.event, alloc.product, alloc.batch
		IN SHARE ROW EXCLUSIVE MODE;
END
$$;
COMMENT ON FUNCTION alloc._stop_commands(text) IS
	'waits for transactions with commands, and lets no others begin until the end of this one';

CREATE FUNCTION alloc._require_writable(command text)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_require_writable'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._require_writable(text) IS
	'raises 25006 in a read-only transaction and on a standby';

CREATE FUNCTION alloc._require_read_committed(command text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_transaction_state',
			MESSAGE = format('%s cannot run in a transaction of isolation level %s',
			                 command, current_setting('transaction_isolation')),
			DETAIL = 'It has to see what others have committed while it waited.',
			HINT = 'Use READ COMMITTED.';
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._require_read_committed(text) IS
	'raises 25000 in a transaction that cannot see what others commit';

CREATE FUNCTION alloc._begin_era(above bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_begin_era'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._begin_era(bigint) IS
	'makes the era greater than that of events from elsewhere';

CREATE FUNCTION alloc._record_repair(
	sku text, batchref text, orderid text, qty bigint, old_qty bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_record_repair'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._record_repair(text, text, text, bigint, bigint) IS
	'appends the event that a row of the state was made equal to the log';

CREATE FUNCTION alloc._mended_by(problem text)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE
		WHEN problem = 'sequence_behind' THEN 1
		WHEN problem IN ('product_missing', 'product_unknown') THEN 2
		WHEN problem IN ('batch_missing', 'batch_unknown', 'batch_differs') THEN 3
		WHEN problem IN ('line_missing', 'line_unknown', 'line_differs', 'line_twice',
		                 'line_of_no_batch', 'line_of_other_sku', 'backorder_missing',
		                 'backorder_unknown', 'backorder_differs') THEN 4
		WHEN problem IN ('hold_missing', 'hold_unknown', 'hold_differs') THEN 5
		WHEN problem IN ('slot_missing', 'slot_of_no_batch', 'slot_differs',
		                 'slot_negative', 'stock_differs', 'lines_unlisted',
		                 'hold_uncovered', 'waiting_unmarked') THEN 6
		ELSE 7 END;
END;
COMMENT ON FUNCTION alloc._mended_by(text) IS
	'the step of repair() that mends a problem of check(); 7: none';

-- Sequences first, because repairs are recorded; then what others name.  With a
-- batch comes all that is its: what is wrong with that does not show as long as
-- it is missing.  Nothing is right by a log of which a part is missing.
CREATE FUNCTION alloc._repairs_needed(
	OUT step integer, OUT problem text, OUT sku text, OUT batchref text,
	OUT orderid text, OUT unlisted boolean)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH wrong AS (
		SELECT c.problem, c.batchref, c.orderid, m.step,
		       coalesce(max(c.sku) FILTER (WHERE m.step = 3)
		                OVER (PARTITION BY c.batchref), c.sku) AS batch_sku,
		       c.sku
		  FROM alloc.check() c
		 CROSS JOIN LATERAL (
			SELECT CASE WHEN alloc._first_base() IS NULL
			              AND alloc._mended_by(c.problem) > 1 THEN 7
			            ELSE alloc._mended_by(c.problem) END AS step) m
		 WHERE c.problem <> 'not_conserved')
	SELECT s.step,
	       CASE s.step WHEN 7 THEN w.problem END,
	       CASE WHEN s.step IN (4, 5) THEN w.sku ELSE w.batch_sku END,
	       CASE WHEN s.step IN (3, 6, 7) THEN w.batchref END,
	       CASE WHEN s.step IN (4, 5) THEN w.orderid END,
	       bool_or(w.problem = 'lines_unlisted')
	  FROM wrong w
	 CROSS JOIN LATERAL unnest(CASE w.step WHEN 3 THEN ARRAY[2, 3, 6]
	                                       WHEN 4 THEN ARRAY[4, 5]
	                                       ELSE ARRAY[w.step] END) AS s (step)
	 GROUP BY 1, 2, 3, 4, 5
$$;
COMMENT ON FUNCTION alloc._repairs_needed() IS
	'part of repair(): what check() finds, as steps to mend it';

CREATE FUNCTION alloc._mend_sequences(
	dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	behind record;
BEGIN
	FOR behind IN
		SELECT 'event_id_seq' AS name, alloc._last_event_id() AS used
		  FROM alloc.event_id_seq s
		 WHERE alloc._last_event_id() > s.last_value - (NOT s.is_called)::integer
		UNION ALL
		SELECT 'batch_id_seq', b.used
		  FROM alloc.batch_id_seq s, (SELECT max(batch_id) AS used FROM alloc.batch) b
		 WHERE b.used > s.last_value - (NOT s.is_called)::integer
	LOOP
		IF NOT _mend_sequences.dry_run THEN
			PERFORM setval(('alloc.' || behind.name)::regclass, behind.used);
		END IF;
		RETURN QUERY SELECT 'sequence_advanced', NULL, NULL, NULL,
			format('%s: to %s', behind.name, behind.used);
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc._mend_sequences(boolean) IS
	'part of repair(): sequences that would give numbers again';

CREATE FUNCTION alloc._mend_product(
	of_sku text, dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	known CONSTANT boolean := EXISTS (
		SELECT FROM alloc._fold_log(alloc._first_base(), NULL, of_sku));
	present CONSTANT boolean := EXISTS (
		SELECT FROM alloc.product p WHERE p.sku = of_sku);
BEGIN
	IF known = present THEN
		RETURN;
	END IF;
	IF NOT dry_run THEN
		IF known THEN
			INSERT INTO alloc.product (sku) VALUES (of_sku);
		ELSE
			DELETE FROM alloc.product p WHERE p.sku = of_sku;
		END IF;
		PERFORM alloc._record_repair(of_sku, NULL, NULL, NULL, NULL);
	END IF;
	RETURN QUERY SELECT CASE WHEN known THEN 'product_added' ELSE 'product_removed' END,
		of_sku, NULL, NULL, NULL;
END
$$;
COMMENT ON FUNCTION alloc._mend_product(text, boolean) IS
	'part of repair(): a product';

CREATE FUNCTION alloc._mend_batch(
	of_sku text, of_ref text, dry_run boolean,
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
	done text;
BEGIN
	SELECT f.ref, f.sku, f.eta, f.purchased, f.available, f.created INTO log
	  FROM alloc._fold_log(alloc._first_base(), NULL, of_sku) f WHERE f.ref = of_ref;
	SELECT b.ref, b.sku, b.eta, b.purchased, b.batch_id INTO state
	  FROM alloc.batch b WHERE b.ref = of_ref;
	IF (log.ref, log.sku, log.eta, log.purchased)
	   IS NOT DISTINCT FROM (state.ref, state.sku, state.eta, state.purchased)
	   OR log.available < 0 OR log.created = 0 THEN
		RETURN;
	END IF;
	done := CASE WHEN log.ref IS NULL THEN 'batch_removed'
	             WHEN state.ref IS NULL THEN 'batch_added'
	             ELSE 'batch_changed' END;
	IF NOT dry_run THEN
		CASE done
		WHEN 'batch_removed' THEN
			DELETE FROM alloc.slot s WHERE s.batch_id = state.batch_id;
			DELETE FROM alloc.batch b WHERE b.batch_id = state.batch_id;
		WHEN 'batch_added' THEN
			INSERT INTO alloc.batch (batch_id, purchased, eta, ref, sku)
			VALUES (coalesce(alloc._orphaned_batch_id(of_ref), nextval('alloc.batch_id_seq')),
			        log.purchased, log.eta, log.ref, log.sku);
		ELSE
			UPDATE alloc.batch b
			   SET purchased = log.purchased, eta = log.eta, sku = log.sku
			 WHERE b.batch_id = state.batch_id;
		END CASE;
		PERFORM alloc._record_repair(of_sku, of_ref, NULL, log.purchased, state.purchased);
	END IF;
	RETURN QUERY SELECT done, of_sku, of_ref, NULL,
		CASE WHEN log.ref IS NOT NULL
		     THEN format('%s units, eta %s', log.purchased, coalesce(log.eta::text, 'none')) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_batch(text, text, boolean) IS
	'part of repair(): a batch';

CREATE FUNCTION alloc._orphaned_batch_id(of_ref text)
RETURNS bigint
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT min(s.batch_id) FROM alloc.slot s
	 WHERE s.ref = of_ref
	   AND NOT EXISTS (SELECT FROM alloc.batch b WHERE b.batch_id = s.batch_id);
END;
COMMENT ON FUNCTION alloc._orphaned_batch_id(text) IS
	'the id of a batch whose row is missing, by its slots';

CREATE FUNCTION alloc._mend_line(
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
	done text;
BEGIN
	SELECT l.orderid, l.qty, l.event_id, l.batchref, l.expires_at, l.shipped_at,
	       (SELECT b.batch_id FROM alloc.batch b WHERE b.ref = l.batchref) AS batch_id
	  INTO log
	  FROM alloc._log_lines(alloc._first_base(), NULL, of_sku) l
	 WHERE l.orderid = of_orderid;
	SELECT count(*) AS rows, min(a.qty) AS qty, min(a.event_id) AS event_id,
	       min(a.batch_id) AS batch_id, min(a.expires_at) AS expires_at,
	       min(a.shipped_at) AS shipped_at
	  INTO state
	  FROM alloc.allocation a
	 WHERE a.orderid = of_orderid AND a.sku = of_sku;
	IF (log.orderid IS NOT NULL)::integer = state.rows
	   AND (log.qty, log.event_id, log.expires_at, log.shipped_at,
	        coalesce(log.batch_id, alloc._orphaned_batch_id(log.batchref)))
	       IS NOT DISTINCT FROM
	       (state.qty, state.event_id, state.expires_at, state.shipped_at, state.batch_id)
	   -- It has been purged.
	   OR log.shipped_at IS NOT NULL AND state.rows = 0 THEN
		RETURN;
	END IF;
	-- A batch that is not to be mended
	IF log.batch_id IS NULL AND EXISTS (
		SELECT FROM alloc._fold_log(alloc._first_base(), NULL, of_sku) f
		 WHERE f.ref = log.batchref AND (f.available < 0 OR f.created = 0)) THEN
		RETURN;
	END IF;
	done := CASE WHEN log.orderid IS NULL THEN 'line_removed'
	             WHEN state.rows = 0 THEN 'line_added'
	             ELSE 'line_changed' END;
	IF NOT dry_run THEN
		DELETE FROM alloc.allocation a
		 WHERE a.orderid = of_orderid AND a.sku = of_sku;
		IF log.orderid IS NOT NULL THEN
			INSERT INTO alloc.allocation
				(batch_id, event_id, qty, expires_at, shipped_at, orderid, sku)
			VALUES (log.batch_id, log.event_id, log.qty, log.expires_at, log.shipped_at,
			        of_orderid, of_sku);
		END IF;
		PERFORM alloc._record_repair(of_sku, log.batchref, of_orderid, log.qty, state.qty);
	END IF;
	RETURN QUERY SELECT done, of_sku, log.batchref, of_orderid,
		CASE WHEN log.orderid IS NOT NULL
		     THEN format('%s units, %s by event %s', log.qty,
		                 CASE WHEN log.shipped_at IS NULL THEN 'allocated' ELSE 'shipped' END,
		                 log.event_id) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_line(text, text, boolean) IS
	'part of repair(): an order line';

CREATE FUNCTION alloc._mend_hold(
	of_sku text, of_orderid text, dry_run boolean,
	OUT action text, OUT sku text, OUT batchref text, OUT orderid text,
	OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	line record;
	state record;
BEGIN
	SELECT a.batch_id, a.qty, a.expires_at, b.ref INTO line
	  FROM alloc.allocation a
	  JOIN alloc.batch b USING (batch_id)
	 WHERE a.orderid = of_orderid AND a.sku = of_sku
	   AND a.expires_at IS NOT NULL AND a.shipped_at IS NULL;
	SELECT h.batch_id, h.qty, h.expires_at, h.batchref INTO state
	  FROM alloc.hold h
	 WHERE h.orderid = of_orderid AND h.sku = of_sku AND NOT h.ended;
	IF (line.batch_id, line.qty, line.expires_at, line.ref)
	   IS NOT DISTINCT FROM (state.batch_id, state.qty, state.expires_at, state.batchref) THEN
		RETURN;
	END IF;
	IF NOT dry_run THEN
		DELETE FROM alloc.hold h WHERE h.orderid = of_orderid AND h.sku = of_sku;
		IF line.batch_id IS NOT NULL THEN
			INSERT INTO alloc.hold (batch_id, qty, expires_at, orderid, sku, batchref)
			VALUES (line.batch_id, line.qty, line.expires_at, of_orderid, of_sku, line.ref);
			-- Now that it is known to be there, its end must be.
			UPDATE alloc.slot s SET hold_until = least(s.hold_until, line.expires_at)
			 WHERE s.batch_id = line.batch_id;
		END IF;
		PERFORM alloc._record_repair(of_sku, line.ref, of_orderid, line.qty, state.qty);
	END IF;
	RETURN QUERY SELECT
		CASE WHEN line.batch_id IS NULL THEN 'hold_removed'
		     WHEN state.batch_id IS NULL THEN 'hold_added'
		     ELSE 'hold_changed' END,
		of_sku, line.ref, of_orderid,
		CASE WHEN line.batch_id IS NOT NULL
		     THEN format('%s units until %s', line.qty, line.expires_at) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_hold(text, text, boolean) IS
	'part of repair(): the hold of an order line';

CREATE FUNCTION alloc._next_expiry(of_batch_id bigint)
RETURNS timestamptz
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT min(h.expires_at) FROM alloc.hold h
	 WHERE h.batch_id = of_batch_id AND NOT h.ended;
END;
COMMENT ON FUNCTION alloc._next_expiry(bigint) IS
	'when the next hold of a batch will be over';

CREATE FUNCTION alloc._mend_slots(
	of_sku text, of_ref text, unlisted boolean, dry_run boolean,
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
	heads record;
	id bigint;
	orphans bigint[];
BEGIN
	SELECT f.* INTO log
	  FROM alloc._fold_log(alloc._first_base(), NULL, of_sku) f WHERE f.ref = of_ref;
	id := coalesce((SELECT b.batch_id FROM alloc.batch b WHERE b.ref = of_ref),
	               alloc._orphaned_batch_id(of_ref));
	SELECT least(sum(s.available), 9223372036854775807)::bigint AS available,
	       sum(s.shipped) AS shipped,
	       bool_and((s.ref, s.sku, s.eta) IS NOT DISTINCT FROM (log.ref, log.sku, log.eta)
	                AND s.available >= 0 AND s.shipped >= 0
	                AND s.exhausted = (s.available = 0 AND s.hold_until IS NULL))
	       AND (bool_and(s.spread) OR count(*) = 1)
	       AND (bool_and(s.waiting) OR NOT alloc._lines_wait(of_sku))
	       AND coalesce(min(s.hold_until) <= alloc._next_expiry(id),
	                    alloc._next_expiry(id) IS NULL) AS sound
	  INTO state
	  FROM alloc.slot s WHERE s.batch_id = id;
	orphans := ARRAY(
		SELECT DISTINCT s.batch_id FROM alloc.slot s
		 WHERE s.ref = of_ref AND s.batch_id <> id
		   AND NOT EXISTS (SELECT FROM alloc.batch b WHERE b.batch_id = s.batch_id));
	IF log.available < 0 OR log.created = 0
	   OR log.ref IS NULL AND state.available IS NULL
	   OR state.sound AND orphans = '{}' AND NOT unlisted
	      AND (state.available, state.shipped) = (log.available, log.shipped) THEN
		RETURN;
	END IF;
	SELECT h.newest, h.merged INTO heads
	  FROM alloc._line_heads(of_sku) h WHERE h.batchref = of_ref;
	IF NOT dry_run THEN
		DELETE FROM alloc.slot s WHERE s.batch_id = id OR s.batch_id = ANY (orphans);
		IF log.ref IS NOT NULL THEN
			INSERT INTO alloc.slot
				(batch_id, available, shipped, newest, hold_until, eta, waiting, ref, sku, merged)
			VALUES (id, log.available, log.shipped, heads.newest, alloc._next_expiry(id),
			        log.eta, alloc._lines_wait(of_sku), of_ref, of_sku, heads.merged);
		END IF;
		PERFORM alloc._record_repair(of_sku, of_ref, NULL, log.available, state.available);
	END IF;
	RETURN QUERY SELECT
		CASE WHEN log.ref IS NULL THEN 'slots_removed' ELSE 'slots_rebuilt' END,
		of_sku, of_ref, NULL,
		CASE WHEN log.ref IS NOT NULL
		     THEN format('%s units available, %s shipped', log.available, log.shipped) END;
END
$$;
COMMENT ON FUNCTION alloc._mend_slots(text, text, boolean, boolean) IS
	'part of repair(): the slots of a batch';
