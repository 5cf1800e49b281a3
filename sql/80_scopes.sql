-- Who may do what: rights are given by scope.  What a role was given is in the
-- ACLs of the objects and nowhere else, so that pg_dump, DROP OWNED and \dp
-- know of it as of any other right.

-- What each scope opens, once for all: views, functions with all of their
-- signatures, types.  Scope admin opens all of it but what is the owner's.
-- An object that is in no row is a failure of test/pgtap/access_matrix.sql;
-- tables, sequences, and names that begin with _ are for nobody, but for what a
-- view calls, which is called as the reader, and what routers call on partitions.
CREATE FUNCTION alloc._scopes(OUT object text, OUT scope text)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	VALUES
	('_serves', 'read'),
	('allocations', 'read'),
	('available_to_promise', 'read'),
	('backorders', 'read'),
	('batches', 'read'),
	('check', 'read'),
	('consumers', 'read'),
	('counters', 'read'),
	('dead_letters', 'read'),
	('event_payload', 'read'),
	('events', 'read'),
	('history', 'read'),
	('history_of_order', 'read'),
	('partition_of', 'read'),
	('promise', 'read'),
	('replay', 'read'),
	('stats', 'read'),
	('stock', 'read'),
	('was_given', 'read'),
	('allocate', 'sell'),
	('allocate_lines', 'sell'),
	('allocate_order', 'sell'),
	('available_to_promise', 'sell'),
	('cancel_backorder', 'sell'),
	('confirm', 'sell'),
	('deallocate', 'sell'),
	('extend_hold', 'sell'),
	('hold', 'sell'),
	('order_line', 'sell'),
	('partition_of', 'sell'),
	('promise', 'sell'),
	('release', 'sell'),
	('ship', 'sell'),
	('add_batch', 'buy'),
	('change_batch_eta', 'buy'),
	('change_batch_quantity', 'buy'),
	('partition_of', 'buy'),
	('sync_batches', 'buy'),
	-- Who reads in the name of a consumer takes events away from others, a
	-- handler can refuse a command, and the ids of messages are one set for
	-- all who send some.
	('archive_events', 'admin'),
	('create_consumer', 'admin'),
	('discard_dead_letters', 'admin'),
	('drop_consumer', 'admin'),
	('drop_moved', 'admin'),
	('fetch_events', 'admin'),
	('handle', 'admin'),
	('prepare_partition', 'admin'),
	('purge_shipped', 'admin'),
	('rebuild', 'admin'),
	('rebuild_directory', 'admin'),
	('recover_orders', 'admin'),
	('repair', 'admin'),
	('reset_stats', 'admin'),
	('retry_dead_letters', 'admin'),
	('set_partition', 'admin'),
	('settle_partition', 'admin'),
	('snapshot_log', 'admin'),
	('subscribe', 'admin'),
	('unsubscribe', 'admin'),
	-- What a router calls on partitions, as the role that it connects as.
	('_add_fleet_batch', 'admin'),
	('_add_fleet_consumer', 'admin'),
	('_allocate_share', 'admin'),
	('_batch_refs', 'admin'),
	('_begin_order', 'admin'),
	('_claim_ref', 'admin'),
	('_create_fleet_consumer', 'admin'),
	('_directory', 'admin'),
	('_drop_fleet_consumer', 'admin'),
	('_end_attempt', 'admin'),
	('_fetch_fleet_events', 'admin'),
	('_fill_directory', 'admin'),
	('_find_line', 'admin'),
	('_find_order', 'admin'),
	('_finish_order', 'admin'),
	('_forget_attempt', 'admin'),
	('_free_lines', 'admin'),
	('_has_attempt', 'admin'),
	('_has_holds', 'admin'),
	('_has_short_hold', 'admin'),
	('_held_lines', 'admin'),
	('_hold_for_fleet', 'admin'),
	('_left_orders', 'admin'),
	('_lines_of_order', 'admin'),
	('_lines_to_undo', 'admin'),
	('_move_order', 'admin'),
	('_note_attempt', 'admin'),
	('_old_attempts', 'admin'),
	('_prepare_order', 'admin'),
	('_refuse_attempt', 'admin'),
	('_require_homes', 'admin'),
	('_require_shippable', 'admin'),
	('_reset_stats', 'admin'),
	('_sku_of_batch', 'admin'),
	('_sku_of_ref', 'admin'),
	('_subscribe', 'admin'),
	('_sync_share', 'admin'),
	('_take_share', 'admin'),
	('_undo_order', 'admin'),
	('_unlock_order', 'admin'),
	('_unsubscribe', 'admin'),
	-- A router connects as the server to wherever it is told: who may say where
	-- could have functions of his own run there by a superuser.
	('create_router', 'owner'),
	('drop_router', 'owner'),
	('grant_access', 'owner'),
	('revoke_access', 'owner'),
	('subscriptions_changed', 'owner');
