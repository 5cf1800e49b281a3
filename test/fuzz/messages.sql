-- Messages that are wrong in any way, for handle(): whatever comes, it is carried out
-- or refused with an error that a sender can understand, and the server lives.
--
-- It runs in a server, by psql with "seconds" and "seed", because there is nothing of
-- it to run without one: PostgreSQL parses the JSON, and what message_read.c does is
-- to ask PostgreSQL's jsonb, numeric and date functions, which raise errors by
-- longjmp and allocate in its memory contexts.  With a sanitized server (see
-- test/sanitize) memory is looked at as well.
--
-- Each message begins as one of seed_message, is changed by values and keys, then one
-- in three by its bytes.

\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS alloc;
SELECT setseed(:seed) \g /dev/null

CREATE TABLE seed_message (message jsonb NOT NULL);
\copy seed_message FROM 'test/fuzz/messages.json'

CREATE FUNCTION dice(n int) RETURNS int
LANGUAGE sql VOLATILE AS 'SELECT 1 + floor(random() * n)::int';

CREATE FUNCTION pick(texts text[]) RETURNS text
LANGUAGE sql VOLATILE AS 'SELECT texts[dice(cardinality(texts))]';

-- Values as JSON, of the kinds that are at an edge of something.
CREATE FUNCTION odd_scalar() RETURNS text
LANGUAGE sql VOLATILE AS $$
	SELECT CASE dice(8)
	WHEN 1 THEN pick(ARRAY['0', '-1', '1', '-0', '1.0', '0.5', '1e3', '1e-400', '1e400', '1E+131071',
	                       '9223372036854775807', '9223372036854775808', '-9223372036854775808',
	                       '-9223372036854775809', '9223372036854775807.5', '1e18', '1e19', '4611686018427387904'])
	WHEN 2 THEN pick(ARRAY['null', 'true', 'false', '""', '" "', '{}', '[]', '[null]', '{"": null}'])
	WHEN 3 THEN pick(ARRAY['"2031-03-01"', '"2031-02-29"', '"infinity"', '"-infinity"', '"epoch"', '"now"',
	                       '"today"', '"5874897-12-31"', '"5874898-01-01"', '"4713-01-01 BC"', '"0000-00-00"',
	                       '"2031-3-1"', '"20310301"', '"2031-060"', '"J2451187"', '"99999999-01-01"'])
	WHEN 4 THEN pick(ARRAY['"PT15M"', '"P"', '"PT"', '"P1Y2M3DT4H5M6S"', '"-PT1H"', '"PT-1S"', '"P178000000Y"',
	                       '"P99999999999Y"', '"PT1e400S"', '"P0001-02-03T04:05:06"', '"PT0S"', '"P1W"', '"1 hour"', '"PT0.0000001S"'])
	WHEN 5 THEN to_json(repeat(pick(ARRAY['a', E'\u00e9', E'\U0001F4A1', E'\t', '"', E'\\', '%s%n', '$1']),
	                           (dice(3) ^ dice(7))::int))::text
	WHEN 6 THEN '"' || pick(ARRAY['\u0000', '\ud800', '\udc00', '\ud83d\udca1', '\u0001', '\uffff', '\n', '\u202e']) || '"'
	WHEN 7 THEN to_json(pick(ARRAY['order 1', 'sku 1', 'batch 1', 'all', 'partial', 'backorder', 'ALL', 'allocate',
	                               'add_batch', 'handle', 'check', 'message 1', 'message 2']))::text
	ELSE to_json(chr(dice(1000)) || chr(dice(50000) + 32))::text
	END
$$;

CREATE FUNCTION odd_value(depth int) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	IF depth > 4 OR dice(4) > 1 THEN
		RETURN odd_scalar();
	ELSIF dice(200) = 1 THEN
		RETURN repeat('[', 20000) || repeat(']', 20000);
	ELSIF dice(2) = 1 THEN
		RETURN (SELECT '[' || string_agg(odd_value(depth + 1), ',') || ']' FROM generate_series(1, dice(4)));
	END IF;
	RETURN (SELECT '{' || string_agg(odd_key() || ':' || odd_value(depth + 1), ',') || '}'
	          FROM generate_series(1, dice(4)));
END
$$;

CREATE FUNCTION odd_key() RETURNS text
LANGUAGE sql VOLATILE AS $$
	SELECT CASE dice(6) WHEN 1 THEN to_json(chr(dice(1000) + 32))::text
	ELSE to_json(pick(ARRAY['command', 'message_id', 'traceparent', 'orderid', 'sku', 'qty', 'ref', 'eta',
	                        'lines', 'mode', 'ttl', 'QTY', '']))::text END
