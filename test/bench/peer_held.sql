-- The peer's commands and queries again where holds bear on them, but for those
-- in peer_holds.sql, which comes first.

\set ON_ERROR_STOP on
BEGIN;

-- Commands.

CREATE OR REPLACE FUNCTION alloc_peer.deallocate(p_orderid text, p_sku text)
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
		IF v_line.expires_at <= statement_timestamp() THEN
			PERFORM alloc_peer.sweep(p_sku);
			CONTINUE;
		END IF;

		-- The slot before the line, as the other commands do it.
		SELECT ref INTO v_ref FROM alloc_peer.slot
		 WHERE batch_id = v_line.batch_id AND slot = 0 FOR UPDATE;
		DELETE FROM alloc_peer.allocation
		 WHERE orderid = p_orderid AND sku = p_sku AND batch_id = v_line.batch_id
		   AND shipped_at IS NULL AND expires_at IS NOT DISTINCT FROM v_line.expires_at;
		-- The line may have changed while the lock was waited for.
		EXIT WHEN FOUND;
	END LOOP;

	DELETE FROM alloc_peer.hold
	 WHERE orderid = p_orderid AND sku = p_sku AND v_line.expires_at IS NOT NULL;
	UPDATE alloc_peer.slot SET available = available + v_line.qty
	 WHERE batch_id = v_line.batch_id AND slot = 0;
	PERFORM alloc_peer.tell_line(v_line, 'deallocated', 'hold_released', v_ref);
	RETURN v_ref;
END
$$;

ALTER FUNCTION alloc_peer.change_batch_quantity(text, bigint)
	RENAME TO change_quantity_of_live_lines;
CREATE FUNCTION alloc_peer.change_batch_quantity(p_ref text, p_qty bigint)
RETURNS TABLE (orderid text, sku text, qty bigint, old_batchref text, new_batchref text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
	PERFORM alloc_peer.sweep(b.sku) FROM alloc_peer.batch b
	  WHERE b.ref = p_ref AND p_qty < b.purchased AND p_qty >= 0;
	RETURN QUERY SELECT * FROM alloc_peer.change_quantity_of_live_lines(p_ref, p_qty);
END
$$;

ALTER FUNCTION alloc_peer.change_batch_eta(text, date) RENAME TO change_eta_of_live_lines;
CREATE FUNCTION alloc_peer.change_batch_eta(p_ref text, p_eta date)
RETURNS TABLE (orderid text, sku text, qty bigint, old_eta date, new_eta date)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
	PERFORM alloc_peer.sweep(b.sku) FROM alloc_peer.batch b
	  WHERE b.ref = p_ref AND b.eta IS DISTINCT FROM p_eta;
	RETURN QUERY SELECT * FROM alloc_peer.change_eta_of_live_lines(p_ref, p_eta);
END
$$;

ALTER FUNCTION alloc_peer.ship(text, text) RENAME TO ship_allocated;
CREATE FUNCTION alloc_peer.ship(p_orderid text, p_sku text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_hold alloc_peer.hold;
BEGIN
	IF octet_length(p_sku) BETWEEN 1 AND 255 OR p_sku IS NULL THEN
		FOR v_hold IN
			SELECT h.* FROM alloc_peer.hold h
			 WHERE h.orderid = p_orderid AND (p_sku IS NULL OR h.sku = p_sku)
			   AND NOT (h.ended AND EXISTS (
					SELECT FROM alloc_peer.allocation a
					 WHERE a.orderid = p_orderid AND a.sku = h.sku))
			 ORDER BY h.sku COLLATE "C"
		LOOP
			PERFORM alloc_peer.refuse_over(v_hold);
			RAISE object_not_in_prerequisite_state USING
				MESSAGE = format('order "%s" only holds sku "%s"', p_orderid, v_hold.sku);
		END LOOP;
	END IF;
	RETURN alloc_peer.ship_allocated(p_orderid, p_sku);
END
$$;

ALTER FUNCTION alloc_peer.purge_shipped(timestamptz) RENAME TO purge_shipped_lines;
CREATE FUNCTION alloc_peer.purge_shipped(p_before timestamptz)
RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM alloc_peer.hold WHERE ended AND expires_at < p_before;
	RETURN alloc_peer.purge_shipped_lines(p_before);
END
$$;

-- Queries.

CREATE OR REPLACE FUNCTION alloc_peer.promise(p_sku text, p_qty bigint)
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

CREATE OR REPLACE FUNCTION alloc_peer.available_to_promise(p_sku text, p_by date DEFAULT NULL)
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

-- shed: as in peer.sql, with lines that are held.
CREATE OR REPLACE FUNCTION alloc_peer.shed(p_batch alloc_peer.batch, p_qty bigint, p_deficit bigint)
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

-- place_order_line: says what a sku gets, when its holds that are over have been
-- ended.
ALTER FUNCTION alloc_peer.place_order_line(text, alloc_peer.order_fate)
	RENAME TO place_order_line_now;
CREATE FUNCTION alloc_peer.place_order_line(p_orderid text, p_fate alloc_peer.order_fate)
RETURNS alloc_peer.order_fate
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc_peer.sweep(p_fate.sku);
	RETURN alloc_peer.place_order_line_now(p_orderid, p_fate);
END
$$;

-- take_order_line: a line that is held is confirmed, or stays so.
ALTER FUNCTION alloc_peer.take_order_line(text, alloc_peer.order_fate, boolean)
	RENAME TO take_line_not_held;
CREATE FUNCTION alloc_peer.take_order_line(p_orderid text, p_fate alloc_peer.order_fate, p_refused boolean)
RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	IF p_fate.qty_there = p_fate.qty AND EXISTS (
		SELECT FROM alloc_peer.allocation
		 WHERE orderid = p_orderid AND sku = p_fate.sku AND expires_at IS NOT NULL)
	THEN
		IF p_refused THEN
			RETURN 'not_taken';
		END IF;
		PERFORM alloc_peer.confirm_line(p_orderid, p_fate.sku);
		RETURN 'allocated';
	END IF;
	RETURN alloc_peer.take_line_not_held(p_orderid, p_fate, p_refused);
END
$$;

-- drop_line: no batch can serve a line any more.
CREATE FUNCTION alloc_peer.drop_line(p_line alloc_peer.allocation)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	UPDATE alloc_peer.hold
	   SET ended = true, expires_at = least(expires_at, statement_timestamp())
	 WHERE orderid = p_line.orderid AND sku = p_line.sku AND NOT ended;
	DELETE FROM alloc_peer.allocation
	 WHERE orderid = p_line.orderid AND sku = p_line.sku;
	PERFORM alloc_peer.out_of_stock(p_line.orderid, p_line.sku, p_line.qty);
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
COMMIT;
