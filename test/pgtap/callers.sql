-- Commands are called from anywhere that SQL is: many rows of a statement,
-- functions, exception blocks, procedures, cursors, triggers.

\ir common.psql
SELECT plan(57);

-- Many calls of one statement

BEGIN;
SELECT alloc.add_batch('b', 's', 60), alloc.add_batch('c', 's', 100, '2011-01-01');
SELECT results_eq($$SELECT alloc.allocate('o' || n, 's', 1) FROM generate_series(1, 100) AS n$$,
	$$SELECT CASE WHEN n <= 60 THEN 'b' ELSE 'c' END FROM generate_series(1, 100) AS n$$,
	'each call of a statement sees what the one before took');
SELECT results_eq($$SELECT alloc.allocate('p', 's', 1), alloc.allocate('p', 's', 1) FROM generate_series(1, 3)$$,
	$$SELECT 'c', 'c' FROM generate_series(1, 3)$$, 'the same line six times in a statement');
SELECT is(available('c'), 59::bigint, 'is charged once');
SELECT results_eq($$WITH took AS MATERIALIZED (SELECT n, alloc.allocate('w' || n, 's', n) AS ref FROM generate_series(28, 32) AS n)
					SELECT n, ref FROM took ORDER BY n$$,
	$$VALUES (28, 'c'), (29, 'c'), (30, NULL), (31, NULL), (32, NULL)$$, 'in a CTE');
CREATE TEMPORARY TABLE line (orderid text, sku text, qty bigint);
INSERT INTO line VALUES ('w28', 's', 28), ('w29', 's', 29), ('x', 's', 2);
SELECT results_eq($$SELECT orderid, ref FROM line, LATERAL alloc.deallocate(orderid, sku) AS ref$$,
	$$VALUES ('w28', 'c'), ('w29', 'c'), ('x', NULL)$$, 'in FROM, LATERAL');
CREATE TEMPORARY TABLE served AS
SELECT orderid, alloc.allocate(orderid, sku, qty) AS batchref FROM line;
SELECT results_eq('SELECT * FROM served', $$VALUES ('w28', 'c'), ('w29', 'c'), ('x', 'c')$$, 'in CREATE TABLE AS');
SELECT results_eq($$INSERT INTO line SELECT 'i' || n, 's', 0 FROM generate_series(1, 2) n
					RETURNING coalesce(alloc.allocate(orderid, 's', 1), 'none')$$, ARRAY['none', 'none'], 'in RETURNING');
SELECT results_eq($$UPDATE line SET sku = coalesce(alloc.deallocate(orderid, sku), 'none') RETURNING sku$$,
	ARRAY['c', 'c', 'c', 'none', 'none'], 'in UPDATE');
SELECT results_eq($$SELECT n FROM generate_series(1, 3) n WHERE alloc.allocate('f' || n, 's', 30) IS NOT NULL$$, ARRAY[1],
	'in WHERE');
SELECT results_eq($$SELECT (SELECT alloc.allocate('sub', 's', 1)) FROM generate_series(1, 2)$$, ARRAY['c', 'c'], 'in a subquery');
SELECT is(CASE WHEN alloc.deallocate('sub', 's') IS NULL THEN 'no' ELSE coalesce(alloc.deallocate('sub', 's'), 'gone') END, 'gone',
	'in CASE');
SELECT results_eq($$SELECT available_qty FROM alloc.batches WHERE ref = 'b' AND alloc.allocate('late', 's', 5) = 'c'$$,
	ARRAY[0::bigint], 'a view that is read while a command works');
SELECT sound('many calls of a statement');
ROLLBACK;

-- SQL functions

BEGIN;
SELECT alloc.add_batch('b', 's', 10);
CREATE FUNCTION sell(orderid text, qty bigint) RETURNS text LANGUAGE sql AS
	$$ SELECT alloc.allocate(orderid, 's', qty) $$;
CREATE FUNCTION sell_twice(orderid text) RETURNS SETOF text LANGUAGE sql AS
	$$ SELECT sell(orderid || 1, 4); SELECT sell(orderid || n, 4) FROM generate_series(1, 3) n $$;
CREATE FUNCTION sell_new(orderid text, sku text) RETURNS text
BEGIN ATOMIC
	SELECT alloc.add_batch(sku, sku, 1);
	SELECT alloc.allocate(orderid, sku, 1);
END;
SELECT is(sell('o', 1), 'b', 'in an SQL function');
SELECT results_eq($$SELECT sell_twice('t')$$, ARRAY['b', 'b', NULL], 'in an SQL function of several statements');
SELECT is(sell_new('o', 'new'), 'new', 'in an SQL function with a body');
SELECT sound('SQL functions');

