-- The generator of random commands.
--
-- Everything is drawn from random() after setseed(), so that a seed gives the
-- same commands each time; what is drawn depends on the peer's tables alone.
--
-- The skus 1 to 30 have small quantities, so that stock runs out; 31 and 32
-- have quantities near the end of bigint, so that sums overflow; 33 never has
-- a batch.  A third of the skus has one or two batches, a third up to ten, a
-- third up to sixty.  Skus with an even number have many more orders than
-- stock; the others have stock to move lines to.

\set ON_ERROR_STOP on
CREATE SCHEMA compare;

-- What the two sides are asked.  For purge_shipped() eta is the moment.
CREATE TYPE compare.command AS (
	name text, orderid text, ref text, sku text, qty bigint, eta date,
	lines alloc_peer.order_line[], mode text, ttl interval);

-- dice: 1 to n.
CREATE FUNCTION compare.dice(n bigint) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
	SELECT 1 + floor(random() * n)::bigint
$$;

-- once_in: true once in n times.
CREATE FUNCTION compare.once_in(n bigint) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
	SELECT random() * n < 1
$$;

-- key: a name for the number n of some kind; a few are awkward on purpose.
CREATE FUNCTION compare.key(kind text, n bigint) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT CASE n
		WHEN 3 THEN kind || E' \\3, "quoted" ''3'''
		WHEN 5 THEN rpad(kind || '-5', 255, 'x')
		WHEN 6 THEN rpad(kind || '-6', 255, 'x')
		WHEN 8 THEN kind || E'-\u00e9\u4e2d\U0001F4E6'
		WHEN 9 THEN lower(kind) || '-1'
		ELSE kind || '-' || n
	END
$$;

CREATE FUNCTION compare.random_sku_number() RETURNS bigint
LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN compare.once_in(25) THEN 30 + compare.dice(3)
				ELSE compare.dice(30) END
$$;

-- random_ref: of a batch of the sku, most often one that exists.  Progress
-- goes from 0 to 1, and lets batches be added until the end.
CREATE FUNCTION compare.random_ref(sku_number bigint, progress float) RETURNS text
LANGUAGE sql VOLATILE AS $$
	SELECT compare.key('B' || compare.dice(1 + floor(
		progress * (ARRAY[60, 2, 10])[1 + sku_number % 3])::bigint), sku_number)
$$;

CREATE FUNCTION compare.random_orderid(sku_number bigint) RETURNS text
LANGUAGE sql VOLATILE AS $$
	SELECT compare.key('order', compare.dice(
		CASE WHEN sku_number % 2 = 0 THEN 400 ELSE 70 END))
$$;

CREATE FUNCTION compare.random_huge_quantity() RETURNS bigint
LANGUAGE sql VOLATILE AS $$
	SELECT (ARRAY[
		9223372036854775807,
		9223372036854775807 - compare.dice(3),
		4611686018427387904,
		4611686018427387903,
		compare.dice(9223372036854775806),
		compare.dice(4611686018427387904),
		compare.dice(10)])[compare.dice(7)]
$$;

-- random_line_quantity: mostly small, so that a batch serves several lines.
CREATE FUNCTION compare.random_line_quantity(sku_number bigint) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
	SELECT CASE
		WHEN sku_number > 30 THEN compare.random_huge_quantity()
		WHEN compare.once_in(200) THEN compare.random_huge_quantity()
		ELSE 1 + floor(9 * random() ^ 2)::bigint
	END
$$;

CREATE FUNCTION compare.random_batch_quantity(sku_number bigint) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
	SELECT CASE
		WHEN sku_number > 30 THEN compare.random_huge_quantity()
		WHEN compare.once_in(5) THEN compare.dice(121) - 1
		ELSE compare.dice(31) - 1
	END
$$;

-- changed_quantity: for a batch that has p_purchased.
CREATE FUNCTION compare.changed_quantity(sku_number bigint, p_purchased bigint)
RETURNS bigint
LANGUAGE sql VOLATILE AS $$
	SELECT CASE
		WHEN roll <= 8 THEN p_purchased
		WHEN roll <= 14 THEN 0
		WHEN roll <= 24 THEN compare.random_batch_quantity(sku_number)
		WHEN roll <= 25 THEN compare.random_huge_quantity()
		WHEN roll <= 50 THEN least(p_purchased, 9223372036854775707) + compare.dice(20)
		WHEN roll <= 75 THEN greatest(p_purchased - compare.dice(8), 0)
		ELSE floor(random() * p_purchased::numeric)::bigint
	END
	FROM (SELECT compare.dice(100) AS roll) AS die
$$;

