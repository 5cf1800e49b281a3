-- The peer's allocate_order().
--
-- It locks the stock of an order in the order of the skus, decides, and then
-- writes.  Of two identical orders at once the second may fail: the unique
-- index has the line of the first.

\set ON_ERROR_STOP on
BEGIN;

-- What becomes of a sku of an order: the first batch that has enough, or the
-- line that is there.
CREATE TYPE alloc_peer.order_fate AS (
	sku text, qty bigint, batch_id bigint, ref text, waiting boolean, qty_there bigint, held boolean);

-- Commands.

-- allocate_order: the lines of an order, all of them or what there is; then the
-- rest may wait.
CREATE FUNCTION alloc_peer.allocate_order(
	p_orderid text, p_lines alloc_peer.order_line[], p_mode text DEFAULT 'all')
RETURNS TABLE (sku text, qty bigint, batchref text, status text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
	v_fates   alloc_peer.order_fate[];
	v_fate    alloc_peer.order_fate;
	v_n       bigint;
	v_refused boolean;
BEGIN
	PERFORM alloc_peer.refuse_order(p_orderid, p_lines, p_mode);
	SELECT array_agg(ROW(s.sku, s.qty, NULL, NULL, NULL, NULL, NULL)::alloc_peer.order_fate ORDER BY s.first)
	  INTO v_fates
	  FROM (SELECT l.sku, sum(l.qty)::bigint AS qty, min(l.n) AS first
			  FROM unnest(p_lines) WITH ORDINALITY AS l (orderid, sku, qty, n)
			 GROUP BY l.sku) AS s;

	FOR v_n IN
		SELECT f.n FROM unnest(v_fates) WITH ORDINALITY AS f (sku, qty, batch_id, ref, waiting, qty_there, held, n)
		 ORDER BY f.sku COLLATE "C"
	LOOP
		v_fates[v_n] := alloc_peer.place_order_line(p_orderid, v_fates[v_n], p_mode = 'backorder');
	END LOOP;
	v_refused := p_mode = 'all' AND EXISTS (SELECT FROM unnest(v_fates) AS f WHERE f.ref IS NULL);

	FOREACH v_fate IN ARRAY coalesce(v_fates, '{}') LOOP
		sku := v_fate.sku;
		qty := v_fate.qty;
		status := alloc_peer.take_order_line(p_orderid, v_fate, v_refused, p_mode = 'backorder');
		batchref := CASE status WHEN 'allocated' THEN v_fate.ref END;
		RETURN NEXT;
	END LOOP;
END
$$;

-- What the command is made of.

-- place_order_line: says what a sku gets, and locks it.  When it gets nothing and
-- is to wait, nobody may free units: then all of the sku is locked.
CREATE FUNCTION alloc_peer.place_order_line(
	p_orderid text, p_fate alloc_peer.order_fate, p_rest_waits boolean)
RETURNS alloc_peer.order_fate
LANGUAGE plpgsql AS $$
DECLARE
	v_line   alloc_peer.allocation;
	v_slot   alloc_peer.slot;
	v_locked boolean := false;
BEGIN
	LOOP
		SELECT * INTO v_line FROM alloc_peer.allocation
		 WHERE orderid = p_orderid AND sku = p_fate.sku;
		IF FOUND AND v_line.expires_at <= statement_timestamp() THEN
			PERFORM alloc_peer.sweep(p_fate.sku);
			CONTINUE;
		ELSIF FOUND THEN
			p_fate.ref := (SELECT ref FROM alloc_peer.batch WHERE batch_id = v_line.batch_id);
			p_fate.qty_there := v_line.qty;
			p_fate.held := v_line.expires_at IS NOT NULL;
			RETURN p_fate;
		END IF;

		SELECT * INTO v_slot FROM alloc_peer.slot
		 WHERE sku = p_fate.sku
		   AND (available >= p_fate.qty OR hold_until <= statement_timestamp())
		 ORDER BY eta NULLS FIRST, batch_id, slot
		 LIMIT 1
		   FOR UPDATE;
		IF FOUND AND v_slot.available < p_fate.qty THEN
			PERFORM alloc_peer.sweep(p_fate.sku);
		ELSIF FOUND OR v_locked OR NOT p_rest_waits THEN
			p_fate.batch_id := v_slot.batch_id;
			p_fate.ref := v_slot.ref;
			p_fate.waiting := v_slot.waiting;
			RETURN p_fate;
		ELSE
			PERFORM FROM alloc_peer.product WHERE sku = p_fate.sku FOR NO KEY UPDATE;
			PERFORM FROM alloc_peer.slot WHERE sku = p_fate.sku
			  ORDER BY eta NULLS FIRST, batch_id, slot FOR UPDATE;
			v_locked := true;
		END IF;
	END LOOP;
END
$$;

-- take_order_line: writes it, and returns what became of the line.
CREATE FUNCTION alloc_peer.take_order_line(
	p_orderid text, p_fate alloc_peer.order_fate, p_refused boolean, p_rest_waits boolean)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_event_id bigint;
BEGIN
	IF p_fate.qty_there <> p_fate.qty THEN
		RAISE EXCEPTION USING
			ERRCODE = 'SK003',
			MESSAGE = format('order "%s" has sku "%s" with quantity %s',
							 p_orderid, p_fate.sku, p_fate.qty_there);
	ELSIF p_fate.held AND p_refused THEN
		RETURN 'not_taken';
	ELSIF p_fate.held THEN
		PERFORM alloc_peer.confirm_line(p_orderid, p_fate.sku);
		RETURN 'allocated';
	ELSIF p_fate.qty_there IS NOT NULL THEN
		RETURN 'allocated';
	ELSIF p_fate.ref IS NULL THEN
		PERFORM alloc_peer.refuse_other_waiting(p_orderid, p_fate.sku, p_fate.qty);
		IF NOT p_rest_waits THEN
			PERFORM alloc_peer.out_of_stock(p_orderid, p_fate.sku, p_fate.qty);
			RETURN 'out_of_stock';
		END IF;
		IF NOT EXISTS (SELECT FROM alloc_peer.backorder
						WHERE orderid = p_orderid AND sku = p_fate.sku)
		THEN
			PERFORM alloc_peer.queue_line(p_orderid, p_fate.sku, p_fate.qty);
		END IF;
		RETURN 'backordered';
	ELSIF p_refused THEN
		RETURN 'not_taken';
	END IF;

	INSERT INTO alloc_peer.allocation (batch_id, event_id, qty, orderid, sku)
		VALUES (p_fate.batch_id, nextval('alloc_peer.event_id_seq'), p_fate.qty,
				p_orderid, p_fate.sku)
		RETURNING event_id INTO v_event_id;
	IF p_fate.waiting THEN
		PERFORM alloc_peer.leave_queue(p_orderid, p_fate.sku, p_fate.qty);
	END IF;
	UPDATE alloc_peer.slot SET available = available - p_fate.qty
	 WHERE batch_id = p_fate.batch_id AND slot = 0;
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref)
		VALUES (v_event_id, statement_timestamp(),
				'allocated', p_orderid, p_fate.sku, p_fate.qty, p_fate.ref);
	RETURN 'allocated';
