-- What 024_properties.pl runs at random, and what must hold then.
--
-- An order is 'all N': taken as a whole or not at all, of 2 or 3 skus; 'cart N':
-- held; 'order N': served in any way.  How many units it wants of a sku goes by its
-- number and the sku.

-- ---- commands ----

CREATE FUNCTION dice(n int) RETURNS int
LANGUAGE sql VOLATILE AS 'SELECT 1 + floor(random() * n)::int';

CREATE FUNCTION some_day() RETURNS date
LANGUAGE sql VOLATILE AS $$
	SELECT CASE dice(3) WHEN 1 THEN NULL ELSE date '2030-01-01' + dice(3) END
$$;

CREATE FUNCTION qty_of(n int, sku int) RETURNS bigint
LANGUAGE sql IMMUTABLE AS 'SELECT 1 + (n + sku) % 5';

CREATE FUNCTION size_of(n int) RETURNS int
LANGUAGE sql IMMUTABLE AS 'SELECT 2 + n % 2';

CREATE FUNCTION lines_of(n int) RETURNS alloc.order_line[]
LANGUAGE sql AS $$
	SELECT array_agg(ROW(NULL, 'sku ' || sku, qty_of(n, sku))::alloc.order_line)
	  FROM generate_series(1, size_of(n)) m, LATERAL (SELECT 1 + (n + m) % 3 AS sku) s
$$;

-- Orders of which somebody has taken a part away; and answers to messages.
CREATE TABLE left_out (orderid text NOT NULL);
CREATE TABLE answered (message_id text NOT NULL, answer jsonb NOT NULL);

-- Nobody else is at work: what is there now is what a command meets.
CREATE FUNCTION alone() RETURNS boolean
LANGUAGE sql AS $$ SELECT current_setting('properties.alone', true) = 'on' $$;

