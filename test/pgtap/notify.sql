-- NOTIFY, as a client that listens hears it.  The client is this psql: it
-- prints what it hears after each statement, into a file that is read again.

\ir common.psql
SELECT plan(34);
\set file `mktemp`

-- heard: what psql printed, in any language of its messages.
CREATE TABLE heard (id bigint GENERATED ALWAYS AS IDENTITY, channel text, payload text);
CREATE FUNCTION hear(printed text) RETURNS void LANGUAGE sql AS $$
	TRUNCATE heard;
	INSERT INTO heard (channel, payload)
	SELECT found[1], found[2]
	  FROM regexp_matches(printed, '"(alloc_\w+)"[^{0-9]*(\{.*\}|[0-9]+)', 'gn') AS found;
$$;
-- said: the news of the log, as they should have been heard: an event each,
-- then the doorbell.
CREATE FUNCTION said() RETURNS TABLE (channel text, payload jsonb) LANGUAGE sql AS $$
	(SELECT 'alloc_' || type, payload FROM alloc.events
	  WHERE event_id > current_setting('test.mark')::bigint ORDER BY event_id)
	UNION ALL
	SELECT 'alloc_events', to_jsonb(max(event_id)) FROM alloc.event
$$;

LISTEN alloc_events;
LISTEN alloc_batch_created;
LISTEN alloc_batch_quantity_changed;
LISTEN alloc_allocated;
LISTEN alloc_deallocated;
LISTEN alloc_out_of_stock;

-- The default, and commit: each event, then the doorbell

SELECT is(current_setting('alloc.notify', true), NULL, 'before the library is loaded the setting is unknown');
SELECT mark();
\o :file
SELECT alloc.add_batch('b', 's', 10);
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT is(current_setting('alloc.notify'), 'auto', 'alloc.notify is auto by default');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()',
	'auto: a batch is heard, then the doorbell');

SET alloc.notify = commit;
SELECT alloc.add_batch('c', 's', 5, '2011-01-02');
SELECT mark();
\o :file
BEGIN;
SELECT alloc.allocate('o1', 's', 4), alloc.allocate('o2', 's', 4), alloc.allocate('o3', 's', 6);
SELECT alloc.allocate('o1', 's', 4);
SELECT * FROM alloc.change_batch_quantity('b', 6);
SELECT alloc.deallocate('o1', 's'), alloc.deallocate('nobody', 's');
COMMIT;
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq('SELECT channel FROM heard ORDER BY id', ARRAY[
	'alloc_allocated', 'alloc_allocated', 'alloc_out_of_stock', 'alloc_deallocated',
	'alloc_batch_quantity_changed', 'alloc_allocated', 'alloc_deallocated', 'alloc_events'],
	'commit: each event of a transaction on its channel, in order; the doorbell once, last');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()',
	'commit: payloads are those of view events, the doorbell''s the highest id');
SELECT is((SELECT max(octet_length(payload)) FROM heard) < 8000, true, 'commit: no payload has 8000 bytes');
SELECT results_eq($$SELECT array_agg(key ORDER BY key COLLATE "C")::text[] FROM heard, jsonb_object_keys(payload::jsonb) AS key
					 WHERE channel = 'alloc_allocated' GROUP BY id$$,
	$$SELECT '{at,batchref,event_id,orderid,qty,sku,type}'::text[] FROM generate_series(1, 3)$$,
	'commit: alloc_allocated has exactly event_id, type, at, orderid, sku, qty, batchref');
SELECT matches(payload, '^\{"event_id": \d+, "type": "allocated", "at": "[^"]+", "orderid": "o1", "sku": "s", "qty": 4, "batchref": "b"\}$',
	'commit: in this order')
  FROM heard WHERE channel = 'alloc_allocated' AND payload LIKE '%"o1"%';

-- What is undone is not heard

SELECT mark();
\o :file
BEGIN;
SELECT alloc.allocate('undone', 's', 1);
ROLLBACK;
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT is_empty('SELECT * FROM heard', 'of a transaction that is rolled back nothing is heard, not even the doorbell');

