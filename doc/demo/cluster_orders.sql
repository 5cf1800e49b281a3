-- All orders in order of date, each by one call: what can be served is taken.

SELECT format('SELECT %L, o.* FROM alloc.allocate_order(%L, %L::alloc.order_line[], ''partial'') AS o',
              orderid, orderid,
              array_agg(ROW(NULL, sku, qty)::alloc.order_line ORDER BY number))
  FROM shop.order_line
 GROUP BY order_date, orderid
 ORDER BY order_date, orderid
\gexec
