-- What replaces the public functions on a router.

-- The call that each function becomes, with its arguments as $1, $2...  Scalars
-- of all partitions are added up.
CREATE FUNCTION alloc._routes(OUT signature text, OUT call text)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT r.signature, replace(r.call, 'TRACE', 'current_setting(''alloc.traceparent'', true)')
	  FROM (VALUES
		('add_batch(text,text,bigint,date)', 'alloc._fleet_add_batch($1, $2, $3, $4)'),
		('allocate(text,text,bigint)', 'alloc_router.allocate($1, $2, $3, TRACE)'),
		('hold(text,text,bigint,interval)', 'alloc_router.hold($1, $2, $3, $4, TRACE)'),
		('deallocate(text,text)', 'alloc_router.deallocate($1, $2, TRACE)'),
		('cancel_backorder(text,text)', 'alloc_router.cancel_backorder($1, $2, TRACE)'),
		('confirm(text)', 'alloc._fleet_confirm($1)'),
		('release(text)', '(SELECT sum(n)::bigint FROM alloc_router.release($1, alloc._homes(), TRACE) AS n)'),
		('extend_hold(text,interval)', '(SELECT sum(n)::bigint FROM alloc_router.extend_hold($1, $2, alloc._homes(), TRACE) AS n)'),
		('ship(text,text)', 'alloc._fleet_ship($1, $2)'),
		('purge_shipped(timestamptz)', '(SELECT sum(n)::bigint FROM alloc_router.purge_shipped($1, TRACE) AS n)'),
		('allocate_lines(alloc.order_line[])', 'alloc._fleet_allocate_lines($1)'),
		('allocate_order(text,alloc.order_line[],text)', 'alloc._fleet_allocate_order($1, $2, $3)'),
		('change_batch_quantity(text,bigint)', 'alloc._fleet_change_batch_quantity($1, $2)'),
		('change_batch_eta(text,date)', 'alloc._fleet_change_batch_eta($1, $2)'),
		('available_to_promise(text,date)', 'alloc_router.available_to_promise($1, $2, TRACE)'),
		('promise(text,bigint)', 'alloc_router.promise($1, $2, TRACE)'),
		('history(text)', 'alloc_router.history($1, TRACE)'),
		('history_of_order(text)', 'alloc._fleet_history_of_order($1)'),
		('replay(text,bigint)', 'alloc._fleet_replay($1, $2)'),
		('create_consumer(text,text)', 'alloc._fleet_create_consumer($1, $2)'),
		('drop_consumer(text)', 'alloc._fleet_drop_consumer($1)'),
		('fetch_events(text,integer)', 'alloc._fleet_fetch_events($1, $2)'),
		('unsubscribe(text,regprocedure)', '(SELECT bool_and(s) FROM alloc_router.unsubscribe($1, alloc._full_name($2), TRACE) AS s)'),
		('subscribe(text,regprocedure,text)', '(SELECT bool_and(s) FROM alloc_router.subscribe($1, alloc._full_name($2), $3, TRACE) AS s)'),
		('retry_dead_letters()', '(SELECT sum(n)::bigint FROM alloc_router.retry_dead_letters(TRACE) AS n)'),
		('discard_dead_letters(text)', '(SELECT sum(n)::bigint FROM alloc_router.discard_dead_letters($1, TRACE) AS n)'),
		('check()', 'alloc._fleet_check()'),
		('repair(boolean)', 'alloc_router.repair($1, TRACE)'),
		('rebuild()', 'SELECT sum(r.batches), sum(r.lines) INTO batches, lines FROM alloc_router.rebuild(TRACE) AS r'),
		('snapshot_log()', '(SELECT max(n) FROM alloc_router.snapshot_log(TRACE) AS n)'),
		('reset_stats()', '(SELECT bool_and(s) FROM alloc_router.reset_stats(TRACE) AS s)'),
		('archive_events(timestamptz)', 'alloc._fleet_archive_events($1)'),
		('recover_orders()', 'alloc._fleet_recover_orders()'),
		('rebuild_directory()', 'alloc._fleet_rebuild_directory()')
	  ) AS r (signature, call)
$$;
COMMENT ON FUNCTION alloc._routes() IS
	'what each function of a router calls';

-- The functions are the owner's: he may use the server, and nobody else has to.
-- Two of them have an argument and a column of one name, which PL/pgSQL does not
-- know to tell apart: they are SQL, and what they call has the rest.
CREATE FUNCTION alloc._replace_functions()
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	f record;
	call text;
