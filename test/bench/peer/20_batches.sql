-- The peer's commands about batches: add_batch(), change_batch_quantity(),
-- change_batch_eta().

\set ON_ERROR_STOP on
BEGIN;

-- Commands.

-- add_batch: buys a batch.
CREATE FUNCTION alloc_peer.add_batch(p_ref text, p_sku text, p_qty bigint, p_eta date DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_batch    alloc_peer.batch%ROWTYPE;
	v_batch_id bigint;
BEGIN
	IF coalesce(octet_length(p_ref), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('ref', p_ref);
	END IF;
	IF coalesce(octet_length(p_sku), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('sku', p_sku);
	END IF;
	IF coalesce(p_qty, -1) < 0 THEN
		PERFORM alloc_peer.refuse_quantity(p_qty);
	END IF;

	LOOP
		SELECT * INTO v_batch FROM alloc_peer.batch WHERE ref = p_ref;
		IF FOUND THEN
			IF (v_batch.sku, v_batch.purchased, v_batch.eta)
				IS DISTINCT FROM (p_sku, p_qty, p_eta)
			THEN
				RAISE unique_violation USING
					MESSAGE = format('batch "%s" exists with other values', p_ref);
			END IF;
			RETURN p_ref;
		END IF;

		INSERT INTO alloc_peer.product (sku) VALUES (p_sku)
			ON CONFLICT DO NOTHING;
		PERFORM FROM alloc_peer.product WHERE sku = p_sku FOR NO KEY UPDATE;
		PERFORM alloc_peer.refuse_overflow(p_sku, p_qty);

		INSERT INTO alloc_peer.batch (batch_id, purchased, eta, ref, sku)
			VALUES (nextval('alloc_peer.batch_id_seq'), p_qty, p_eta, p_ref, p_sku)
			ON CONFLICT DO NOTHING
			RETURNING batch_id INTO v_batch_id;
		-- Another session may have bought the same batch: look again.
		EXIT WHEN FOUND;
	END LOOP;

	INSERT INTO alloc_peer.slot (batch_id, available, eta, ref, sku)
		VALUES (v_batch_id, p_qty, p_eta, p_ref, p_sku);
	INSERT INTO alloc_peer.event (event_id, at, type, batchref, sku, qty, eta)
		VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
				'batch_created', p_ref, p_sku, p_qty, p_eta);
	PERFORM alloc_peer.serve_waiting(v_batch_id);
	RETURN p_ref;
END
$$;

-- change_batch_quantity: sets what was purchased of a batch; the lines that no
-- longer fit are allocated again.
CREATE FUNCTION alloc_peer.change_batch_quantity(p_ref text, p_qty bigint)
RETURNS TABLE (orderid text, sku text, qty bigint, old_batchref text, new_batchref text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	v_batch   alloc_peer.batch%ROWTYPE;
	v_slot    alloc_peer.slot%ROWTYPE;
	v_deficit bigint;
BEGIN
	IF coalesce(octet_length(p_ref), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('ref', p_ref);
	END IF;
	IF coalesce(p_qty, -1) < 0 THEN
		PERFORM alloc_peer.refuse_quantity(p_qty);
	END IF;

	SELECT * INTO v_batch FROM alloc_peer.batch WHERE ref = p_ref;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'SK002',
			MESSAGE = format('batch "%s" does not exist', p_ref);
	END IF;
	PERFORM FROM alloc_peer.product WHERE sku = v_batch.sku FOR NO KEY UPDATE;
	SELECT * INTO v_batch FROM alloc_peer.batch WHERE ref = p_ref;
	IF p_qty = v_batch.purchased THEN
		RETURN;
	ELSIF p_qty < v_batch.purchased THEN
		PERFORM alloc_peer.sweep(v_batch.sku);
	END IF;
	PERFORM FROM alloc_peer.slot
	  WHERE sku = v_batch.sku
	  ORDER BY eta NULLS FIRST, batch_id, slot
		FOR UPDATE;
	SELECT * INTO v_slot FROM alloc_peer.slot
	 WHERE batch_id = v_batch.batch_id AND slot = 0;
	IF p_qty < v_slot.shipped THEN
		RAISE EXCEPTION USING
			ERRCODE = 'SK004',
			MESSAGE = format('quantity %s of batch "%s" is below the shipped quantity %s',
							 p_qty, p_ref, v_slot.shipped);
	END IF;
	PERFORM alloc_peer.refuse_overflow(v_batch.sku, p_qty - v_batch.purchased);

	v_deficit := v_batch.purchased - v_slot.available - p_qty;
	IF v_deficit > 0 THEN
		RETURN QUERY SELECT * FROM alloc_peer.shed(v_batch, p_qty, v_deficit);
	ELSE
		UPDATE alloc_peer.slot SET available = available + (p_qty - v_batch.purchased)
		 WHERE batch_id = v_batch.batch_id AND slot = 0;
		PERFORM alloc_peer.set_purchased(v_batch, p_qty);
	END IF;
	IF p_qty < v_batch.purchased
		OR EXISTS (SELECT FROM alloc_peer.backorder WHERE backorder.sku = v_batch.sku)
	THEN
		PERFORM alloc_peer.serve_waiting(v_batch.batch_id);
	END IF;
END
$$;

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
	SELECT * INTO v_batch FROM alloc_peer.batch WHERE ref = p_ref;
	IF v_batch.eta IS NOT DISTINCT FROM p_eta THEN
		RETURN;
	END IF;
	PERFORM alloc_peer.sweep(v_batch.sku);
	PERFORM FROM alloc_peer.slot WHERE batch_id = v_batch.batch_id FOR UPDATE;

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

-- What the commands are made of.

-- shed: lets the newest lines of a batch go until the deficit is covered, and
-- allocates them again, oldest first.  The caller has locked the sku's slots.
CREATE FUNCTION alloc_peer.shed(p_batch alloc_peer.batch, p_qty bigint, p_deficit bigint)
RETURNS TABLE (orderid text, sku text, qty bigint, old_batchref text, new_batchref text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	v_lines   alloc_peer.allocation[] := '{}';	-- taken, newest first
	v_batches alloc_peer.batch[];	-- in order of preference
	v_free    bigint[];				-- what each of them has available
	v_own     int;					-- which of them is the shrunk one
	v_targets int[] := '{}';		-- for each line, its batch; NULL: none
	v_taken   bigint := 0;
	v_line    alloc_peer.allocation;
BEGIN
	FOR v_line IN
		SELECT * FROM alloc_peer.allocation
		 WHERE batch_id = p_batch.batch_id AND shipped_at IS NULL
		 ORDER BY event_id DESC
	LOOP
		v_lines := v_lines || v_line;
		v_taken := v_taken + v_line.qty;
		EXIT WHEN v_taken >= p_deficit;
	END LOOP;

	SELECT array_agg(b ORDER BY b.eta NULLS FIRST, b.batch_id),
		   array_agg(s.available ORDER BY b.eta NULLS FIRST, b.batch_id)
	  INTO v_batches, v_free
	  FROM alloc_peer.batch b
	  JOIN alloc_peer.slot s ON s.batch_id = b.batch_id AND s.slot = 0
	 WHERE b.sku = p_batch.sku;
	v_own := array_position(v_batches, p_batch);
	v_free[v_own] := v_taken - p_deficit;

	FOR i IN REVERSE cardinality(v_lines)..1 LOOP
		FOR j IN 1..cardinality(v_batches) LOOP
			IF v_free[j] >= v_lines[i].qty THEN
				v_targets[i] := j;
				v_free[j] := v_free[j] - v_lines[i].qty;
				EXIT;
			END IF;
		END LOOP;
	END LOOP;

	FOR i IN 1..cardinality(v_lines) LOOP
		CONTINUE WHEN v_targets[i] = v_own;
		PERFORM alloc_peer.tell_line(v_lines[i], 'deallocated', 'hold_released', p_batch.ref);
	END LOOP;

	FOR j IN 1..cardinality(v_batches) LOOP
		UPDATE alloc_peer.slot SET available = v_free[j]
		 WHERE batch_id = v_batches[j].batch_id AND slot = 0
		   AND available <> v_free[j];
	END LOOP;
	PERFORM alloc_peer.set_purchased(p_batch, p_qty);

	FOR i IN REVERSE cardinality(v_lines)..1 LOOP
		CONTINUE WHEN v_targets[i] = v_own;
		v_line := v_lines[i];
		orderid := v_line.orderid;
		sku := v_line.sku;
		qty := v_line.qty;
		old_batchref := p_batch.ref;
		new_batchref := v_batches[v_targets[i]].ref;
		IF new_batchref IS NULL THEN
			PERFORM alloc_peer.drop_line(v_line);
		ELSE
			PERFORM alloc_peer.move_line(v_line, v_batches[v_targets[i]]);
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;

-- drop_line: no batch can serve a line any more.  One that was held does not
-- wait: its hold has ended early.
CREATE FUNCTION alloc_peer.drop_line(p_line alloc_peer.allocation)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM alloc_peer.allocation
	 WHERE orderid = p_line.orderid AND sku = p_line.sku;
	IF p_line.expires_at IS NULL THEN
		PERFORM alloc_peer.queue_line(p_line.orderid, p_line.sku, p_line.qty);
	ELSE
		UPDATE alloc_peer.hold
		   SET ended = true, expires_at = least(expires_at, statement_timestamp())
		 WHERE orderid = p_line.orderid AND sku = p_line.sku;
		PERFORM alloc_peer.out_of_stock(p_line.orderid, p_line.sku, p_line.qty);
	END IF;
END
$$;

CREATE FUNCTION alloc_peer.move_line(p_line alloc_peer.allocation, p_to alloc_peer.batch)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	UPDATE alloc_peer.hold SET batch_id = p_to.batch_id
	 WHERE orderid = p_line.orderid AND sku = p_line.sku AND NOT ended;
	UPDATE alloc_peer.slot SET hold_until = least(hold_until, p_line.expires_at)
	 WHERE batch_id = p_to.batch_id AND slot = 0 AND p_line.expires_at IS NOT NULL;
	UPDATE alloc_peer.allocation
	   SET batch_id = p_to.batch_id,
		   event_id = alloc_peer.tell_line(p_line, 'allocated', 'held', p_to.ref)
	 WHERE orderid = p_line.orderid AND sku = p_line.sku;
END
$$;

CREATE FUNCTION alloc_peer.set_purchased(p_batch alloc_peer.batch, p_qty bigint)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	UPDATE alloc_peer.batch SET purchased = p_qty
	 WHERE batch_id = p_batch.batch_id;
	INSERT INTO alloc_peer.event (event_id, at, type, batchref, sku, qty, old_qty)
		VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
				'batch_quantity_changed', p_batch.ref, p_batch.sku, p_qty,
				p_batch.purchased);
END
$$;

-- refuse_overflow: an error if the purchased quantity of a sku, with p_more
-- added, is not a bigint.  The caller has locked the product.
CREATE FUNCTION alloc_peer.refuse_overflow(p_sku text, p_more bigint)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT coalesce(sum(purchased), 0) + p_more
		  FROM alloc_peer.batch WHERE sku = p_sku) > 9223372036854775807
	THEN
		RAISE numeric_value_out_of_range USING
			MESSAGE = format('the quantities of sku "%s" add up to more than a bigint holds', p_sku);
	END IF;
END
$$;
COMMIT;
