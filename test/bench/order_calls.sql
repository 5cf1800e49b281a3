-- The lines of an order, one by one.  The skus are one of each fifth of the shop's.
\set n :n + 1
\set fifth :skus / 5
\set sku1 100000 + 0 * :fifth + random(1, :fifth)
\set sku2 100000 + 1 * :fifth + random(1, :fifth)
\set sku3 100000 + 2 * :fifth + random(1, :fifth)
\set sku4 100000 + 3 * :fifth + random(1, :fifth)
\set sku5 100000 + 4 * :fifth + random(1, :fifth)
BEGIN;
SELECT alloc.allocate('order-' || :client_id || '-' || :n, 'SKU-' || :sku1, 1);
SELECT alloc.allocate('order-' || :client_id || '-' || :n, 'SKU-' || :sku2, 1);
SELECT alloc.allocate('order-' || :client_id || '-' || :n, 'SKU-' || :sku3, 1);
SELECT alloc.allocate('order-' || :client_id || '-' || :n, 'SKU-' || :sku4, 1);
SELECT alloc.allocate('order-' || :client_id || '-' || :n, 'SKU-' || :sku5, 1);
COMMIT;
