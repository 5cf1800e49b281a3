-- What a partition does for orders that several partitions serve.
--
-- A router (65_router.sql) takes such an order in steps, each a transaction of
-- its own on the partitions:
--
-- 1. begin    a row in fleet_order, on the partition of the orderid's hash
-- 2. prepare  on each partition of its skus: holds, which expire
-- 3. decide   the row says that the order is taken, if all could be held
-- 4. finish   on each partition: allocate_order(), which confirms the holds
-- 5. end      the row goes
--
-- Who dies before 3 leaves holds that expire, unless somebody frees them first:
-- fleet_hold says which were not there before.  Who dies after it leaves a row by
-- which the next call for the order, or recover_orders(), finishes it.  When a
-- hold has expired by then and its stock is gone, an order of mode 'all' is
-- undone as a whole.  This is two-phase commit with presumed abort (Mohan,
-- Lindsay and Obermarck 1986), with holds for the prepared state: nobody waits
-- for a dead one for longer than the holds last.
--
-- Whoever works on an order has an advisory lock of its session on the
-- partition that has the row: so it is known who has died.  attempt tells those
-- apart who worked on it before the lock was lost.  What such a one has sent may
-- come late, even after the end: fleet_hold says on each partition which attempt
-- has prepared, and has not been finished or undone there; or which one was undone
-- before it came, and is to be refused.

CREATE SEQUENCE alloc.fleet_attempt_seq;

CREATE TABLE alloc.fleet_order (
	orderid text NOT NULL
		CONSTRAINT fleet_order_length CHECK (octet_length(orderid) BETWEEN 1 AND 255),
	attempt bigint NOT NULL,
	state   text NOT NULL
		CONSTRAINT fleet_order_state CHECK (state IN ('begun', 'decided', 'undoing')),
	mode    text NOT NULL,
	since   timestamptz NOT NULL,
	skus    text[] NOT NULL,
	qtys    bigint[] NOT NULL,
	held    text[] NOT NULL
) USING heap;
CREATE UNIQUE INDEX fleet_order_id ON alloc.fleet_order (orderid text_pattern_ops);
ALTER TABLE alloc.fleet_order REPLICA IDENTITY USING INDEX fleet_order_id;
COMMENT ON TABLE alloc.fleet_order IS
	'of a fleet: orders that are being taken on several partitions; held: the skus that are not allocated if it is undone';

CREATE TABLE alloc.fleet_hold (
	orderid text NOT NULL
		CONSTRAINT fleet_hold_length CHECK (octet_length(orderid) BETWEEN 1 AND 255),
	attempt bigint NOT NULL,
	since   timestamptz NOT NULL,
	skus    text[] NOT NULL
) USING heap;
CREATE UNIQUE INDEX fleet_hold_id ON alloc.fleet_hold (orderid text_pattern_ops);
ALTER TABLE alloc.fleet_hold REPLICA IDENTITY USING INDEX fleet_hold_id;
COMMENT ON TABLE alloc.fleet_hold IS
	'of a fleet: which lines are held here for an order that is being taken, and were not before';

SELECT pg_catalog.pg_extension_config_dump('alloc.fleet_attempt_seq', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.fleet_order', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.fleet_hold', '');

-- The key of an order's advisory lock: 'allo', and the orderid's hash.
CREATE FUNCTION alloc._lock_order(orderid text, wait boolean)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT wait THEN
		RETURN pg_try_advisory_lock(1634495599, hashtext(orderid));
	END IF;
	-- What this session has left locked, it is no longer at work on.
	PERFORM pg_advisory_unlock_all();
	PERFORM pg_advisory_lock(1634495599, hashtext(orderid));
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._lock_order(text, boolean) IS
	'for routers: makes the session the one that works on an order';

-- Waits for whoever works on the order, then says what there is of it: the row
-- that somebody left, or NULLs.
CREATE FUNCTION alloc._find_order(
	orderid text,
	OUT attempt bigint, OUT state text, OUT mode text,
	OUT skus text[], OUT qtys bigint[], OUT held text[])
RETURNS record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	PERFORM alloc._require_writable('allocate_order()');
	-- In this order: who has the order must not wait for who waits for him.
	PERFORM alloc._lock_order(_find_order.orderid, true);
	PERFORM alloc._require_kept('order', _find_order.orderid);
	SELECT o.attempt, o.state, o.mode, o.skus, o.qtys, o.held
	  INTO attempt, state, mode, skus, qtys, held
	  FROM alloc.fleet_order o
	 WHERE o.orderid = _find_order.orderid;