CREATE FUNCTION compare.random_eta() RETURNS date
LANGUAGE sql VOLATILE AS $$
	SELECT (ARRAY[NULL, NULL, '2011-01-01', '2011-01-02', '2011-01-03',
				  '1999-12-31']::date[])[compare.dice(6)]
$$;

-- changed_eta: for a batch that has p_eta.
CREATE FUNCTION compare.changed_eta(p_eta date) RETURNS date
LANGUAGE sql VOLATILE AS $$
	SELECT CASE
		WHEN compare.once_in(8) THEN p_eta
		WHEN compare.once_in(30) THEN 'infinity'
		WHEN compare.once_in(30) THEN '-infinity'
		ELSE compare.random_eta()
	END
$$;

CREATE FUNCTION compare.random_add_batch(sku_number bigint, progress float)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c compare.command;
	known alloc_peer.batch;
BEGIN
	c.name := 'add_batch';
	c.ref := compare.random_ref(sku_number, progress);
	c.sku := compare.key('SKU', sku_number);
	c.qty := compare.random_batch_quantity(sku_number);
	c.eta := compare.random_eta();
	SELECT * INTO known FROM alloc_peer.batch WHERE ref = c.ref;
	-- Of a batch that exists: repeat it as it is, or with one other value.
	IF FOUND AND NOT compare.once_in(10) THEN
		CASE compare.dice(6)
			WHEN 1 THEN c.qty := known.purchased;
			WHEN 2 THEN c.eta := known.eta;
			WHEN 3 THEN
				c.qty := known.purchased;
				c.eta := known.eta;
				c.sku := compare.key('SKU', compare.dice(30));
			ELSE
				c.qty := known.purchased;
				c.eta := known.eta;
		END CASE;
	END IF;
	RETURN c;
END
$$;

-- known_quantity: of a line that is served, was shipped, or waits.
CREATE FUNCTION compare.known_quantity(p_orderid text, p_sku text)
RETURNS bigint
LANGUAGE sql STABLE AS $$
	SELECT qty FROM alloc_peer.allocation
	 WHERE orderid = p_orderid AND sku = p_sku
	UNION ALL
	SELECT qty FROM alloc_peer.backorder
	 WHERE orderid = p_orderid AND sku = p_sku
$$;

CREATE FUNCTION compare.random_allocate(sku_number bigint)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c compare.command;
	known_qty bigint;
BEGIN
	c.name := 'allocate';
	c.orderid := compare.random_orderid(sku_number);
	c.sku := compare.key('SKU', sku_number);
	c.qty := compare.random_line_quantity(sku_number);
	known_qty := compare.known_quantity(c.orderid, c.sku);
	IF known_qty IS NOT NULL AND compare.once_in(2) THEN
		c.qty := known_qty;
	END IF;
	RETURN c;
END
$$;

-- random_line: for an array of lines.  The quantity is most often that of the
-- same line where there is one, in the array or allocated: or there would be
-- an error in nearly every array.
CREATE FUNCTION compare.random_line(sku_numbers bigint[], before alloc_peer.order_line[])
RETURNS alloc_peer.order_line
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	sku_number bigint := sku_numbers[compare.dice(cardinality(sku_numbers))];
	line alloc_peer.order_line;
	same alloc_peer.order_line;
	known_qty bigint;
BEGIN
	line.orderid := compare.random_orderid(sku_number);
	line.sku := compare.key('SKU', sku_number);
	-- Many a line is larger than any batch, so that it can come again with
	-- another quantity.
	line.qty := CASE WHEN compare.once_in(12) THEN compare.dice(60)
					 ELSE compare.random_line_quantity(sku_number) END;
	IF cardinality(before) > 0 AND compare.once_in(8) THEN
		line := before[compare.dice(cardinality(before))];
		IF line.qty > 9 THEN
			line.qty := compare.dice(9);
		END IF;
	ELSIF NOT compare.once_in(300) THEN
		FOREACH same IN ARRAY before LOOP
			IF (same.orderid, same.sku) = (line.orderid, line.sku) THEN
				known_qty := same.qty;
			END IF;
		END LOOP;
		IF known_qty IS NULL THEN
			known_qty := compare.known_quantity(line.orderid, line.sku);
		END IF;
		line.qty := coalesce(known_qty, line.qty);
	END IF;
	RETURN line;
END
$$;

-- random_allocate_lines: mostly few lines, up to 40, of one to six skus.
CREATE FUNCTION compare.random_allocate_lines(sku_number bigint)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c compare.command;
	sku_numbers bigint[] := ARRAY[sku_number];
BEGIN
	c.name := 'allocate_lines';
	c.lines := '{}';
	FOR i IN 2..compare.dice(6) LOOP
		sku_numbers := sku_numbers || compare.random_sku_number();
	END LOOP;
	FOR i IN 1..CASE WHEN compare.once_in(30) THEN 0 ELSE 1 + floor(40 * random() ^ 2)::int END LOOP
		c.lines := c.lines || compare.random_line(sku_numbers, c.lines);
	END LOOP;
	RETURN c;
