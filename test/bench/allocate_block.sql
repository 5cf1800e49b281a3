-- allocate() in a transaction block.  See allocate_direct.sql.
\set n :n + 1
\set sku 100000 + random(1, :skus) * :step
BEGIN;
SELECT alloc.allocate('order-' || :client_id || '-' || :n, 'SKU-' || :sku, 1);
COMMIT;
