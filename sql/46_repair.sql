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
		PERFORM alloc.stop_commands('repair()');
	END IF;
	-- Sequences first, because repairs are recorded; then what others name.
	FOR wrong IN
		SELECT DISTINCT alloc.mended_by(c.problem) AS step,
		       CASE alloc.mended_by(c.problem) WHEN 6 THEN c.problem END AS problem,
		       c.sku, c.batchref,
		       CASE alloc.mended_by(c.problem) WHEN 4 THEN c.orderid END AS orderid
		  FROM alloc.check() c
		 WHERE c.problem <> 'not_conserved'
		 ORDER BY 1, 2, 3, 4, 5
	LOOP
		CASE wrong.step
		WHEN 1 THEN
			RETURN QUERY SELECT * FROM alloc.mend_sequences(repair.dry_run);
		WHEN 2 THEN
			RETURN QUERY SELECT * FROM alloc.mend_product(wrong.sku, repair.dry_run);
		WHEN 3 THEN
			RETURN QUERY SELECT * FROM alloc.mend_batch(wrong.sku, wrong.batchref, repair.dry_run);
		WHEN 4 THEN
			RETURN QUERY SELECT * FROM alloc.mend_line(wrong.sku, wrong.orderid, repair.dry_run);
		WHEN 5 THEN
			RETURN QUERY SELECT * FROM alloc.mend_slots(wrong.sku, wrong.batchref, repair.dry_run);
		ELSE
			RETURN QUERY SELECT 'not_mended', wrong.sku, wrong.batchref, NULL,
				wrong.problem || ': the tables cannot be made right from the log';
		END CASE;
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
	base CONSTANT bigint := alloc.first_base();
	wrong record;
BEGIN
	PERFORM alloc.stop_commands('rebuild()');
	IF EXISTS (SELECT FROM alloc.product) OR EXISTS (SELECT FROM alloc.batch)
	   OR EXISTS (SELECT FROM alloc.slot) OR EXISTS (SELECT FROM alloc.allocation) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'rebuild() is for a database that has only the log',
			DETAIL = 'There are products, batches or order lines.',
			HINT = 'repair() makes them equal to the log.';
	END IF;
	SELECT * INTO wrong FROM alloc.fold_log(base, NULL, NULL)
	 WHERE available < 0 OR created = 0 LIMIT 1;
	IF FOUND OR base IS NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'data_corrupted',
			MESSAGE = 'the log is not complete',
			DETAIL = CASE WHEN base IS NULL
				THEN 'Events were archived, and there is no snapshot.'
				ELSE format('By it batch "%s" has %s units available, and event %s created it.',
				            wrong.ref, wrong.available, wrong.created) END;
	END IF;
	-- The log may come from where transactions have other ids.
	PERFORM alloc.begin_era((SELECT max(xact >> 48) FROM alloc.event));
	PERFORM alloc.mend_sequences(false);
	INSERT INTO alloc.batch (batch_id, purchased, eta, ref, sku)
	SELECT nextval('alloc.batch_id_seq'), f.purchased, f.eta, f.ref, f.sku
	  FROM (SELECT * FROM alloc.fold_log(base, NULL, NULL) ORDER BY created) f;
	GET DIAGNOSTICS batches = ROW_COUNT;
	INSERT INTO alloc.product (sku) SELECT DISTINCT b.sku FROM alloc.batch b;
	INSERT INTO alloc.allocation (batch_id, event_id, qty, orderid, sku)
	SELECT b.batch_id, l.event_id, l.qty, l.orderid, l.sku
	  FROM alloc.log_lines(base, NULL, NULL) l
	  JOIN alloc.batch b ON b.ref = l.batchref;
	GET DIAGNOSTICS lines = ROW_COUNT;
	INSERT INTO alloc.slot (batch_id, available, shipped, newest, eta, ref, sku, merged)
	SELECT b.batch_id, f.available, f.shipped, h.newest, b.eta, b.ref, b.sku, h.merged
	  FROM alloc.batch b
	  JOIN alloc.fold_log(base, NULL, NULL) f ON f.ref = b.ref
	  LEFT JOIN alloc.line_heads(NULL) h ON h.batchref = b.ref;
END
$$;
COMMENT ON FUNCTION alloc.rebuild() IS
	'makes products, batches and order lines from the event log alone, where there are none; returns how many batches and lines';

-- What follows is for these functions.

