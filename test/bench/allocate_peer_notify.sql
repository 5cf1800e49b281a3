-- The peer that notifies.  Each client has its own orders; n starts where no run before was.
\set n :n + 1
\set sku random(100001, 100000 + :skus)
SELECT alloc_peer.allocate_notify('order-' || :client_id || '-' || :n, 'SKU-' || :sku, 1);
