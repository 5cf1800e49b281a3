-- An order that takes what there is and waits for the rest.

\echo 'The next order is invented: Northwind''s last is 11077, of the day before. It takes'
\echo 'what there is, and waits for the rest:'
\echo

\pset title 'SELECT * FROM alloc.allocate_order(\'11078\', ..., \'backorder\')'
BEGIN;
INSERT INTO shop.order_line (orderid, sku, qty, order_date, required_date) VALUES
	('11078', 'SCHOGGI-SCHOKOLADE', 6, '1998-05-07', '1998-06-04'),
	('11078', 'MAXILAKU', 3, '1998-05-07', '1998-06-04'),
	('11078', 'ANISEED-SYRUP', 10, '1998-05-07', '1998-06-04');
SELECT *
  FROM alloc.allocate_order('11078',
	(SELECT array_agg(ROW(orderid, sku, qty)::alloc.order_line ORDER BY number)
	   FROM shop.order_line WHERE orderid = '11078'), 'backorder');
COMMIT;

\pset title 'Who waits for Aniseed Syrup, in the order in which they will be served'
SELECT row_number() OVER () AS place, orderid, sku, qty
  FROM alloc.backorders
 WHERE sku = 'ANISEED-SYRUP';