CREATE FUNCTION alloc.stop_commands(command text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc.require_writable(command);
	PERFORM alloc.require_read_committed(command);
	-- Commands begin with slots, all but those that have no stock to look at.
	LOCK TABLE alloc.slot, alloc.allocation, alloc.event, alloc.product, alloc.batch
		IN SHARE ROW EXCLUSIVE MODE;
END
$$;
COMMENT ON FUNCTION alloc.stop_commands(text) IS
	'waits for transactions with commands, and lets no others begin until the end of this one';

CREATE FUNCTION alloc.require_writable(command text)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_require_writable'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.require_writable(text) IS
	'raises 25006 in a read-only transaction and on a standby';

CREATE FUNCTION alloc.require_read_committed(command text)
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
COMMENT ON FUNCTION alloc.require_read_committed(text) IS
	'raises 25000 in a transaction that cannot see what others commit';

CREATE FUNCTION alloc.begin_era(above bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_begin_era'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.begin_era(bigint) IS
	'makes the era greater than that of events from elsewhere';

CREATE FUNCTION alloc.record_repair(
	sku text, batchref text, orderid text, qty bigint, old_qty bigint)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_record_repair'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.record_repair(text, text, text, bigint, bigint) IS
	'appends the event that a row of the state was made equal to the log';

CREATE FUNCTION alloc.mended_by(problem text)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT CASE
		WHEN problem = 'sequence_behind' THEN 1
		WHEN problem IN ('product_missing', 'product_unknown') THEN 2
		WHEN problem IN ('batch_missing', 'batch_unknown', 'batch_differs') THEN 3
		WHEN problem IN ('line_missing', 'line_unknown', 'line_differs', 'line_twice',
		                 'line_of_no_batch', 'line_of_other_sku') THEN 4
		WHEN problem IN ('slot_missing', 'slot_of_no_batch', 'slot_differs',
		                 'slot_negative', 'stock_differs', 'lines_unlisted') THEN 5
		ELSE 6 END;
END;
COMMENT ON FUNCTION alloc.mended_by(text) IS
	'the step of repair() that mends a problem of check(); 6: none';

CREATE FUNCTION alloc.mend_sequences(
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
		SELECT 'event_id_seq' AS name, alloc.last_event_id() AS used
		  FROM alloc.event_id_seq s
		 WHERE alloc.last_event_id() > CASE WHEN s.is_called THEN s.last_value ELSE 0 END
		UNION ALL
		SELECT 'batch_id_seq', b.used
		  FROM alloc.batch_id_seq s, (SELECT max(batch_id) AS used FROM alloc.batch) b
		 WHERE b.used > CASE WHEN s.is_called THEN s.last_value ELSE 0 END
	LOOP
		IF NOT mend_sequences.dry_run THEN
			PERFORM setval(('alloc.' || behind.name)::regclass, behind.used);
		END IF;
		RETURN QUERY SELECT 'sequence_advanced', NULL, NULL, NULL,
			format('%s: to %s', behind.name, behind.used);
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc.mend_sequences(boolean) IS
	'part of repair(): sequences that would give numbers again';

CREATE FUNCTION alloc.mend_product(
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
		SELECT FROM alloc.fold_log(alloc.first_base(), NULL, of_sku));
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
		PERFORM alloc.record_repair(of_sku, NULL, NULL, NULL, NULL);
	END IF;
	RETURN QUERY SELECT CASE WHEN known THEN 'product_added' ELSE 'product_removed' END,
		of_sku, NULL, NULL, NULL;
END
$$;
COMMENT ON FUNCTION alloc.mend_product(text, boolean) IS
	'part of repair(): a product';

CREATE FUNCTION alloc.mend_batch(
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
	SELECT f.ref, f.sku, f.eta, f.purchased INTO log
	  FROM alloc.fold_log(alloc.first_base(), NULL, of_sku) f WHERE f.ref = of_ref;
	SELECT b.ref, b.sku, b.eta, b.purchased, b.batch_id INTO state
	  FROM alloc.batch b WHERE b.ref = of_ref;
	IF (log.ref, log.sku, log.eta, log.purchased)
	   IS NOT DISTINCT FROM (state.ref, state.sku, state.eta, state.purchased) THEN
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
			VALUES (coalesce(alloc.orphaned_batch_id(of_ref), nextval('alloc.batch_id_seq')),
			        log.purchased, log.eta, log.ref, log.sku);
		ELSE
			UPDATE alloc.batch b
			   SET purchased = log.purchased, eta = log.eta, sku = log.sku
			 WHERE b.batch_id = state.batch_id;
		END CASE;
		PERFORM alloc.record_repair(of_sku, of_ref, NULL, log.purchased, state.purchased);
	END IF;
	RETURN QUERY SELECT done, of_sku, of_ref, NULL,
		CASE WHEN log.ref IS NOT NULL
		     THEN format('%s units, eta %s', log.purchased, coalesce(log.eta::text, 'none')) END;
END
$$;
COMMENT ON FUNCTION alloc.mend_batch(text, text, boolean) IS
	'part of repair(): a batch';

CREATE FUNCTION alloc.orphaned_batch_id(of_ref text)
RETURNS bigint
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT min(s.batch_id) FROM alloc.slot s
	 WHERE s.ref = of_ref
	   AND NOT EXISTS (SELECT FROM alloc.batch b WHERE b.batch_id = s.batch_id);
END;
COMMENT ON FUNCTION alloc.orphaned_batch_id(text) IS
	'the id of a batch whose row is missing, by its slots';

CREATE FUNCTION alloc.mend_line(
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
	SELECT l.orderid, l.qty, l.event_id, l.batchref,
	       (SELECT b.batch_id FROM alloc.batch b WHERE b.ref = l.batchref) AS batch_id
	  INTO log
	  FROM alloc.log_lines(alloc.first_base(), NULL, of_sku) l
	 WHERE l.orderid = of_orderid;
	SELECT count(*) AS rows, min(a.qty) AS qty, min(a.event_id) AS event_id,
	       min(a.batch_id) AS batch_id
	  INTO state
	  FROM alloc.allocation a
	 WHERE a.orderid = of_orderid AND a.sku = of_sku;
	IF (log.orderid IS NOT NULL)::integer = state.rows
	   AND (log.qty, log.event_id, coalesce(log.batch_id, alloc.orphaned_batch_id(log.batchref)))
	       IS NOT DISTINCT FROM (state.qty, state.event_id, state.batch_id) THEN
		RETURN;
	END IF;
	done := CASE WHEN log.orderid IS NULL THEN 'line_removed'
	             WHEN state.rows = 0 THEN 'line_added'
	             ELSE 'line_changed' END;
	IF NOT dry_run THEN
		DELETE FROM alloc.allocation a
		 WHERE a.orderid = of_orderid AND a.sku = of_sku;
		IF log.orderid IS NOT NULL THEN
			INSERT INTO alloc.allocation (batch_id, event_id, qty, orderid, sku)
			VALUES (log.batch_id, log.event_id, log.qty, of_orderid, of_sku);
		END IF;
		PERFORM alloc.record_repair(of_sku, log.batchref, of_orderid, log.qty, state.qty);
	END IF;
	RETURN QUERY SELECT done, of_sku, log.batchref, of_orderid,
		CASE WHEN log.orderid IS NOT NULL
		     THEN format('%s units, allocated by event %s', log.qty, log.event_id) END;
END
$$;
COMMENT ON FUNCTION alloc.mend_line(text, text, boolean) IS
	'part of repair(): an order line';

CREATE FUNCTION alloc.mend_slots(
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
	heads record;
	id bigint;
BEGIN
	SELECT f.* INTO log
	  FROM alloc.fold_log(alloc.first_base(), NULL, of_sku) f WHERE f.ref = of_ref;
	id := coalesce((SELECT b.batch_id FROM alloc.batch b WHERE b.ref = of_ref),
	               alloc.orphaned_batch_id(of_ref));
	SELECT sum(s.available)::bigint AS available, sum(s.shipped) AS shipped,
	       bool_and((s.ref, s.sku, s.eta) IS NOT DISTINCT FROM (log.ref, log.sku, log.eta)
	                AND s.available >= 0 AND s.shipped >= 0
	                AND s.exhausted = (s.available = 0))
	       AND (bool_and(s.spread) OR count(*) = 1) AS sound
	  INTO state
	  FROM alloc.slot s WHERE s.batch_id = id;
	IF log.available < 0 THEN
		RETURN;
	END IF;
	IF state.sound AND (state.available, state.shipped) = (log.available, log.shipped) THEN
		IF NOT EXISTS (SELECT FROM alloc.batch b WHERE b.batch_id = id)
		   OR alloc.listed_qty(id, log.allocated) >= log.allocated THEN
			RETURN;
		END IF;
	END IF;
	SELECT h.newest, h.merged INTO heads
	  FROM alloc.line_heads(of_sku) h WHERE h.batchref = of_ref;
	IF NOT dry_run THEN
		DELETE FROM alloc.slot s WHERE s.batch_id = id;
		IF log.ref IS NOT NULL THEN
			INSERT INTO alloc.slot (batch_id, available, shipped, newest, eta, ref, sku, merged)
			VALUES (id, log.available, log.shipped, heads.newest, log.eta, of_ref,
			        of_sku, heads.merged);
		END IF;
		PERFORM alloc.record_repair(of_sku, of_ref, NULL, log.available, state.available);
	END IF;
	RETURN QUERY SELECT
		CASE WHEN log.ref IS NULL THEN 'slots_removed' ELSE 'slots_rebuilt' END,
		of_sku, of_ref, NULL,
		CASE WHEN log.ref IS NOT NULL
		     THEN format('%s units available, %s shipped', log.available, log.shipped) END;
END
$$;
COMMENT ON FUNCTION alloc.mend_slots(text, text, boolean) IS
	'part of repair(): the slots of a batch';

