-- The functions of schema alloc_router: what PL/Proxy runs on partitions.
--
-- run_on says where:
--   sku, ref, order   the partition of i_sku, i_ref or i_orderid
--   all               every partition, at once
--   share             the partitions whose numbers are in i_part, at once; each
--                     gets those elements of the arrays in split that are its
--   only              the partition i_part
-- A command is run with the trace of the router's session.  A call that returns
-- rows stands below a subquery, so that the trace is set before.  With i_homes the
-- partition looks first whether the router knows which skus it serves.

CREATE FUNCTION alloc._remote_functions(
	OUT name text, OUT run_on text, OUT split text, OUT arguments text,
	OUT result text, OUT call text)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	VALUES
	-- Commands on one sku
	('add_batch', 'sku', '', 'i_ref text, i_sku text, i_qty bigint, i_eta date',
		'text', 'alloc._add_fleet_batch(i_ref, i_sku, i_qty, i_eta)'),
	('allocate', 'sku', '', 'i_orderid text, i_sku text, i_qty bigint',
		'text', 'alloc.allocate(i_orderid, i_sku, i_qty)'),
	('hold', 'sku', '', 'i_orderid text, i_sku text, i_qty bigint, i_ttl interval',
		'text', 'alloc.hold(i_orderid, i_sku, i_qty, i_ttl)'),
	('deallocate', 'sku', '', 'i_orderid text, i_sku text',
		'text', 'alloc.deallocate(i_orderid, i_sku)'),
	('cancel_backorder', 'sku', '', 'i_orderid text, i_sku text',
		'boolean', 'alloc.cancel_backorder(i_orderid, i_sku)'),
	('ship_line', 'sku', '', 'i_orderid text, i_sku text',
		'bigint', 'alloc.ship(i_orderid, i_sku)'),
	('change_batch_quantity', 'sku', '', 'i_sku text, i_ref text, i_qty bigint',
		'SETOF (orderid text, sku text, qty bigint, old_batchref text, new_batchref text)',
		'alloc.change_batch_quantity(i_ref, i_qty)'),
	('change_batch_eta', 'sku', '', 'i_sku text, i_ref text, i_eta date',
		'SETOF (orderid text, sku text, qty bigint, old_eta date, new_eta date)',
		'alloc.change_batch_eta(i_ref, i_eta)'),
	-- Queries about one sku
	('available_to_promise', 'sku', '', 'i_sku text, i_by date',
		'bigint', 'alloc.available_to_promise(i_sku, i_by)'),
	('promise', 'sku', '', 'i_sku text, i_qty bigint',
		'SETOF (batchref text, eta date)', 'alloc.promise(i_sku, i_qty)'),
	('history', 'sku', '', 'i_sku text', 'SETOF alloc.events', 'alloc.history(i_sku)'),
	('replay_sku', 'sku', '', 'i_sku text, i_upto bigint',
		'SETOF (ref text, sku text, eta date, purchased_qty bigint, shipped_qty bigint, allocated_qty bigint, available_qty bigint)',
		'alloc.replay(i_sku, i_upto)'),
	-- The directory
	('claim_ref', 'ref', '', 'i_ref text, i_sku text, i_instead text, i_sure boolean',
		'text', 'alloc._claim_ref(i_ref, i_sku, i_instead, i_sure)'),
	('sku_of_ref', 'ref', '', 'i_ref text', 'text', 'alloc._sku_of_ref(i_ref)'),
	('sku_of_batch', 'sku', '', 'i_sku text, i_ref text',
		'SETOF text', 'alloc._sku_of_batch(i_ref)'),
	('find_batch', 'all', '', 'i_ref text', 'SETOF text', 'alloc._sku_of_batch(i_ref)'),
	('batch_refs', 'all', '', '', 'SETOF (ref text, sku text)', 'alloc._batch_refs()'),
	('directory', 'all', '', '', 'SETOF (ref text, sku text)', 'alloc._directory()'),
	('fill_directory', 'share', 'i_refs, i_skus', 'i_part integer[], i_refs text[], i_skus text[]',
		'SETOF bigint', 'alloc._fill_directory(i_refs, i_skus)'),
	-- Orders
	('find_order', 'order', '', 'i_orderid text',
		'(attempt bigint, state text, mode text, skus text[], qtys bigint[], held text[])',
		'alloc._find_order(i_orderid)'),
	('begin_order', 'order', '', 'i_orderid text, i_mode text, i_skus text[], i_qtys bigint[]',
		'bigint', 'alloc._begin_order(i_orderid, i_mode, i_skus, i_qtys)'),
	('move_order', 'order', '', 'i_orderid text, i_attempt bigint, i_from text, i_to text, i_held text[]',
		'boolean', 'alloc._move_order(i_orderid, i_attempt, i_from, i_to, i_held)'),
	('unlock_order', 'order', '', 'i_orderid text', 'boolean', 'alloc._unlock_order(i_orderid)'),
	('prepare_order', 'share', 'i_skus, i_qtys',
		'i_part integer[], i_orderid text, i_attempt bigint, i_skus text[], i_qtys bigint[], i_mode text, i_ttl interval',
		'SETOF (sku text, batchref text, status text)',
		'alloc._prepare_order(i_orderid, i_attempt, i_skus, i_qtys, i_mode, i_ttl)'),
	('finish_order', 'share', 'i_skus, i_qtys',
		'i_part integer[], i_orderid text, i_attempt bigint, i_skus text[], i_qtys bigint[], i_mode text',
		'SETOF (sku text, qty bigint, batchref text, status text)',
		'alloc._finish_order(i_orderid, i_attempt, i_skus, i_qtys, i_mode)'),
	('undo_order', 'share', 'i_skus, i_qtys',
		'i_part integer[], i_orderid text, i_attempt bigint, i_skus text[], i_qtys bigint[], i_held text[]',
		'SETOF bigint', 'alloc._undo_order(i_orderid, i_attempt, i_skus, i_qtys, i_held)'),
	('forget_attempt', 'share', '', 'i_part integer[], i_orderid text, i_attempt bigint',
		'SETOF bigint', 'alloc._forget_attempt(i_orderid, i_attempt)'),
	('left_orders', 'only', '', 'i_part integer', 'SETOF text', 'alloc._left_orders()'),
	('old_attempts', 'share', '', 'i_part integer[]',
		'SETOF (part integer, orderid text, attempt bigint)', 'alloc._old_attempts(i_part)'),
	('has_attempt', 'order', '', 'i_orderid text, i_attempt bigint',
		'boolean', 'alloc._has_attempt(i_orderid, i_attempt)'),
	('allocate_order', 'only', '', 'i_part integer, i_orderid text, i_lines text, i_mode text',
		'SETOF (sku text, qty bigint, batchref text, status text)',
		'alloc.allocate_order(i_orderid, i_lines::alloc.order_line[], i_mode)'),
	('allocate_lines', 'share', 'i_shares', 'i_part integer[], i_shares text[]',
		'SETOF (part integer, batchrefs text[])',
		'alloc._allocate_share(i_part, i_shares)'),
	('allocate_any_lines', 'only', '', 'i_part integer, i_lines text',
		'SETOF (orderid text, sku text, qty bigint, batchref text)',
		'alloc.allocate_lines(i_lines::alloc.order_line[])'),
	('held_lines', 'all', '', 'i_orderid text, i_homes integer[]', 'SETOF (sku text, qty bigint)',
		'alloc._held_lines(i_orderid)'),
	('confirm', 'all', '', 'i_orderid text, i_homes integer[]', 'SETOF bigint', 'alloc.confirm(i_orderid)'),
	('release', 'all', '', 'i_orderid text, i_homes integer[]', 'SETOF bigint', 'alloc.release(i_orderid)'),
	('extend_hold', 'all', '', 'i_orderid text, i_ttl interval, i_homes integer[]',
		'SETOF bigint', 'alloc.extend_hold(i_orderid, i_ttl)'),
	('require_shippable', 'all', '', 'i_orderid text, i_homes integer[]',
		'SETOF boolean', 'alloc._require_shippable(i_orderid)'),
	('ship', 'all', '', 'i_orderid text, i_homes integer[]', 'SETOF bigint', 'alloc.ship(i_orderid)'),
	('purge_shipped', 'all', '', 'i_before timestamptz', 'SETOF bigint', 'alloc.purge_shipped(i_before)'),
	('sync_batches', 'share', 'i_refs, i_skus, i_qtys, i_etas',
		'i_part integer[], i_refs text[], i_skus text[], i_qtys bigint[], i_etas date[], i_dry_run boolean',
		'SETOF (action text, ref text, sku text, old_qty bigint, new_qty bigint, old_eta date, new_eta date)',
		'alloc._sync_share(i_refs, i_skus, i_qtys, i_etas, i_dry_run)'),
	-- Readers
	('create_consumer', 'all', '', 'i_name text, i_start text', 'SETOF boolean', 'alloc._create_fleet_consumer(i_name, i_start)'),
	('add_consumer', 'share', '', 'i_part integer[], i_name text', 'SETOF boolean', 'alloc._add_fleet_consumer(i_name)'),
	('drop_consumer', 'all', '', 'i_name text', 'SETOF boolean', 'alloc._drop_fleet_consumer(i_name)'),
	('fetch_events', 'share', 'i_committed, i_seen',
		'i_part integer[], i_consumer text, i_committed bigint[], i_seen bigint[], i_max integer, i_call bigint',
		'SETOF (part integer, event_id bigint, at timestamptz, type text, sku text, orderid text, batchref text, qty bigint, payload jsonb)',
		'alloc._fetch_fleet_events(i_part, i_consumer, i_committed, i_seen, i_max, i_call)'),
	('subscribe', 'all', '', 'i_type text, i_handler text, i_mode text',
		'SETOF boolean', 'alloc._subscribe(i_type, i_handler, i_mode)'),
	('unsubscribe', 'all', '', 'i_type text, i_handler text',
		'SETOF boolean', 'alloc._unsubscribe(i_type, i_handler)'),
	('retry_dead_letters', 'all', '', '', 'SETOF bigint', 'alloc.retry_dead_letters()'),
	('discard_dead_letters', 'all', '', 'i_handler text', 'SETOF bigint', 'alloc.discard_dead_letters(i_handler)'),
	-- The log as a whole
	('replay', 'all', '', '',
		'SETOF (ref text, sku text, eta date, purchased_qty bigint, shipped_qty bigint, allocated_qty bigint, available_qty bigint)',
		'alloc.replay()'),
	('history_of_order', 'all', '', 'i_orderid text', 'SETOF alloc.events', 'alloc.history_of_order(i_orderid)'),
	('check', 'all', '', '',
		'SETOF (problem text, sku text, batchref text, orderid text, detail text)', 'alloc.check()'),
	('repair', 'all', '', 'i_dry_run boolean',
		'SETOF (action text, sku text, batchref text, orderid text, detail text)', 'alloc.repair(i_dry_run)'),
	('rebuild', 'all', '', '', 'SETOF (batches bigint, lines bigint)', 'alloc.rebuild()'),
	('snapshot_log', 'all', '', '', 'SETOF bigint', 'alloc.snapshot_log()'),
	('reset_stats', 'all', '', '', 'SETOF boolean', 'alloc._reset_stats()'),
	-- The fleet
	('take_share', 'share', '', 'i_part integer[], i_number integer, i_count integer',
		'(number integer, count integer)', 'alloc._take_share(i_number, i_count)')
