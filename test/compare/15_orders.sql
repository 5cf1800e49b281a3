-- Random orders, and what allocate_order() came to.

-- split_line: a line, once in three times as two of the same sku.
CREATE FUNCTION compare.split_line(line alloc_peer.order_line)
RETURNS alloc_peer.order_line[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	part alloc_peer.order_line := line;
BEGIN
	IF line.qty < 2 OR NOT compare.once_in(3) THEN
		RETURN ARRAY[line];
	END IF;
	part.qty := compare.dice(line.qty - 1);
	line.qty := line.qty - part.qty;
	RETURN ARRAY[line, part];
END
$$;

-- random_order: a new order, or most of the lines that one has, with up to four
-- more; those of one sku not always together.
CREATE FUNCTION compare.random_order(sku_number bigint) RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	c     compare.command;
	line  alloc_peer.order_line;
	parts alloc_peer.order_line[];
	more  int := compare.dice(5) - 1;
BEGIN
	c.name := 'allocate_order';
	c.orderid := CASE WHEN compare.once_in(2) THEN compare.random_orderid(sku_number)
					  ELSE compare.key('order', 1000 + compare.dice(5000)) END;
	c.mode := (ARRAY['all', 'partial', 'backorder'])[compare.dice(3)];
	c.lines := '{}';
	FOR line IN
		SELECT NULL, sku, qty
		  FROM (SELECT event_id, orderid, sku, qty FROM alloc_peer.allocation
				UNION ALL
				SELECT event_id, orderid, sku, qty FROM alloc_peer.backorder) AS known
		 WHERE orderid = c.orderid ORDER BY event_id
	LOOP
		CONTINUE WHEN compare.once_in(5);
		line.orderid := CASE WHEN compare.once_in(2) THEN c.orderid END;
		IF compare.once_in(60) THEN
			line.qty := least(line.qty, 9223372036854775806) + 1;
		END IF;
		c.lines := c.lines || compare.split_line(line);
	END LOOP;
	FOR i IN 1..more LOOP
		line.orderid := CASE WHEN compare.once_in(2) THEN c.orderid END;
		line.sku := compare.key('SKU', sku_number);
		line.qty := compare.random_line_quantity(sku_number);
		sku_number := compare.random_sku_number();
		-- A line that is there, or waits, is in the order, or left out.
		CONTINUE WHEN compare.known_quantity(c.orderid, line.sku) IS NOT NULL;
		parts := compare.split_line(line);
		c.lines := parts[1] || c.lines || parts[2:];
	END LOOP;
	IF compare.once_in(50) THEN
		c.lines := c.lines || ROW(NULL, line.sku, 9223372036854775807)::alloc_peer.order_line;
	END IF;
	RETURN c;
END
$$;

-- spoiled_order: the order with a bad argument, or a bad line somewhere.
CREATE FUNCTION compare.spoiled_order(c compare.command) RETURNS compare.command
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	bad  compare.command := c;
	line alloc_peer.order_line;
	at   int := compare.dice(cardinality(c.lines) + 1);
BEGIN
	bad.sku := 'SKU-1';
	bad.qty := 1;
	LOOP
		bad := compare.spoiled(bad);
		EXIT WHEN compare.once_in(2);
	END LOOP;
	CASE compare.dice(6)
		WHEN 1 THEN c.lines := NULL;
		WHEN 2 THEN c.mode := (ARRAY[NULL, '', 'ALL', 'some'])[compare.dice(4)];
		WHEN 3 THEN c.orderid := bad.orderid;
		ELSE
			line := CASE compare.dice(3)
				WHEN 1 THEN ROW('another order', bad.sku, bad.qty)
				ELSE ROW(bad.orderid, bad.sku, bad.qty) END;
			c.lines := c.lines[:at - 1] || line || c.lines[at:];
	END CASE;
	RETURN c;
END
$$;

CREATE FUNCTION compare.outcomes_of_order(c compare.command, answer text, events text)
RETURNS SETOF text
LANGUAGE plpgsql STABLE AS $$
DECLARE
	served bigint := regexp_count(answer, ',allocated,\d+\)');
	unmet  bigint := regexp_count(answer, ',out_of_stock,\d+\)');
	others bigint := regexp_count(answer, ',not_taken,\d+\)');
	waits  bigint := regexp_count(answer, ',backordered,\d+\)');
	queued bigint := regexp_count(coalesce(events, ''), '^\(backordered,', 1, 'n');
	fresh  bigint := regexp_count(coalesce(events, ''), '^\(allocated,', 1, 'n');
BEGIN
	RETURN QUERY
	SELECT outcome FROM (VALUES
		('no line', answer = 'NULL'),
		('several lines of a sku', cardinality(c.lines) > served + unmet + others + waits),
		('several skus', served + unmet + others + waits > 1),
		('each line was there', served > 0 AND waits = 0 AND events IS NULL),
		('each line is served', served > 0 AND unmet + waits = 0 AND fresh = served),
		('the rest is served', unmet + waits = 0 AND fresh BETWEEN 1 AND served - 1),
		('a line begins to wait', queued > 0),
		('several lines begin to wait', queued > 1),
		('a line goes on waiting', waits > queued),
		('some are served, some begin to wait', fresh > 0 AND queued > 0),
		('a line that is held is confirmed', events LIKE '%(confirmed,%'),
		('out of stock, goes on waiting', events LIKE '%(out_of_stock,%' AND queued = 0
		 AND EXISTS (SELECT FROM alloc_peer.backorder w JOIN unnest(c.lines) AS l USING (sku)
					  WHERE w.orderid = c.orderid)),
		('nothing can be served', unmet > 0 AND served + others = 0),
		(c.mode || ', some cannot be served', unmet > 0 AND served + others > 0),
		(c.mode || ', some cannot be served, some were there',
		 unmet > 0 AND served > fresh)) AS v (outcome, holds)
	 WHERE holds;
END
$$;