END;
COMMENT ON FUNCTION alloc._scopes() IS
	'which object of the schema belongs to which scope';

-- A right to use one of these says that its scope was granted: admin opens
-- what the others do, so that could not be told from the rest.
CREATE TYPE alloc.scope_read AS ENUM ();
CREATE TYPE alloc.scope_sell AS ENUM ();
CREATE TYPE alloc.scope_buy AS ENUM ();
CREATE TYPE alloc.scope_admin AS ENUM ();
COMMENT ON TYPE alloc.scope_read IS 'who has USAGE was granted scope read';
COMMENT ON TYPE alloc.scope_sell IS 'who has USAGE was granted scope sell';
COMMENT ON TYPE alloc.scope_buy IS 'who has USAGE was granted scope buy';
COMMENT ON TYPE alloc.scope_admin IS 'who has USAGE was granted scope admin';

CREATE FUNCTION alloc.grant_access(grantee regrole, scope text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	rights record;
BEGIN
	PERFORM alloc._require_grant(grantee, scope);
	-- The owner has all.
	IF grantee = alloc._owner() THEN
		RETURN;
	END IF;
	PERFORM alloc._change_rights('GRANT USAGE ON SCHEMA', 'alloc', 'TO', grantee);
	FOR rights IN
		SELECT r.kind, string_agg(r.object, ', ') AS objects
		  FROM alloc._rights(grant_access.scope) r
		 GROUP BY r.kind
	LOOP
		PERFORM alloc._change_rights('GRANT ' || rights.kind, rights.objects, 'TO', grantee);
	END LOOP;
END
$$;
COMMENT ON FUNCTION alloc.grant_access(regrole, text) IS
	'lets a role do what a scope is about: read (views, queries), sell (order lines, orders, holds, ship), buy (batches, feeds), admin (all); the owner''s alone';

CREATE FUNCTION alloc.revoke_access(grantee regrole, scope text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	rights record;
BEGIN
	PERFORM alloc._require_grant(grantee, scope);
	IF grantee = alloc._owner() THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_grant_operation',
			MESSAGE = format('role "%s" owns the extension', pg_get_userbyid(grantee)),
			DETAIL = 'Nothing can be taken back from the owner.';
	END IF;
	FOR rights IN
		SELECT r.kind, string_agg(r.object, ', ') AS objects
		  FROM (SELECT * FROM alloc._rights(revoke_access.scope)
				EXCEPT
				SELECT o.* FROM alloc._granted_scopes(grantee) g, alloc._rights(g) o
				 WHERE g <> revoke_access.scope) r
		 GROUP BY r.kind
	LOOP
		PERFORM alloc._change_rights('REVOKE ' || rights.kind, rights.objects, 'FROM', grantee);
	END LOOP;
	IF NOT alloc._has_rights(grantee) THEN
		PERFORM alloc._change_rights('REVOKE USAGE ON SCHEMA', 'alloc', 'FROM', grantee);
	END IF;
END
$$;
COMMENT ON FUNCTION alloc.revoke_access(regrole, text) IS
	'takes back what a scope is about, but for what another scope that the role was granted is about as well; the owner''s alone';

-- What follows is for these functions.

CREATE FUNCTION alloc._owner()
RETURNS oid
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT e.extowner FROM pg_extension e WHERE e.extname = 'alloc';
END;
COMMENT ON FUNCTION alloc._owner() IS
	'the role that owns the extension';

CREATE FUNCTION alloc._require_grant(grantee oid, scope text)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	missing CONSTANT text := CASE WHEN grantee IS NULL THEN 'grantee'
	                              WHEN scope IS NULL THEN 'scope' END;
BEGIN
	IF NOT pg_has_role(alloc._owner(), 'USAGE') THEN
		RAISE EXCEPTION USING
			ERRCODE = 'insufficient_privilege',
			MESSAGE = 'must be owner of extension alloc';
	END IF;
	IF missing IS NOT NULL THEN
		RAISE EXCEPTION USING
			ERRCODE = 'null_value_not_allowed',
			MESSAGE = missing || ' must not be null';
	END IF;
	IF scope NOT IN ('read', 'sell', 'buy', 'admin') THEN
		RAISE EXCEPTION USING
			ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('there is no scope "%s"', left(scope, 64)),
			HINT = 'Scopes are read, sell, buy and admin.';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = grantee) THEN
		RAISE EXCEPTION USING
			ERRCODE = 'undefined_object',
			MESSAGE = format('role %s does not exist', grantee);
	END IF;
	-- Two at the same time would meet in the catalog, and one of them fail.  No
	-- command writes to this table.
	LOCK TABLE alloc.era IN SHARE ROW EXCLUSIVE MODE;
END
$$;
COMMENT ON FUNCTION alloc._require_grant(oid, text) IS
	'raises what is wrong with a call of grant_access() or revoke_access(), and waits for others';

CREATE FUNCTION alloc._change_rights(
	verb text, objects text, preposition text, grantee oid)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('%s %s %s %I', verb, objects, preposition, pg_get_userbyid(grantee));
END
$$;
COMMENT ON FUNCTION alloc._change_rights(text, text, text, oid) IS
	'a GRANT or REVOKE, of objects whose names are quoted as they need';

CREATE FUNCTION alloc._rights(of_scope text, OUT kind text, OUT object text)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	WITH opened AS (
		SELECT s.object AS name FROM alloc._scopes() s
		 WHERE s.scope = of_scope OR of_scope = 'admin' AND s.scope <> 'owner')
	SELECT 'EXECUTE ON FUNCTION', p.oid::regprocedure::text
	  FROM pg_proc p
	 WHERE p.pronamespace = 'alloc'::regnamespace
	   AND p.proname IN (SELECT name FROM opened)
	UNION ALL
	SELECT CASE c.relkind WHEN 'v' THEN 'SELECT ON TABLE' ELSE 'USAGE ON TYPE' END,
	       c.oid::regclass::text
	  FROM pg_class c
	 WHERE c.relnamespace = 'alloc'::regnamespace
	   AND c.relkind IN ('v', 'c')
	   AND c.relname IN (SELECT name FROM opened)
	UNION ALL
	SELECT 'USAGE ON TYPE', format('alloc.%I', 'scope_' || of_scope)
$$;
COMMENT ON FUNCTION alloc._rights(text) IS
	'what a scope gives, in the words of GRANT';

CREATE FUNCTION alloc._granted_scopes(grantee oid)
RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.scope
	  FROM (VALUES ('read'), ('sell'), ('buy'), ('admin')) AS s (scope)
	  JOIN pg_type t ON t.typnamespace = 'alloc'::regnamespace
	                AND t.typname = 'scope_' || s.scope
	 CROSS JOIN aclexplode(t.typacl) a
	 WHERE a.grantee = _granted_scopes.grantee
$$;
COMMENT ON FUNCTION alloc._granted_scopes(oid) IS
	'the scopes that were granted to a role itself';

CREATE FUNCTION alloc._has_rights(grantee oid)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (
		SELECT FROM (
			SELECT p.proacl FROM pg_proc p WHERE p.pronamespace = 'alloc'::regnamespace
			UNION ALL
			SELECT c.relacl FROM pg_class c WHERE c.relnamespace = 'alloc'::regnamespace
			UNION ALL
			SELECT a.attacl FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
			 WHERE c.relnamespace = 'alloc'::regnamespace
			UNION ALL
			SELECT t.typacl FROM pg_type t WHERE t.typnamespace = 'alloc'::regnamespace) o (acl),
			aclexplode(o.acl) a
		 WHERE a.grantee = _has_rights.grantee)
$$;
COMMENT ON FUNCTION alloc._has_rights(oid) IS
	'does a role itself have a right to anything in the schema?';