CREATE FUNCTION wrong_answer(command text, orderid text, answer text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'WRONG', MESSAGE = format('%s of %s: %s', command, orderid, answer);
END
$$;

-- The batches as they are but for some, in a feed.
CREATE FUNCTION sync() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE IF NOT EXISTS feed (ref text, sku text, qty bigint, eta date);
	DELETE FROM feed;
	INSERT INTO feed
	SELECT ref, sku, CASE dice(4) WHEN 1 THEN shipped_qty + dice(30) - 1 ELSE purchased_qty END,
	       CASE dice(6) WHEN 1 THEN some_day() ELSE eta END
	  FROM alloc.batches WHERE dice(10) > 1;
	PERFORM alloc.sync_batches('feed', dice(10) = 1);
END
$$;

CREATE FUNCTION buy() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	sku int := dice(3);
	batch text := format('batch %s of %s', dice(5), sku);
BEGIN
	CASE dice(9)
	WHEN 1, 2, 3 THEN
		PERFORM alloc.add_batch(batch, 'sku ' || sku, dice(30) - 1, some_day());
	WHEN 4, 5, 6 THEN
		-- What has left grows, so that less would be refused more and more.
		PERFORM alloc.change_batch_quantity(batch, dice(40) - 1 + coalesce(
			(SELECT shipped_qty FROM alloc.batches WHERE ref = batch AND dice(8) > 1), 0));
	WHEN 7, 8 THEN
		PERFORM alloc.change_batch_eta(batch, some_day());
	ELSE
		PERFORM sync();
	END CASE;
END
$$;

-- allocate(), or hold().  The line is then where it says, and, new and with
-- nobody before it, where promise() has said.
CREATE FUNCTION place(of_order text, of_sku text, units bigint, ttl interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	promised text;
	is_new boolean;
	answer text;
BEGIN
	IF alone() THEN
		SELECT batchref INTO promised FROM alloc.promise(of_sku, units);
		is_new := NOT EXISTS (SELECT FROM alloc.allocation WHERE orderid = of_order AND sku = of_sku)
			AND NOT EXISTS (SELECT FROM alloc.backorder WHERE sku = of_sku);
	END IF;
	answer := CASE WHEN ttl IS NULL THEN alloc.allocate(of_order, of_sku, units)
	               ELSE alloc.hold(of_order, of_sku, units, ttl) END;
	IF alone() AND (is_new AND answer IS DISTINCT FROM promised OR answer IS DISTINCT FROM (
		SELECT b.ref FROM alloc.allocation a JOIN alloc.batch b USING (batch_id)
		 WHERE a.orderid = of_order AND a.sku = of_sku AND a.qty = units
		   AND (a.expires_at > statement_timestamp()) IS NOT FALSE)) THEN
		PERFORM wrong_answer(format('place(%s)', ttl), of_order, answer);
	END IF;
END
$$;

-- The same id, and the same answer.
CREATE FUNCTION send(n int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	id text := CASE WHEN alone() THEN 'm ' || n ELSE gen_random_uuid()::text END;
	message jsonb := jsonb_build_object('command', 'allocate', 'orderid', 'order ' || n,
		'sku', 'sku ' || 1 + n % 3, 'qty', qty_of(n, 1 + n % 3), 'message_id', id);
	reply jsonb := alloc.handle(message);
BEGIN
	IF EXISTS (SELECT FROM answered a WHERE a.message_id = id AND a.answer <> reply) THEN
		PERFORM wrong_answer('handle()', message::text, reply::text);
	END IF;
	INSERT INTO answered VALUES (id, reply);
END
$$;

CREATE FUNCTION sell(orders int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n int := dice(orders);
	sku int := dice(3);
	name text := CASE dice(5) WHEN 1 THEN 'cart ' ELSE 'order ' END || n;
BEGIN
	CASE dice(12)
	WHEN 1, 2, 3 THEN
		PERFORM place(name, 'sku ' || sku, qty_of(n, sku) + (dice(30) = 1)::int, NULL);
	WHEN 4, 5 THEN
		PERFORM alloc.allocate_lines(ARRAY(
			SELECT ROW('order ' || o, 'sku ' || s, qty_of(o, s))::alloc.order_line
			  FROM generate_series(n, n + dice(3)) o, generate_series(sku, 3) s));
	WHEN 6, 7, 8 THEN
		PERFORM alloc.allocate_order('all ' || n, lines_of(n), 'all');
	WHEN 9 THEN
		PERFORM alloc.allocate_order(name, lines_of(n), CASE dice(2) WHEN 1 THEN 'all' ELSE 'partial' END);
	WHEN 10, 11 THEN
		PERFORM alloc.allocate_order(name, lines_of(n), 'backorder');
	ELSE
		PERFORM send(n);
	END CASE;
END
$$;

-- confirm(), or extend_hold(), by the command's text.  It is refused if and only if
-- a hold of the order was over when the statement began, or has ended and the line
-- was not taken again.
CREATE FUNCTION insist(command text, of_order text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	live bigint;
	late bigint;
	answer bigint;
BEGIN
	SELECT count(*) FILTER (WHERE NOT h.ended),
	       count(*) FILTER (WHERE CASE WHEN h.ended THEN a.orderid IS NULL
	                              ELSE h.expires_at <= statement_timestamp() END)
	  INTO live, late
	  FROM alloc.hold h LEFT JOIN alloc.allocation a USING (orderid, sku)
	 WHERE h.orderid = of_order;
	BEGIN
		EXECUTE command INTO answer USING of_order;
	EXCEPTION WHEN SQLSTATE 'SK005' THEN
		answer := NULL;
	END;
	IF alone() AND answer IS DISTINCT FROM (CASE WHEN late = 0 THEN live END) THEN
		PERFORM wrong_answer(command, of_order, format('%s, of %s live and %s late', answer, live, late));
	END IF;
END
$$;

CREATE FUNCTION some_ttl() RETURNS interval
LANGUAGE sql VOLATILE AS $$
	SELECT CASE dice(3) WHEN 1 THEN interval '1 microsecond' WHEN 2 THEN dice(40) * interval '1 ms'
	       ELSE interval '1 hour' END
$$;

CREATE FUNCTION keep(orders int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n int := dice((orders + 1) / 2);
	sku int := dice(3);
	name text := CASE dice(5) WHEN 1 THEN 'order ' ELSE 'cart ' END || n;
BEGIN
	CASE dice(8)
	WHEN 1, 2, 3, 4 THEN
		PERFORM place(name, 'sku ' || sku, qty_of(n, sku), some_ttl());
	WHEN 5, 6 THEN
		PERFORM insist('SELECT alloc.confirm($1)', name);
	WHEN 7 THEN
		PERFORM insist(format('SELECT alloc.extend_hold($1, %L)', some_ttl()), name);
	ELSE
		PERFORM alloc.release(name);
	END CASE;
END
$$;

-- An order that is taken as a whole has to be there as a whole until here.
CREATE FUNCTION give_up(name text, sku text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF (CASE dice(2) WHEN 1 THEN alloc.deallocate(name, sku) IS NOT NULL
	    ELSE alloc.cancel_backorder(name, sku) END) THEN
		INSERT INTO left_out VALUES (name);
	END IF;
END
$$;

CREATE FUNCTION leave(orders int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	name text := (ARRAY['order ', 'order ', 'cart ', 'all '])[dice(4)] || dice(orders);
	sku text := 'sku ' || dice(3);
BEGIN
	CASE dice(10)
	WHEN 1, 2, 3, 4, 5, 6 THEN
		PERFORM give_up(name, sku);
	WHEN 7, 8 THEN
		PERFORM alloc.ship(name, CASE dice(2) WHEN 1 THEN sku END);
	ELSE
		PERFORM alloc.purge_shipped(statement_timestamp() - dice(100) * interval '1 ms');
	END CASE;
END
$$;

CREATE FUNCTION command(orders int) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	CASE dice(12)
	WHEN 1, 2 THEN PERFORM buy();
	WHEN 3, 4, 5 THEN PERFORM sell(orders);
	WHEN 6, 7, 8 THEN PERFORM keep(orders);
	ELSE PERFORM leave(orders);
	END CASE;
END
$$;

-- Several commands, one transaction: an order goes as a whole.  Where another
-- session has come in between, a part of it may be left.
CREATE FUNCTION give_up_all(n int) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	gone bigint;
BEGIN
	SELECT count(*) FILTER (WHERE alloc.cancel_backorder('all ' || n, l.sku)
	                           OR alloc.deallocate('all ' || n, l.sku) IS NOT NULL)
	  INTO gone FROM unnest(lines_of(n)) l;
	IF gone NOT IN (0, size_of(n)) THEN
		INSERT INTO left_out VALUES ('all ' || n);
	END IF;
END
$$;

-- What may be refused is no error for pgbench, which retries what it has to.
CREATE FUNCTION try(orders int) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM command(orders);
EXCEPTION
	WHEN unique_violation OR SQLSTATE 'SK001' OR SQLSTATE 'SK002' OR SQLSTATE 'SK003'
	  OR SQLSTATE 'SK004' OR SQLSTATE 'SK005' OR SQLSTATE '55000' THEN
		NULL;
END
$$;

-- ---- properties ----

-- Each unit is on one line, has left, or is available; no line outlives its hold.
CREATE FUNCTION wrong_stock() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT 'not conserved: ' || b
	  FROM alloc.batches b
	  LEFT JOIN (SELECT batchref AS ref, sum(qty) AS qty FROM alloc.allocations GROUP BY 1) a USING (ref)
	 WHERE b.purchased_qty <> b.shipped_qty + b.allocated_qty + b.available_qty
	    OR least(b.shipped_qty, b.allocated_qty, b.available_qty) < 0
	    OR b.allocated_qty <> coalesce(a.qty, 0)
	UNION ALL
	SELECT 'outlives its hold: ' || a FROM alloc.allocations a WHERE a.expires_at <= statement_timestamp()
$$;

-- What holds that are over and not ended have is not in the slots.
CREATE FUNCTION wrong_queue() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT 'waits for what is there: ' || w
	  FROM alloc.backorder w
	 WHERE w.qty <= ANY (
		SELECT sum(s.available) FROM alloc.slot s WHERE s.sku = w.sku GROUP BY s.batch_id)
	UNION ALL
	SELECT 'waits and is served: ' || w
	  FROM alloc.backorder w JOIN alloc.allocation a USING (orderid, sku)
	UNION ALL
	SELECT 'out of turn: ' || b.orderid
	  FROM (SELECT row_number() OVER () AS place, v.* FROM alloc.backorders v) b
	  FULL JOIN (SELECT row_number() OVER (ORDER BY event_id) AS place, w.* FROM alloc.backorder w) w
	       USING (orderid, sku)
	 WHERE (b.place, b.qty, b.since) IS DISTINCT FROM (w.place, w.qty, w.since)
$$;

-- A line is there as well if it waits again, or has left, be that forgotten.
CREATE FUNCTION half_orders() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT format('half there: %s has %s lines', orderid, count(DISTINCT sku))
	  FROM (SELECT orderid, sku FROM alloc.allocation
	         UNION ALL SELECT orderid, sku FROM alloc.backorder
	         UNION ALL SELECT orderid, sku FROM (
			SELECT DISTINCT ON (orderid, sku) orderid, sku, type FROM alloc.event
			 WHERE type IN ('allocated', 'deallocated', 'backordered', 'shipped')
			 ORDER BY orderid, sku, event_id DESC) last WHERE type = 'shipped') l
	 WHERE orderid LIKE 'all %' AND orderid NOT IN (SELECT orderid FROM left_out)
	 GROUP BY orderid
	HAVING count(DISTINCT sku) <> size_of(substr(orderid, 5)::int)
$$;

CREATE FUNCTION wrong_promises() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT format('promised: %s of %s from %s', n, s.sku, p.batchref)
	  FROM alloc.stock s
	 CROSS JOIN generate_series(1, 15, 2) n
	  LEFT JOIN LATERAL alloc.promise(s.sku, n) p ON true
	  LEFT JOIN LATERAL (
		SELECT b.ref, v.eta FROM alloc.batches v JOIN alloc.batch b USING (ref)
		 WHERE b.sku = s.sku AND v.available_qty >= n
		 ORDER BY v.eta NULLS FIRST, b.batch_id LIMIT 1) best ON true
	 WHERE (p.batchref, p.eta) IS DISTINCT FROM (best.ref, best.eta)
	UNION ALL
	SELECT format('to promise: %s of %s by %s', p.qty, s.sku, day)
	  FROM alloc.stock s
	 CROSS JOIN (VALUES (NULL), (date '2000-01-01'), ('2030-01-02'), ('2030-01-03'), ('2030-01-04')) d (day)
	 CROSS JOIN alloc.available_to_promise(s.sku, day) p (qty)
	 WHERE p.qty <> (
		SELECT coalesce(sum(b.available_qty), 0) FROM alloc.batches b
		 WHERE b.sku = s.sku AND (b.eta <= day) IS NOT FALSE)
$$;

CREATE FUNCTION wrong() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT wrong_stock() UNION ALL SELECT wrong_queue()
	UNION ALL SELECT half_orders() UNION ALL SELECT wrong_promises()
$$;

-- By the log: who waited longer and wants no more than a line that is served would
-- have fit as well, so none is left waiting then; and no hold was confirmed that
-- was over, none ended that was not.
CREATE FUNCTION wrong_log() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	WITH turn AS MATERIALIZED (
		SELECT *
		  FROM (SELECT sku, orderid, qty, type, event_id AS since,
		               lead(event_id) OVER line AS upto, lead(type) OVER line AS fate
		          FROM alloc.event
		         WHERE type IN ('backordered', 'allocated', 'held', 'deallocated')
		        WINDOW line AS (PARTITION BY orderid, sku ORDER BY event_id)) e
		 WHERE type = 'backordered')
	SELECT format('served before its turn: %s, %s units of %s since %s by event %s, '
	              'and %s waits for %s since %s',
	              w.orderid, w.qty, w.sku, w.since, w.upto, o.orderid, o.qty, o.since)
	  FROM turn w
	  JOIN turn o ON o.sku = w.sku AND o.since < w.since AND o.qty <= w.qty
	             AND (o.upto > w.upto OR o.upto IS NULL)
	 WHERE w.fate IN ('allocated', 'held')
	UNION ALL
	SELECT format('held and %s: %s at %s, until %s',
	              CASE e.type WHEN 'confirmed' THEN 'confirmed too late' ELSE 'ended too early' END,
	              e.orderid, e.at, e.until)
	  FROM (SELECT type, orderid, at, lag(type) OVER line AS before, lag(expires_at) OVER line AS until
	          FROM alloc.event
	         WHERE type IN ('held', 'confirmed', 'hold_released', 'hold_expired')
	        WINDOW line AS (PARTITION BY orderid, sku ORDER BY event_id)) e
	 WHERE e.type = 'confirmed' AND (e.before = 'held' AND e.at < e.until) IS NOT TRUE
	    OR e.type = 'hold_expired' AND (e.before = 'held' AND e.at >= e.until) IS NOT TRUE
$$;

-- What somebody has seen to be wrong who looked by one snapshot, and a row with
-- NULL for each look.
CREATE TABLE look (seen text);
