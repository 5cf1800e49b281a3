-- The peer's allocate() with its event sent as most would do it: by pg_notify()
-- in the same transaction, to the channels and with the JSON of the extension.
--
-- For orders that are new, as in the benchmarks.  After the peer.

\set ON_ERROR_STOP on
CREATE FUNCTION alloc_peer.allocate_notify(p_orderid text, p_sku text, p_qty bigint)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	v_ref      text := alloc_peer.allocate(p_orderid, p_sku, p_qty);
	v_event_id bigint := currval('alloc_peer.event_id_seq');
BEGIN
	PERFORM pg_notify('alloc_allocated', json_build_object(
		'event_id', v_event_id, 'type', 'allocated', 'at', statement_timestamp(),
		'orderid', p_orderid, 'sku', p_sku, 'qty', p_qty, 'batchref', v_ref)::text);
	PERFORM pg_notify('alloc_events', v_event_id::text);
	RETURN v_ref;
END
$$;
