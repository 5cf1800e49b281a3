-- The peer's other commands, and its queries: change_batch_eta(), ship(),
-- purge_shipped(), promise() and available_to_promise().  See peer.sql, which
-- comes first.

\set ON_ERROR_STOP on
BEGIN;

-- Commands.

-- change_batch_eta: sets the day of arrival of a batch.
CREATE FUNCTION alloc_peer.change_batch_eta(p_ref text, p_eta date)
RETURNS TABLE (orderid text, sku text, qty bigint, old_eta date, new_eta date)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	v_batch alloc_peer.batch%ROWTYPE;
BEGIN
	IF coalesce(octet_length(p_ref), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('ref', p_ref);
	END IF;

	SELECT * INTO v_batch FROM alloc_peer.batch WHERE ref = p_ref;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'SK002',
			MESSAGE = format('batch "%s" does not exist', p_ref);
	END IF;
	PERFORM FROM alloc_peer.product WHERE sku = v_batch.sku FOR NO KEY UPDATE;
	PERFORM FROM alloc_peer.slot WHERE batch_id = v_batch.batch_id FOR UPDATE;

	SELECT * INTO v_batch FROM alloc_peer.batch WHERE ref = p_ref;
	IF v_batch.eta IS NOT DISTINCT FROM p_eta THEN
		RETURN;
	END IF;
	UPDATE alloc_peer.batch SET eta = p_eta WHERE batch_id = v_batch.batch_id;
	UPDATE alloc_peer.slot SET eta = p_eta WHERE batch_id = v_batch.batch_id;
	INSERT INTO alloc_peer.event (event_id, at, type, batchref, sku, eta, old_eta)
		VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
				'batch_eta_changed', p_ref, v_batch.sku, p_eta, v_batch.eta);

	old_eta := v_batch.eta;
	new_eta := p_eta;
	FOR orderid, sku, qty IN
		SELECT a.orderid, a.sku, a.qty FROM alloc_peer.allocation a
		 WHERE a.batch_id = v_batch.batch_id AND a.shipped_at IS NULL
		 ORDER BY a.event_id
	LOOP
		INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref, eta, old_eta)
			VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
					'promise_changed', orderid, sku, qty, p_ref, p_eta, v_batch.eta);
		RETURN NEXT;
	END LOOP;
END
$$;

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

-- purge_shipped: forgets lines that were shipped before a moment.
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
		SELECT ref, eta FROM alloc_peer.slot
		 WHERE sku = p_sku AND available >= p_qty
		 ORDER BY eta NULLS FIRST, batch_id, slot
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
	RETURN (SELECT coalesce(sum(available), 0) FROM alloc_peer.slot
			 WHERE sku = p_sku AND (p_by IS NULL OR eta IS NULL OR eta <= p_by));
END
$$;

-- What the commands are made of.

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
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref)
		VALUES (v_event_id, statement_timestamp(),
				'shipped', p_orderid, p_sku, v_qty, v_ref);
	RETURN 1;
END
$$;
COMMIT;
