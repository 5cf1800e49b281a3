-- All order lines in order of date: a call for each line, a transaction for
-- each order.  The answers are the batches' references, an empty line for none.

SELECT CASE WHEN lag(orderid) OVER line IS DISTINCT FROM orderid THEN 'BEGIN' END,
       format('SELECT alloc.allocate(%L, %L, %s)', orderid, sku, qty),
       CASE WHEN lead(orderid) OVER line IS DISTINCT FROM orderid THEN 'COMMIT' END
  FROM shop.order_line
WINDOW line AS (ORDER BY order_date, orderid, number)
 ORDER BY order_date, orderid, number
\gexec
