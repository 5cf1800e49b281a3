-- What a session keeps from one command to the next does not grow with the
-- number of commands.

\ir common.psql
SELECT plan(12);

-- Whoever needs a buffer writes what is in it, of any database, and remembers
-- the file: that is not the commands' doing.
CREATE FUNCTION memory() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(used_bytes)::bigint FROM pg_backend_memory_contexts
	 WHERE name NOT IN ('smgr relation table', 'MdSmgr')
$$;

-- What autovacuum says of a table makes the session read its definition anew.
DO $$
BEGIN
	EXECUTE (SELECT string_agg(format('ALTER TABLE %s SET (autovacuum_enabled = off)', oid::regclass), ';')
			   FROM pg_class WHERE relnamespace = 'alloc'::regnamespace AND relkind = 'r');
END
$$;

-- kept: by how much the session grew over a statement, in kB.
CREATE TABLE kept (what text, kb bigint);
CREATE PROCEDURE measure(what text, command text) LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
BEGIN
	-- Once to fill caches.
	EXECUTE replace(command, 'RUN', 'warm');
	COMMIT;
	before := memory();
	EXECUTE replace(command, 'RUN', 'run');
	COMMIT;
	INSERT INTO kept VALUES (what, (memory() - before) / 1024);
END
$$;
CREATE FUNCTION fail(rounds int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 1..rounds LOOP
		BEGIN
			PERFORM alloc.allocate('fail', 'm', 1);
			PERFORM alloc.allocate('fail', 'm', 2);
		EXCEPTION WHEN SQLSTATE 'SK003' THEN
		END;
	END LOOP;
END
$$;
-- delivery: 1,000 lines of two skus, one of them soon out of stock, and the
-- last line twice.
CREATE FUNCTION delivery(name text) RETURNS alloc.order_line[] LANGUAGE sql AS $$
	SELECT array_agg(ROW(name || ' ' || n, CASE WHEN n % 100 = 0 THEN 'few' ELSE 'm' END, 1)::alloc.order_line)
	  FROM (SELECT least(n, 999) AS n FROM generate_series(1, 1000) AS n) AS line
$$;
-- sell: calls for a delivery in one transaction; by how much the session grew
-- since the tenth of them, in kB.
CREATE FUNCTION sell(name text, rounds int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
BEGIN
	FOR n IN 1..rounds LOOP
		PERFORM FROM alloc.allocate_lines(delivery(name || n));
		IF n = 10 THEN
			before := memory();
		END IF;
	END LOOP;
	RETURN (memory() - before) / 1024;
END
$$;
CREATE FUNCTION fail_lines(rounds int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 1..rounds LOOP
		BEGIN
			PERFORM FROM alloc.allocate_lines(delivery('fail') || ROW('fail', 'unknown', 1)::alloc.order_line);
		EXCEPTION WHEN SQLSTATE 'SK001' THEN
		END;
	END LOOP;
END
$$;
CREATE FUNCTION ignore() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;

SET alloc.notify = off;
SELECT alloc.add_batch('m', 'm', 1000000);
CALL measure('2,000 batches', $$SELECT count(alloc.add_batch('RUN' || n, 'bRUN' || n, 10)) FROM generate_series(1, 2000) n$$);
CALL measure('2,000 lines that come', $$SELECT count(alloc.allocate('RUN' || n, 'm', 2)) FROM generate_series(1, 2000) n$$);
CALL measure('2,000 lines that come again and go',
	$$SELECT count(alloc.allocate('RUN' || n, 'm', 2)), count(alloc.deallocate('RUN' || n, 'm')) FROM generate_series(1, 2000) n$$);
CALL measure('2,000 changes of quantity',
	$$SELECT count(*) FROM generate_series(1, 2000) n LEFT JOIN LATERAL alloc.change_batch_quantity('m', 1000000 + n) ON true$$);
SELECT alloc.add_batch('few', 'few', 500);
CALL measure('100 calls for 1,000 lines', $$SELECT sell('RUNl', 100)$$);
CALL measure('100 calls for 1,000 lines in a statement',
	$$SELECT count(r) FROM generate_series(1, 100) n, alloc.allocate_lines(delivery('RUNs' || n)) AS r$$);
CALL measure('20 calls for 1,000 lines that fail', 'SELECT fail_lines(20)');
CALL measure('1,000 orders, of which every other is not taken',
	$$SELECT count(o) FROM generate_series(1, 1000) n,
		alloc.allocate_order('RUNo' || n, ARRAY[ROW(NULL, 'm', 1), ROW(NULL, 'bwarm' || n, 1 + n % 2 * 20)]::alloc.order_line[]) AS o$$);
SELECT sell('end', 110) AS grown \gset
CALL measure('1,000 errors in exception blocks', 'SELECT fail(1000)');
CREATE TRIGGER ignore AFTER INSERT OR UPDATE OR DELETE ON alloc.allocation FOR EACH ROW EXECUTE FUNCTION ignore();
CREATE TRIGGER ignore AFTER UPDATE ON alloc.slot FOR EACH ROW WHEN (OLD.available > NEW.available) EXECUTE FUNCTION ignore();
CALL measure('2,000 lines with triggers',
	$$SELECT count(alloc.allocate('RUNt' || n, 'm', 2)), count(alloc.deallocate('RUNt' || n, 'm')) FROM generate_series(1, 2000) n$$);
SELECT results_eq($$SELECT sku, count(*) FROM alloc.allocations WHERE orderid LIKE 'runl%' OR sku = 'few' GROUP BY sku ORDER BY sku$$,
	$$VALUES ('few', 500::bigint), ('m', 99000)$$, '100 calls for 1,000 lines, one of them twice: all are served but those of a sku that is used up');
SELECT cmp_ok(kb, '<', 64::bigint, what || ': the session keeps less than 64 kB more') FROM kept;
SELECT cmp_ok(:grown, '<', 128, 'within a transaction 100 calls for 1,000 lines keep less than 128 kB');
SELECT * FROM finish();
