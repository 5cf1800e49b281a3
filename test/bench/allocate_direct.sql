-- The extension.  Each client has its own orders; n starts where no run before
-- was.  The skus are every step-th of the shop's.
\set n :n + 1
\set sku 100000 + random(1, :skus) * :step
SELECT alloc.allocate('order-' || :client_id || '-' || :n, 'SKU-' || :sku, 1);