END
$$;

-- random_line_command: deallocate or ship; every other time of the oldest line
-- that some batch of the sku serves, else of a line that often is not there.
CREATE FUNCTION compare.random_line_command(command_name text, sku_number bigint, progress float)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c      compare.command;
	p_ref  text := compare.random_ref(sku_number, progress);
	oldest text;
BEGIN
	c.name := command_name;
	c.orderid := compare.random_orderid(sku_number);
	c.sku := compare.key('SKU', sku_number);
	IF compare.once_in(2) THEN
		SELECT a.orderid INTO oldest
		  FROM alloc_peer.allocation a
		  JOIN alloc_peer.batch b USING (batch_id)
		 WHERE b.ref = p_ref AND a.shipped_at IS NULL
		 ORDER BY a.event_id LIMIT 1;
		c.orderid := coalesce(oldest, c.orderid);
	END IF;
	IF command_name = 'ship' AND compare.once_in(8) THEN
		c.sku := NULL;
	END IF;
	RETURN c;
END
$$;

-- random_cancel: most often of a line of the sku that waits.
CREATE FUNCTION compare.random_cancel(sku_number bigint)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c      compare.command;
	oldest text;
BEGIN
	c.name := 'cancel_backorder';
	c.orderid := compare.random_orderid(sku_number);
	c.sku := compare.key('SKU', sku_number);
	IF NOT compare.once_in(3) THEN
		SELECT w.orderid INTO oldest FROM alloc_peer.backorder w
		 WHERE w.sku = c.sku
		 ORDER BY w.event_id OFFSET compare.dice(3) - 1 LIMIT 1;
		c.orderid := coalesce(oldest, c.orderid);
	END IF;
	RETURN c;
END
$$;

CREATE FUNCTION compare.random_change(sku_number bigint, progress float)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c compare.command;
	purchased bigint;
BEGIN
	c.name := 'change_batch_quantity';
	c.ref := compare.random_ref(sku_number, progress);
	SELECT b.purchased INTO purchased FROM alloc_peer.batch b WHERE b.ref = c.ref;
	c.qty := compare.changed_quantity(sku_number, coalesce(purchased, 10));
	RETURN c;
END
$$;

CREATE FUNCTION compare.random_change_eta(sku_number bigint, progress float)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c compare.command;
BEGIN
	c.name := 'change_batch_eta';
	c.ref := compare.random_ref(sku_number, progress);
	c.eta := compare.changed_eta((SELECT b.eta FROM alloc_peer.batch b WHERE b.ref = c.ref));
	RETURN c;
END
$$;

-- random_ttl: an hour or two, or so short that it is over with the next CALL.  Of
-- those no two in a CALL are the same, so that they end in one order.
CREATE SEQUENCE compare.short_ttl MAXVALUE 30 CYCLE;
CREATE FUNCTION compare.random_ttl() RETURNS interval
LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN compare.once_in(2) THEN nextval('compare.short_ttl') * interval '1 microsecond'
				ELSE compare.dice(2) * interval '1 hour' END
$$;

-- random_hold: often of a few units, which are there though lines wait for more,
-- and for one of few orders, so that these have several.
CREATE FUNCTION compare.random_hold(sku_number bigint)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c compare.command := compare.random_allocate(sku_number);
BEGIN
	c.name := 'hold';
	c.ttl := compare.random_ttl();
	IF compare.once_in(2) THEN
		c.orderid := compare.key('order', 400 + compare.dice(20));
		c.qty := coalesce(compare.known_quantity(c.orderid, c.sku), compare.dice(2));
	END IF;
	RETURN c;
END
$$;

-- random_order_command: confirm, release or extend_hold; mostly of an order that
-- holds the sku, or did.
CREATE FUNCTION compare.random_order_command(sku_number bigint)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c      compare.command;
	holder text;
BEGIN
	c.name := (ARRAY['confirm', 'release', 'extend_hold'])[compare.dice(3)];
	c.orderid := CASE WHEN compare.once_in(2) THEN compare.random_orderid(sku_number)
					  ELSE compare.key('order', 400 + compare.dice(20)) END;
	IF NOT compare.once_in(3) THEN
		SELECT orderid INTO holder FROM alloc_peer.hold
		 WHERE sku = compare.key('SKU', sku_number)
		 ORDER BY md5(orderid || c.orderid), orderid COLLATE "C" LIMIT 1;
		c.orderid := coalesce(holder, c.orderid);
	END IF;
	IF c.name = 'extend_hold' THEN
		c.ttl := compare.random_ttl();
	END IF;
	RETURN c;
