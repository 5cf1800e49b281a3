-- A cart that is paid at once, in one transaction.  See allocate_direct.sql.
\set n :n + 1
\set sku 100000 + random(1, :skus) * :step
BEGIN;
SELECT alloc.hold('order-' || :client_id || '-' || :n, 'SKU-' || :sku, 1, '15 minutes');
SELECT alloc.confirm('order-' || :client_id || '-' || :n);
COMMIT;
