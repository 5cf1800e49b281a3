-- An order of this client is cancelled, one of the same run: those begin after
-- a multiple of 100000000.  It may be cancelled already.
\set first :n / 100000000 * 100000000 + 1
\set old random(:first, greatest(:first, :n))
\set sku 100001 + abs(hash_murmur2(:old * 128 + :client_id)) % :skus
SELECT alloc.deallocate('order-' || :client_id || '-' || :old, 'SKU-' || :sku);
