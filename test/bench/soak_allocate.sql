-- Each client has its own orders, and an order's number says its sku.
\set n :n + 1
\set sku 100001 + abs(hash_murmur2(:n * 128 + :client_id)) % :skus
SELECT alloc.allocate('order-' || :client_id || '-' || :n, 'SKU-' || :sku, 1);
