-- Do the numbers agree?  One line that says so, or that says which do not.

WITH
-- The units of a batch, those allocated counted line by line.
batch AS (
	SELECT b.available_qty >= 0 AND
	       b.purchased_qty = b.shipped_qty + coalesce(a.qty, 0) + b.available_qty AS sound
	  FROM alloc.batches b
	  LEFT JOIN (SELECT batchref, sum(qty) AS qty
	               FROM alloc.allocations
	              GROUP BY batchref) a ON a.batchref = b.ref
),
-- The shop's lines, as views allocations and backorders and the last event of
-- each have them; one whose promise changed is served as before, on another day.
last_event AS (
	SELECT DISTINCT ON (orderid, sku) orderid, sku, batchref,
	       CASE type WHEN 'promise_changed' THEN payload ->> 'eta' END AS promised,
	       CASE type WHEN 'promise_changed' THEN 'allocated' ELSE type END AS type
	  FROM alloc.events
	 WHERE orderid IS NOT NULL
	 ORDER BY orderid, sku, event_id DESC
),
line AS (
	SELECT e.type, a.batchref IS NOT DISTINCT FROM e.batchref AND
	       coalesce(a.eta::text = e.promised, e.promised IS NULL) AND
	       (a.batchref IS NOT NULL) = (e.type = 'allocated') AND
	       (b.orderid IS NOT NULL) = (e.type = 'backordered') AS sound
	  FROM shop.order_line
	  LEFT JOIN alloc.allocations a USING (orderid, sku)
	  LEFT JOIN alloc.backorders b USING (orderid, sku)
	  LEFT JOIN last_event e USING (orderid, sku)
),
-- The log, and what was heard of it, side by side.
event AS (
	SELECT e.n AS logged, h.n AS heard,
	       h.channel = 'alloc_' || e.type AND h.payload = e.payload AS sound
	  FROM (SELECT row_number() OVER (ORDER BY event_id) AS n, type, payload
	          FROM alloc.events) e
	  FULL JOIN
	       (SELECT row_number() OVER (ORDER BY number) AS n, channel, payload::jsonb
	          FROM shop.heard
	         WHERE channel <> ALL ('{alloc_events,demo}')) h USING (n)
),
batches AS (
	SELECT count(*) AS all, count(*) FILTER (WHERE sound) AS sound FROM batch
),
lines AS (
	SELECT count(*) AS all, count(*) FILTER (WHERE sound) AS sound,
	       count(*) FILTER (WHERE type = 'allocated') AS allocated,
	       count(*) FILTER (WHERE type = 'out_of_stock') AS out_of_stock,
	       count(*) FILTER (WHERE type = 'backordered') AS waiting
	  FROM line
),
events AS (
	SELECT count(logged) AS logged, count(heard) AS heard,
	       count(*) FILTER (WHERE sound) AS sound
	  FROM event
)
SELECT CASE WHEN batches.sound = batches.all AND lines.sound = lines.all AND
                 lines.allocated + lines.out_of_stock + lines.waiting = :lines AND
                 lines.allocated = (SELECT count(*) FROM alloc.allocations) AND
                 lines.waiting = (SELECT count(*) FROM alloc.backorders) AND
                 events.sound = events.logged AND events.heard = events.logged
            THEN format('Verified: %s batches add up; %s served + %s out of stock + %s waiting = %s; %s events heard.',
                        batches.all, lines.allocated, lines.out_of_stock, lines.waiting,
                        lines.all, events.heard)
            ELSE format('NOT SOUND: batches %s, lines %s, events %s',
                        to_json(batches), to_json(lines), to_json(events))
       END
  FROM batches, lines, events;
