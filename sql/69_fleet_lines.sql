-- Order lines of a fleet: many at once, and those of an order.  Steps and states
-- of an order on several partitions are told in 62_fleet_orders.sql.

-- Each partition gets its lines, in their order, and all work at once.  A line
-- that is wrong is told by a partition, before any has begun.
CREATE FUNCTION alloc._fleet_allocate_lines(
	lines alloc.order_line[],
	OUT orderid text, OUT sku text, OUT qty bigint, OUT batchref text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	homes integer[] := (SELECT r.homes FROM alloc.router r);
	wrong boolean;
	parts integer[];
	shares text[];
BEGIN
	SELECT bool_or((octet_length(l.orderid) BETWEEN 1 AND 255
	                AND octet_length(l.sku) BETWEEN 1 AND 255 AND l.qty > 0) IS NOT TRUE)
	  INTO wrong
	  FROM unnest(lines) AS l (orderid, sku, qty);
	IF wrong IS NOT FALSE THEN
		RETURN QUERY SELECT * FROM alloc_router.allocate_any_lines(0, lines::text, alloc._trace());
		RETURN;
	END IF;
	-- One element for each partition: PL/Proxy looks at each for where it goes.
	SELECT array_agg(s.part), array_agg(s.share) INTO parts, shares
	  FROM (SELECT alloc._home(l.sku, homes) AS part,
	               array_agg(ROW(l.orderid, l.sku, l.qty)::alloc.order_line ORDER BY l.n)::text AS share
	          FROM unnest(lines) WITH ORDINALITY AS l (orderid, sku, qty, n)
	         GROUP BY 1) AS s;
	RETURN QUERY
		WITH served AS MATERIALIZED (
			SELECT s.part, s.batchrefs
			  FROM alloc_router.allocate_lines(parts, shares, alloc._trace()) AS s),
		given AS (
			SELECT s.part, u.k, u.batchref
			  FROM served s, unnest(s.batchrefs) WITH ORDINALITY AS u (batchref, k)),
		asked AS (
			SELECT l.*, row_number() OVER (PARTITION BY l.part ORDER BY l.n) AS k
			  FROM (SELECT alloc._home(u.sku, homes) AS part, u.*
			          FROM unnest(lines) WITH ORDINALITY AS u (orderid, sku, qty, n)) AS l)
		SELECT a.orderid, a.sku, a.qty, g.batchref
		  FROM asked a JOIN given g USING (part, k)
		 ORDER BY a.n;
END
$$;
COMMENT ON FUNCTION alloc._fleet_allocate_lines(alloc.order_line[]) IS
	'allocate_lines() of a router';

-- The lines of one sku are one, as on a partition.
CREATE FUNCTION alloc._fleet_allocate_order(
	orderid text, lines alloc.order_line[], mode text,
	OUT sku text, OUT qty bigint, OUT batchref text, OUT status text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	homes integer[] := (SELECT r.homes FROM alloc.router r);
	wrong boolean;
	parts integer[];
	skus text[];
	qtys numeric[];
BEGIN
	SELECT bool_or(l.wrong), array_agg(l.part ORDER BY l.n), array_agg(l.sku ORDER BY l.n), array_agg(l.qty ORDER BY l.n)
	  INTO wrong, parts, skus, qtys
	  FROM (SELECT o.sku, min(o.n) AS n, sum(o.qty) AS qty,
	               alloc._home(o.sku, homes) AS part,
	               sum(o.qty) > 9223372036854775807 OR bool_or((
	                   octet_length(o.sku) BETWEEN 1 AND 255 AND o.qty > 0
	                   AND (o.orderid IS NULL OR o.orderid = _fleet_allocate_order.orderid)) IS NOT TRUE) AS wrong
	          FROM unnest(lines) WITH ORDINALITY AS o (orderid, sku, qty, n)
	         GROUP BY o.sku) AS l;
	IF wrong IS NOT FALSE OR mode IS NULL OR mode NOT IN ('all', 'partial', 'backorder')
		OR (octet_length(_fleet_allocate_order.orderid) BETWEEN 1 AND 255) IS NOT TRUE
		OR NOT (SELECT bool_or(u <> parts[1]) FROM unnest(parts) AS u)
	THEN
		RETURN QUERY SELECT * FROM alloc_router.allocate_order(coalesce(parts[1], 0),
			_fleet_allocate_order.orderid, lines::text, mode, alloc._trace());
		RETURN;
	END IF;
	RETURN QUERY
		SELECT t.sku, t.qty, t.batchref, t.status
		  FROM alloc._take_order(_fleet_allocate_order.orderid, parts, skus, qtys::bigint[], mode) AS t
		 ORDER BY array_position(skus, t.sku);
END
$$;
COMMENT ON FUNCTION alloc._fleet_allocate_order(text, alloc.order_line[], text) IS
	'allocate_order() of a router';

-- An order on several partitions.  What fails before it is decided is undone
-- here; what fails after that is left to the next call for the order.
CREATE FUNCTION alloc._take_order(
	orderid text, parts integer[], skus text[], qtys bigint[], mode text,
	OUT sku text, OUT qty bigint, OUT batchref text, OUT status text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	trace text := alloc._trace();
	there record;
	attempt bigint;
BEGIN
	SELECT * INTO there FROM alloc_router.find_order(_take_order.orderid, trace);
	IF there.attempt IS NOT NULL THEN
		PERFORM alloc._settle_order(_take_order.orderid, there.attempt, there.state,
			there.mode, there.skus, there.qtys, there.held);
	END IF;
	attempt := alloc_router.begin_order(_take_order.orderid, mode, skus, qtys, trace);
	RETURN QUERY SELECT p.sku, p.qty, p.batchref, p.status
		FROM alloc._prepare_everywhere(_take_order.orderid, attempt, parts, skus, qtys, mode) AS p;
	IF NOT FOUND THEN
		RETURN QUERY SELECT f.sku, f.qty, f.batchref, f.status
			FROM alloc._finish_everywhere(_take_order.orderid, attempt, skus, qtys, mode) AS f;
	END IF;
	PERFORM alloc_router.unlock_order(_take_order.orderid, trace);
-- Who was cancelled goes on to have his connections, and with them the lock.
EXCEPTION WHEN OTHERS OR query_canceled THEN
	PERFORM alloc._try_unlock(_take_order.orderid);
	RAISE;
END
$$;
COMMENT ON FUNCTION alloc._take_order(text, integer[], text[], bigint[], text) IS
	'for routers: an order that several partitions serve';

-- Steps 2 and 3.  Returns what became of an order that is refused; no row: it is
-- decided.
CREATE FUNCTION alloc._prepare_everywhere(
	orderid text, attempt bigint, parts integer[], skus text[], qtys bigint[], mode text,
	OUT sku text, OUT qty bigint, OUT batchref text, OUT status text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	trace text := alloc._trace();
	prepared text[];
	batchrefs text[];
	statuses text[];
	held text[];
BEGIN
	SELECT array_agg(p.sku), array_agg(p.batchref), array_agg(p.status),
	       coalesce(array_agg(p.sku) FILTER (WHERE p.status NOT IN ('allocated', 'backordered')), '{}')
	  INTO prepared, batchrefs, statuses, held
	  FROM alloc_router.prepare_order(parts, _prepare_everywhere.orderid, attempt, skus, qtys, mode, alloc._order_ttl(), trace) AS p;
	IF mode = 'all' AND 'out_of_stock' = ANY (statuses) THEN
		PERFORM alloc._abandon_order(_prepare_everywhere.orderid, attempt, parts);
		RETURN QUERY
			SELECT l.sku, l.qty, CASE p.status WHEN 'allocated' THEN p.batchref END,
			       CASE WHEN p.status IN ('allocated', 'out_of_stock') THEN p.status ELSE 'not_taken' END
			  FROM unnest(skus, qtys) AS l (sku, qty)
			  JOIN unnest(prepared, batchrefs, statuses) AS p (sku, batchref, status) USING (sku);
	ELSIF NOT alloc_router.move_order(_prepare_everywhere.orderid, attempt, 'begun', 'decided', held, trace) THEN
		PERFORM alloc._order_was_taken_over(_prepare_everywhere.orderid);
	END IF;
EXCEPTION
	-- Whoever took it over has freed what was held.
	WHEN serialization_failure THEN
		RAISE;
	WHEN OTHERS THEN
		BEGIN
			PERFORM alloc._abandon_order(_prepare_everywhere.orderid, attempt, parts);
		EXCEPTION WHEN OTHERS THEN
			-- It cannot be reached: the holds expire, or recover_orders() comes first.
			NULL;
		END;
		RAISE;
END
$$;
COMMENT ON FUNCTION alloc._prepare_everywhere(text, bigint, integer[], text[], bigint[], text) IS
	'for routers: holds the lines of an order, and decides';

-- Step 4, and the end.  An order of mode all that is no longer to be had as a
-- whole, because a hold has expired and others have its stock, is undone.
CREATE FUNCTION alloc._finish_everywhere(
	orderid text, attempt bigint, skus text[], qtys bigint[], mode text,
	OUT sku text, OUT qty bigint, OUT batchref text, OUT status text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	trace text := alloc._trace();
	finished text[];
	batchrefs text[];
	statuses text[];
	undone text[] := '{}';
BEGIN
	SELECT array_agg(f.sku), array_agg(f.batchref), array_agg(f.status)
	  INTO finished, batchrefs, statuses
	  FROM alloc_router.finish_order(alloc._homes_of(skus), _finish_everywhere.orderid, _finish_everywhere.attempt, skus, qtys, mode, trace) AS f;
	IF mode = 'all' AND (SELECT bool_or(u <> 'allocated') FROM unnest(statuses) AS u) THEN
		undone := alloc._undo_decided(_finish_everywhere.orderid, _finish_everywhere.attempt);
	ELSIF NOT alloc_router.move_order(_finish_everywhere.orderid, attempt, 'decided', NULL, NULL, trace) THEN
		PERFORM alloc._order_was_taken_over(_finish_everywhere.orderid);
	END IF;
	RETURN QUERY
		SELECT f.sku, l.qty, CASE WHEN f.sku <> ALL (undone) THEN f.batchref END,
		       CASE WHEN f.sku = ANY (undone) AND f.status = 'allocated' THEN 'not_taken' ELSE f.status END
		  FROM unnest(skus, qtys) AS l (sku, qty)
		  JOIN unnest(finished, batchrefs, statuses) AS f (sku, batchref, status) USING (sku);
EXCEPTION WHEN OTHERS THEN
	-- Somebody has made a line of the order another one since it was decided, or a
	-- handler refuses it.  What may pass, or has an unknown end, is left.
	IF substring(SQLSTATE FROM 1 FOR 2) <> ALL ('{08,25,40,42,53,54,55,57,58,F0,XX}') THEN
		PERFORM alloc._undo_decided(_finish_everywhere.orderid, _finish_everywhere.attempt);
	END IF;
	RAISE;
END
$$;
COMMENT ON FUNCTION alloc._finish_everywhere(text, bigint, text[], bigint[], text) IS
	'for routers: allocates the lines of an order that is decided';

-- An order that nobody has decided: what was held for it is freed.
CREATE FUNCTION alloc._abandon_order(orderid text, attempt bigint, parts integer[])
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	trace text := alloc._trace();
BEGIN
	IF alloc_router.move_order(orderid, attempt, 'begun', NULL, NULL, trace) THEN
		PERFORM alloc_router.forget_attempt(ARRAY(SELECT DISTINCT p FROM unnest(parts) AS p), orderid, attempt, trace);
	END IF;
END
$$;
COMMENT ON FUNCTION alloc._abandon_order(text, bigint, integer[]) IS
	'for routers: frees what was held for an order';

-- An order that was decided and cannot be had: none of its lines is left, but for
-- those that were allocated before.  Returns the skus that were freed.
CREATE FUNCTION alloc._undo_decided(orderid text, attempt bigint)
RETURNS text[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT alloc_router.move_order(orderid, attempt, 'decided', 'undoing', NULL, alloc._trace()) THEN
		PERFORM alloc._order_was_taken_over(orderid);
	END IF;
	RETURN alloc._undo_everywhere(orderid, attempt);
END
$$;
COMMENT ON FUNCTION alloc._undo_decided(text, bigint) IS
	'for routers: undoes an order that was decided';

CREATE FUNCTION alloc._undo_everywhere(orderid text, attempt bigint)
RETURNS text[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	trace text := alloc._trace();
	there record;
BEGIN
	SELECT * INTO there FROM alloc_router.find_order(orderid, trace);
	IF there.attempt IS DISTINCT FROM _undo_everywhere.attempt OR there.state <> 'undoing' THEN
		PERFORM alloc._order_was_taken_over(orderid);
	END IF;
	PERFORM alloc_router.undo_order(alloc._homes_of(there.skus), orderid, attempt, there.skus, there.qtys, there.held, trace);
	PERFORM alloc_router.move_order(orderid, attempt, 'undoing', NULL, NULL, trace);
	RETURN there.held;
END
$$;
COMMENT ON FUNCTION alloc._undo_everywhere(text, bigint) IS
	'for routers: frees the lines of an order that is to be undone; returns their skus';

-- An order that somebody has left; returns what became of it.
CREATE FUNCTION alloc._settle_order(
	orderid text, attempt bigint, state text, mode text, skus text[], qtys bigint[], held text[])
RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	CASE state
	WHEN 'begun' THEN
		PERFORM alloc._abandon_order(orderid, attempt, alloc._homes_of(skus));
	WHEN 'decided' THEN
		IF (SELECT bool_or(f.status IN ('allocated', 'backordered')) OR mode <> 'all'
		      FROM alloc._finish_everywhere(orderid, attempt, skus, qtys, mode) AS f)
		THEN
			RETURN 'finished';
		END IF;
	ELSE
		PERFORM alloc._undo_everywhere(orderid, attempt);
	END CASE;
	RETURN 'undone';
END
$$;
COMMENT ON FUNCTION alloc._settle_order(text, bigint, text, text, text[], bigint[], text[]) IS
	'for routers: finishes an order that somebody has left, or undoes it';

-- If there is one; its lines are counted.
CREATE FUNCTION alloc._settle_left_order(orderid text, OUT outcome text, OUT lines bigint)
RETURNS record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	trace text := alloc._trace();
	there record;
BEGIN
	SELECT * INTO there FROM alloc_router.find_order(orderid, trace);
	IF there.attempt IS NOT NULL THEN
		lines := cardinality(there.skus);
		outcome := alloc._settle_order(orderid, there.attempt, there.state,
			there.mode, there.skus, there.qtys, there.held);
	END IF;
	PERFORM alloc_router.unlock_order(orderid, trace);
EXCEPTION WHEN OTHERS OR query_canceled THEN
	PERFORM alloc._try_unlock(orderid);
	RAISE;
END
$$;
COMMENT ON FUNCTION alloc._settle_left_order(text) IS
	'for routers: finds an order that somebody has left, and finishes or undoes it; returns what became of it, NULL if there is none';

CREATE FUNCTION alloc.recover_orders(OUT orderid text, OUT outcome text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc._require_writable('recover_orders()');
	PERFORM alloc._require_router();
END
$$;
COMMENT ON FUNCTION alloc.recover_orders() IS
	'on a router: finishes or undoes the orders on several partitions that a client or a server left in the middle; returns each with what became of it: finished, undone, or left with the reason';

CREATE FUNCTION alloc._fleet_recover_orders(OUT orderid text, OUT outcome text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	home integer;
	here text[];
BEGIN
	-- What cannot be reached now the next call may reach; it is in nobody's way.
	FOREACH home IN ARRAY alloc._all_homes() LOOP
		BEGIN
			PERFORM alloc._forget_old_attempts(home);
			here := ARRAY(SELECT l FROM alloc_router.left_orders(home, alloc._trace()) AS l);
		EXCEPTION WHEN OTHERS THEN
			here := '{}';
			orderid := NULL;
			outcome := format('left: partition %s: %s', home, SQLERRM);
			RETURN NEXT;
		END;
		FOREACH orderid IN ARRAY here LOOP
			BEGIN
				SELECT s.outcome INTO outcome FROM alloc._settle_left_order(orderid) AS s;
			EXCEPTION WHEN OTHERS THEN
				outcome := 'left: ' || SQLERRM;
			END;
			IF outcome IS NOT NULL THEN
				RETURN NEXT;
			END IF;
		END LOOP;
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc._fleet_recover_orders() IS
	'recover_orders() of a router';

-- What was held for an attempt after that was undone: a call that somebody had
-- sent came late.  The row of an order is there before anything is held for it.
CREATE FUNCTION alloc._forget_old_attempts(home integer)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	trace text := alloc._trace();
	old record;
BEGIN
	FOR old IN SELECT * FROM alloc_router.old_attempts(ARRAY[home], trace) LOOP
		IF NOT alloc_router.has_attempt(old.orderid, old.attempt, trace) THEN
			PERFORM alloc_router.forget_attempt(ARRAY[old.part], old.orderid, old.attempt, trace);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc._forget_old_attempts(integer) IS
	'for routers: frees what is held for orders that are over';

CREATE FUNCTION alloc._order_was_taken_over(orderid text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RAISE EXCEPTION USING
		ERRCODE = 'serialization_failure',
		MESSAGE = format('order "%s" was taken over by somebody else', orderid),
		HINT = 'Call allocate_order() again: it tells what became of the order.';
END
$$;
COMMENT ON FUNCTION alloc._order_was_taken_over(text) IS
	'raises the error of one who lost an order';

-- After an error the connection may be gone, and the lock with it.
CREATE FUNCTION alloc._try_unlock(orderid text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM alloc_router.unlock_order(orderid, alloc._trace());
EXCEPTION WHEN OTHERS THEN
	NULL;
END
$$;
COMMENT ON FUNCTION alloc._try_unlock(text) IS
	'for routers: is no longer at work on an order';

CREATE FUNCTION alloc._homes_of(skus text[])
RETURNS integer[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg(alloc._home(s.sku, r.homes) ORDER BY s.n), '{}')
	  FROM alloc.router r, unnest($1) WITH ORDINALITY AS s (sku, n)
$$;
COMMENT ON FUNCTION alloc._homes_of(text[]) IS
	'for routers: the partition of each sku';

-- For so long the lines of an order are held while it is being taken.
CREATE FUNCTION alloc._order_ttl()
RETURNS interval
LANGUAGE sql STABLE
AS $$
	SELECT coalesce(nullif(pg_catalog.current_setting('alloc.order_ttl', true), ''), '1min')::pg_catalog.interval
$$;
COMMENT ON FUNCTION alloc._order_ttl() IS
	'for routers: setting alloc.order_ttl';
