-- Two readers of the log, both within a function: each call reads the next
-- events and returns how many.

-- A consumer of the extension.
CREATE FUNCTION read_by_consumer(p_reader text, p_max_events int)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_events bigint;
BEGIN
	PERFORM * FROM alloc.fetch_events(p_reader, p_max_events);
	GET DIAGNOSTICS v_events = ROW_COUNT;
	RETURN v_events;
END
$$;

-- What many write by hand: the position is the last event id that was read.
-- It loses what commits later with an id below that.
CREATE TABLE bench_position (reader text PRIMARY KEY, last_event_id bigint NOT NULL);

CREATE FUNCTION read_by_hand(p_reader text, p_max_events int)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_events bigint;
	v_last   bigint;
BEGIN
	SELECT last_event_id INTO v_last
	  FROM bench_position WHERE reader = p_reader FOR UPDATE;
	PERFORM * FROM alloc.events
	  WHERE event_id > v_last ORDER BY event_id LIMIT p_max_events;
	GET DIAGNOSTICS v_events = ROW_COUNT;
	UPDATE bench_position
	   SET last_event_id = coalesce((
			SELECT max(event_id)
			  FROM (SELECT event_id FROM alloc.events
					 WHERE event_id > v_last ORDER BY event_id LIMIT v_events) AS had),
			v_last)
	 WHERE reader = p_reader;
	RETURN v_events;
END
$$;
