-- The peer: the contract of add_batch(), allocate(), allocate_lines(),
-- deallocate() and change_batch_quantity() in plain PL/pgSQL, in schema
-- alloc_peer.  What comes after, ships and promises, is in peer_ships.sql,
-- whole orders in peer_orders.sql, holds in peer_holds.sql and
-- peer_held.sql.
--
-- It serves twice.  As the reference: test/checks/random_commands.t runs
-- random commands against it and against the extension, in lock step.  As
-- the rival: make bench says how much faster the extension is.  So it is
-- written as one would write it for production: statements that the planner
-- can cache, one row lock per allocation, no subtransactions.
--
-- It does not need the extension:  psql -f test/bench/peer.sql

\set ON_ERROR_STOP on
BEGIN;
CREATE SCHEMA alloc_peer;

-- The tables of sql/10_tables.sql.

CREATE SEQUENCE alloc_peer.batch_id_seq;
CREATE SEQUENCE alloc_peer.event_id_seq CACHE 1;

CREATE TABLE alloc_peer.product (
	sku text NOT NULL
		CONSTRAINT product_sku_length CHECK (octet_length(sku) BETWEEN 1 AND 255)
);
CREATE UNIQUE INDEX product_sku ON alloc_peer.product (sku text_pattern_ops);

CREATE TABLE alloc_peer.batch (
	batch_id  bigint NOT NULL,
	purchased bigint NOT NULL
		CONSTRAINT batch_purchased_not_negative CHECK (purchased >= 0),
	eta       date,
	ref       text NOT NULL
		CONSTRAINT batch_ref_length CHECK (octet_length(ref) BETWEEN 1 AND 255),
	sku       text NOT NULL,
	CONSTRAINT batch_pkey PRIMARY KEY (batch_id),
	CONSTRAINT batch_of_product FOREIGN KEY (sku) REFERENCES alloc_peer.product (sku)
);
CREATE UNIQUE INDEX batch_ref ON alloc_peer.batch (ref text_pattern_ops);
CREATE INDEX batch_preference
	ON alloc_peer.batch (sku text_pattern_ops, eta NULLS FIRST, batch_id);

-- The peer has one slot, number 0, per batch.
CREATE TABLE alloc_peer.slot (
	batch_id  bigint NOT NULL,
	available bigint NOT NULL
		CONSTRAINT slot_available_not_negative CHECK (available >= 0),
	shipped   bigint NOT NULL DEFAULT 0
		CONSTRAINT slot_shipped_not_negative CHECK (shipped >= 0),
	slot      integer NOT NULL DEFAULT 0,
	eta       date,
	ref       text NOT NULL,
	sku       text NOT NULL,
	CONSTRAINT slot_pkey PRIMARY KEY (batch_id, slot)
) WITH (fillfactor = 50);
CREATE INDEX slot_preference
	ON alloc_peer.slot (sku text_pattern_ops, eta NULLS FIRST, batch_id, slot);

CREATE TABLE alloc_peer.allocation (
	batch_id   bigint NOT NULL,
	event_id   bigint NOT NULL,
	qty        bigint NOT NULL
		CONSTRAINT allocation_qty_positive CHECK (qty > 0),
	expires_at timestamptz,
	shipped_at timestamptz,
	orderid    text NOT NULL,
	sku        text NOT NULL
);
CREATE UNIQUE INDEX allocation_line
	ON alloc_peer.allocation (orderid text_pattern_ops, sku text_pattern_ops);
CREATE INDEX allocation_batch ON alloc_peer.allocation (batch_id, event_id);

CREATE TABLE alloc_peer.event (
	event_id bigint NOT NULL,
	at       timestamptz NOT NULL,
	xact     xid8 NOT NULL DEFAULT pg_current_xact_id(),
	qty      bigint,
	old_qty  bigint,
	eta      date,
	old_eta  date,
	type     text NOT NULL,
	sku      text NOT NULL,
	orderid  text,
	batchref text,
	CONSTRAINT event_pkey PRIMARY KEY (event_id) INCLUDE (xact)
);

CREATE VIEW alloc_peer.allocations AS
SELECT a.orderid, a.sku, a.qty, b.ref AS batchref, b.eta, a.expires_at
  FROM alloc_peer.allocation a
  JOIN alloc_peer.batch b USING (batch_id)
 WHERE a.shipped_at IS NULL;

CREATE VIEW alloc_peer.batches AS
SELECT b.ref, b.sku, b.eta,
       b.purchased AS purchased_qty,
       s.shipped AS shipped_qty,
       b.purchased - s.shipped - s.available AS allocated_qty,
       s.available AS available_qty
  FROM alloc_peer.batch b
 CROSS JOIN LATERAL (
	SELECT sum(slot.available)::bigint AS available,
	       sum(slot.shipped)::bigint AS shipped
	  FROM alloc_peer.slot
	 WHERE slot.batch_id = b.batch_id) s;

CREATE VIEW alloc_peer.stock AS
SELECT sku,
       sum(purchased_qty)::bigint AS purchased_qty,
       sum(shipped_qty)::bigint AS shipped_qty,
       sum(allocated_qty)::bigint AS allocated_qty,
       sum(available_qty)::bigint AS available_qty,
       coalesce(sum(available_qty) FILTER (WHERE eta IS NULL), 0)::bigint AS on_hand_qty,
       coalesce(sum(available_qty) FILTER (WHERE eta IS NOT NULL), 0)::bigint AS incoming_qty
  FROM alloc_peer.batches
 GROUP BY sku;

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
	RETURN p_ref;
END
$$;