$$;

-- An object's members as text, some of them changed; the same key may come twice.
CREATE FUNCTION change_object(object jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	members text;
BEGIN
	SELECT string_agg(
		CASE dice(12) WHEN 1 THEN odd_key() ELSE to_json(key)::text END || ':' ||
		CASE WHEN dice(6) = 1 THEN odd_value(1)
		     WHEN key = 'lines' AND jsonb_typeof(value) = 'array' AND dice(2) = 1 THEN change_lines(value)
		     ELSE value::text END, ',' ORDER BY random())
	  INTO members
	  FROM jsonb_each(object) WHERE dice(15) > 1;
	IF dice(8) = 1 THEN
		members := concat_ws(',', members, odd_key() || ':' || odd_value(1));
	END IF;
	RETURN '{' || coalesce(members, '') || '}';
END
$$;

CREATE FUNCTION change_lines(lines jsonb) RETURNS text
LANGUAGE sql VOLATILE AS $$
	SELECT '[' || coalesce(string_agg(
		CASE dice(8) WHEN 1 THEN odd_value(2)
		ELSE CASE jsonb_typeof(line) WHEN 'object' THEN change_object(line) ELSE line::text END END, ','), '') || ']'
	  FROM jsonb_array_elements(lines) line, generate_series(1, CASE dice(20) WHEN 1 THEN 300 ELSE 1 END)
$$;

CREATE FUNCTION change_bytes(message text) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	FOR n IN 1 .. dice(3) LOOP
		message := overlay(message PLACING pick(ARRAY['', '0', '9', 'e', '.', '-', '"', '{', '}', '[', ']', ',', ':',
			E'\\', 'null', chr(dice(255)), ' ', '00000000000000000000']) FROM dice(length(message) + 1) FOR dice(2) - 1);
	END LOOP;
	RETURN message;
END
$$;

-- What may be answered, by SQLSTATE; all else is a finding.
CREATE TABLE answer (state text PRIMARY KEY, times bigint NOT NULL, example text);

CREATE FUNCTION is_good(state text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
	SELECT state IN ('00000', '22P02', '22P05', '54001', '22004', '22023', '22003', '22001', '22007', '22008', '22015',
	                 '23505', '55000', 'SK001', 'SK002', 'SK003', 'SK004', 'SK005', 'SK006')
$$;

CREATE PROCEDURE send(message text)
LANGUAGE plpgsql AS $$
DECLARE
	state text := '00000';
BEGIN
	BEGIN
		PERFORM alloc.handle(message::jsonb);
	EXCEPTION WHEN OTHERS THEN
		state := SQLSTATE;
		IF NOT is_good(state) THEN
			message := format('%s: %s', SQLERRM, message);
		END IF;
	END;
	INSERT INTO answer AS a VALUES (state, 1, left(message, 2000))
	    ON CONFLICT ON CONSTRAINT answer_pkey DO UPDATE SET times = a.times + 1;
END
$$;

CREATE PROCEDURE send_for(seconds int)
LANGUAGE plpgsql AS $$
DECLARE
	message text;
BEGIN
	WHILE clock_timestamp() < statement_timestamp() + seconds * interval '1 s' LOOP
		SELECT change_object(m.message) INTO message FROM seed_message m ORDER BY random() LIMIT 1;
		CALL send(CASE dice(3) WHEN 1 THEN change_bytes(message) ELSE message END);
		COMMIT;
	END LOOP;
END
$$;

CALL send_for(:seconds);

\pset footer off
SELECT state, times, left(example, 60) AS example FROM answer ORDER BY times DESC;
SELECT format('%s messages', sum(times)) AS sent FROM answer;
\set QUIET off
DO $$
BEGIN
	IF EXISTS (SELECT FROM answer WHERE NOT is_good(state)) THEN
		RAISE EXCEPTION 'an answer that is none: %', (SELECT string_agg(example, E'\n') FROM answer WHERE NOT is_good(state));
	ELSIF EXISTS (SELECT FROM alloc.check()) THEN
		RAISE EXCEPTION 'check(): %', (SELECT string_agg(c::text, E'\n') FROM alloc.check() c);
	ELSIF (SELECT count(DISTINCT state) FROM answer) < 12 THEN
		RAISE EXCEPTION 'the messages are too much alike';
	END IF;
END
$$;