END
$$;
COMMENT ON FUNCTION alloc._find_order(text) IS
	'for routers: becomes the one that works on an order, and returns what somebody has left of it';

CREATE FUNCTION alloc._begin_order(
	orderid text, mode text, skus text[], qtys bigint[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	this_attempt bigint := nextval('alloc.fleet_attempt_seq');
BEGIN
	PERFORM alloc._require_kept('order', _begin_order.orderid);
	INSERT INTO alloc.fleet_order (orderid, attempt, state, mode, since, skus, qtys, held)
	VALUES (_begin_order.orderid, this_attempt, 'begun', _begin_order.mode, now(),
	        _begin_order.skus, _begin_order.qtys, '{}');
	RETURN this_attempt;
END
$$;
COMMENT ON FUNCTION alloc._begin_order(text, text, text[], bigint[]) IS
	'for routers: step 1 of an order on several partitions; returns the attempt';

-- The lines of an order that this partition serves are held, so far as there is
-- stock.  Lines are taken in the order of their skus' bytes, as everywhere.
-- status: 'allocated' (it was), 'kept' (it was held), 'held', 'out_of_stock' or
-- 'backordered' (it waits).  No out_of_stock event but where the order ends by it.
--
-- What calls commands is no SECURITY DEFINER here, so that they are the router's
-- role's own: in somebody else's a handler of that role may leave nothing for
-- later, such as a deferred trigger (alloc_handler_call()).
CREATE FUNCTION alloc._prepare_order(
	orderid text, attempt bigint, skus text[], qtys bigint[], mode text, ttl interval,
	OUT sku text, OUT batchref text, OUT status text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	line record;
	there record;
	held text[] := '{}';
BEGIN
	-- What the customer holds has to last until the order is finished, too.  If
	-- another hold of the order is over, that is told when somebody confirms it.
	IF alloc._has_short_hold(_prepare_order.orderid, skus, ttl) THEN
		BEGIN
			PERFORM alloc.extend_hold(_prepare_order.orderid, ttl);
		EXCEPTION WHEN SQLSTATE 'SK005' THEN
			NULL;
		END;
	END IF;
	FOR line IN
		SELECT l.sku, l.qty FROM unnest(skus, qtys) AS l (sku, qty)
		 ORDER BY l.sku COLLATE "C"
	LOOP
		SELECT * INTO there FROM alloc._find_line(_prepare_order.orderid, line.sku);
		sku := line.sku;
		status := there.status;
		IF status = 'held' AND mode <> 'all' AND there.waiting_qty = line.qty THEN
			status := 'backordered';
			batchref := NULL;
		ELSIF status = 'held' AND mode <> 'all' AND there.waiting_qty IS NULL AND NOT EXISTS (
			SELECT FROM alloc.promise(line.sku, line.qty))
		THEN
			status := 'out_of_stock';
			batchref := NULL;
		ELSE
			batchref := alloc._hold_for_fleet(_prepare_order.orderid, line.sku, line.qty, ttl);
			IF batchref IS NULL THEN
				status := 'out_of_stock';
			END IF;
		END IF;
		IF status = 'held' THEN
			held := held || line.sku;
		END IF;
		RETURN NEXT;
	END LOOP;
	PERFORM alloc._note_attempt(_prepare_order.orderid, _prepare_order.attempt, held);
END
$$;
COMMENT ON FUNCTION alloc._prepare_order(text, bigint, text[], bigint[], text, interval) IS
	'for routers: step 2, on each partition: holds the lines of an order';

CREATE FUNCTION alloc._hold_for_fleet(orderid text, sku text, qty bigint, ttl interval)
RETURNS text
AS 'MODULE_PATHNAME', 'alloc_hold_for_fleet'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc._hold_for_fleet(text, text, bigint, interval) IS
	'for routers: hold(), however many holds the order has';

CREATE FUNCTION alloc._has_short_hold(orderid text, skus text[], ttl interval)
RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (
		SELECT FROM alloc.hold h
		 WHERE h.orderid = $1 AND h.sku = ANY ($2) AND NOT h.ended
		   AND h.expires_at > statement_timestamp()
		   AND h.expires_at < statement_timestamp() + $3)
$$;
COMMENT ON FUNCTION alloc._has_short_hold(text, text[], interval) IS
	'for routers: does a hold of an order end within that time?';

-- 'held': it has to be held, now or again.
CREATE FUNCTION alloc._find_line(
	orderid text, sku text, OUT status text, OUT waiting_qty bigint)
RETURNS record
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce((
			SELECT CASE WHEN a.expires_at IS NULL THEN 'allocated'
			            WHEN a.expires_at > statement_timestamp() THEN 'kept'
			            ELSE 'held' END
			  FROM alloc.allocation a WHERE a.orderid = $1 AND a.sku = $2), 'held'),
		(SELECT b.qty FROM alloc.backorder b WHERE b.orderid = $1 AND b.sku = $2)
$$;
COMMENT ON FUNCTION alloc._find_line(text, text) IS
	'for routers: what there is of an order''s line: allocated, kept or held, and what waits of it';

-- A former attempt that came too late to be undone has held lines for this one.
CREATE FUNCTION alloc._note_attempt(orderid text, attempt bigint, held text[])
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	INSERT INTO alloc.fleet_hold AS h (orderid, attempt, since, skus)
	VALUES (_note_attempt.orderid, _note_attempt.attempt, now(), held)
	ON CONFLICT (orderid text_pattern_ops)
	DO UPDATE SET attempt = excluded.attempt, since = excluded.since, skus = h.skus || excluded.skus
	 WHERE h.attempt < excluded.attempt;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING
			ERRCODE = 'serialization_failure',
			MESSAGE = format('order "%s" was taken over by somebody else', _note_attempt.orderid);
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._note_attempt(text, bigint, text[]) IS
	'for routers: which lines an attempt has held';

CREATE FUNCTION alloc._move_order(orderid text, attempt bigint, from_state text, to_state text, held text[])
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	PERFORM alloc._require_kept('order', _move_order.orderid);
	IF to_state IS NULL THEN
		DELETE FROM alloc.fleet_order o
		 WHERE o.orderid = _move_order.orderid AND o.attempt = _move_order.attempt
		   AND o.state = from_state;
	ELSE
		UPDATE alloc.fleet_order o
		   SET state = to_state, held = coalesce(_move_order.held, o.held)
		 WHERE o.orderid = _move_order.orderid AND o.attempt = _move_order.attempt
		   AND o.state = from_state;
	END IF;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION alloc._move_order(text, bigint, text, text, text[]) IS
	'for routers: steps 3 and 5: what becomes of an order (NULL: it is done); false: somebody else works on it';

CREATE FUNCTION alloc._unlock_order(orderid text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM pg_advisory_unlock_all();
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._unlock_order(text) IS
	'for routers: the session no longer works on an order';

-- The lines of an order that this partition serves.  Once for each attempt: who
-- comes again is told what there is, which may have changed since.
CREATE FUNCTION alloc._finish_order(
	orderid text, attempt bigint, skus text[], qtys bigint[], mode text,
	OUT sku text, OUT qty bigint, OUT batchref text, OUT status text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	freed text[] := alloc._end_attempt(_finish_order.orderid, _finish_order.attempt, skus, mode);
	lines alloc.order_line[];
BEGIN
	IF freed IS NULL THEN
		RETURN QUERY SELECT * FROM alloc._lines_of_order(_finish_order.orderid, skus, qtys);
		RETURN;
	END IF;
	lines := ARRAY(
		SELECT ROW(NULL, l.sku, l.qty)::alloc.order_line
		  FROM unnest(skus, qtys) AS l (sku, qty) WHERE l.sku <> ALL (freed));
	IF cardinality(lines) > 0 THEN
		RETURN QUERY SELECT * FROM alloc.allocate_order(_finish_order.orderid, lines, mode);
	END IF;
	RETURN QUERY
		SELECT l.sku, l.qty, NULL::text, 'out_of_stock'
		  FROM unnest(skus, qtys) AS l (sku, qty) WHERE l.sku = ANY (freed);
END
$$;
COMMENT ON FUNCTION alloc._finish_order(text, bigint, text[], bigint[], text) IS
	'for routers: step 4, on each partition: allocate_order() of its lines';

-- NULL: the attempt has been finished or undone here.  Else the lines that must
-- not come back: a hold that is over has left a mark; where there is none, somebody
-- has freed the line since, and was told so.
CREATE FUNCTION alloc._end_attempt(orderid text, attempt bigint, skus text[], mode text)
RETURNS text[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	held text[];
BEGIN
	DELETE FROM alloc.fleet_hold h
	 WHERE h.orderid = _end_attempt.orderid AND h.attempt = _end_attempt.attempt
	RETURNING h.skus INTO held;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	RETURN ARRAY(
		SELECT l.sku FROM unnest(_end_attempt.skus) AS l (sku)
		 WHERE (mode = 'all' OR l.sku = ANY (held))
		   AND NOT EXISTS (SELECT FROM alloc.allocation a
		                    WHERE a.orderid = _end_attempt.orderid AND a.sku = l.sku)
		   AND NOT EXISTS (SELECT FROM alloc.hold h
		                    WHERE h.orderid = _end_attempt.orderid AND h.sku = l.sku));
END
$$;
COMMENT ON FUNCTION alloc._end_attempt(text, bigint, text[], text) IS
	'for routers: begins to finish an order here; returns the lines that were freed since they were held';

CREATE FUNCTION alloc._lines_of_order(
	orderid text, skus text[], qtys bigint[],
	OUT sku text, OUT qty bigint, OUT batchref text, OUT status text)
RETURNS SETOF record
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT l.sku, l.qty, b.ref,
	       CASE WHEN b.ref IS NOT NULL THEN 'allocated'
	            WHEN w.orderid IS NOT NULL THEN 'backordered'
	            ELSE 'out_of_stock' END
	  FROM unnest($2, $3) AS l (sku, qty)
	  LEFT JOIN alloc.allocation a
	    ON a.orderid = $1 AND a.sku = l.sku AND a.expires_at IS NULL
	  LEFT JOIN alloc.batch b ON b.batch_id = a.batch_id
	  LEFT JOIN alloc.backorder w ON w.orderid = $1 AND w.sku = l.sku
$$;
COMMENT ON FUNCTION alloc._lines_of_order(text, text[], bigint[]) IS
	'for routers: what there is of the lines of an order';

CREATE FUNCTION alloc._forget_attempt(orderid text, attempt bigint)
RETURNS bigint
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT alloc._free_lines($1, alloc._refuse_attempt($1, $2))
$$;
COMMENT ON FUNCTION alloc._forget_attempt(text, bigint) IS
	'for routers: frees the lines that an attempt to take an order has held';

-- What an attempt has held here, and is to be freed; a line that its customer has
-- confirmed since is his.  Of skus that moved away with what is told of the
-- attempt, their partition does.
CREATE FUNCTION alloc._refuse_attempt(orderid text, attempt bigint)
RETURNS text[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	held text[];
BEGIN
	LOOP
		DELETE FROM alloc.fleet_hold h
		 WHERE h.orderid = _refuse_attempt.orderid AND h.attempt = _refuse_attempt.attempt
		RETURNING h.skus INTO held;
		EXIT WHEN FOUND;
		-- It has not come here yet, and will be refused when it does.
		INSERT INTO alloc.fleet_hold AS h (orderid, attempt, since, skus)
		VALUES (_refuse_attempt.orderid, _refuse_attempt.attempt, now(), '{}')
		ON CONFLICT (orderid text_pattern_ops)
		DO UPDATE SET attempt = excluded.attempt, since = excluded.since
		 WHERE h.attempt < excluded.attempt;
		EXIT WHEN FOUND OR EXISTS (
			SELECT FROM alloc.fleet_hold h
			 WHERE h.orderid = _refuse_attempt.orderid AND h.attempt > _refuse_attempt.attempt);
	END LOOP;
	RETURN ARRAY(
		SELECT h.sku FROM alloc.hold h
		 WHERE h.orderid = _refuse_attempt.orderid AND h.sku = ANY (held) AND NOT h.ended
		   AND alloc._serves(h.sku));
END
$$;
COMMENT ON FUNCTION alloc._refuse_attempt(text, bigint) IS
	'for routers: an attempt to take an order is over here, or will be refused when it comes; returns what it has held';

-- Frees lines of an order that was decided, whether they are held, allocated or
-- waiting by now: those that are in held as well, and have not become other ones.
CREATE FUNCTION alloc._undo_order(
	orderid text, attempt bigint, skus text[], qtys bigint[], held text[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	lines record;
	of_sku text;
BEGIN
	SELECT * INTO lines FROM alloc._lines_to_undo(orderid, attempt, skus, qtys, held);
	FOREACH of_sku IN ARRAY lines.waiting LOOP
		PERFORM alloc.cancel_backorder(orderid, of_sku);
	END LOOP;
	RETURN alloc._free_lines(orderid, lines.served);
END
$$;
COMMENT ON FUNCTION alloc._undo_order(text, bigint, text[], bigint[], text[]) IS
	'for routers: frees lines of an order that could not be taken as a whole';

CREATE FUNCTION alloc._lines_to_undo(
	orderid text, attempt bigint, skus text[], qtys bigint[], held text[],
	OUT waiting text[], OUT served text[])
RETURNS record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- Waits for one who is finishing it.
	DELETE FROM alloc.fleet_hold h
	 WHERE h.orderid = _lines_to_undo.orderid AND h.attempt = _lines_to_undo.attempt;
	waiting := ARRAY(
		SELECT l.sku FROM unnest(skus, qtys) AS l (sku, qty)
		  JOIN alloc.backorder b
		    ON b.orderid = _lines_to_undo.orderid AND b.sku = l.sku AND b.qty = l.qty
		 WHERE l.sku = ANY (held)
		 ORDER BY l.sku COLLATE "C");
	served := ARRAY(
		SELECT l.sku FROM unnest(skus, qtys) AS l (sku, qty)
		  JOIN alloc.allocation a
		    ON a.orderid = _lines_to_undo.orderid AND a.sku = l.sku AND a.qty = l.qty
		 WHERE l.sku = ANY (held));
END
$$;
COMMENT ON FUNCTION alloc._lines_to_undo(text, bigint, text[], bigint[], text[]) IS
	'for routers: which lines of an order are to be freed';

CREATE FUNCTION alloc._free_lines(orderid text, skus text[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	of_sku text;
	n bigint := 0;
BEGIN
	FOREACH of_sku IN ARRAY ARRAY(SELECT u FROM unnest(skus) AS u ORDER BY u COLLATE "C") LOOP
		IF alloc.deallocate(orderid, of_sku) IS NOT NULL THEN
			n := n + 1;
		END IF;
	END LOOP;
	RETURN n;
END
$$;
COMMENT ON FUNCTION alloc._free_lines(text, text[]) IS
	'for routers: deallocate() of lines of an order; returns how many were there';

-- Orders that somebody left: nobody has the lock.
CREATE FUNCTION alloc._left_orders()
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	left_one text;
BEGIN
	FOR left_one IN
		SELECT o.orderid FROM alloc.fleet_order o
		 WHERE alloc._serves(o.orderid)
		 ORDER BY o.since
	LOOP
		IF alloc._lock_order(left_one, false) THEN
			PERFORM pg_advisory_unlock(1634495599, hashtext(left_one));
			RETURN NEXT left_one;
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc._left_orders() IS
	'for routers: orders on which nobody works any more';

-- What attempts have held here that are not of this moment; most of them are over.
CREATE FUNCTION alloc._old_attempts(
	this_part integer[], OUT part integer, OUT orderid text, OUT attempt bigint)
RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT $1[1], h.orderid, h.attempt FROM alloc.fleet_hold h
	 WHERE h.since < now() - interval '5 seconds'
$$;
COMMENT ON FUNCTION alloc._old_attempts(integer[]) IS
	'for routers: attempts that have held lines a while ago';

CREATE FUNCTION alloc._has_attempt(orderid text, attempt bigint)
RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT NOT alloc._serves($1) OR EXISTS (
		SELECT FROM alloc.fleet_order o WHERE o.orderid = $1 AND o.attempt = $2)
$$;
COMMENT ON FUNCTION alloc._has_attempt(text, bigint) IS
	'for routers: is an attempt to take an order not over yet?';

-- The lines of an order that are held here, for confirm(); an expired one is
-- the error that confirm() has.  A row of NULLs: the order is kept here, and is
-- being taken, or was left in the middle.
CREATE FUNCTION alloc._held_lines(orderid text, OUT sku text, OUT qty bigint)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	PERFORM alloc._require_key(_held_lines.orderid, 'orderid');
	PERFORM alloc._require_writable('confirm()');
	-- Changes nothing, but raises SK005 if one is over.
	PERFORM alloc.extend_hold(_held_lines.orderid, interval '1 microsecond');
	RETURN QUERY
		SELECT h.sku, h.qty FROM alloc.hold h
		 WHERE h.orderid = _held_lines.orderid AND alloc._serves(h.sku) AND NOT h.ended
		 ORDER BY h.sku COLLATE "C";
	RETURN QUERY
		SELECT NULL::text, NULL::bigint FROM alloc.fleet_order o
		 WHERE o.orderid = _held_lines.orderid AND alloc._serves(o.orderid);
END
$$;
COMMENT ON FUNCTION alloc._held_lines(text) IS
	'for routers: the lines of an order that are held here';

-- Would ship() of the order be refused?  Its errors, and nothing else: what it
-- did is undone.
CREATE FUNCTION alloc._require_shippable(orderid text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF alloc._has_holds(_require_shippable.orderid) THEN
		BEGIN
			PERFORM alloc.ship(_require_shippable.orderid);
			RAISE EXCEPTION USING ERRCODE = 'SKNIL';
		EXCEPTION WHEN SQLSTATE 'SKNIL' THEN
			NULL;
		END;
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._require_shippable(text) IS
	'for routers: raises what ship() would for an order of which lines are held';

CREATE FUNCTION alloc._has_holds(orderid text)
RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc._require_key(orderid, 'orderid');
	RETURN EXISTS (
		SELECT FROM alloc.hold h
		 WHERE h.orderid = _has_holds.orderid AND alloc._serves(h.sku));
END
$$;
COMMENT ON FUNCTION alloc._has_holds(text) IS
	'for routers: are lines of an order held here, or were they?';

-- The lines of a bulk call that this partition serves, an array of order lines as
-- text, and their batches in the same order.
CREATE FUNCTION alloc._allocate_share(
	this_part integer[], share text[],
	OUT part integer, OUT batchrefs text[])
RETURNS SETOF record
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT $1[1], array_agg(l.batchref ORDER BY l.ordinality)
	  FROM alloc.allocate_lines($2[1]::alloc.order_line[]) WITH ORDINALITY AS l
$$;
COMMENT ON FUNCTION alloc._allocate_share(integer[], text[]) IS
	'for routers: allocate_lines() on a partition';

-- The batches of a feed that this partition serves.
CREATE FUNCTION alloc._sync_share(
	refs text[], skus text[], qtys bigint[], etas date[], dry_run boolean,
	OUT action text, OUT ref text, OUT sku text,
	OUT old_qty bigint, OUT new_qty bigint, OUT old_eta date, OUT new_eta date)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning
AS $$
#variable_conflict use_column
BEGIN
	DROP TABLE IF EXISTS pg_temp.alloc_feed;
	CREATE TEMPORARY TABLE alloc_feed ON COMMIT DROP AS
		SELECT f.ref, f.sku, f.qty, f.eta
		  FROM unnest(refs, skus, qtys, etas) AS f (ref, sku, qty, eta)
		 -- Each partition is asked, with nothing but NULLs if it has nothing.
		 WHERE NOT (f.ref IS NULL AND f.sku IS NULL AND f.qty IS NULL);
	RETURN QUERY EXECUTE 'SELECT * FROM alloc.sync_batches(''pg_temp.alloc_feed'', $1)'
		USING _sync_share.dry_run;
END
$$;
COMMENT ON FUNCTION alloc._sync_share(text[], text[], bigint[], date[], boolean) IS
	'for routers: sync_batches() on a partition';

-- A handler is known by another number in each database.  It runs with the
-- search_path that subscribes it: so this one has that of the router's role.
CREATE FUNCTION alloc._subscribe(event_type text, handler text, mode text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
	PERFORM alloc.subscribe(event_type, handler::pg_catalog.regprocedure, mode);
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._subscribe(text, text, text) IS
	'for routers: subscribe() on a partition';

CREATE FUNCTION alloc._unsubscribe(event_type text, handler text)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc.unsubscribe(event_type, handler::regprocedure);
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._unsubscribe(text, text) IS
	'for routers: unsubscribe() on a partition';

CREATE FUNCTION alloc._reset_stats()
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc.reset_stats();
	RETURN true;
END
$$;
COMMENT ON FUNCTION alloc._reset_stats() IS
	'for routers: reset_stats() on a partition';