-- allocate: gives an order line the first batch that can serve all of it.
CREATE FUNCTION alloc_peer.allocate(p_orderid text, p_sku text, p_qty bigint)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_line_qty bigint;
	v_batch_id bigint;
	v_ref      text;
	v_event_id bigint;
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
		SELECT a.qty, b.ref INTO v_line_qty, v_ref
		  FROM alloc_peer.allocation a
		  JOIN alloc_peer.batch b USING (batch_id)
		 WHERE a.orderid = p_orderid AND a.sku = p_sku;
		IF FOUND THEN
			IF v_line_qty <> p_qty THEN
				RAISE EXCEPTION USING
					ERRCODE = 'SK003',
					MESSAGE = format('order "%s" has sku "%s" with quantity %s',
									 p_orderid, p_sku, v_line_qty);
			END IF;
			RETURN v_ref;
		END IF;

		-- A row that had to be waited for is looked at again, and passed over
		-- if it has too little left.
		SELECT batch_id, ref INTO v_batch_id, v_ref
		  FROM alloc_peer.slot
		 WHERE sku = p_sku AND available >= p_qty
		 ORDER BY eta NULLS FIRST, batch_id, slot
		 LIMIT 1
		   FOR UPDATE;
		IF NOT FOUND THEN
			PERFORM alloc_peer.out_of_stock(p_orderid, p_sku, p_qty);
			RETURN NULL;
		END IF;

		INSERT INTO alloc_peer.allocation (batch_id, event_id, qty, orderid, sku)
			VALUES (v_batch_id, nextval('alloc_peer.event_id_seq'), p_qty,
					p_orderid, p_sku)
			ON CONFLICT DO NOTHING
			RETURNING event_id INTO v_event_id;
		-- Another session may have allocated the same line: look again.
		EXIT WHEN FOUND;
	END LOOP;

	UPDATE alloc_peer.slot SET available = available - p_qty
	 WHERE batch_id = v_batch_id AND slot = 0;
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref)
		VALUES (v_event_id, statement_timestamp(),
				'allocated', p_orderid, p_sku, p_qty, v_ref);
	RETURN v_ref;
END
$$;

-- allocate_lines: allocate() for each line in turn.
CREATE TYPE alloc_peer.order_line AS (orderid text, sku text, qty bigint);

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
	v_batch_id bigint;
	v_ref      text;
	v_qty      bigint;
BEGIN
	IF coalesce(octet_length(p_orderid), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('orderid', p_orderid);
	END IF;
	IF coalesce(octet_length(p_sku), 0) NOT BETWEEN 1 AND 255 THEN
		PERFORM alloc_peer.refuse_key('sku', p_sku);
	END IF;

	LOOP
		SELECT a.batch_id, b.ref INTO v_batch_id, v_ref
		  FROM alloc_peer.allocation a
		  JOIN alloc_peer.batch b USING (batch_id)
		 WHERE a.orderid = p_orderid AND a.sku = p_sku AND a.shipped_at IS NULL;
		IF NOT FOUND THEN
			RETURN NULL;
		END IF;

		-- The slot before the line, as the other commands do it.
		PERFORM FROM alloc_peer.slot
		  WHERE batch_id = v_batch_id AND slot = 0 FOR UPDATE;
		DELETE FROM alloc_peer.allocation
		 WHERE orderid = p_orderid AND sku = p_sku AND batch_id = v_batch_id
		   AND shipped_at IS NULL
		RETURNING qty INTO v_qty;
		-- The line may have moved or gone while the lock was waited for.
		EXIT WHEN FOUND;
	END LOOP;

	UPDATE alloc_peer.slot SET available = available + v_qty
	 WHERE batch_id = v_batch_id AND slot = 0;
	INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref)
		VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
				'deallocated', p_orderid, p_sku, v_qty, v_ref);
	RETURN v_ref;
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
	PERFORM FROM alloc_peer.slot
	  WHERE sku = v_batch.sku
	  ORDER BY eta NULLS FIRST, batch_id, slot
		FOR UPDATE;

	SELECT * INTO v_batch FROM alloc_peer.batch WHERE ref = p_ref;
	SELECT * INTO v_slot FROM alloc_peer.slot
	 WHERE batch_id = v_batch.batch_id AND slot = 0;
	IF p_qty = v_batch.purchased THEN
		RETURN;
	END IF;
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
	v_lines    alloc_peer.allocation[] := '{}';	-- taken, newest first
	v_batches  alloc_peer.batch[];	-- in order of preference
	v_free     bigint[];			-- what each of them has available
	v_own      int;					-- which of them is the shrunk one
	v_targets  int[] := '{}';		-- for each line, its batch; NULL: none
	v_taken    bigint := 0;
	v_line     alloc_peer.allocation;
	v_event_id bigint;
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
		v_line := v_lines[i];
		INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref)
			VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
					'deallocated', v_line.orderid, v_line.sku, v_line.qty, p_batch.ref);
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
		new_batchref := NULL;
		IF v_targets[i] IS NULL THEN
			DELETE FROM alloc_peer.allocation
			 WHERE orderid = v_line.orderid AND sku = v_line.sku;
			PERFORM alloc_peer.out_of_stock(v_line.orderid, v_line.sku, v_line.qty);
		ELSE
			new_batchref := v_batches[v_targets[i]].ref;
			INSERT INTO alloc_peer.event (event_id, at, type, orderid, sku, qty, batchref)
				VALUES (nextval('alloc_peer.event_id_seq'), statement_timestamp(),
						'allocated', v_line.orderid, v_line.sku, v_line.qty, new_batchref)
				RETURNING event_id INTO v_event_id;
			UPDATE alloc_peer.allocation
			   SET batch_id = v_batches[v_targets[i]].batch_id, event_id = v_event_id
			 WHERE orderid = v_line.orderid AND sku = v_line.sku;
		END IF;
		RETURN NEXT;
	END LOOP;
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
