-- The comparison of tables.  Sequences may have gaps, so ids are compared by
-- their rank.

CREATE TABLE compare.event_number (
	side     name NOT NULL,
	event_id bigint NOT NULL,
	number   bigint NOT NULL,
	PRIMARY KEY (side, event_id)
);

-- number_events: numbers the events of one side that are not numbered yet.
CREATE PROCEDURE compare.number_events(side name)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format(
		'INSERT INTO compare.event_number
		 SELECT $1, event_id, numbered.count + row_number() OVER (ORDER BY event_id)
		   FROM %I.event,
				(SELECT count(*), coalesce(max(event_id), 0) AS last
				   FROM compare.event_number WHERE side = $1) AS numbered
		  WHERE event_id > numbered.last', side)
	  USING side;
END
$$;

-- contents: the query for the contents of a table of one side.
CREATE FUNCTION compare.contents(side name, table_name text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT format(CASE table_name
		WHEN 'product' THEN
			'SELECT sku FROM %1$I.product'
		WHEN 'batch' THEN
			'SELECT row_number() OVER (ORDER BY batch_id), purchased, eta, ref, sku
			   FROM %1$I.batch'
		WHEN 'slot' THEN
			'SELECT b.ref, sum(s.available), sum(s.shipped), s.ref, s.sku, s.eta,
					bool_or(s.waiting)
			   FROM %1$I.slot s LEFT JOIN %1$I.batch b USING (batch_id)
			  GROUP BY b.ref, s.ref, s.sku, s.eta'
		WHEN 'allocation' THEN
			'SELECT a.orderid, a.sku, a.qty, b.ref, a.expires_at, a.shipped_at, e.number
			   FROM %1$I.allocation a
			   LEFT JOIN %1$I.batch b USING (batch_id)
			   LEFT JOIN compare.event_number e
					  ON e.side = %1$L AND e.event_id = a.event_id'
		WHEN 'backorder' THEN
			'SELECT w.orderid, w.sku, w.qty, w.since, e.number
			   FROM %1$I.backorder w
			   LEFT JOIN compare.event_number e
					  ON e.side = %1$L AND e.event_id = w.event_id'
		WHEN 'hold' THEN
			'SELECT h.orderid, h.sku, h.qty, b.ref, h.expires_at, h.ended
			   FROM %1$I.hold h
			   LEFT JOIN %1$I.batch b USING (batch_id)'
		WHEN 'event' THEN
			'SELECT row_number() OVER (ORDER BY event_id), type, orderid, sku, qty,
					batchref, eta, old_qty, old_eta, expires_at
			   FROM %1$I.event'
		ELSE
			'SELECT * FROM %1$I.' || table_name
	END, side)
$$;

-- only_here: up to ten rows that one side has and the other has not.
CREATE FUNCTION compare.only_here(here name, there name, table_name text)
RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
	listed text;
BEGIN
	EXECUTE format(
		'SELECT string_agg(r::text, E''\n'')
		   FROM (SELECT r FROM (%s EXCEPT ALL %s) AS r ORDER BY r LIMIT 10) AS r',
		compare.contents(here, table_name), compare.contents(there, table_name))
	   INTO listed;
	RETURN listed;
END
$$;

-- unsound: batches of one side whose quantities do not add up.
CREATE FUNCTION compare.unsound(side name) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
	listed text;
BEGIN
	EXECUTE format(
		'SELECT string_agg(b.ref, E''\n'')
		   FROM %1$I.batch b
		  WHERE b.purchased IS DISTINCT FROM
				(SELECT sum(s.available + s.shipped) FROM %1$I.slot s
				  WHERE s.batch_id = b.batch_id)
				+ (SELECT coalesce(sum(a.qty), 0) FROM %1$I.allocation a
					WHERE a.batch_id = b.batch_id AND a.shipped_at IS NULL)', side)
	   INTO listed;
	RETURN listed;
END
$$;

-- table_differences: between ours and the peer's tables and views; in_full:
-- the event log too, of which only the new part is compared with each command.
CREATE FUNCTION compare.table_differences(ours name, in_full boolean)
RETURNS TABLE (what text, only_ours text, only_the_peers text)
LANGUAGE sql STABLE AS $$
	SELECT * FROM (
		SELECT 'table ' || t, compare.only_here(ours, 'alloc_peer', t),
			   compare.only_here('alloc_peer', ours, t)
		  FROM unnest(ARRAY['product', 'batch', 'slot', 'allocation', 'hold',
							'backorder', 'allocations', 'batches', 'stock']
					  || CASE WHEN in_full THEN '{event}'::text[] ELSE '{}' END) AS t
		UNION ALL
		SELECT 'batches that do not add up', compare.unsound(ours),
			   compare.unsound('alloc_peer')) AS d (what, here, there)
	 WHERE here IS NOT NULL OR there IS NOT NULL
$$;