END
$$;

CREATE FUNCTION alloc_peer.refuse_order(p_orderid text, p_lines alloc_peer.order_line[], p_mode text)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_line alloc_peer.order_line;
BEGIN
	IF coalesce(octet_length(p_orderid), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('orderid', p_orderid);
	END IF;
	IF p_mode IS NULL OR p_lines IS NULL THEN
		RAISE null_value_not_allowed USING
			MESSAGE = 'mode and lines must not be null';
	END IF;
	IF p_mode NOT IN ('all', 'partial', 'backorder') THEN
		RAISE invalid_parameter_value USING
			MESSAGE = format('unknown mode "%s"', p_mode);
	END IF;

	FOREACH v_line IN ARRAY p_lines LOOP
		IF octet_length(v_line.orderid) NOT BETWEEN 1 AND 255 THEN
			PERFORM alloc_peer.refuse_key('orderid', v_line.orderid);
		END IF;
		IF v_line.orderid <> p_orderid THEN
			RAISE invalid_parameter_value USING
				MESSAGE = format('a line of order "%s" has orderid "%s"', p_orderid, v_line.orderid);
		END IF;
		IF coalesce(octet_length(v_line.sku), 0) NOT BETWEEN 1 AND 255 THEN
			PERFORM alloc_peer.refuse_key('sku', v_line.sku);
		END IF;
		IF coalesce(v_line.qty, 0) <= 0 THEN
			PERFORM alloc_peer.refuse_quantity(v_line.qty);
		END IF;
	END LOOP;
END
$$;
COMMIT;