\o :file
BEGIN;
SELECT alloc.allocate('kept', 's', 1);
SAVEPOINT a;
SELECT alloc.allocate('undone', 's', 1);
SAVEPOINT b;
SELECT alloc.deallocate('undone', 's');
ROLLBACK TO SAVEPOINT a;
COMMIT;
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()',
	'of a savepoint that is rolled back nothing is heard, and the doorbell does not ring for it');
SELECT is((SELECT count(*) FROM heard), 2::bigint, 'that is one event and the doorbell');

SELECT mark();
\o :file
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SELECT alloc.allocate('inner', 's', 1);
RELEASE SAVEPOINT b;
SAVEPOINT c;
SELECT alloc.deallocate('inner', 's');
ROLLBACK TO SAVEPOINT c;
RELEASE SAVEPOINT a;
COMMIT;
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()',
	'of released savepoints all is heard');
SELECT is((SELECT count(*) FROM heard), 2::bigint, 'that is one event and the doorbell');

\o :file
BEGIN;
SAVEPOINT a;
SELECT alloc.deallocate('inner', 's');
ROLLBACK TO SAVEPOINT a;
SELECT 1;
COMMIT;
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT is_empty('SELECT * FROM heard', 'when all is undone by savepoints the doorbell does not ring');

CREATE FUNCTION vain(orderid text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.allocate(orderid, 's', 1);
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	RETURN alloc.allocate(orderid || '!', 's', 1);
END
$$;
SELECT mark();
\o :file
SELECT vain('v');
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()',
	'of an exception block what came after the error is heard');
SELECT is((SELECT count(*) FROM heard), 2::bigint, 'that is one event and the doorbell');

-- What changes nothing is not heard

\o :file
SELECT alloc.allocate('v!', 's', 1), alloc.deallocate('nobody', 's'), alloc.add_batch('c', 's', 5, '2011-01-02');
SELECT * FROM alloc.change_batch_quantity('b', 6);
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT is_empty('SELECT * FROM heard', 'commands that change nothing are silent');

-- Each transaction rings once

\o :file
SELECT alloc.deallocate('v!', 's');
SELECT alloc.deallocate('kept', 's');
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq('SELECT channel FROM heard ORDER BY id',
	ARRAY['alloc_deallocated', 'alloc_events', 'alloc_deallocated', 'alloc_events'],
	'two transactions ring twice');
SELECT results_eq($$SELECT payload::bigint FROM heard WHERE channel = 'alloc_events' ORDER BY id$$,
	$$SELECT event_id FROM (SELECT event_id FROM alloc.event ORDER BY event_id DESC LIMIT 2) e ORDER BY 1$$,
	'each with its own highest id');

-- Many lines in one call

