-- The peer's lines that wait for stock: who puts them into the queue, what
-- serves them, and cancel_backorder().
--
-- As in the extension a slot says that lines wait for its sku, so that
-- allocate() need not look, and that is taken back when the slot's batch is
-- looked at and nobody waits.

\set ON_ERROR_STOP on
BEGIN;

-- Commands.

-- cancel_backorder: takes a line that waits out of the queue.
CREATE FUNCTION alloc_peer.cancel_backorder(p_orderid text, p_sku text)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
	v_qty bigint;
BEGIN
	IF coalesce(octet_length(p_orderid), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('orderid', p_orderid);
	END IF;
	IF coalesce(octet_length(p_sku), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('sku', p_sku);
	END IF;

	DELETE FROM alloc_peer.backorder
	 WHERE orderid = p_orderid AND sku = p_sku
	RETURNING qty INTO v_qty;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty)
		VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
				'deallocated', p_orderid, p_sku, v_qty);
	RETURN true;
END
$$;

-- What the commands are made of.

-- queue_line: a line that no batch can serve begins to wait.  The caller has
-- locked the sku's slots.
CREATE FUNCTION alloc_peer.queue_line(p_orderid text, p_sku text, p_qty bigint)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_event_id bigint;
BEGIN
	PERFORM alloc_peer.out_of_stock(p_orderid, p_sku, p_qty);
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty)
		VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
				'backordered', p_orderid, p_sku, p_qty)
		RETURNING event_id INTO v_event_id;
	INSERT INTO alloc_peer.backorder (event_id, qty, since, orderid, sku)
		VALUES (v_event_id, p_qty, statement_timestamp(), p_orderid, p_sku);
	UPDATE alloc_peer.slot SET waiting = true WHERE sku = p_sku AND NOT waiting;
END
$$;

-- serve_waiting: serves lines that wait from what a batch has, first come first
-- served.
CREATE FUNCTION alloc_peer.serve_waiting(p_batch_id bigint)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_slot     alloc_peer.slot%ROWTYPE;
	v_line     alloc_peer.backorder%ROWTYPE;
	v_event_id bigint;
BEGIN
	SELECT * INTO v_slot FROM alloc_peer.slot
	 WHERE batch_id = p_batch_id AND slot = 0 FOR UPDATE;
	LOOP
		SELECT * INTO v_line FROM alloc_peer.backorder
		 WHERE sku = v_slot.sku AND qty <= v_slot.available
		 ORDER BY event_id
		 LIMIT 1
		   FOR UPDATE;
		EXIT WHEN NOT FOUND;

		DELETE FROM alloc_peer.backorder
		 WHERE orderid = v_line.orderid AND sku = v_line.sku;
		INSERT INTO alloc_peer.allocation (batch_id, event_id, qty, orderid, sku)
			VALUES (p_batch_id, nextval('alloc_peer.event_id_seq'), v_line.qty,
					v_line.orderid, v_line.sku)
			ON CONFLICT DO NOTHING
			RETURNING event_id INTO v_event_id;
		-- Another session may have allocated it.
		CONTINUE WHEN NOT FOUND;
		v_slot.available := v_slot.available - v_line.qty;
		UPDATE alloc_peer.slot SET available = v_slot.available
		 WHERE batch_id = p_batch_id AND slot = 0;
		INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref)
			VALUES (v_event_id, statement_timestamp(),
					'allocated', v_line.orderid, v_line.sku, v_line.qty, v_slot.ref);
	END LOOP;
	UPDATE alloc_peer.slot SET waiting = NOT waiting
	 WHERE batch_id = p_batch_id AND slot = 0
	   AND waiting <> EXISTS (SELECT FROM alloc_peer.backorder WHERE sku = v_slot.sku);
END
$$;

-- refuse_other_waiting: an error if a line waits with another quantity.
CREATE FUNCTION alloc_peer.refuse_other_waiting(p_orderid text, p_sku text, p_qty bigint)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_qty bigint;
BEGIN
	SELECT qty INTO v_qty FROM alloc_peer.backorder
	 WHERE orderid = p_orderid AND sku = p_sku;
	IF v_qty <> p_qty THEN
		RAISE EXCEPTION USING
			ERRCODE = 'SK003',
			MESSAGE = format('order "%s" waits for sku "%s" with quantity %s',
							 p_orderid, p_sku, v_qty);
	END IF;
END
$$;

-- leave_queue: a line that has got a batch does not wait any more.
CREATE FUNCTION alloc_peer.leave_queue(p_orderid text, p_sku text, p_qty bigint)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc_peer.refuse_other_waiting(p_orderid, p_sku, p_qty);
	DELETE FROM alloc_peer.backorder WHERE orderid = p_orderid AND sku = p_sku;
END
$$;
COMMIT;
