-- Readers of the event log.

CREATE FUNCTION alloc.create_consumer(name text, start text DEFAULT 'now')
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_create_consumer'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.create_consumer(text, text) IS
	'creates a durable reader of the event log; start: ''now'', what commits from now on, or ''beginning'', all there is';

CREATE FUNCTION alloc.drop_consumer(name text)
RETURNS void
AS 'MODULE_PATHNAME', 'alloc_drop_consumer'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.drop_consumer(text) IS
	'removes a reader of the event log';

CREATE FUNCTION alloc.fetch_events(
	consumer text, max_events integer DEFAULT 1000,
	OUT event_id bigint, OUT at timestamptz, OUT type text, OUT sku text,
	OUT orderid text, OUT batchref text, OUT qty bigint, OUT payload jsonb)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_fetch_events'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.fetch_events(text, integer) IS
	'the next events for a consumer, at most max_events, in causal order; they count as had when the transaction commits';

CREATE FUNCTION alloc.was_given(
	seen_xmax bigint, seen_open bigint[],
	upto_xmax bigint, upto_open bigint[], given_to bigint,
	event_id bigint, xact bigint)
RETURNS boolean
AS 'MODULE_PATHNAME', 'alloc_was_given'
LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION alloc.was_given(bigint, bigint[], bigint, bigint[], bigint, bigint, bigint) IS
	'has a reader at this position (columns of alloc.position) had this event? for the views';

-- A reader has had whatever is below its first mark.
CREATE VIEW alloc.consumers AS
SELECT c.name,
       (SELECT pg_catalog.count(*)
          FROM alloc.event e
         WHERE e.event_id OPERATOR(pg_catalog.>) p.marks[2]
           AND NOT alloc.was_given(p.seen_xmax, p.seen_open, p.upto_xmax,
                                   p.upto_open, p.given_to, e.event_id, e.xact))
           AS pending,
       p.last_event_id, p.last_fetch_at
  FROM alloc.consumer c
  JOIN alloc.position p USING (consumer_id)
 WHERE c.kind OPERATOR(pg_catalog.=) 'consumer';
COMMENT ON VIEW alloc.consumers IS
	'readers of the event log: events that each has still to fetch, the last one it had, and when it fetched';