CREATE FUNCTION vain_lines(lines alloc.order_line[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM alloc.allocate_lines(lines);
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero OR SQLSTATE 'SK001' OR SQLSTATE 'SK003' THEN
	RETURN SQLSTATE;
END
$$;
SELECT alloc.add_batch('bulk', 'bulk', 10);
SELECT alloc.allocate('there', 'bulk', 1);
SELECT mark();
\o :file
SELECT * FROM alloc.allocate_lines(ARRAY[('l1', 'bulk', 2), ('l2', 'bulk', 20), ('l3', 'bulk', 3)]::alloc.order_line[]);
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq('SELECT channel FROM heard ORDER BY id', ARRAY['alloc_allocated', 'alloc_out_of_stock', 'alloc_allocated', 'alloc_events'],
	'allocate_lines(): each line is heard, in order; the doorbell once, last');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()',
	'with the payloads of view events');

-- Here it finds out late that lines are there, and begins anew.
SELECT mark();
\o :file
SELECT * FROM alloc.allocate_lines(ARRAY[('l4', 'bulk', 1), ('there', 'bulk', 1), ('l5', 'bulk', 1), ('l4', 'bulk', 1)]::alloc.order_line[]);
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq($$SELECT payload::jsonb->>'orderid' FROM heard WHERE channel = 'alloc_allocated' ORDER BY id$$, ARRAY['l4', 'l5'],
	'a line that is there, or comes twice, is not heard');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()', 'but each event once, and the doorbell');

SELECT mark();
\o :file
SELECT * FROM alloc.allocate_lines(ARRAY[('l4', 'bulk', 1), ('there', 'bulk', 1)]::alloc.order_line[]);
SELECT * FROM alloc.allocate_lines('{}');
SELECT vain_lines(ARRAY[('undone', 'bulk', 1)]::alloc.order_line[]), vain_lines(ARRAY[('undone', 'bulk', 1), ('there', 'bulk', 2)]::alloc.order_line[]),
	   vain_lines(ARRAY[('undone', 'bulk', 1), ('o', 'unknown', 2)]::alloc.order_line[]);
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT is_empty('SELECT * FROM heard', 'of lines that are there, of no line, and of what is undone nothing is heard');

SELECT mark();
\o :file
BEGIN;
SELECT alloc.deallocate('l1', 'bulk'), vain_lines(ARRAY[('undone', 'bulk', 1)]::alloc.order_line[]);
SELECT * FROM alloc.allocate_lines(ARRAY[('l6', 'bulk', 1), ('l6', 'bulk', 1)]::alloc.order_line[]);
SELECT vain_lines(ARRAY[('l7', 'bulk', 1), ('o', 'unknown', 2)]::alloc.order_line[]);
COMMIT;
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()',
	'in a transaction with others and with errors all that was kept is heard');
SELECT results_eq('SELECT channel FROM heard ORDER BY id', ARRAY['alloc_deallocated', 'alloc_allocated', 'alloc_events'],
	'that is two events and the doorbell');

-- Off: nothing is heard, the log is as ever

SET alloc.notify = off;
SELECT mark();
\o :file
SELECT alloc.allocate('quiet', 's', 1);
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT is_empty('SELECT * FROM heard', 'off: nothing is heard');
SELECT results_eq('SELECT news()', ARRAY['allocated quiet s 1 b'], 'off: the event is recorded');

-- Within one transaction the setting may change

SELECT mark();
\o :file
BEGIN;
SET LOCAL alloc.notify = commit;
SELECT alloc.deallocate('quiet', 's');
SET LOCAL alloc.notify = off;
SELECT alloc.allocate('quieter', 's', 1);
COMMIT;
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq('SELECT channel FROM heard ORDER BY id', ARRAY['alloc_deallocated', 'alloc_events'],
	'what is recorded while it is commit is heard');
SELECT is(current_setting('alloc.notify'), 'off', 'afterwards it is as before');

-- Keys that JSON has to escape are heard as they are

SET alloc.notify = auto;
SELECT set_config('test.key', E'a "lamp"\\ Füße 🪔 \x01\n' || repeat(chr(2), 200), false);
SELECT mark();
\o :file
SELECT alloc.add_batch(key, key, 1), alloc.allocate(key, key, 1) FROM current_setting('test.key') AS key;
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT is((SELECT payload::jsonb->>'orderid' FROM heard WHERE channel = 'alloc_allocated'), current_setting('test.key'),
	'a key of quotes, newlines, emoji and control characters is heard as it is');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()', 'in all its events');

-- Many of one statement

SELECT alloc.add_batch('many', 'many', 1000);
SELECT mark();
\o :file
SELECT count(alloc.allocate('o' || n, 'many', 1)) FROM generate_series(1, 500) n;
\o
\set printed `cat :file`
SELECT hear(:'printed');
SELECT results_eq('SELECT channel, payload::jsonb FROM heard ORDER BY id', 'SELECT * FROM said()',
	'500 events of a statement are heard in order, and one doorbell');

\setenv file :file
\! rm -f "$file"
SELECT sound('notify');
SELECT * FROM finish();
