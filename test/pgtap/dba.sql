-- What a DBA may do to the extension's tables: constraints hold against
-- direct changes; indexes, constraints and triggers of his own are kept by
-- the commands, also when they come or go in the middle of a session.

\ir common.psql
SELECT plan(97);

SELECT alloc.add_batch('b', 's', 100), alloc.add_batch('c', 's', 100, '2011-01-01');
SELECT alloc.allocate('o1', 's', 10);

-- The last line of defence

SELECT refused(command, '23514', '%' || name || '%', what)
  FROM (VALUES
	('UPDATE alloc.slot SET available = available - 101', 'slot_available_not_negative', 'a direct UPDATE of slot to less than 0'),
	('UPDATE alloc.slot SET shipped = -1', 'slot_shipped_not_negative', 'a direct UPDATE of slot to less than 0 shipped'),
	('UPDATE alloc.batch SET purchased = -1', 'batch_purchased_not_negative', 'a direct UPDATE of batch to less than 0'),
	('UPDATE alloc.allocation SET qty = 0', 'allocation_qty_positive', 'a direct UPDATE of allocation to 0'),
	($$INSERT INTO alloc.product VALUES ('')$$, 'product_sku_length', 'a direct INSERT of an empty sku'),
	($$INSERT INTO alloc.product VALUES (repeat('é', 128))$$, 'product_sku_length', 'a direct INSERT of a sku of 256 bytes'),
	($$UPDATE alloc.batch SET ref = ''$$, 'batch_ref_length', 'a direct UPDATE to an empty ref')
  ) AS direct (command, name, what);
SELECT throws_ok(command, state, NULL, what)
  FROM (VALUES
	($$UPDATE alloc.slot SET available = NULL$$, '23502', 'available cannot be NULL'),
	($$INSERT INTO alloc.product VALUES ('s')$$, '23505', 'a sku is there once'),
	($$INSERT INTO alloc.batch SELECT 999, 1, NULL, 'b', 's'$$, '23505', 'a ref is there once'),
	($$INSERT INTO alloc.allocation SELECT * FROM alloc.allocation$$, '23505', 'a line is there once'),
	($$INSERT INTO alloc.slot (batch_id, available, slot, ref, sku) SELECT batch_id, available, slot, ref, sku FROM alloc.slot$$, '23505', 'a slot is there once'),
	($$INSERT INTO alloc.event SELECT * FROM alloc.event$$, '23505', 'an event is there once')
  ) AS direct (command, state, what);

-- An index that comes in the middle of the session

CREATE INDEX dba_qty ON alloc.allocation (qty) INCLUDE (orderid);
CREATE INDEX dba_lower ON alloc.allocation (lower(orderid));
CREATE INDEX dba_large ON alloc.allocation (sku) WHERE qty > 20;
CREATE INDEX dba_at ON alloc.event USING brin (at);
CREATE INDEX dba_available ON alloc.slot (available);

