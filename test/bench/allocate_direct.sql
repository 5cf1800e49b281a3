-- The extension.  Each client has its own orders; n starts where no run before was.
\set n :n + 1
\set sku random(100001, 100000 + :skus)
SELECT alloc.allocate('order-' || :client_id || '-' || :n, 'SKU-' || :sku, 1);
