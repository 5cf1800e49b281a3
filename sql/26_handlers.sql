-- The message bus: functions that are called with events.

CREATE SEQUENCE alloc.subscription_id_seq;

-- search_path is that of whoever subscribed, and the handler runs with it: not
-- with that of whoever happens to cause the event.
CREATE TABLE alloc.subscription (
	subscription_id bigint NOT NULL,
	role            regrole NOT NULL,
	event_type      text NOT NULL,
	handler         text NOT NULL,
	mode            text NOT NULL
		CONSTRAINT subscription_mode CHECK (mode IN ('sync', 'async')),
	search_path     text NOT NULL,
	CONSTRAINT subscription_pkey PRIMARY KEY (subscription_id)
) USING heap;
CREATE UNIQUE INDEX subscription_handler
	ON alloc.subscription (event_type text_pattern_ops, handler text_pattern_ops);
ALTER TABLE alloc.subscription REPLICA IDENTITY USING INDEX subscription_handler;
COMMENT ON TABLE alloc.subscription IS
	'which function is called with which events, and as whom';

-- What each backend knows of the subscriptions is stale after a change that no
-- command made: a restore, for one.
CREATE FUNCTION alloc.subscriptions_changed()
RETURNS trigger
AS 'MODULE_PATHNAME', 'alloc_subscriptions_changed'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.subscriptions_changed() IS
	'trigger of table subscription: tells all sessions that it has changed';
CREATE TRIGGER subscriptions_changed
	AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON alloc.subscription
	FOR EACH STATEMENT EXECUTE FUNCTION alloc.subscriptions_changed();

CREATE SEQUENCE alloc.delivery_id_seq;

-- Only those that failed: next_at NULL, for good.
CREATE TABLE alloc.delivery (
	delivery_id     bigint NOT NULL,
	subscription_id bigint NOT NULL,
	event_id        bigint NOT NULL,
	at              timestamptz NOT NULL,
	next_at         timestamptz,
	attempts        bigint NOT NULL,
	handler         text NOT NULL,
	last_error      text NOT NULL,
	CONSTRAINT delivery_pkey PRIMARY KEY (delivery_id)
) USING heap;
CREATE UNIQUE INDEX delivery_event
	ON alloc.delivery (subscription_id, event_id);
CREATE INDEX delivery_due
	ON alloc.delivery (subscription_id, next_at) WHERE next_at IS NOT NULL;
COMMENT ON TABLE alloc.delivery IS
	'events that an asynchronous handler failed on: to be tried again at next_at, or not any more';

CREATE FUNCTION alloc.subscribe(
	event_type text, handler regprocedure, mode text DEFAULT 'async')
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_subscribe'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.subscribe(text, regprocedure, text) IS
	'lets a function of one jsonb be called with each event of a type; sync: within the command, async: by a background worker after its commit; as the role that subscribes';

CREATE FUNCTION alloc.unsubscribe(event_type text, handler regprocedure)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_unsubscribe'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.unsubscribe(text, regprocedure) IS
	'ends what subscribe() began; what has failed for good stays in dead_letters';

CREATE FUNCTION alloc.retry_dead_letters()
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_retry_dead_letters'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.retry_dead_letters() IS
	'tries all dead letters again whose subscription is still there; returns how many';

-- By what the view says, since neither function nor subscription may be there.
CREATE FUNCTION alloc.discard_dead_letters(handler text DEFAULT NULL)
RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	WITH discarded AS (
		DELETE FROM alloc.delivery d
		 WHERE d.next_at IS NULL
		   AND (discard_dead_letters.handler IS NULL OR d.handler = discard_dead_letters.handler)
		RETURNING 1)
	SELECT count(*) FROM discarded
$$;
COMMENT ON FUNCTION alloc.discard_dead_letters(text) IS
	'forgets the dead letters of a handler, as view dead_letters names it, or of all; returns how many';

CREATE VIEW alloc.dead_letters AS
SELECT delivery_id AS id, event_id, handler, attempts, last_error, at
  FROM alloc.delivery
 WHERE next_at IS NULL;
COMMENT ON VIEW alloc.dead_letters IS
	'events that a handler failed on for good: how often it was tried, the last error, and when that was';

SELECT pg_catalog.pg_extension_config_dump('alloc.subscription_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.subscription', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.delivery_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.delivery', '');
