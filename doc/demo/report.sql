-- What a shop would look at.  Its own tables are joined with alloc's views.

\echo

\pset title 'Orders'
WITH answered AS (
	SELECT count(*) AS lines, count(a.batchref) AS served
	  FROM shop.order_line l
	  LEFT JOIN alloc.allocations a USING (orderid, sku)
	 GROUP BY l.orderid)
SELECT count(*) FILTER (WHERE served = lines) AS "fully served",
       count(*) FILTER (WHERE served BETWEEN 1 AND lines - 1) AS "partly served",
       count(*) FILTER (WHERE served = 0) AS "not served",
       count(*) AS orders
  FROM answered;

\pset title 'Lines'
SELECT answer, count(*) AS lines, sum(qty) AS units
  FROM (SELECT l.qty,
               CASE WHEN a.batchref IS NULL THEN 'out of stock'
                    WHEN a.eta IS NULL THEN 'served from the warehouse'
                    ELSE 'promised from a ship' END AS answer
          FROM shop.order_line l
          LEFT JOIN alloc.allocations a USING (orderid, sku)) line
 GROUP BY answer
 ORDER BY answer = 'out of stock', answer DESC;

\pset title 'The ten products most short of stock'
SELECT l.sku, sum(l.qty) AS ordered, coalesce(sum(a.qty), 0) AS served,
       sum(l.qty) - coalesce(sum(a.qty), 0) AS short,
       count(*) - count(a.batchref) AS "lines out of stock"
  FROM shop.order_line l
  LEFT JOIN alloc.allocations a USING (orderid, sku)
 GROUP BY l.sku
 ORDER BY short DESC, l.sku
 LIMIT 10;

\pset title 'What is promised from which ship'
SELECT b.ref AS ship, b.eta, count(a.orderid) AS lines, b.allocated_qty AS units,
       b.available_qty AS "left"
  FROM alloc.batches b
  LEFT JOIN alloc.allocations a ON a.batchref = b.ref
 WHERE b.eta IS NOT NULL
 GROUP BY b.ref, b.eta, b.allocated_qty, b.available_qty
 ORDER BY b.eta, b.ref;
