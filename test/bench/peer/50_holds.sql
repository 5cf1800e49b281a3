-- The peer's holds: hold(), confirm(), release(), extend_hold().
--
-- A hold that is over is ended by whoever needs its units.  A slot says when
-- that may be worth a look, as in the extension.

\set ON_ERROR_STOP on
BEGIN;

-- Commands.

-- hold: like allocate, until the statement is as old as p_ttl.
CREATE FUNCTION alloc_peer.hold(p_orderid text, p_sku text, p_qty bigint, p_ttl interval)
RETURNS text
LANGUAGE plpgsql AS $$
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
	PERFORM alloc_peer.refuse_ttl(p_ttl);
	-- Holds of one order take turns: they are counted.
	PERFORM pg_advisory_xact_lock(hashtext(p_orderid));
	RETURN alloc_peer.place(p_orderid, p_sku, p_qty, statement_timestamp() + p_ttl);
END
$$;

-- confirm: what an order holds is allocated for good.
CREATE FUNCTION alloc_peer.confirm(p_orderid text)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_hold      alloc_peer.hold;
	v_confirmed bigint := 0;
BEGIN
	IF coalesce(octet_length(p_orderid), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('orderid', p_orderid);
	END IF;
	FOR v_hold IN SELECT * FROM alloc_peer.live_holds(p_orderid) LOOP
		PERFORM alloc_peer.confirm_line(p_orderid, v_hold.sku);
		v_confirmed := v_confirmed + 1;
	END LOOP;
	RETURN v_confirmed;
END
$$;

-- release: frees what an order holds.
CREATE FUNCTION alloc_peer.release(p_orderid text)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_sku      text;
	v_released bigint := 0;
BEGIN
	IF coalesce(octet_length(p_orderid), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('orderid', p_orderid);
	END IF;
	FOR v_sku IN
		SELECT sku FROM alloc_peer.hold WHERE orderid = p_orderid ORDER BY sku COLLATE "C"
	LOOP
		v_released := v_released + alloc_peer.release_line(p_orderid, v_sku);
		DELETE FROM alloc_peer.hold WHERE orderid = p_orderid AND sku = v_sku AND ended;
	END LOOP;
	RETURN v_released;
END
$$;

-- extend_hold: what an order holds lasts until the statement is as old as p_ttl.
CREATE FUNCTION alloc_peer.extend_hold(p_orderid text, p_ttl interval)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_hold  alloc_peer.hold;
	v_until timestamptz;
	v_holds bigint := 0;
BEGIN
	IF coalesce(octet_length(p_orderid), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('orderid', p_orderid);
	END IF;
	PERFORM alloc_peer.refuse_ttl(p_ttl);
	v_until := statement_timestamp() + p_ttl;
	FOR v_hold IN SELECT * FROM alloc_peer.live_holds(p_orderid) LOOP
		v_holds := v_holds + 1;
		CONTINUE WHEN v_hold.expires_at >= v_until;
		UPDATE alloc_peer.hold SET expires_at = v_until
		 WHERE orderid = p_orderid AND sku = v_hold.sku;
		UPDATE alloc_peer.allocation SET expires_at = v_until
		 WHERE orderid = p_orderid AND sku = v_hold.sku;
		INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, old_qty, batchref, expires_at)
			SELECT nextval('alloc_peer.event_id_seq'), statement_timestamp(), 'held',
				   p_orderid, v_hold.sku, v_hold.qty, v_hold.qty, b.ref, v_until
			  FROM alloc_peer.batch b WHERE b.batch_id = v_hold.batch_id;
	END LOOP;
	RETURN v_holds;
END
$$;

-- What the commands are made of.

-- insert_hold: a line that was inserted is held; an error if the order has too
-- many of them.
CREATE FUNCTION alloc_peer.insert_hold(p_line alloc_peer.allocation)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_most  int := coalesce(current_setting('alloc.max_holds_per_order', true)::int, 100);
	v_holds bigint;
BEGIN
	INSERT INTO alloc_peer.hold (batch_id, qty, expires_at, orderid, sku)
		VALUES (p_line.batch_id, p_line.qty, p_line.expires_at, p_line.orderid, p_line.sku)
		ON CONFLICT (orderid text_pattern_ops, sku text_pattern_ops) DO UPDATE
		SET batch_id = excluded.batch_id, qty = excluded.qty,
			expires_at = excluded.expires_at, ended = false;
	SELECT count(*) INTO v_holds FROM alloc_peer.hold
	 WHERE orderid = p_line.orderid AND NOT ended AND expires_at > statement_timestamp();
	IF v_holds > v_most AND v_most >= 0 THEN
		RAISE configuration_limit_exceeded USING
			MESSAGE = format('order "%s" has %s holds', p_line.orderid, v_holds - 1);
	END IF;
END
$$;

-- release_line: returns 1, or 0 if the line is not held any more.
CREATE FUNCTION alloc_peer.release_line(p_orderid text, p_sku text)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_line alloc_peer.allocation;
BEGIN
	LOOP
		SELECT * INTO v_line FROM alloc_peer.allocation
		 WHERE orderid = p_orderid AND sku = p_sku AND expires_at IS NOT NULL;
		IF NOT FOUND THEN
			RETURN 0;
		ELSIF alloc_peer.free_line(v_line) IS NOT NULL THEN
			RETURN 1;
		END IF;
	END LOOP;
END
$$;

CREATE FUNCTION alloc_peer.confirm_line(p_orderid text, p_sku text)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_line alloc_peer.allocation;
BEGIN
	DELETE FROM alloc_peer.hold WHERE orderid = p_orderid AND sku = p_sku;
	UPDATE alloc_peer.allocation SET expires_at = NULL
	 WHERE orderid = p_orderid AND sku = p_sku
	RETURNING * INTO v_line;
	PERFORM alloc_peer.tell_line(v_line, 'confirmed', NULL,
		(SELECT ref FROM alloc_peer.batch WHERE batch_id = v_line.batch_id));
END
$$;

-- live_holds: what an order holds; an error if some of it is over.
CREATE FUNCTION alloc_peer.live_holds(p_orderid text)
RETURNS SETOF alloc_peer.hold
LANGUAGE plpgsql AS $$
DECLARE
	v_hold alloc_peer.hold;
BEGIN
	FOR v_hold IN
		SELECT * FROM alloc_peer.hold WHERE orderid = p_orderid
		 ORDER BY sku COLLATE "C" FOR UPDATE
	LOOP
		-- A line that came after its hold was over is like any other.
		CONTINUE WHEN v_hold.ended AND EXISTS (
			SELECT FROM alloc_peer.allocation
			 WHERE orderid = p_orderid AND sku = v_hold.sku);
		PERFORM alloc_peer.refuse_over(v_hold);
		RETURN NEXT v_hold;
	END LOOP;
END
$$;

-- sweep: ends the holds of a sku that are over, and serves the lines that wait.
CREATE FUNCTION alloc_peer.sweep(p_sku text)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_slot  alloc_peer.slot;
	v_hold  alloc_peer.hold;
	v_ended bigint;
BEGIN
	PERFORM FROM alloc_peer.product WHERE sku = p_sku FOR NO KEY UPDATE;
	FOR v_slot IN
		SELECT * FROM alloc_peer.slot
		 WHERE sku = p_sku AND hold_until <= statement_timestamp()
		 ORDER BY eta NULLS FIRST, batch_id, slot
		   FOR UPDATE
	LOOP
		v_ended := 0;
		FOR v_hold IN
			SELECT * FROM alloc_peer.hold
			 WHERE batch_id = v_slot.batch_id AND NOT ended
			   AND expires_at <= statement_timestamp()
			 ORDER BY expires_at
			   FOR UPDATE
		LOOP
			PERFORM alloc_peer.end_hold(v_hold, v_slot.ref);
			v_ended := v_ended + 1;
		END LOOP;
		UPDATE alloc_peer.slot
		   SET hold_until = (SELECT min(h.expires_at) FROM alloc_peer.hold h
							  WHERE h.batch_id = v_slot.batch_id AND NOT h.ended)
		 WHERE batch_id = v_slot.batch_id AND slot = 0;
		PERFORM alloc_peer.serve_waiting(v_slot.batch_id);
		-- It is known for a week that a hold has ended.
		DELETE FROM alloc_peer.hold WHERE (orderid, sku) IN (
			SELECT orderid, sku FROM alloc_peer.hold
			 WHERE ended AND expires_at < statement_timestamp() - interval '7 days'
			 ORDER BY expires_at LIMIT 2 * v_ended);
	END LOOP;
END
$$;

-- end_hold: takes off a line whose hold is over.
CREATE FUNCTION alloc_peer.end_hold(p_hold alloc_peer.hold, p_ref text)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_line alloc_peer.allocation;
BEGIN
	UPDATE alloc_peer.hold SET ended = true
	 WHERE orderid = p_hold.orderid AND sku = p_hold.sku;
	DELETE FROM alloc_peer.allocation
	 WHERE orderid = p_hold.orderid AND sku = p_hold.sku
	RETURNING * INTO v_line;
	UPDATE alloc_peer.slot SET available = available + p_hold.qty
	 WHERE batch_id = p_hold.batch_id AND slot = 0;
	PERFORM alloc_peer.tell_line(v_line, NULL, 'hold_expired', p_ref);
END
$$;

CREATE FUNCTION alloc_peer.refuse_ttl(p_ttl interval)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF p_ttl IS NULL THEN
		RAISE null_value_not_allowed USING
			MESSAGE = 'ttl must not be null';
	ELSIF p_ttl <= '0' OR p_ttl > '1000 years' THEN
		RAISE invalid_parameter_value USING
			MESSAGE = format('ttl %s is out of range', p_ttl);
	END IF;
END
$$;

-- refuse_over: an error if a hold is over.
CREATE FUNCTION alloc_peer.refuse_over(p_hold alloc_peer.hold)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF p_hold.ended OR p_hold.expires_at <= statement_timestamp() THEN
		RAISE EXCEPTION USING
			ERRCODE = 'SK005',
			MESSAGE = format('the hold of order "%s" on sku "%s" is over',
							 p_hold.orderid, p_hold.sku);
	END IF;
END
$$;
COMMIT;