-- PL/pgSQL and its exception blocks

CREATE FUNCTION try(orderid text, sku text, qty bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN alloc.allocate(orderid, sku, qty);
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
CREATE FUNCTION try_in_vain(orderid text, sku text, qty bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.allocate(orderid, sku, qty);
	PERFORM alloc.add_batch(orderid, sku, qty);
	PERFORM alloc.change_batch_quantity('b', 0);
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	RETURN (SELECT batchref FROM alloc.allocations a WHERE (a.orderid, a.sku) = (try_in_vain.orderid, try_in_vain.sku));
END
$$;
SELECT is(try('e', 's', 1), 'b', 'in an exception block that is not needed');
SELECT is(try('e', 's', 2), 'SK003', 'SK003 is caught');
SELECT is(try('e', 'none', 2), 'SK001', 'SK001 is caught');
SELECT is(try(NULL, 's', 2), '22004', '22004 is caught');
SELECT is(try('e', 's', 0), '22023', '22023 is caught');
SELECT is(try('e', 's', 1), 'b', 'and the commands go on working');
CREATE TEMPORARY TABLE digest_before AS SELECT digest();
SELECT is(try_in_vain('v', 's', 1), NULL, 'what an exception block undoes is undone');
SELECT is(digest(), (SELECT * FROM digest_before), 'in all tables');
CREATE FUNCTION storm(rounds int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	served bigint := 0;
BEGIN
	FOR n IN 1..rounds LOOP
		BEGIN
			PERFORM alloc.allocate('storm' || n, 'storm', 1);
			served := served + 1;
			IF n % 3 = 0 THEN
				PERFORM alloc.allocate('storm' || n, 'storm', 2);
			ELSIF n % 3 = 1 THEN
				PERFORM alloc.allocate('storm' || n, 'unknown', 1);
			END IF;
		EXCEPTION WHEN SQLSTATE 'SK001' OR SQLSTATE 'SK003' THEN
			served := served - 1;
		END;
	END LOOP;
	RETURN served;
END
$$;
SELECT alloc.add_batch('storm', 'storm', 1000);
SELECT is(storm(1000), 333::bigint, '1,000 exception blocks, of which 667 fail');
SELECT is(available('storm'), 667::bigint, 'leave the stock of those that did not');
SELECT is((SELECT count(*) FROM alloc.events WHERE sku = 'storm' AND type = 'allocated'), 333::bigint, 'and their events');
SELECT sound('exception blocks');
ROLLBACK;

-- Procedures that commit

SELECT alloc.add_batch('p', 'p', 10);
CREATE PROCEDURE sell_and_commit() LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 1..6 LOOP
		PERFORM alloc.allocate('o' || n, 'p', 1);
		IF n % 2 = 0 THEN
			COMMIT;
		ELSE
			PERFORM alloc.allocate('undone' || n, 'p', 1);
			ROLLBACK;
		END IF;
	END LOOP;
END
$$;
CALL sell_and_commit();
SELECT results_eq('SELECT lines($$p$$)', ARRAY['o2 1', 'o4 1', 'o6 1'], 'a procedure that commits and rolls back by turns');
CREATE PROCEDURE free_in_loop() LANGUAGE plpgsql AS $$
DECLARE
	line record;
BEGIN
	FOR line IN SELECT * FROM alloc.allocations WHERE sku = 'p' ORDER BY orderid LOOP
		PERFORM alloc.deallocate(line.orderid, line.sku);
		COMMIT;
	END LOOP;
END
$$;
CALL free_in_loop();
SELECT is(available('p'), 10::bigint, 'a procedure that commits for each row of a view');
SELECT sound('procedures');

-- Cursors

BEGIN;
DECLARE selling CURSOR FOR SELECT alloc.allocate('c' || n, 'p', 4) FROM generate_series(1, 5) n;
FETCH selling;
SELECT is(available('p'), 6::bigint, 'a cursor allocates when it is fetched from');
SAVEPOINT here;
FETCH selling;
SELECT is(available('p'), 2::bigint, 'and again');
SELECT is(alloc.allocate('between', 'p', 2), 'p', 'between two fetches another call');
FETCH ALL selling;
SELECT results_eq('SELECT lines($$p$$)', ARRAY['c1 4', 'c2 4', 'between 2'], 'each took what was there when it was its turn');
CLOSE selling;
COMMIT;
SELECT sound('cursors');

-- Prepared statements

PREPARE sell(text) AS SELECT alloc.allocate($1, 'q', 1);
SELECT alloc.add_batch('q', 'q', 100);
SET plan_cache_mode = force_generic_plan;
EXECUTE sell('1');
SET plan_cache_mode = force_custom_plan;
EXECUTE sell('2');
RESET plan_cache_mode;
EXECUTE sell('1');
SELECT results_eq('SELECT lines($$q$$)', ARRAY['1 1', '2 1'], 'a prepared statement, with generic and custom plans');

-- Parallel queries: the commands keep the plan serial

SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
CREATE TABLE shop AS SELECT 'par' || n AS orderid FROM generate_series(1, 50) n;
ANALYZE shop;
SELECT is((SELECT count(alloc.allocate(orderid, 'q', 1)) FROM shop), 50::bigint, 'where a parallel plan would be chosen');
RESET max_parallel_workers_per_gather;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
SELECT sound('parallel plans');

-- The shop's own triggers call commands

CREATE TABLE order_line (orderid text, sku text, qty bigint, batchref text);
CREATE FUNCTION allocate_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.batchref := alloc.allocate(NEW.orderid, NEW.sku, NEW.qty);
	RETURN NEW;
END
$$;
CREATE FUNCTION deallocate_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.deallocate(OLD.orderid, OLD.sku);
	RETURN NULL;
END
$$;
CREATE TRIGGER allocate BEFORE INSERT ON order_line FOR EACH ROW EXECUTE FUNCTION allocate_line();
CREATE TRIGGER deallocate AFTER DELETE ON order_line FOR EACH ROW EXECUTE FUNCTION deallocate_line();
SELECT alloc.add_batch('t', 't', 10);
INSERT INTO order_line VALUES ('t1', 't', 6), ('t2', 't', 6), ('t3', 't', 4);
SELECT results_eq('SELECT orderid, batchref FROM order_line', $$VALUES ('t1', 't'), ('t2', NULL), ('t3', 't')$$,
	'a BEFORE trigger of the shop''s table allocates');
DELETE FROM order_line;
SELECT is(available('t'), 10::bigint, 'an AFTER trigger of the shop''s table frees');
SELECT throws_ok($$INSERT INTO order_line VALUES ('t4', 't', 1), ('t5', 'none', 1)$$, 'SK001', NULL,
	'an error in it fails the shop''s statement');
SELECT is(available('t'), 10::bigint, 'which takes nothing then');

-- Triggers on the extension's own tables must not call commands

CREATE FUNCTION greedy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.allocate(NEW.orderid || ' more', NEW.sku, 1);
	RETURN NULL;
END
$$;
CREATE TRIGGER greedy AFTER INSERT ON alloc.allocation FOR EACH ROW EXECUTE FUNCTION greedy();
SELECT refused($$SELECT alloc.allocate('g', 't', 1)$$, '55006', '%allocate()%', 'a trigger on allocation that allocates');
SELECT refused($$SELECT alloc.change_batch_quantity('t', 9), alloc.allocate('g', 't', 1)$$, '55006', '%allocate()%',
	'a trigger on allocation that allocates, after another command');
CREATE OR REPLACE FUNCTION greedy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.allocate(NEW.orderid || ' more', NEW.sku, 1);
	RETURN NULL;
EXCEPTION WHEN object_in_use THEN
	PERFORM set_config('test.caught', SQLERRM, false);
	RETURN NULL;
END
$$;
SELECT is(alloc.allocate('g', 't', 1), 't', 'when the trigger catches the error, the command outside goes on');
SELECT matches(current_setting('test.caught'), '^allocate\(\)', 'and the trigger saw it');
SELECT is(available('t'), 9::bigint, 'and one line is charged');
CREATE OR REPLACE FUNCTION greedy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RETURN NULL;
END
$$;
DROP TRIGGER greedy ON alloc.allocation;
SELECT is(alloc.allocate('after', 't', 1), 't', 'afterwards the session works on');

-- A deferred one runs after the command

CREATE FUNCTION gift() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.orderid NOT LIKE '% gift' THEN
		PERFORM alloc.allocate(NEW.orderid || ' gift', NEW.sku, 1);
	END IF;
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER gift AFTER INSERT ON alloc.allocation DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION gift();
BEGIN;
SELECT alloc.allocate('d', 't', 1);
SELECT is((SELECT count(*) FROM alloc.allocations WHERE orderid LIKE 'd%'), 1::bigint, 'a deferred trigger waits');
COMMIT;
SELECT bag_eq($$SELECT orderid FROM alloc.allocations WHERE orderid LIKE 'd%'$$, ARRAY['d', 'd gift'],
	'until the commit, and may call a command then');
DROP TRIGGER gift ON alloc.allocation;
SELECT sound('triggers');

SELECT * FROM finish();
