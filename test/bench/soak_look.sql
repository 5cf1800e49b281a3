-- What a visitor of the shop's page sees.
\set sku 100000 + random(1, :skus)
SELECT on_hand_qty, incoming_qty FROM alloc.stock WHERE sku = 'SKU-' || :sku;