-- by_index: a query without sequential scans, and the index it must use.
CREATE FUNCTION by_index(query text, index text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	plan text;
BEGIN
	SET LOCAL enable_seqscan = off;
	SET LOCAL enable_bitmapscan = off;
	EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
	IF plan !~ ('"Index Name": "' || index || '"') THEN
		RAISE 'the query does not use %: %', index, plan;
	END IF;
	RETURN QUERY EXECUTE query;
END
$$;
SELECT alloc.allocate('O2', 's', 30), alloc.allocate('O3', 's', 5), alloc.allocate('O4', 's', 50);
SELECT results_eq(format('SELECT by_index(%L, %L)', query, index), wanted, what)
  FROM (VALUES
	('SELECT orderid FROM alloc.allocation WHERE qty = 5', 'dba_qty', ARRAY['O3'], 'a new index has lines that came after it'),
	('SELECT orderid FROM alloc.allocation WHERE qty = 10', 'dba_qty', ARRAY['o1'], 'and lines that were there before'),
	($$SELECT orderid FROM alloc.allocation WHERE lower(orderid) = 'o3'$$, 'dba_lower', ARRAY['O3'], 'so has one on an expression'),
	($$SELECT orderid FROM alloc.allocation WHERE sku = 's' AND qty > 20 ORDER BY sku$$, 'dba_large', ARRAY['O2', 'O4'], 'and a partial one'),
	('SELECT (SELECT b.ref FROM alloc.batch b WHERE b.batch_id = s.batch_id) FROM alloc.slot s WHERE available = 5', 'dba_available', ARRAY['b'], 'and one on what changes with each line')
  ) AS asked (query, index, wanted, what);
SELECT alloc.change_batch_quantity('b', 60);
SELECT results_eq($$SELECT by_index('SELECT (SELECT ref FROM alloc.batch WHERE batch_id = a.batch_id) FROM alloc.allocation a WHERE qty = 50', 'dba_(qty|large)')$$,
	ARRAY['c'], 'it has the new place of a line that moved');
SELECT alloc.deallocate('O2', 's');
SELECT is_empty($$SELECT by_index('SELECT orderid FROM alloc.allocation WHERE qty = 30', 'dba_(qty|large)')$$,
	'it has not what was freed');
CREATE INDEX dba_brin ON alloc.slot USING brin (available) WITH (pages_per_range = 1);
SELECT alloc.change_batch_quantity('b', 5060), alloc.allocate('brin', 's', 1);
SET enable_seqscan = off;
SET enable_indexscan = off;
SELECT results_eq($$SELECT available FROM alloc.slot WHERE available BETWEEN 4000 AND 6000$$, ARRAY[5044::bigint],
	'a BRIN index has a quantity that was out of its range');
RESET enable_seqscan;
RESET enable_indexscan;
SELECT alloc.deallocate('brin', 's'), alloc.change_batch_quantity('b', 60);
DROP INDEX alloc.dba_brin;
DROP INDEX alloc.dba_qty;
SELECT is(alloc.allocate('O5', 's', 5), 'b', 'when an index goes, the session works on');
BEGIN;
CREATE INDEX dba_qty ON alloc.allocation (qty);
SELECT is(alloc.allocate('O6', 's', 6), 'b', 'within the transaction that creates an index');
SELECT results_eq($$SELECT by_index('SELECT orderid FROM alloc.allocation WHERE qty = 6', 'dba_qty')$$, ARRAY['O6'],
	'the index is kept');
ROLLBACK;
SELECT is(alloc.allocate('O6', 's', 7), 'b', 'and after that transaction was rolled back');
SELECT sound('indexes');

-- Constraints of his own

ALTER TABLE alloc.allocation ADD CONSTRAINT dba_dozen CHECK (qty <= 12) NOT VALID;
SELECT refused($$SELECT alloc.allocate('p', 's', 13)$$, '23514', '%dba_dozen%', 'a line that a new CHECK refuses');
SELECT is(alloc.allocate('p', 's', 12), 'b', 'a line that a new CHECK accepts');
ALTER TABLE alloc.allocation DROP CONSTRAINT dba_dozen;
SELECT is(alloc.allocate('p13', 's', 13), 'b', 'without the CHECK it is as before');
ALTER TABLE alloc.batch ADD CONSTRAINT dba_round CHECK (purchased % 10 = 0);
SELECT refused($$SELECT alloc.add_batch('odd', 's', 11)$$, '23514', '%dba_round%', 'a batch that a new CHECK refuses');
SELECT refused($$SELECT alloc.change_batch_quantity('c', 99)$$, '23514', '%dba_round%', 'a quantity that a new CHECK refuses');
ALTER TABLE alloc.batch DROP CONSTRAINT dba_round;

CREATE UNIQUE INDEX dba_unique ON alloc.allocation (qty) WHERE sku = 'u';
SELECT alloc.add_batch('u', 'u', 100), alloc.allocate('u1', 'u', 1);
SELECT refused($$SELECT alloc.allocate('u2', 'u', 1)$$, '23505', '%dba_unique%', 'a line that a unique index refuses');
DROP INDEX alloc.dba_unique;

ALTER TABLE alloc.allocation ADD CONSTRAINT dba_exclude EXCLUDE (orderid WITH =) WHERE (sku IN ('u', 'v'));
SELECT refused($$SELECT alloc.add_batch('v', 'v', 9), alloc.allocate('u1', 'v', 9)$$, '23P01', '%dba_exclude%',
	'a line that an exclusion constraint refuses');
ALTER TABLE alloc.allocation DROP CONSTRAINT dba_exclude;

ALTER TABLE alloc.allocation ADD CONSTRAINT dba_deferrable UNIQUE (orderid) DEFERRABLE;
SELECT refused($$SELECT alloc.add_batch('v', 'v', 9), alloc.allocate('u1', 'v', 9)$$, '23505', '%dba_deferrable%',
	'a line that a deferrable unique constraint refuses');
ALTER TABLE alloc.allocation DROP CONSTRAINT dba_deferrable;

CREATE TABLE shop_order (orderid text PRIMARY KEY);
INSERT INTO shop_order SELECT DISTINCT orderid FROM alloc.allocation;
ALTER TABLE alloc.allocation ADD CONSTRAINT dba_order FOREIGN KEY (orderid) REFERENCES shop_order;
SELECT refused($$SELECT alloc.allocate('no such order', 's', 1)$$, '23503', '%dba_order%', 'a line that a foreign key refuses');
INSERT INTO shop_order VALUES ('known');
SELECT is(alloc.allocate('known', 's', 1), 'b', 'a line that a foreign key accepts');
SELECT throws_ok($$DELETE FROM shop_order WHERE orderid = 'known'$$, '23503', NULL, 'and it keeps the order');
SELECT is(alloc.deallocate('known', 's'), 'b', 'until the line is freed');
SELECT lives_ok($$DELETE FROM shop_order WHERE orderid = 'known'$$, 'then it may go');
ALTER TABLE alloc.allocation DROP CONSTRAINT dba_order;
SELECT sound('constraints');

-- Triggers of his own

CREATE TABLE seen (id serial, what text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen (what) VALUES (concat_ws(' ', TG_NAME,
		CASE WHEN TG_OP <> 'INSERT' THEN 'old ' || row_to_json(OLD)::jsonb::text END,
		CASE WHEN TG_OP <> 'DELETE' THEN 'new ' || row_to_json(NEW)::jsonb::text END));
	RETURN NULL;
END
$$;
CREATE FUNCTION seen(pattern text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT what FROM seen WHERE what LIKE pattern ORDER BY id
$$;
SELECT alloc.add_batch('t', 't', 50), alloc.add_batch('t2', 't', 50, '2011-01-01');
CREATE TRIGGER line AFTER INSERT OR UPDATE OR DELETE ON alloc.allocation FOR EACH ROW EXECUTE FUNCTION see();
CREATE TRIGGER slot AFTER UPDATE ON alloc.slot FOR EACH ROW WHEN (NEW.available < OLD.available) EXECUTE FUNCTION see();
CREATE TRIGGER of_available AFTER UPDATE OF available ON alloc.slot FOR EACH ROW EXECUTE FUNCTION see();
CREATE TRIGGER of_shipped AFTER UPDATE OF shipped ON alloc.slot FOR EACH ROW WHEN (NEW.shipped <> OLD.shipped) EXECUTE FUNCTION see();
CREATE TRIGGER event AFTER INSERT ON alloc.event FOR EACH ROW WHEN (NEW.type = 'out_of_stock') EXECUTE FUNCTION see();
SELECT alloc.allocate('t1', 't', 30), alloc.allocate('t2', 't', 60);
SELECT * FROM alloc.change_batch_quantity('t', 20);
SELECT alloc.deallocate('t1', 't');
SELECT results_eq($$SELECT regexp_replace(what, '"(batch_id|event_id)": \d+, |, "(batch_id|event_id)": \d+|, "(expires|shipped)_at": null', '', 'g') FROM seen('line %') AS what$$,
	ARRAY['line new {"qty": 30, "sku": "t", "orderid": "t1"}',
		  'line old {"qty": 30, "sku": "t", "orderid": "t1"} new {"qty": 30, "sku": "t", "orderid": "t1"}',
		  'line old {"qty": 30, "sku": "t", "orderid": "t1"}'],
	'an AFTER trigger sees a line come, move and go, with OLD and NEW');
SELECT results_eq($$SELECT (regexp_matches(what, 'old .*"available": (\d+).* new .*"available": (\d+)'))::text FROM seen('slot %') AS what$$,
	ARRAY['{50,20}', '{50,20}'], 'a WHEN clause chooses by OLD and NEW: only what was taken');
SELECT results_eq($$SELECT found::text FROM seen('of_available %') AS what, regexp_matches(what, 'old .*"available": (\d+).* new .*"available": (\d+)') AS found
					 WHERE found[1] <> found[2]$$,
	ARRAY['{50,20}', '{50,20}', '{20,50}'], 'a trigger on UPDATE OF available fires');
SELECT is_empty($$SELECT seen('of_shipped %')$$, 'a trigger on UPDATE OF shipped WHEN it changes does not');
SELECT results_eq($$SELECT (what ~ '"orderid": "t2"') FROM seen('event %') AS what$$, ARRAY[true],
	'a trigger on the log chooses by type');
SELECT is(alloc.allocate('t3', 't', 10), 't', 'in a transaction of its own');
SELECT is((SELECT count(*) FROM seen('line %')), 4::bigint, 'and the trigger fired again');
ALTER TABLE alloc.allocation DISABLE TRIGGER line;
SELECT is(alloc.allocate('t4', 't', 10), 't', 'a trigger may be disabled');
SELECT is((SELECT count(*) FROM seen('line %')), 4::bigint, 'and does not fire then');
ALTER TABLE alloc.allocation ENABLE TRIGGER line;
CREATE OR REPLACE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE 'refused by a trigger' USING ERRCODE = 'TT000';
END
$$;
SELECT refused($$SELECT alloc.allocate('t5', 't', 1)$$, 'TT000', 'refused by a trigger', 'a line that a trigger refuses');
DROP TRIGGER line ON alloc.allocation;
DROP TRIGGER slot ON alloc.slot;
DROP TRIGGER of_available ON alloc.slot;
DROP TRIGGER of_shipped ON alloc.slot;
DROP TRIGGER event ON alloc.event;
SELECT is(alloc.deallocate('t4', 't'), 't', 'without triggers it is as before');
SELECT sound('triggers');

-- Maintenance in the middle of the session

CREATE FUNCTION works(after text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	before bigint := available('m');
BEGIN
	RETURN NEXT is(alloc.allocate(after, 'm', 3), 'm', 'allocate() after ' || after);
	RETURN NEXT is(available('m'), before - 3, 'and what is available after ' || after);
END
$$;
SELECT alloc.add_batch('m', 'm', 1000);
REINDEX SCHEMA alloc;
SELECT works('REINDEX');
VACUUM FULL alloc.slot, alloc.allocation, alloc.event, alloc.batch, alloc.product;
SELECT works('VACUUM FULL');
CLUSTER alloc.allocation USING allocation_line;
SELECT works('CLUSTER');
ALTER TABLE alloc.slot SET (fillfactor = 70);
SELECT works('a change of fillfactor');
ALTER INDEX alloc.allocation_line SET (fillfactor = 80);
SELECT works('a change of an index');
BEGIN;
TRUNCATE alloc.event;
ROLLBACK;
SELECT works('a TRUNCATE that was rolled back');
DISCARD PLANS;
SELECT works('DISCARD PLANS');
SELECT sound('maintenance');

SELECT * FROM finish();
