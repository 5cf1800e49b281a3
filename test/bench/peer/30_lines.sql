-- The peer's commands about order lines: allocate(), allocate_lines(),
-- deallocate(); and what they share with the others.

\set ON_ERROR_STOP on
BEGIN;
-- Functions are created before those that they call.
SET LOCAL check_function_bodies = off;

-- Commands.

-- allocate: gives an order line the first batch that can serve all of it.  One
-- expression, so that it costs no call of its own.
CREATE FUNCTION alloc_peer.allocate(p_orderid text, p_sku text, p_qty bigint)
RETURNS text
LANGUAGE sql AS $$
	SELECT alloc_peer.place(p_orderid, p_sku, p_qty, NULL)
$$;

-- allocate_lines: allocate() for each line in turn.
CREATE FUNCTION alloc_peer.allocate_lines(
	p_lines alloc_peer.order_line[],
	OUT orderid text, OUT sku text, OUT qty bigint, OUT batchref text)
RETURNS SETOF record
LANGUAGE plpgsql AS $$
DECLARE
	v_line alloc_peer.order_line;
BEGIN
	FOREACH v_line IN ARRAY p_lines LOOP
		orderid := v_line.orderid;
		sku := v_line.sku;
		qty := v_line.qty;
		batchref := alloc_peer.allocate(orderid, sku, qty);
		RETURN NEXT;
	END LOOP;
END
$$;

-- deallocate: frees an order line.
CREATE FUNCTION alloc_peer.deallocate(p_orderid text, p_sku text)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_line alloc_peer.allocation;
	v_ref  text;
