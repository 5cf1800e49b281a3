-- What the partitions' logs tell of an order that several of them serve.

SELECT orderid AS told
  FROM alloc.allocations
 GROUP BY orderid
HAVING count(DISTINCT alloc.partition_of(sku) & 3) > 1
 ORDER BY orderid
 LIMIT 1 \gset

\set title 'What the logs tell of order ' :told ', partition by partition: holds, then they are confirmed'
\pset title :title
SELECT alloc.partition_of(sku) & 3 AS partition, type, sku, qty, batchref
  FROM alloc.history_of_order(:'told')
 ORDER BY 1, event_id;
