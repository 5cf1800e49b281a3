-- Every error once, as a client sees it: message, detail, hint, SQLSTATE.
-- Each ends its transaction, and the next command works.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET datestyle = 'ISO, MDY';
CREATE EXTENSION alloc;
SELECT alloc.add_batch('b1', 'lamp', 10), alloc.add_batch('b2', 'lamp', 20, '2011-01-02');
SELECT alloc.allocate('o1', 'lamp', 4), alloc.allocate('o2', 'lamp', 5);
CREATE VIEW everything AS
SELECT 'batch ' || b AS row FROM alloc.batches b
UNION ALL SELECT 'line ' || a FROM alloc.allocation a
UNION ALL SELECT 'event ' || e.event_id FROM alloc.event e;
CREATE TABLE before AS TABLE everything;

-- Keys
SELECT alloc.add_batch(NULL, 'lamp', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.add_batch('b3', NULL, 1);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.allocate(NULL, 'lamp', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.deallocate('', 'lamp');
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.deallocate('o1', repeat('long', 64));
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.change_batch_quantity(repeat('long', 2621440), 1);
\echo :LAST_ERROR_SQLSTATE

-- Quantities
SELECT alloc.add_batch('b3', 'lamp', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.add_batch('b3', 'lamp', -1);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.allocate('o3', 'lamp', 0);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.change_batch_quantity('b1', -9223372036854775808);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.add_batch('b3', 'lamp', 9223372036854775807);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.change_batch_quantity('b1', 9223372036854775788);
\echo :LAST_ERROR_SQLSTATE

-- What is unknown
SELECT alloc.allocate('o3', 'LAMP', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.change_batch_quantity('B1', 1);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.allocate('o3', repeat('long', 20), 1);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.allocate('o3', E'it''s a "lamp"\n%s', 1);
\echo :LAST_ERROR_SQLSTATE

-- What is known otherwise
SELECT alloc.add_batch('b1', 'lamp', 11);
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.add_batch('b2', 'rug', 20, '2011-01-02');
\echo :LAST_ERROR_SQLSTATE
SELECT alloc.allocate('o1', 'lamp', 5);
\echo :LAST_ERROR_SQLSTATE

-- What has left
BEGIN;
UPDATE alloc.slot SET available = available - 1, shipped = 1
 WHERE batch_id = (SELECT batch_id FROM alloc.batch WHERE ref = 'b1');
SELECT alloc.change_batch_quantity('b1', 0);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;

-- Read-only transactions
BEGIN READ ONLY;
SELECT alloc.add_batch('b3', 'lamp', 1);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT alloc.allocate('o1', 'lamp', 4);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT alloc.deallocate('o3', 'lamp');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT alloc.change_batch_quantity('b1', 10);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;

-- A trigger that calls back
CREATE FUNCTION call_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.deallocate(NEW.orderid, NEW.sku);
	RETURN NULL;
END
$$;
CREATE TRIGGER call_back AFTER INSERT ON alloc.allocation FOR EACH ROW EXECUTE FUNCTION call_back();
SELECT alloc.allocate('o3', 'lamp', 1);
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER call_back ON alloc.allocation;

-- Tables that somebody has meddled with
BEGIN;
DELETE FROM alloc.slot WHERE batch_id = (SELECT batch_id FROM alloc.batch WHERE ref = 'b1');
SELECT alloc.deallocate('o1', 'lamp');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
DELETE FROM alloc.batch WHERE ref = 'b1';
SELECT alloc.deallocate('o1', 'lamp');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
DELETE FROM alloc.allocation;
SELECT alloc.change_batch_quantity('b1', 0);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
BEGIN;
ALTER INDEX alloc.allocation_line RENAME TO mine;
SELECT alloc.allocate('o3', 'lamp', 1);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
\set VERBOSITY terse
UPDATE alloc.slot SET available = -1 WHERE available = 1;
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY default

-- Nothing of all this has changed anything, and all works as before
(TABLE everything EXCEPT TABLE before) UNION ALL (TABLE before EXCEPT TABLE everything);
SELECT alloc.allocate('o3', 'lamp', 1), alloc.deallocate('o1', 'lamp'), alloc.add_batch('b3', 'rug', 1);
SELECT * FROM alloc.change_batch_quantity('b1', 5);
SELECT * FROM alloc.allocations ORDER BY orderid;
DROP VIEW everything;
DROP TABLE before;
DROP FUNCTION call_back();
DROP EXTENSION alloc;
DROP SCHEMA alloc;
