-- Which partition has which part of the stock.

\pset title 'Products by partition: alloc.partition_of(sku) & 3'
SELECT alloc.partition_of(sku) & 3 AS partition, count(*) AS products,
       sum(units_in_stock + units_on_order) AS units, min(sku) AS "for example"
  FROM shop.product
 GROUP BY 1
 ORDER BY 1;

\pset title 'A condition on sku goes to one partition'
EXPLAIN (COSTS OFF) SELECT * FROM alloc.stock WHERE sku = 'MAXILAKU';
