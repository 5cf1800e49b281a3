-- The shop's own tables, filled from Northwind's files, and a batch for what
-- it has in the warehouse and for what is on its way.

CREATE EXTENSION IF NOT EXISTS alloc;
SELECT extversion FROM pg_extension WHERE extname = 'alloc' \gset
\echo alloc :extversion in PostgreSQL :SERVER_VERSION_NAME
\echo
\echo 'What Northwind has in stock and on order, on one day, and its orders of two years:'
\echo 'most lines will find nothing, and none may get what is not there.'
\echo

CREATE SCHEMA shop;

CREATE TABLE shop.product (
	number         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	sku            text NOT NULL UNIQUE,
	product_name   text NOT NULL,
	units_in_stock bigint NOT NULL,
	units_on_order bigint NOT NULL,
	reorder_level  bigint NOT NULL,
	discontinued   integer NOT NULL
);

CREATE TABLE shop.order_line (
	number        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	orderid       text NOT NULL,
	sku           text NOT NULL REFERENCES shop.product (sku),
	qty           bigint NOT NULL,
	order_date    date NOT NULL,
	required_date date,
	shipped_date  date,
	UNIQUE (orderid, sku)
);

-- What the listener heard, in order of arrival.
CREATE TABLE shop.heard (
	number  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	channel text NOT NULL,
	payload text NOT NULL
);

\copy shop.product (sku, product_name, units_in_stock, units_on_order, reorder_level, discontinued) FROM 'doc/demo/northwind/products.csv' (FORMAT csv, HEADER)
\copy shop.order_line (orderid, sku, qty, order_date, required_date, shipped_date) FROM 'doc/demo/northwind/order_lines.csv' (FORMAT csv, HEADER)

\o /dev/null
BEGIN;
SELECT alloc.add_batch('stock-' || sku, sku, units_in_stock)
  FROM (SELECT * FROM shop.product ORDER BY number) product;
-- Northwind does not say when ships arrive: three days, a week apart, dealt out
-- so that one line arrives on the very day by which it is required.
SELECT alloc.add_batch('ship-' || sku, sku, units_on_order,
                       date '1998-05-11' + 7 * ((number - 1) % 3))
  FROM (SELECT * FROM shop.product ORDER BY number) product
 WHERE units_on_order > 0;
COMMIT;
\o

\pset title 'Batches: one for what is in the warehouse, one for what is on a ship'
SELECT CASE WHEN eta IS NULL THEN 'in the warehouse' ELSE 'arrives ' || eta END AS batches,
       count(*), sum(purchased_qty) AS units
  FROM alloc.batches
 GROUP BY eta
 ORDER BY eta NULLS FIRST;

\pset title 'What was ordered'
SELECT count(DISTINCT orderid) AS orders, count(*) AS lines, sum(qty) AS units,
       min(order_date) AS "from", max(order_date) AS "to"
  FROM shop.order_line;
