-- The peer's holds: hold(), confirm(), release(), extend_hold(); and the other
-- commands, queries and views again where holds bear on them.  See peer.sql,
-- peer_ships.sql and peer_orders.sql, which come first.
--
-- A hold that is over is ended by whoever needs its units.  A slot says when
-- that may be worth a look, as in the extension.

\set ON_ERROR_STOP on
BEGIN;

CREATE TABLE alloc_peer.hold (
	batch_id   bigint NOT NULL,
	qty        bigint NOT NULL,
	expires_at timestamptz NOT NULL,
	ended      boolean NOT NULL DEFAULT false,
	orderid    text NOT NULL,
	sku        text NOT NULL
);
CREATE UNIQUE INDEX hold_line
	ON alloc_peer.hold (orderid text_pattern_ops, sku text_pattern_ops);
CREATE INDEX hold_expiry ON alloc_peer.hold (batch_id, expires_at) WHERE NOT ended;
ALTER TABLE alloc_peer.slot ADD hold_until timestamptz;
ALTER TABLE alloc_peer.event ADD expires_at timestamptz;

CREATE OR REPLACE VIEW alloc_peer.allocations AS
SELECT a.orderid, a.sku, a.qty, b.ref AS batchref, b.eta, a.expires_at
  FROM alloc_peer.allocation a
  JOIN alloc_peer.batch b USING (batch_id)
 WHERE a.shipped_at IS NULL
   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp());

CREATE OR REPLACE VIEW alloc_peer.batches AS
SELECT b.ref, b.sku, b.eta,
       b.purchased AS purchased_qty,
       s.shipped AS shipped_qty,
       b.purchased - s.shipped - s.available - h.qty AS allocated_qty,
       s.available + h.qty AS available_qty
  FROM alloc_peer.batch b
  JOIN alloc_peer.slot s ON s.batch_id = b.batch_id AND s.slot = 0
 CROSS JOIN LATERAL (
	SELECT coalesce(sum(hold.qty), 0)::bigint AS qty
	  FROM alloc_peer.hold
	 WHERE hold.batch_id = b.batch_id AND NOT hold.ended
	   AND hold.expires_at <= statement_timestamp()) h;

-- Commands.

CREATE OR REPLACE FUNCTION alloc_peer.allocate(p_orderid text, p_sku text, p_qty bigint)
RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN alloc_peer.place(p_orderid, p_sku, p_qty, NULL);
END
$$;

-- hold: like allocate, until the statement is as old as p_ttl.
CREATE FUNCTION alloc_peer.hold(p_orderid text, p_sku text, p_qty bigint, p_ttl interval)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_most int := coalesce(current_setting('alloc.max_holds_per_order', true)::int, 100);
	v_skus text[];
BEGIN
	PERFORM alloc_peer.refuse_line(p_orderid, p_sku, p_qty);
	PERFORM alloc_peer.refuse_ttl(p_ttl);
	PERFORM pg_advisory_xact_lock(hashtext(p_orderid));
	SELECT array_agg(sku) INTO v_skus FROM alloc_peer.hold
	 WHERE orderid = p_orderid AND NOT ended AND expires_at > statement_timestamp();
	IF cardinality(v_skus) >= v_most AND p_sku <> ALL (v_skus) THEN
		RAISE configuration_limit_exceeded USING
			MESSAGE = format('order "%s" has %s holds', p_orderid, cardinality(v_skus));
	END IF;
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
		IF EXISTS (SELECT FROM alloc_peer.allocation
					WHERE orderid = p_orderid AND sku = v_sku AND expires_at IS NOT NULL)
			AND alloc_peer.deallocate(p_orderid, v_sku) IS NOT NULL
		THEN
			v_released := v_released + 1;
		END IF;
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

-- place: gives a line the first batch that can serve all of it; p_until: only
-- until then.
CREATE FUNCTION alloc_peer.place(p_orderid text, p_sku text, p_qty bigint, p_until timestamptz)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_line alloc_peer.allocation;
	v_slot alloc_peer.slot;
BEGIN
	PERFORM alloc_peer.refuse_line(p_orderid, p_sku, p_qty);
	LOOP
		SELECT * INTO v_line FROM alloc_peer.allocation
		 WHERE orderid = p_orderid AND sku = p_sku;
		IF FOUND AND v_line.expires_at <= statement_timestamp() THEN
			PERFORM alloc_peer.sweep(p_sku);
			CONTINUE;
		ELSIF FOUND THEN
			RETURN alloc_peer.again(v_line, p_qty, p_until);
		END IF;

		SELECT * INTO v_slot FROM alloc_peer.slot
		 WHERE sku = p_sku
		   AND (available >= p_qty OR hold_until <= statement_timestamp())
		 ORDER BY eta NULLS FIRST, batch_id, slot
		 LIMIT 1
		   FOR UPDATE;
		IF NOT FOUND THEN
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

	UPDATE alloc_peer.slot
	   SET available = available - p_qty, hold_until = least(hold_until, p_until)
	 WHERE batch_id = v_slot.batch_id AND slot = 0;
	IF p_until IS NOT NULL THEN
		INSERT INTO alloc_peer.hold (batch_id, qty, expires_at, orderid, sku)
			VALUES (v_slot.batch_id, p_qty, p_until, p_orderid, p_sku)
			ON CONFLICT (orderid text_pattern_ops, sku text_pattern_ops) DO UPDATE
			SET batch_id = excluded.batch_id, qty = excluded.qty,
				expires_at = excluded.expires_at, ended = false;
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

-- sweep: ends the holds of a sku that are over.
CREATE FUNCTION alloc_peer.sweep(p_sku text)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_slot alloc_peer.slot;
	v_hold alloc_peer.hold;
	v_line alloc_peer.allocation;
BEGIN
	PERFORM FROM alloc_peer.product WHERE sku = p_sku FOR NO KEY UPDATE;
	FOR v_slot IN
		SELECT * FROM alloc_peer.slot
		 WHERE sku = p_sku AND hold_until <= statement_timestamp()
		 ORDER BY eta NULLS FIRST, batch_id, slot
		   FOR UPDATE
	LOOP
		FOR v_hold IN
			SELECT * FROM alloc_peer.hold
			 WHERE batch_id = v_slot.batch_id AND NOT ended
			   AND expires_at <= statement_timestamp()
			 ORDER BY expires_at
			   FOR UPDATE
		LOOP
			UPDATE alloc_peer.hold SET ended = true
			 WHERE orderid = v_hold.orderid AND sku = p_sku;
			DELETE FROM alloc_peer.allocation
			 WHERE orderid = v_hold.orderid AND sku = p_sku
			RETURNING * INTO v_line;
			UPDATE alloc_peer.slot SET available = available + v_hold.qty
			 WHERE batch_id = v_slot.batch_id AND slot = 0;
			PERFORM alloc_peer.tell_line(v_line, NULL, 'hold_expired', v_slot.ref);
		END LOOP;
		UPDATE alloc_peer.slot
		   SET hold_until = (SELECT min(h.expires_at) FROM alloc_peer.hold h
							  WHERE h.batch_id = v_slot.batch_id AND NOT h.ended)
		 WHERE batch_id = v_slot.batch_id AND slot = 0;
	END LOOP;
END
$$;

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

CREATE FUNCTION alloc_peer.refuse_line(p_orderid text, p_sku text, p_qty bigint)
RETURNS void
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
