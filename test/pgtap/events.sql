-- The event log: keys of each type, order, moment; the JSON.

\ir common.psql
SELECT plan(45);

-- keys: those of the newest event of a type, in order.
CREATE FUNCTION keys(of_type text) RETURNS text[]
LANGUAGE sql STABLE AS $$
	SELECT array_agg(key ORDER BY key COLLATE "C")
	  FROM (SELECT payload FROM alloc.events WHERE type = of_type ORDER BY event_id DESC LIMIT 1) e,
		   jsonb_object_keys(payload) AS key
$$;

-- payload: of the newest event, without event_id and at.
CREATE FUNCTION payload() RETURNS jsonb
LANGUAGE sql STABLE AS $$
	SELECT payload - 'event_id' - 'at' FROM alloc.events ORDER BY event_id DESC LIMIT 1
$$;

-- Exactly the keys that apply

BEGIN;
SELECT alloc.add_batch('ship', 'lamp', 30, '2011-01-02');
SELECT is(keys('batch_created'), '{at,batchref,eta,event_id,qty,sku,type}'::text[], 'batch_created with eta: its keys');
SELECT is(payload(), '{"type": "batch_created", "sku": "lamp", "qty": 30, "batchref": "ship", "eta": "2011-01-02"}',
	'batch_created with eta: its values');
SELECT alloc.add_batch('store', 'lamp', 0);
SELECT is(keys('batch_created'), '{at,batchref,event_id,qty,sku,type}'::text[], 'batch_created without eta: its keys');
SELECT is(payload(), '{"type": "batch_created", "sku": "lamp", "qty": 0, "batchref": "store"}',
	'batch_created of nothing: qty is 0, not absent');
SELECT alloc.allocate('o1', 'lamp', 20);
SELECT is(keys('allocated'), '{at,batchref,event_id,orderid,qty,sku,type}'::text[], 'allocated: its keys');
SELECT is(payload(), '{"type": "allocated", "orderid": "o1", "sku": "lamp", "qty": 20, "batchref": "ship"}',
	'allocated: its values');
SELECT alloc.allocate('o2', 'lamp', 11);
SELECT is(keys('out_of_stock'), '{at,event_id,orderid,qty,sku,type}'::text[], 'out_of_stock: its keys, batchref is absent');
SELECT is(payload(), '{"type": "out_of_stock", "orderid": "o2", "sku": "lamp", "qty": 11}', 'out_of_stock: its values');
SELECT alloc.change_batch_quantity('ship', 25);
SELECT is(keys('batch_quantity_changed'), '{at,batchref,event_id,old_qty,qty,sku,type}'::text[],
	'batch_quantity_changed: its keys, eta is absent');
SELECT is(payload(), '{"type": "batch_quantity_changed", "sku": "lamp", "qty": 25, "old_qty": 30, "batchref": "ship"}',
	'batch_quantity_changed: its values');
SELECT alloc.change_batch_quantity('store', 7), alloc.change_batch_quantity('store', 0);
SELECT is(payload(), '{"type": "batch_quantity_changed", "sku": "lamp", "qty": 0, "old_qty": 7, "batchref": "store"}',
	'batch_quantity_changed to 0: qty is 0');
SELECT alloc.change_batch_quantity('store', 7);
SELECT is(payload() - 'sku', '{"type": "batch_quantity_changed", "qty": 7, "old_qty": 0, "batchref": "store"}',
	'batch_quantity_changed from 0: old_qty is 0');
SELECT alloc.deallocate('o1', 'lamp');
SELECT is(keys('deallocated'), '{at,batchref,event_id,orderid,qty,sku,type}'::text[], 'deallocated: its keys');
SELECT is(payload(), '{"type": "deallocated", "orderid": "o1", "sku": "lamp", "qty": 20, "batchref": "ship"}',
	'deallocated: its values');
SELECT alloc.add_batch('most', 'sand', 9223372036854775807, 'infinity');
SELECT is(payload(), '{"type": "batch_created", "sku": "sand", "qty": 9223372036854775807, "batchref": "most", "eta": "infinity"}',
	'2^63-1 is exact, and infinity is a day');
SELECT results_eq('SELECT DISTINCT type FROM alloc.event ORDER BY type',
	ARRAY['allocated', 'batch_created', 'batch_quantity_changed', 'deallocated', 'out_of_stock'],
	'no other types');

-- The columns of the view are what is in the JSON

