-- A batch turns out smaller than was thought.

\echo
\echo 'Suppose there are only 3 bottles of Aniseed Syrup in the warehouse, not 13. Lines'
\echo 'that no longer fit leave, the newest first, and are allocated again, the oldest'
\echo 'first. One that finds no other batch waits for stock:'
\echo

\pset title 'The product before'
SELECT ref, eta, purchased_qty, allocated_qty, available_qty
  FROM alloc.batches
 WHERE sku = 'ANISEED-SYRUP'
 ORDER BY eta NULLS FIRST;

\pset title 'SELECT * FROM alloc.change_batch_quantity(\'stock-ANISEED-SYRUP\', 3)'
\pset null '(out of stock)'
SELECT * FROM alloc.change_batch_quantity('stock-ANISEED-SYRUP', 3);
\pset null ''

\pset title 'The product after'
SELECT ref, eta, purchased_qty, allocated_qty, available_qty
  FROM alloc.batches
 WHERE sku = 'ANISEED-SYRUP'
 ORDER BY eta NULLS FIRST;
