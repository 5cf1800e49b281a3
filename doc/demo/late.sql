-- Which orders miss the day by which they are required, and then a ship is late.

\echo 'Which orders are promised from a ship that arrives after the day by which they are'
\echo 'required? The oldest orders got the stock, so most are long overdue:'
\echo

CREATE VIEW shop.late_order AS
	SELECT a.orderid, count(*) AS "lines late", l.required_date AS required,
	       max(a.eta) AS eta, max(a.eta) - l.required_date AS "days late"
	  FROM alloc.allocations a
	  JOIN shop.order_line l USING (orderid, sku)
	 WHERE a.eta > l.required_date
	 GROUP BY a.orderid, l.required_date;
CREATE TEMP TABLE late_before AS TABLE shop.late_order;

SELECT count(*) AS late FROM late_before \gset
\set title 'Orders that miss their day, the last required first: 10 of ' :late
\pset title :title
SELECT * FROM shop.late_order ORDER BY required DESC, orderid LIMIT 10;

\echo 'Suppose the ship with Maxilaku is a week late. Its lines stay with it, but each is'
\echo 'promised for another day:'
\echo

\pset title 'SELECT * FROM alloc.change_batch_eta(\'ship-MAXILAKU\', \'1998-05-18\')'
SELECT * FROM alloc.change_batch_eta('ship-MAXILAKU', '1998-05-18');

\pset title 'Orders that miss their day now, and did not before'
SELECT late_order.*
  FROM shop.late_order
 WHERE orderid NOT IN (SELECT orderid FROM late_before)
 ORDER BY required DESC, orderid;
