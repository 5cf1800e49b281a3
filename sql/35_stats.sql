-- What an operator watches.

CREATE FUNCTION alloc.counters(OUT name text, OUT value bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_counters'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc.counters() IS
	'for view stats: what the commands have done in this database since the server was started, or since reset_stats(); value is NULL where the library is not preloaded';

CREATE FUNCTION alloc.reset_stats()
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_reset_stats'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION alloc.reset_stats() IS
	'sets the counters of this database to 0';

CREATE VIEW alloc.stats AS
WITH unsent AS (
	SELECT count(*) AS events, min(e.at) AS oldest
	  FROM alloc.event e
	  LEFT JOIN alloc.position p ON p.consumer_id OPERATOR(pg_catalog.=) 0
	 WHERE e.relay
	   AND e.event_id OPERATOR(pg_catalog.>) coalesce(p.marks[2], 0)
	   AND alloc.was_given(p.seen_xmax, p.seen_open, p.upto_xmax, p.upto_open,
	                       p.given_to, e.event_id, e.xact) IS NOT TRUE),
unhandled AS (
	SELECT count(*) AS events, min(e.at) AS oldest
	  FROM alloc.subscription s
	  JOIN alloc.consumer c
	    ON c.kind OPERATOR(pg_catalog.=) 'handler'
	   AND c.name OPERATOR(pg_catalog.=) s.subscription_id::text
	  JOIN alloc.position p USING (consumer_id)
	  JOIN alloc.event e
	    ON e.type OPERATOR(pg_catalog.=) s.event_type
	   AND e.event_id OPERATOR(pg_catalog.>) p.marks[2]
	   AND NOT alloc.was_given(p.seen_xmax, p.seen_open, p.upto_xmax, p.upto_open,
	                           p.given_to, e.event_id, e.xact)),
failed AS (
	SELECT count(*) FILTER (WHERE next_at IS NOT NULL) AS retries,
	       count(*) FILTER (WHERE next_at IS NULL) AS dead
	  FROM alloc.delivery)
SELECT name, value FROM alloc.counters()
UNION ALL
SELECT 'relay_pending', events FROM unsent
UNION ALL
SELECT 'relay_lag_ms', greatest(0, extract(epoch FROM clock_timestamp() OPERATOR(pg_catalog.-) oldest) OPERATOR(pg_catalog.*) 1000)::bigint FROM unsent
UNION ALL
SELECT 'handler_pending', events FROM unhandled
UNION ALL
SELECT 'handler_lag_ms', greatest(0, extract(epoch FROM clock_timestamp() OPERATOR(pg_catalog.-) oldest) OPERATOR(pg_catalog.*) 1000)::bigint FROM unhandled
UNION ALL
SELECT 'handler_retries', retries FROM failed
UNION ALL
SELECT 'dead_letters', dead FROM failed;
COMMENT ON VIEW alloc.stats IS
	'counters: calls of commands, lines, waits for stock, and over how many milliseconds they were counted; relay and handlers: events that are committed and not yet sent or handled, the age of the oldest in milliseconds, events to be tried again, and dead letters';
