-- An order of five lines.  The skus are one of each fifth of the shop's.
\set n :n + 1
\set fifth :skus / 5
\set sku1 100000 + 0 * :fifth + random(1, :fifth)
\set sku2 100000 + 1 * :fifth + random(1, :fifth)
\set sku3 100000 + 2 * :fifth + random(1, :fifth)
\set sku4 100000 + 3 * :fifth + random(1, :fifth)
\set sku5 100000 + 4 * :fifth + random(1, :fifth)
SELECT * FROM alloc.allocate_order('order-' || :client_id || '-' || :n, ARRAY[
	ROW(NULL, 'SKU-' || :sku1, 1), ROW(NULL, 'SKU-' || :sku2, 1), ROW(NULL, 'SKU-' || :sku3, 1),
	ROW(NULL, 'SKU-' || :sku4, 1), ROW(NULL, 'SKU-' || :sku5, 1)]::alloc.order_line[]);
