-- The peer's holds: hold(), confirm(), release(), extend_hold(); and the views
-- and allocate() again, which holds bear on.  See peer.sql, peer_ships.sql and
-- peer_orders.sql, which come first.  The other commands are in peer_held.sql.
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
