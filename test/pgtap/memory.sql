-- What a session keeps from one command to the next does not grow with the
-- number of commands.

\ir common.psql
SELECT plan(6);

CREATE FUNCTION memory() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(used_bytes)::bigint FROM pg_backend_memory_contexts
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
CREATE FUNCTION ignore() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;

SET alloc.notify = off;
SELECT alloc.add_batch('m', 'm', 1000000);
CALL measure('2,000 batches', $$SELECT count(alloc.add_batch('RUN' || n, 'b' || n, 10)) FROM generate_series(1, 2000) n$$);
CALL measure('2,000 lines that come', $$SELECT count(alloc.allocate('RUN' || n, 'm', 2)) FROM generate_series(1, 2000) n$$);
CALL measure('2,000 lines that come again and go',
	$$SELECT count(alloc.allocate('RUN' || n, 'm', 2)), count(alloc.deallocate('RUN' || n, 'm')) FROM generate_series(1, 2000) n$$);
CALL measure('2,000 changes of quantity',
	$$SELECT count(*) FROM generate_series(1, 2000) n LEFT JOIN LATERAL alloc.change_batch_quantity('m', 1000000 + n) ON true$$);
CALL measure('1,000 errors in exception blocks', 'SELECT fail(1000)');
CREATE TRIGGER ignore AFTER INSERT OR UPDATE OR DELETE ON alloc.allocation FOR EACH ROW EXECUTE FUNCTION ignore();
CREATE TRIGGER ignore AFTER UPDATE ON alloc.slot FOR EACH ROW WHEN (OLD.available > NEW.available) EXECUTE FUNCTION ignore();
CALL measure('2,000 lines with triggers',
	$$SELECT count(alloc.allocate('RUNt' || n, 'm', 2)), count(alloc.deallocate('RUNt' || n, 'm')) FROM generate_series(1, 2000) n$$);
SELECT cmp_ok(kb, '<', 64::bigint, what || ': the session keeps less than 64 kB more') FROM kept;
SELECT * FROM finish();
