-- The floor: what one locked row and one commit cost.
\set id random(1, :skus)
UPDATE bench_stock SET available = available - 1 WHERE id = :id;