$$;
COMMENT ON FUNCTION alloc._remote_functions() IS
	'what a router runs on partitions';

CREATE FUNCTION alloc._create_remote_functions(cluster text)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	f record;
	before text;
	query text;
	columns text;
BEGIN
	FOR f IN SELECT * FROM alloc._remote_functions() LOOP
		before := 'pg_catalog.set_config(''alloc.traceparent'', i_trace, true)'
			|| CASE WHEN f.arguments LIKE '%i_homes integer[]' THEN ', alloc._require_homes(i_homes)' ELSE '' END;
		columns := substring(f.result FROM '\((.*)\)');
		query := CASE
			WHEN columns IS NOT NULL OR f.result = 'SETOF alloc.events' THEN
				format('SELECT (r.r).* FROM (SELECT %s AS r FROM %s OFFSET 0) AS r', f.call, before)
			ELSE
				format('SELECT %s AS r FROM %s', f.call, before)
			END;
		EXECUTE format('CREATE FUNCTION alloc_router.%I(%s) RETURNS %s LANGUAGE plproxy VOLATILE %s AS %L',
			f.name,
			concat_ws(', ', nullif(f.arguments, ''), 'i_trace text',
				regexp_replace(columns, '(^|, )', '\1OUT ', 'g')),
			CASE WHEN columns IS NULL THEN f.result
			     ELSE replace(f.result, '(' || columns || ')', 'record') END,
			-- PL/Proxy sends text, which the partition reads by its own settings.
			CASE WHEN f.arguments ~ '\m(date|interval|timestamptz)\M'
			     THEN 'SET datestyle = ''ISO, MDY'' SET intervalstyle = postgres' END,
			format(E'\n\tCLUSTER %L;\n%s\tRUN ON %s;\n\t%s;\n', cluster,
				CASE WHEN f.run_on = 'share' THEN format(E'\tSPLIT %s;\n', concat_ws(', ', 'i_part', nullif(f.split, ''))) END,
				CASE f.run_on
					WHEN 'all' THEN 'ALL'
					WHEN 'share' THEN 'i_part'
					WHEN 'only' THEN 'i_part'
					WHEN 'order' THEN 'alloc.partition_of(i_orderid)'
					ELSE format('alloc.partition_of(i_%s)', f.run_on) END,
				query));
	END LOOP;
	REVOKE ALL ON ALL FUNCTIONS IN SCHEMA alloc_router FROM PUBLIC;