SELECT is_empty($$SELECT * FROM alloc.events
				   WHERE (event_id, at, type, sku, orderid, batchref, qty)
						 IS DISTINCT FROM
						 ((payload->>'event_id')::bigint, (payload->>'at')::timestamptz, payload->>'type', payload->>'sku',
						  payload->>'orderid', payload->>'batchref', (payload->>'qty')::bigint)$$,
	'the columns of events are those of the payload');
SELECT is_empty($$SELECT * FROM alloc.event e JOIN alloc.events v USING (event_id)
				   WHERE (e.eta, e.old_eta, e.old_qty)
						 IS DISTINCT FROM
						 ((payload->>'eta')::date, (payload->>'old_eta')::date, (payload->>'old_qty')::bigint)$$,
	'and what has no column there is in the payload');
SELECT is_empty($$SELECT * FROM alloc.events, jsonb_each(payload) WHERE value = 'null'$$,
	'no key has the value null');
SELECT results_eq($$SELECT DISTINCT key, jsonb_typeof(value) FROM alloc.events, jsonb_each(payload) ORDER BY 1$$,
	$$VALUES ('at', 'string'), ('batchref', 'string'), ('eta', 'string'), ('event_id', 'number'), ('old_qty', 'number'),
			 ('orderid', 'string'), ('qty', 'number'), ('sku', 'string'), ('type', 'string')$$,
	'ids and quantities are numbers, the rest strings');
SELECT results_eq('SELECT payload FROM alloc.events ORDER BY event_id',
	'SELECT alloc.event_payload(e) FROM alloc.event e ORDER BY event_id', 'event_payload() makes the payload');
SELECT is(alloc.event_payload(NULL), NULL, 'of NULL it makes NULL');
ROLLBACK;

-- The moment: of the statement, whatever the session's settings

SET TimeZone = 'Asia/Kathmandu';
BEGIN;
SELECT alloc.add_batch('b', 'clock', 100), statement_timestamp() AS at \gset
SELECT is((SELECT at FROM alloc.events WHERE batchref = 'b'), :'at'::timestamptz, 'at is the statement''s time');
SELECT pg_sleep(0.002);
SELECT alloc.allocate('o1', 'clock', 1), alloc.allocate('o2', 'clock', 1), statement_timestamp() AS at \gset
SELECT results_eq($$SELECT at FROM alloc.events WHERE type = 'allocated'$$,
	format('VALUES (%1$L::timestamptz), (%1$L)', :'at'), 'two calls of a statement have the same at');
SELECT isnt((SELECT min(at) FROM alloc.event), (SELECT max(at) FROM alloc.event),
	'two statements of a transaction have not');
SELECT ok((SELECT min(at) = now() OR min(at) > now() FROM alloc.event), 'at is not before the transaction began');
SELECT matches((SELECT payload->>'at' FROM alloc.events ORDER BY event_id LIMIT 1),
	'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$', 'at is ISO 8601 in UTC');
CREATE TEMPORARY TABLE payload_before AS SELECT event_id, payload FROM alloc.events;
SET LOCAL TimeZone = 'America/St_Johns';
SET LOCAL DateStyle = 'German, DMY';
SET LOCAL IntervalStyle = 'iso_8601';
SET LOCAL extra_float_digits = -5;
SET LOCAL bytea_output = 'escape';
SELECT is_empty('SELECT event_id, payload FROM alloc.events EXCEPT TABLE payload_before',
	'time zone and date style do not change a payload');
SELECT alloc.add_batch('german', 'clock', 1, '2011-02-01');
SELECT is((SELECT payload->>'eta' FROM alloc.events WHERE batchref = 'german'), '2011-02-01', 'nor that of a new event');
ROLLBACK;
RESET TimeZone;

-- Ids

BEGIN;
SELECT alloc.add_batch('b', 'many', 1000);
SELECT mark();
SELECT count(alloc.allocate('o' || n, 'many', 1)) FROM generate_series(1, 100) n;
SELECT results_eq($$SELECT orderid FROM alloc.events WHERE type = 'allocated' ORDER BY event_id$$,
	$$SELECT 'o' || n FROM generate_series(1, 100) n$$, 'ids increase in the order of calls');
SELECT is((SELECT count(DISTINCT event_id) FROM alloc.events), 101::bigint, 'each event has an id of its own');
SELECT results_eq($$SELECT a.event_id FROM alloc.allocation a ORDER BY 1$$,
	$$SELECT event_id FROM alloc.events WHERE type = 'allocated' ORDER BY 1$$,
	'a line knows the event that allocated it');
