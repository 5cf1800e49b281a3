-- The peer's ship() and purge_shipped(), and its queries: promise() and
-- available_to_promise().

\set ON_ERROR_STOP on
BEGIN;

-- Commands.

-- ship: the stock of an order's line, or of all its lines, has left.
CREATE FUNCTION alloc_peer.ship(p_orderid text, p_sku text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_sku     text;
	v_shipped bigint := 0;
BEGIN
	IF coalesce(octet_length(p_orderid), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('orderid', p_orderid);
	END IF;
	IF octet_length(p_sku) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('sku', p_sku);
	END IF;

	PERFORM alloc_peer.refuse_holds(p_orderid, p_sku);
	FOR v_sku IN
		SELECT sku FROM alloc_peer.allocation
		 WHERE orderid = p_orderid AND shipped_at IS NULL
		   AND (p_sku IS NULL OR sku = p_sku)
		 ORDER BY sku COLLATE "C"
	LOOP
		v_shipped := v_shipped + alloc_peer.ship_line(p_orderid, v_sku);
	END LOOP;
	RETURN v_shipped;
END
$$;

-- purge_shipped: forgets lines that were shipped before a moment, and holds that
-- had ended.
CREATE FUNCTION alloc_peer.purge_shipped(p_before timestamptz)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_purged bigint;
BEGIN
	IF p_before IS NULL THEN
		RAISE null_value_not_allowed USING
			MESSAGE = 'before must not be null';
	END IF;
	DELETE FROM alloc_peer.allocation WHERE shipped_at < p_before;
	GET DIAGNOSTICS v_purged = ROW_COUNT;
	DELETE FROM alloc_peer.hold WHERE ended AND expires_at < p_before;
	RETURN v_purged;
END
$$;

-- Queries.

-- promise: the batch that allocate() would choose now.
CREATE FUNCTION alloc_peer.promise(p_sku text, p_qty bigint)
RETURNS TABLE (batchref text, eta date)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
BEGIN
	IF coalesce(octet_length(p_sku), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('sku', p_sku);
	END IF;
	IF coalesce(p_qty, 0) <= 0 THEN
		PERFORM alloc_peer.refuse_quantity(p_qty);
	END IF;
	RETURN QUERY
		SELECT ref, b.eta FROM alloc_peer.batches v
		  JOIN alloc_peer.batch b USING (ref)
		 WHERE b.sku = p_sku AND v.available_qty >= p_qty
		 ORDER BY b.eta NULLS FIRST, b.batch_id
		 LIMIT 1;
	IF NOT FOUND THEN
		PERFORM alloc_peer.refuse_unknown(p_sku);
	END IF;
END
$$;

-- available_to_promise: units that are available by a day, or at all.
CREATE FUNCTION alloc_peer.available_to_promise(p_sku text, p_by date DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF coalesce(octet_length(p_sku), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('sku', p_sku);
	END IF;
	PERFORM alloc_peer.refuse_unknown(p_sku);
	RETURN (SELECT coalesce(sum(available_qty), 0) FROM alloc_peer.batches
			 WHERE sku = p_sku AND (p_by IS NULL OR eta IS NULL OR eta <= p_by));
END
$$;

-- What the commands are made of.

-- refuse_holds: an error if an order, or its line of a sku, has holds.
CREATE FUNCTION alloc_peer.refuse_holds(p_orderid text, p_sku text)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_hold alloc_peer.hold;
BEGIN
	FOR v_hold IN
		SELECT h.* FROM alloc_peer.hold h
		 WHERE h.orderid = p_orderid AND (p_sku IS NULL OR h.sku = p_sku)
		   -- A line that came after its hold was over is like any other.
		   AND NOT (h.ended AND EXISTS (
				SELECT FROM alloc_peer.allocation a
				 WHERE a.orderid = p_orderid AND a.sku = h.sku))
		 ORDER BY h.sku COLLATE "C"
	LOOP
		PERFORM alloc_peer.refuse_over(v_hold);
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = format('order "%s" only holds sku "%s"', p_orderid, v_hold.sku);
	END LOOP;
END
$$;

-- ship_line: ships a line; returns 1, or 0 if there is nothing to ship.
CREATE FUNCTION alloc_peer.ship_line(p_orderid text, p_sku text)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_batch_id bigint;
	v_ref      text;
	v_qty      bigint;
	v_event_id bigint;
BEGIN
	LOOP
		SELECT a.batch_id, b.ref INTO v_batch_id, v_ref
		  FROM alloc_peer.allocation a
		  JOIN alloc_peer.batch b USING (batch_id)
		 WHERE a.orderid = p_orderid AND a.sku = p_sku AND a.shipped_at IS NULL;
		IF NOT FOUND THEN
			RETURN 0;
		END IF;

		-- The slot before the line, as the other commands do it.
		PERFORM FROM alloc_peer.slot
		  WHERE batch_id = v_batch_id AND slot = 0 FOR UPDATE;
		UPDATE alloc_peer.allocation
		   SET shipped_at = statement_timestamp(),
			   event_id = nextval('alloc_peer.event_id_seq')
		 WHERE orderid = p_orderid AND sku = p_sku AND batch_id = v_batch_id
		   AND shipped_at IS NULL
		RETURNING qty, event_id INTO v_qty, v_event_id;
		-- The line may have moved or gone while the lock was waited for.
		EXIT WHEN FOUND;
	END LOOP;

	UPDATE alloc_peer.slot SET shipped = shipped + v_qty
	 WHERE batch_id = v_batch_id AND slot = 0;
	DELETE FROM alloc_peer.hold WHERE orderid = p_orderid AND sku = p_sku;
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref)
		VALUES (v_event_id, statement_timestamp(),
				'shipped', p_orderid, p_sku, v_qty, v_ref);
	RETURN 1;
END
$$;
COMMIT;