END
$$;
COMMENT ON FUNCTION alloc._create_remote_functions(text) IS
	'makes the functions of schema alloc_router';

-- The views: what is asked of the partitions, with conditions on the keys; the
-- partition of a sku alone, where that is one of them.
CREATE FUNCTION alloc._remote_views(OUT name text, OUT keys text, OUT definition text)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	VALUES
	('allocations', 'sku, orderid, batchref', NULL),
	('batches', 'sku, ref', NULL),
	('stock', 'sku', NULL),
	('backorders', 'sku, orderid', NULL),
	('events', 'sku, orderid', NULL),
	('dead_letters', '', NULL),
	('consumers', 'name',
		'SELECT c.name, sum(c.pending)::bigint AS pending, max(c.last_event_id) AS last_event_id, max(c.last_fetch_at) AS last_fetch_at
		   FROM alloc_router.consumers c
		  WHERE c.name IN (SELECT f.name FROM alloc.fleet_consumer f)
		  GROUP BY c.name'),
	('stats', '',
		'SELECT s.name, CASE WHEN s.name LIKE ''%_ms'' THEN max(s.value) ELSE sum(s.value)::bigint END AS value
		   FROM (SELECT *, row_number() OVER () AS n FROM alloc_router.stats) s
		  GROUP BY s.name
		  ORDER BY min(s.n)')
$$;
COMMENT ON FUNCTION alloc._remote_views() IS
	'the views of a router';

CREATE FUNCTION alloc._replace_views()
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	v record;
	this_cluster text := (SELECT r.cluster FROM alloc.router r);
	columns text;
	keys text[];
BEGIN
	CREATE SERVER alloc_gather FOREIGN DATA WRAPPER alloc_gather;
	FOR v IN SELECT *, format('alloc.%I', w.name)::regclass AS id FROM alloc._remote_views() AS w LOOP
		keys := string_to_array(nullif(v.keys, ''), ', ');
		SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
		  INTO columns FROM pg_attribute a WHERE a.attrelid = v.id AND a.attnum > 0;
		EXECUTE format('CREATE FUNCTION alloc_router.read_%s(%s) RETURNS SETOF alloc.%I LANGUAGE plproxy VOLATILE SET client_min_messages = warning AS %L',
			v.name,
			(SELECT string_agg(format('i_%s text', k), ', ') FROM unnest(keys) AS k),
			v.name,
			format(E'\n\tCLUSTER %L;\n\tRUN ON %s;\n\tSELECT * FROM alloc.%I AS v%s;\n', this_cluster,
				CASE WHEN 'sku' = ANY (keys) THEN 'alloc._partitions_of(i_sku)' ELSE 'ALL' END,
				v.name,
				(SELECT ' WHERE ' || string_agg(format('(i_%s IS NULL OR v.%s = i_%s)', k, k, k), ' AND ')
				   FROM unnest(keys) AS k)));
		EXECUTE format('CREATE FOREIGN TABLE alloc_router.%I (%s) SERVER alloc_gather OPTIONS (reader %L, keys %L)',
			v.name, columns, 'alloc_router.read_' || v.name, v.keys);
		INSERT INTO alloc.router_replaced
		VALUES (format('CREATE OR REPLACE VIEW alloc.%I AS %s', v.name, pg_get_viewdef(v.id)));
		EXECUTE format('CREATE OR REPLACE VIEW alloc.%I AS %s', v.name,
			-- Of two relations, and so nobody takes it for one that can be written.
			coalesce(v.definition, format('SELECT v.* FROM alloc_router.%I AS v CROSS JOIN (SELECT) AS one', v.name)));
	END LOOP;
	REVOKE ALL ON ALL FUNCTIONS IN SCHEMA alloc_router FROM PUBLIC;
END
$$;
COMMENT ON FUNCTION alloc._replace_views() IS
	'makes the views of a router';

-- The hashes of the partitions that may have a sku: of all, if it is not known.
CREATE FUNCTION alloc._partitions_of(sku text)
RETURNS SETOF integer
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT alloc.partition_of(sku) WHERE sku IS NOT NULL
	UNION ALL
	SELECT DISTINCT h FROM alloc.router r, unnest(r.homes) AS h WHERE sku IS NULL
$$;
COMMENT ON FUNCTION alloc._partitions_of(text) IS
	'for routers: where PL/Proxy looks for a sku, or for all of them';