COMMIT;
SELECT max(event_id) AS last FROM alloc.event \gset
BEGIN;
SELECT alloc.allocate('rolled back', 'many', 1);
ROLLBACK;
SELECT alloc.allocate('after', 'many', 1);
SELECT cmp_ok((SELECT max(event_id) FROM alloc.event), '>', :last::bigint, 'ids increase over a rollback');
SELECT is((SELECT count(*) FROM alloc.events WHERE orderid = 'rolled back'), 0::bigint, 'an event is rolled back with its transaction');
SELECT is((SELECT seqcache FROM pg_sequence WHERE seqrelid = 'alloc.event_id_seq'::regclass), 1::bigint,
	'the sequence of ids has no cache: ids are in the order of causes');

-- An event repeats what it is about: it outlives it

BEGIN;
SELECT alloc.add_batch('gone', 'gone', 1), alloc.allocate('gone', 'gone', 1);
CREATE TEMPORARY TABLE gone_before AS SELECT * FROM alloc.events WHERE sku = 'gone';
DELETE FROM alloc.allocation WHERE sku = 'gone';
DELETE FROM alloc.slot WHERE batch_id = (SELECT batch_id FROM alloc.batch WHERE ref = 'gone');
DELETE FROM alloc.batch WHERE ref = 'gone';
DELETE FROM alloc.product WHERE sku = 'gone';
SELECT set_eq($$SELECT * FROM alloc.events WHERE sku = 'gone'$$, 'SELECT * FROM gone_before',
	'the log needs no other table');
ROLLBACK;

-- event_payload() of rows that no command wrote

BEGIN;
SELECT is(alloc.event_payload(ROW(7, '2011-01-02 03:04:05.5+00', 5, 1, 2, 3, '2011-01-02 04:00+00', '2011-01-03', '2011-01-04', false, 't', 's', 'o', 'b', 'tp', '{4}')::alloc.event),
	'{"event_id": 7, "type": "t", "at": "2011-01-02T03:04:05.5+00:00", "orderid": "o", "sku": "s", "qty": 1, "old_qty": 2,
	  "batchref": "b", "eta": "2011-01-03", "old_eta": "2011-01-04", "expires_at": "2011-01-02T04:00:00+00:00", "traceparent": "tp"}',
	'event_payload() shows all of a row');
SELECT is(alloc.event_payload(ROW(-9223372036854775808, 'infinity', 5, NULL, NULL, NULL, NULL, '-infinity', NULL, false, '"', E'\\', '', E'\n', NULL, NULL)::alloc.event),
	'{"event_id": -9223372036854775808, "type": "\"", "at": "infinity", "orderid": "", "sku": "\\", "batchref": "\n", "eta": "-infinity"}',
	'event_payload() of odd values');
ROLLBACK;

-- Nothing but commands writes it

SELECT is((SELECT count(*) FROM alloc.event), 102::bigint, 'the log has what was committed');
BEGIN;
CREATE TEMPORARY TABLE log_before AS TABLE alloc.event;
SELECT alloc.deallocate('o1', 'many'), alloc.change_batch_quantity('b', 50), alloc.add_batch('b2', 'many', 30, '2011-01-01');
SELECT is_empty('TABLE log_before EXCEPT TABLE alloc.event', 'commands do not change or delete events');
SELECT is((SELECT count(*) FROM alloc.event), 102 + 1 + (1 + 3 * 50) + (1 + 30)::bigint,
	'a shrink has three events for each line that has to wait and one for the quantity; a batch one for each line that it serves');
ROLLBACK;
BEGIN;
SELECT set_config('test.events', count(*)::text, true) FROM alloc.event;
SELECT alloc.allocate('o2', 'many', 1), alloc.deallocate('nobody', 'many'), alloc.add_batch('b', 'many', 1000);
SELECT alloc.change_batch_quantity('b', 1000);
SELECT is((SELECT count(*)::text FROM alloc.event), current_setting('test.events'), 'what changes nothing records nothing');
SELECT * FROM alloc.allocations, alloc.batches, alloc.stock, alloc.events LIMIT 0;
SELECT is((SELECT count(*)::text FROM alloc.event), current_setting('test.events'), 'queries record nothing');
ROLLBACK;
SELECT sound('all of this');
SELECT is((SELECT max(length) FROM (SELECT octet_length(payload::text) AS length FROM alloc.events) e) < 8000, true,
	'payloads are below the 8000 bytes of NOTIFY');
SELECT * FROM finish();