BEGIN
	IF coalesce(octet_length(p_orderid), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('orderid', p_orderid);
	END IF;
	IF coalesce(octet_length(p_sku), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('sku', p_sku);
	END IF;

	LOOP
		SELECT * INTO v_line FROM alloc_peer.allocation
		 WHERE orderid = p_orderid AND sku = p_sku AND shipped_at IS NULL;
		IF NOT FOUND THEN
			RETURN NULL;
		END IF;
		v_ref := alloc_peer.free_line(v_line);
		EXIT WHEN v_ref IS NOT NULL;
	END LOOP;
	RETURN v_ref;
END
$$;

-- What the commands are made of.

-- place: gives a line the first batch that can serve all of it; p_until: only
-- until then.
CREATE FUNCTION alloc_peer.place(p_orderid text, p_sku text, p_qty bigint, p_until timestamptz)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_line alloc_peer.allocation;
	v_slot alloc_peer.slot;
BEGIN
	IF coalesce(octet_length(p_orderid), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('orderid', p_orderid);
	END IF;
	IF coalesce(octet_length(p_sku), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('sku', p_sku);
	END IF;
	IF coalesce(p_qty, 0) <= 0 THEN
		PERFORM alloc_peer.refuse_quantity(p_qty);
	END IF;

	LOOP
		SELECT * INTO v_line FROM alloc_peer.allocation
		 WHERE orderid = p_orderid AND sku = p_sku;
		IF FOUND AND v_line.expires_at <= statement_timestamp() THEN
			PERFORM alloc_peer.sweep(p_sku);
			CONTINUE;
		ELSIF FOUND THEN
			RETURN alloc_peer.again(v_line, p_qty, p_until);
		END IF;

		-- A row that had to be waited for is looked at again, and passed over
		-- if it has too little left.
		SELECT * INTO v_slot FROM alloc_peer.slot
		 WHERE sku = p_sku
		   AND (available >= p_qty OR hold_until <= statement_timestamp())
		 ORDER BY eta NULLS FIRST, batch_id, slot
		 LIMIT 1
		   FOR UPDATE;
		IF NOT FOUND THEN
			PERFORM alloc_peer.refuse_other_waiting(p_orderid, p_sku, p_qty);
			PERFORM alloc_peer.out_of_stock(p_orderid, p_sku, p_qty);
			RETURN NULL;
		ELSIF v_slot.available < p_qty THEN
			PERFORM alloc_peer.sweep(p_sku);
			CONTINUE;
		END IF;

		INSERT INTO alloc_peer.allocation (batch_id, event_id, qty, expires_at, orderid, sku)
			VALUES (v_slot.batch_id, nextval('alloc_peer.event_id_seq'), p_qty, p_until,
					p_orderid, p_sku)
			ON CONFLICT DO NOTHING
			RETURNING * INTO v_line;
		-- Another session may have allocated the same line: look again.
		EXIT WHEN FOUND;
	END LOOP;

	IF v_slot.waiting THEN
		PERFORM alloc_peer.leave_queue(p_orderid, p_sku, p_qty);
	END IF;
	UPDATE alloc_peer.slot
	   SET available = available - p_qty, hold_until = least(hold_until, p_until)
	 WHERE batch_id = v_slot.batch_id AND slot = 0;
	IF p_until IS NOT NULL THEN
		PERFORM alloc_peer.insert_hold(v_line);
	END IF;
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref, expires_at)
		VALUES (v_line.event_id, statement_timestamp(),
				CASE WHEN p_until IS NULL THEN 'allocated' ELSE 'held' END,
				p_orderid, p_sku, p_qty, v_slot.ref, p_until);
	RETURN v_slot.ref;
END
$$;

-- again: what is said of a line that is there.  One that was held is allocated
-- for good, if it is to be.
CREATE FUNCTION alloc_peer.again(p_line alloc_peer.allocation, p_qty bigint, p_until timestamptz)
RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	IF p_line.qty <> p_qty THEN
		RAISE EXCEPTION USING
			ERRCODE = 'SK003',
			MESSAGE = format('order "%s" has sku "%s" with quantity %s',
							 p_line.orderid, p_line.sku, p_line.qty);
	END IF;
	IF p_until IS NULL AND p_line.expires_at IS NOT NULL THEN
		PERFORM alloc_peer.confirm_line(p_line.orderid, p_line.sku);
	END IF;
	RETURN (SELECT ref FROM alloc_peer.batch WHERE batch_id = p_line.batch_id);
END
$$;

-- free_line: frees a line that a batch serves or holds, and serves those that
-- wait for its units; returns its batch, or NULL: look again.
CREATE FUNCTION alloc_peer.free_line(p_line alloc_peer.allocation)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_slot alloc_peer.slot;
BEGIN
	IF p_line.expires_at <= statement_timestamp() THEN
		PERFORM alloc_peer.sweep(p_line.sku);
		RETURN NULL;
	END IF;
	IF (SELECT waiting FROM alloc_peer.slot WHERE batch_id = p_line.batch_id AND slot = 0) THEN
		PERFORM alloc_peer.sweep(p_line.sku);
	END IF;

	-- The slot before the line, as the other commands do it.
	SELECT * INTO v_slot FROM alloc_peer.slot
	 WHERE batch_id = p_line.batch_id AND slot = 0 FOR UPDATE;
	DELETE FROM alloc_peer.allocation
	 WHERE orderid = p_line.orderid AND sku = p_line.sku AND batch_id = p_line.batch_id
	   AND shipped_at IS NULL AND expires_at IS NOT DISTINCT FROM p_line.expires_at;
	-- The line may have changed while the lock was waited for.
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	-- Its hold, or what is known of one that it had before.
	DELETE FROM alloc_peer.hold WHERE orderid = p_line.orderid AND sku = p_line.sku;
	UPDATE alloc_peer.slot SET available = available + p_line.qty
	 WHERE batch_id = p_line.batch_id AND slot = 0;
	PERFORM alloc_peer.tell_line(p_line, 'deallocated', 'hold_released', v_slot.ref);
	IF v_slot.waiting THEN
		PERFORM alloc_peer.serve_waiting(p_line.batch_id);
	END IF;
	RETURN v_slot.ref;
END
$$;

-- tell_line: an event about a line, of one type for lines that are allocated
-- and another one for those that are held; returns its id.
CREATE FUNCTION alloc_peer.tell_line(
	p_line alloc_peer.allocation, p_allocated text, p_held text, p_ref text)
RETURNS bigint
LANGUAGE sql AS $$
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref, expires_at)
		VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
				CASE WHEN p_line.expires_at IS NULL THEN p_allocated ELSE p_held END,
				p_line.orderid, p_line.sku, p_line.qty, p_ref, p_line.expires_at)
	RETURNING event_id
$$;

-- out_of_stock: records that no batch can serve a line; an error when there
-- is no such sku at all.
CREATE FUNCTION alloc_peer.out_of_stock(p_orderid text, p_sku text, p_qty bigint)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc_peer.refuse_unknown(p_sku);
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty)
		VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
				'out_of_stock', p_orderid, p_sku, p_qty);
END
$$;

-- refuse_unknown: an error if there is no such sku at all.
CREATE FUNCTION alloc_peer.refuse_unknown(p_sku text)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM alloc_peer.batch WHERE sku = p_sku) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'SK001',
			MESSAGE = format('sku "%s" does not exist', p_sku);
	END IF;
END
$$;

CREATE FUNCTION alloc_peer.refuse_key(p_name text, p_value text)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF p_value IS NULL THEN
		RAISE null_value_not_allowed USING
			MESSAGE = format('%s must not be null', p_name);
	ELSIF p_value = '' THEN
		RAISE invalid_parameter_value USING
			MESSAGE = format('%s must not be empty', p_name);
	END IF;
	RAISE string_data_right_truncation USING
		MESSAGE = format('%s is longer than 255 bytes', p_name);
END
$$;

CREATE FUNCTION alloc_peer.refuse_quantity(p_qty bigint)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF p_qty IS NULL THEN
		RAISE null_value_not_allowed USING
			MESSAGE = 'qty must not be null';
	END IF;
	RAISE invalid_parameter_value USING
		MESSAGE = format('quantity %s is out of range', p_qty);
END
$$;
COMMIT;