BEGIN
	FOR f IN
		SELECT r.call, p.proname, p.proretset, p.prorettype, p.oid, p.provolatile,
		       pg_get_function_arguments(p.oid) AS arguments,
		       pg_get_function_result(p.oid) AS result,
		       (SELECT count(*) <> count(DISTINCT n) FROM unnest(p.proargnames) AS n) AS ambiguous
		  FROM alloc._routes() AS r
		  JOIN pg_proc p ON p.oid = ('alloc.' || r.signature)::regprocedure
	LOOP
		INSERT INTO alloc.router_replaced VALUES (pg_get_functiondef(f.oid));
		call := CASE
			WHEN f.proretset THEN format('RETURN QUERY SELECT * FROM %s AS r', f.call)
			WHEN f.prorettype = 'void'::regtype THEN format('PERFORM %s', f.call)
			WHEN f.prorettype = 'record'::regtype THEN f.call
			ELSE format('RETURN %s', f.call) END;
		EXECUTE format('CREATE OR REPLACE FUNCTION alloc.%I(%s) RETURNS %s %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS %L',
			f.proname, f.arguments, f.result,
			CASE f.provolatile WHEN 'v' THEN 'VOLATILE ' ELSE 'STABLE ' END
			|| CASE WHEN f.ambiguous THEN 'LANGUAGE sql' ELSE 'LANGUAGE plpgsql' END,
			CASE WHEN f.ambiguous THEN format('SELECT * FROM %s', f.call)
			     ELSE alloc._in_own_words(format(E'%s\t%s;',
					CASE WHEN f.provolatile = 'v' THEN format(E'\tPERFORM alloc._require_writable(%L);\n', f.proname || '()') END,
					call)) END);
	END LOOP;
	INSERT INTO alloc.router_replaced
	VALUES (pg_get_functiondef('alloc.sync_batches(regclass,boolean)'::regprocedure));
	EXECUTE (SELECT format('CREATE OR REPLACE FUNCTION alloc.sync_batches(%s) RETURNS %s LANGUAGE c VOLATILE AS %L, %L',
			pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), r.probin, r.prosrc)
		  FROM pg_proc p, pg_proc r
		 WHERE p.oid = 'alloc.sync_batches(regclass,boolean)'::regprocedure
		   AND r.oid = 'alloc._fleet_sync_batches(regclass,boolean)'::regprocedure);
END
$$;
COMMENT ON FUNCTION alloc._replace_functions() IS
	'makes the functions of a router';

-- The body of a PL/pgSQL function, whose errors are told as the partition did.
CREATE FUNCTION alloc._in_own_words(statements text)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT E'\n#variable_conflict use_column\nDECLARE\n'
		'\terror_message text;\n\terror_detail text;\n\terror_hint text;\n'
		'BEGIN\n' || statements || E'\n'
		'EXCEPTION WHEN OTHERS THEN\n'
		'\tGET STACKED DIAGNOSTICS error_message = MESSAGE_TEXT,\n'
		'\t\terror_detail = PG_EXCEPTION_DETAIL, error_hint = PG_EXCEPTION_HINT;\n'
		'\tPERFORM alloc._raise_remote(SQLSTATE, error_message, error_detail, error_hint);\n'
		'END\n'
$$;
COMMENT ON FUNCTION alloc._in_own_words(text) IS
	'the body of a router''s function';

CREATE FUNCTION alloc._full_name(handler regprocedure)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('%I.%I(jsonb)', n.nspname, p.proname)
	  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
	 WHERE p.oid = handler
$$;
COMMENT ON FUNCTION alloc._full_name(regprocedure) IS
	'a function as another database knows it';

-- The number of the partition that has a key.
CREATE FUNCTION alloc._home(key text, homes integer[])
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN homes[1 + (alloc.partition_of(key) & (cardinality(homes) - 1))];
COMMENT ON FUNCTION alloc._home(text, integer[]) IS
	'for routers: the partition that has a sku, a reference or an order';

CREATE FUNCTION alloc._homes()
RETURNS integer[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT r.homes FROM alloc.router r
$$;
COMMENT ON FUNCTION alloc._homes() IS
	'for routers: of each number, the partition that has it';

CREATE FUNCTION alloc._all_homes()
RETURNS integer[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(DISTINCT h ORDER BY h) FROM alloc.router r, unnest(r.homes) AS h
$$;
COMMENT ON FUNCTION alloc._all_homes() IS
	'for routers: the numbers of the partitions';

CREATE FUNCTION alloc._trace()
RETURNS text
LANGUAGE sql STABLE
AS $$
	SELECT pg_catalog.current_setting('alloc.traceparent', true)
$$;
COMMENT ON FUNCTION alloc._trace() IS
	'for routers: the trace of the session';