END
$$;

-- random_query: promise or available_to_promise, of what there is or not.
CREATE FUNCTION compare.random_query(sku_number bigint)
RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c compare.command;
BEGIN
	c.name := CASE WHEN compare.once_in(2) THEN 'promise' ELSE 'available_to_promise' END;
	c.sku := compare.key('SKU', sku_number);
	c.qty := CASE WHEN compare.once_in(3) THEN compare.dice(60)
				  ELSE compare.random_line_quantity(sku_number) END;
	c.eta := compare.changed_eta(NULL);
	RETURN c;
END
$$;

-- random_purge: of all that was shipped, or of nothing.  The moment of a line
-- is that of the whole run.
CREATE FUNCTION compare.random_purge() RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c compare.command;
BEGIN
	c.name := 'purge_shipped';
	c.eta := CASE WHEN compare.once_in(3) THEN 'infinity' ELSE compare.random_eta() END;
	RETURN c;
END
$$;

-- spoiled: the command with one bad argument.  Two bad ones, by calling it
-- twice, show in which order arguments are looked at.
CREATE FUNCTION compare.spoiled(c compare.command) RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	-- The last one has few characters, but 256 bytes.
	bad_key text := (ARRAY[NULL, '', repeat('x', 256), repeat(U&'\00e9', 128)])
		[compare.dice(4)];
	bad_qty bigint := (ARRAY[NULL, 0, -1, -9223372036854775808])[compare.dice(4)];
BEGIN
	IF c.ttl IS NOT NULL AND compare.once_in(3) THEN
		c.ttl := (ARRAY[NULL, '0', '-1 hour', '1000 years 1 second']::interval[])[compare.dice(4)];
		RETURN c;
	END IF;
	CASE compare.dice(4)
		WHEN 1 THEN c.orderid := bad_key;
		WHEN 2 THEN c.ref := bad_key;
		WHEN 3 THEN c.sku := bad_key;
		ELSE c.qty := bad_qty;
	END CASE;
	RETURN c;
END
$$;

-- spoiled_lines: the command with a bad array, or with a bad line before all
-- others.  About a later one the extension complains before it looks for any
-- sku or line, the peer does not.
CREATE FUNCTION compare.spoiled_lines(c compare.command) RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	bad compare.command := compare.random_allocate(compare.random_sku_number());
BEGIN
	CASE compare.dice(8)
		WHEN 1 THEN c.lines := NULL;
		WHEN 2 THEN c.lines := NULL::alloc_peer.order_line || c.lines;
		ELSE
			LOOP
				bad := compare.spoiled(bad);
				EXIT WHEN compare.once_in(2);
			END LOOP;
			c.lines := ROW(bad.orderid, bad.sku, bad.qty)::alloc_peer.order_line || c.lines;
	END CASE;
	RETURN c;
END
$$;

-- random_command: the next one; progress goes from 0 to 1.
CREATE FUNCTION compare.random_command(progress float) RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	sku_number bigint := compare.random_sku_number();
	roll int := compare.dice(1210);
	c compare.command;
BEGIN
	CASE
		WHEN roll <= 100 THEN c := compare.random_add_batch(least(sku_number, 32), progress);
		WHEN roll <= 505 THEN c := compare.random_allocate(sku_number);
		WHEN roll <= 545 THEN c := compare.random_order(sku_number);
		WHEN roll <= 570 THEN c := compare.random_allocate_lines(sku_number);
		WHEN roll <= 710 THEN c := compare.random_line_command('deallocate', sku_number, progress);
		WHEN roll <= 725 THEN c := compare.random_line_command('ship', sku_number, progress);
		WHEN roll <= 727 THEN c := compare.random_purge();
		WHEN roll <= 757 THEN c := compare.random_change_eta(sku_number, progress);
		WHEN roll <= 787 THEN c := compare.random_query(sku_number);
		WHEN roll <= 802 THEN c := compare.random_cancel(sku_number);
		WHEN roll > 1130 THEN c := compare.random_order_command(sku_number);
		WHEN roll > 1000 THEN c := compare.random_hold(sku_number);
		ELSE c := compare.random_change(sku_number, progress);
	END CASE;
	IF c.name = 'allocate_lines' AND compare.once_in(20) THEN
		c := compare.spoiled_lines(c);
	ELSIF c.name = 'allocate_order' AND compare.once_in(10) THEN
		c := compare.spoiled_order(c);
	END IF;
	WHILE c.name NOT IN ('purge_shipped', 'allocate_lines', 'allocate_order') AND compare.once_in(20) LOOP
		c := compare.spoiled(c);
	END LOOP;
	RETURN c;
END
$$;
