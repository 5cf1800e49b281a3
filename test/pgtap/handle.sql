-- handle(): messages in JSON, each carried out once.

\ir common.psql
SELECT no_plan();

-- is_answer: one test, what handle() returns.
CREATE FUNCTION is_answer(message jsonb, result jsonb, what text) RETURNS text
LANGUAGE sql AS $$
	SELECT is(alloc.handle(message), jsonb_build_object('result', result), what)
$$;

-- allocation: a message that allocates one LAMP.
CREATE FUNCTION allocation(orderid text, message_id text) RETURNS jsonb
LANGUAGE sql AS $$
	SELECT jsonb_build_object('command', 'allocate', 'orderid', orderid, 'sku', 'LAMP', 'qty', 1, 'message_id', message_id)
$$;

-- Each command: its arguments, and the shape of its result

BEGIN;
SELECT mark();
SELECT is_answer('{"command": "add_batch", "ref": "b1", "sku": "LAMP", "qty": 10}', '"b1"', 'add_batch without eta');
SELECT is_answer('{"command": "add_batch", "ref": "b2", "sku": "LAMP", "qty": 10, "eta": "2031-03-01"}', '"b2"', 'add_batch with eta');
SELECT is_answer('{"command": "add_batch", "ref": "b1", "sku": "LAMP", "qty": 10, "eta": null}', '"b1"', 'add_batch with eta null, again');
SELECT is_answer('{"command": "allocate", "orderid": "o1", "sku": "LAMP", "qty": 4}', '"b1"', 'allocate: a batch');
SELECT is_answer('{"command": "allocate", "orderid": "o2", "sku": "LAMP", "qty": 1e1}', '"b2"', 'allocate: a number with an exponent');
SELECT is_answer('{"command": "allocate", "orderid": "o3", "sku": "LAMP", "qty": 100.00}', 'null', 'allocate: out of stock');
SELECT is_answer('{"command": "change_batch_quantity", "ref": "b1", "qty": 20}', '[]', 'change_batch_quantity: no line moves');
SELECT is_answer('{"command": "change_batch_quantity", "ref": "b2", "qty": 9}',
	'[{"orderid": "o2", "sku": "LAMP", "qty": 10, "old_batchref": "b2", "new_batchref": "b1"}]', 'change_batch_quantity: a line moves');
SELECT is_answer('{"command": "change_batch_quantity", "ref": "b1", "qty": 0}',
	'[{"orderid": "o1", "sku": "LAMP", "qty": 4, "old_batchref": "b1", "new_batchref": "b2"},
	  {"orderid": "o2", "sku": "LAMP", "qty": 10, "old_batchref": "b1", "new_batchref": null}]', 'change_batch_quantity: lines in their order');
SELECT is_answer('{"command": "allocate_lines", "lines": [{"orderid": "o5", "sku": "LAMP", "qty": 3}, {"orderid": "o1", "sku": "LAMP", "qty": 4},
														   {"orderid": "o6", "sku": "LAMP", "qty": 3}]}',
	'[{"orderid": "o5", "sku": "LAMP", "qty": 3, "batchref": "b2"}, {"orderid": "o1", "sku": "LAMP", "qty": 4, "batchref": "b2"},
	  {"orderid": "o6", "sku": "LAMP", "qty": 3, "batchref": null}]', 'allocate_lines: a row for each line, in their order');
SELECT is_answer('{"command": "allocate_lines", "lines": []}', '[]', 'allocate_lines without lines');
SELECT is_answer('{"command": "deallocate", "orderid": "o5", "sku": "LAMP"}', '"b2"', 'deallocate: a batch');
SELECT is_answer('{"command": "deallocate", "orderid": "o5", "sku": "LAMP"}', 'null', 'deallocate: nothing');
SELECT results_eq('SELECT news()', ARRAY[
	'batch_created LAMP 10 b1', 'batch_created LAMP 10 b2 eta 2031-03-01',
	'allocated o1 LAMP 4 b1', 'allocated o2 LAMP 10 b2', 'out_of_stock o3 LAMP 100',
	'batch_quantity_changed LAMP 20 b1 was 10',
	'deallocated o2 LAMP 10 b2', 'batch_quantity_changed LAMP 9 b2 was 10', 'allocated o2 LAMP 10 b1',
	'deallocated o2 LAMP 10 b1', 'deallocated o1 LAMP 4 b1', 'batch_quantity_changed LAMP 0 b1 was 20',
	'allocated o1 LAMP 4 b2', 'out_of_stock o2 LAMP 10', 'backordered o2 LAMP 10',
	'allocated o5 LAMP 3 b2', 'out_of_stock o6 LAMP 3', 'deallocated o5 LAMP 3 b2'],
	'the events are those of the commands');
SAVEPOINT here;
SELECT mark();
SELECT is_answer('{"command": "change_batch_eta", "ref": "b2", "eta": "2031-03-20"}',
	'[{"orderid": "o1", "sku": "LAMP", "qty": 4, "old_eta": "2031-03-01", "new_eta": "2031-03-20"}]', 'change_batch_eta: another day, a row for each line');
SELECT is_answer('{"command": "change_batch_eta", "ref": "b2", "eta": "2031-03-20"}', '[]', 'change_batch_eta: the same day');
SELECT is_answer('{"command": "change_batch_eta", "ref": "b2", "eta": null}',
	'[{"orderid": "o1", "sku": "LAMP", "qty": 4, "old_eta": "2031-03-20", "new_eta": null}]', 'change_batch_eta: it arrives');
SELECT is_answer('{"command": "change_batch_eta", "ref": "b1", "eta": "infinity"}', '[]', 'change_batch_eta: no line');
SELECT is_answer('{"command": "allocate", "orderid": "o7", "sku": "LAMP", "qty": 2}', '"b2"', 'allocate: from what has arrived');
SELECT is_answer('{"command": "ship", "orderid": "o7", "sku": "LAMP"}', '1', 'ship: a line');
SELECT is_answer('{"command": "ship", "orderid": "o7", "sku": null}', '0', 'ship: nothing is left');
SELECT is_answer('{"command": "ship", "orderid": "o1"}', '1', 'ship: all lines of an order');
SELECT is_answer('{"command": "allocate", "orderid": "o1", "sku": "LAMP", "qty": 4}', '"b2"', 'allocate: a line that was shipped has its batch');
SELECT is_answer('{"command": "deallocate", "orderid": "o1", "sku": "LAMP"}', 'null', 'deallocate: but is not allocated');
SELECT results_eq('SELECT news()', ARRAY[
	'batch_eta_changed LAMP b2 eta 2031-03-20 eta was 2031-03-01', 'promise_changed o1 LAMP 4 b2 eta 2031-03-20 eta was 2031-03-01',
	'batch_eta_changed LAMP b2 eta was 2031-03-20', 'promise_changed o1 LAMP 4 b2 eta was 2031-03-20', 'batch_eta_changed LAMP b1 eta infinity',
	'allocated o7 LAMP 2 b2', 'shipped o7 LAMP 2 b2', 'shipped o1 LAMP 4 b2'], 'with their events');
SELECT sound('ships');
SELECT mark();
SELECT is_answer('{"command": "add_batch", "ref": "b9", "sku": "HOLD", "qty": 10}', '"b9"', 'a batch to hold of');
SELECT is_answer('{"command": "hold", "orderid": "h1", "sku": "HOLD", "qty": 2, "ttl": "PT15M"}', '"b9"', 'hold: a batch');
SELECT is_answer('{"command": "hold", "orderid": "h1", "sku": "HOLD", "qty": 2, "ttl": "P1DT1H"}', '"b9"', 'hold again');
SELECT is_answer('{"command": "hold", "orderid": "h2", "sku": "HOLD", "qty": 20, "ttl": "PT0.5S"}', 'null', 'hold: out of stock');
SELECT is_answer('{"command": "extend_hold", "orderid": "h1", "ttl": "PT30M"}', '1', 'extend_hold: how many holds');
SELECT is_answer('{"command": "confirm", "orderid": "h1"}', '1', 'confirm: how many lines');
SELECT is_answer('{"command": "release", "orderid": "h1"}', '0', 'release: how many lines');
SELECT results_eq('SELECT news()', ARRAY['batch_created HOLD 10 b9', 'held h1 HOLD 2 b9', 'out_of_stock h2 HOLD 20', 'held h1 HOLD 2 b9 was 2',
	'confirmed h1 HOLD 2 b9'], 'with their events');
SELECT results_eq($$SELECT DISTINCT (payload->>'expires_at')::timestamptz - at FROM alloc.events WHERE type = 'held' AND orderid = 'h1' ORDER BY 1$$,
	ARRAY['15 minutes', '30 minutes']::interval[], 'and their moments');
ROLLBACK TO SAVEPOINT here;
SELECT is_empty('SELECT FROM alloc.message', 'messages without an id are not kept');
SELECT sound('all commands');

SELECT is_answer('{"command": "add_batch", "ref": "max", "sku": "MAX", "qty": 9223372036854775807, "eta": "infinity"}', '"max"', 'the largest bigint, and a day that never comes');
SELECT is_answer('{"command": "add_batch", "ref": "old", "sku": "OLD", "qty": 0, "eta": "0044-03-15 BC"}', '"old"', 'a day in the form of events');
SET LOCAL datestyle = 'SQL, DMY';
SELECT is_answer('{"command": "add_batch", "ref": "style", "sku": "STYLE", "qty": 1, "eta": "2031-03-01"}', '"style"', 'a day, whatever datestyle is');
RESET datestyle;
SELECT results_eq($$SELECT ref, eta FROM alloc.batches WHERE ref IN ('max', 'old', 'style') ORDER BY ref$$,
	$$VALUES ('max', 'infinity'::date), ('old', '0044-03-15 BC'), ('style', '2031-03-01')$$, 'days are those that were sent');
SELECT is_answer('{"command": "allocate", "command": "deallocate", "orderid": "a", "orderid": "none", "sku": "LAMP"}', 'null',
	'of a key that is there twice the last counts, as everywhere in jsonb');
SELECT is_answer(format('{"command": "add_batch", "ref": %s, "sku": %1$s, "qty": 1}', to_jsonb(key))::jsonb, to_jsonb(key), 'a key like ' || key)
  FROM (VALUES ('O''Reilly'), ('a "large" lamp'), ('C:\lamp'), (E'two\nlines'), ('Füße 照明器具 🪔'), ('{"sku": 1}'), ('''; DROP TABLE alloc.batch; --')) AS k (key);

-- A message with an id is carried out once

SELECT alloc.add_batch('c1', 'VASE', 10);
SELECT mark();
SELECT is_answer('{"command": "allocate", "orderid": "v1", "sku": "VASE", "qty": 2, "message_id": "m1"}', '"c1"', 'a new message_id');
SELECT results_eq($$SELECT message_id, answer, body_hash, received_at BETWEEN now() AND clock_timestamp() FROM alloc.message$$,
	$$VALUES ('m1', '{"result": "c1"}'::jsonb,
			  sha256(convert_to('{"command": "allocate", "orderid": "v1", "sku": "VASE", "qty": 2, "message_id": "m1"}'::jsonb::text, 'UTF8')), true)$$,
	'is kept with the answer, the hash of its body and the moment');
SELECT alloc.deallocate('v1', 'VASE');
SELECT is_answer('{"command": "allocate", "orderid": "v1", "sku": "VASE", "qty": 2, "message_id": "m1"}', '"c1"', 'again: the answer that it got then');
SELECT is_answer('   {"message_id":"m1",  "qty": 2.000, "sku":"\u0056ASE","orderid" : "v1","command":"allocate"}', '"c1"',
	'again, in another order, with other blanks, zeros and escapes');
SELECT results_eq('SELECT news()', ARRAY['allocated v1 VASE 2 c1', 'deallocated v1 VASE 2 c1'], 'and nothing else happens');
SELECT is(available('c1'), 10::bigint, 'to the stock');
SELECT is_answer('{"command": "allocate", "orderid": "v1", "sku": "VASE", "qty": 2, "message_id": "m2"}', '"c1"', 'the same with another id is another message');
SELECT is(available('c1'), 8::bigint, 'which is carried out');
SELECT is_answer('{"command": "allocate", "orderid": "v2", "sku": "VASE", "qty": 20, "message_id": "m3"}', 'null', 'a message that finds no stock');
SELECT alloc.add_batch('c2', 'VASE', 100);
SELECT is_answer('{"command": "allocate", "orderid": "v2", "sku": "VASE", "qty": 20, "message_id": "m3"}', 'null', 'again: it has its answer, though there is stock now');
SELECT is_answer('{"command": "allocate", "orderid": "v2", "sku": "VASE", "qty": 20}', '"c2"', 'without an id it is served');
SELECT results_eq($$SELECT alloc.handle(m) FROM unnest(ARRAY[1, 1, 2, 1]) n, allocation('p' || n, 'p' || n) m$$,
	$$SELECT '{"result": "b2"}'::jsonb FROM generate_series(1, 4)$$, 'several times in one statement');
SELECT results_eq($$SELECT lines('b2')$$, ARRAY['o1 4', 'p1 1', 'p2 1'], 'and each once');
SELECT is_answer('{"command": "change_batch_quantity", "ref": "c1", "qty": 0, "message_id": "m4"}',
	'[{"orderid": "v1", "sku": "VASE", "qty": 2, "old_batchref": "c1", "new_batchref": "c2"}]', 'rows as an answer');
SELECT is_answer('{"command": "change_batch_quantity", "ref": "c1", "qty": 0, "message_id": "m4"}',
	'[{"orderid": "v1", "sku": "VASE", "qty": 2, "old_batchref": "c1", "new_batchref": "c2"}]', 'are kept');
SELECT alloc.add_batch('s1', 'SHIP', 10, '2031-01-01'), alloc.allocate('s1', 'SHIP', 1);
SELECT is_answer('{"command": "ship", "orderid": "s1", "message_id": "ship"}', '1', 'a message that ships');
SELECT alloc.purge_shipped('infinity'), alloc.allocate('s1', 'SHIP', 2);
SELECT is_answer('{"command": "ship", "orderid": "s1", "message_id": "ship"}', '1', 'again: the answer that it got then');
SELECT is_answer('{"command": "change_batch_eta", "ref": "s1", "eta": null, "message_id": "eta"}',
	'[{"orderid": "s1", "sku": "SHIP", "qty": 2, "old_eta": "2031-01-01", "new_eta": null}]', 'the line that came again was not shipped');
SELECT is_answer('{"command": "change_batch_eta", "ref": "s1", "eta": null, "message_id": "eta"}',
	'[{"orderid": "s1", "sku": "SHIP", "qty": 2, "old_eta": "2031-01-01", "new_eta": null}]', 'days as an answer are kept');
SELECT is_answer(jsonb_build_object('command', 'deallocate', 'orderid', 'none', 'sku', 'none', 'message_id', key), 'null', 'an id like ' || left(key, 9))
  FROM (VALUES ('O''Reilly'), (' '), ('Füße 照明器具 🪔'), ('%_\"'), (repeat('k', 255))) AS k (key);
SELECT set_has('SELECT message_id FROM alloc.message', $$SELECT unnest(ARRAY['O''Reilly', ' ', 'Füße 照明器具 🪔', '%_\"', repeat('k', 255)])$$, 'are kept as they are');
CREATE TEMPORARY TABLE bulk AS
SELECT jsonb_build_object('command', 'allocate_lines', 'message_id', 'bulk', 'lines',
						  jsonb_agg(jsonb_build_object('orderid', 'bulk' || n, 'sku', 'PIN', 'qty', n) ORDER BY n)) AS message
  FROM generate_series(1, 10000) n;
SELECT alloc.add_batch('pins', 'PIN', 1000000);
SELECT count(alloc.handle(message)) FROM bulk;
SELECT results_eq('SELECT r.* FROM bulk, jsonb_to_recordset(alloc.handle(message)->$$result$$) AS r (orderid text, sku text, qty bigint, batchref text)',
	$$SELECT 'bulk' || n, 'PIN', n::bigint, (SELECT batchref FROM alloc.allocations a WHERE a.orderid = 'bulk' || n) FROM generate_series(1, 10000) n$$,
	'an answer of 10,000 rows comes again');
SELECT sound('messages with an id');

-- The id with another body

SELECT refused(format('SELECT alloc.handle(%L)', body), 'SK006', '%"m1"%', 'm1 ' || what)
  FROM (VALUES
	('with another quantity', '{"command": "allocate", "orderid": "v1", "sku": "VASE", "qty": 3, "message_id": "m1"}'),
	('with a quantity that is nearly the same', '{"command": "deallocate", "orderid": "v1", "sku": "VASE ", "message_id": "m1"}'),
	('with another command', '{"command": "deallocate", "orderid": "v1", "sku": "VASE", "message_id": "m1"}'),
	('with an argument that is null instead of absent', '{"command": "add_batch", "ref": "v1", "sku": "VASE", "qty": 2, "eta": null, "message_id": "m1"}'),
	('with a traceparent', '{"command": "allocate", "orderid": "v1", "sku": "VASE", "qty": 2, "message_id": "m1", "traceparent": ""}')) AS other (what, body);

-- A command that fails is as if its message had not come

SELECT refused($$SELECT alloc.handle('{"command": "allocate", "orderid": "v9", "sku": "none", "qty": 1, "message_id": "m9"}')$$, 'SK001', '%"none"%', 'a message about an unknown sku');
SELECT is_answer('{"command": "allocate", "orderid": "v9", "sku": "VASE", "qty": 1, "message_id": "m9"}', '"c2"', 'its id is free for another one');
CREATE FUNCTION try(message jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.handle(message);
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	RETURN 'null';
END
$$;
CREATE TEMPORARY TABLE digest_before AS SELECT digest();
SELECT is(try(allocation('x1', 'x1')), 'null', 'a message in an exception block');
SELECT is(digest(), (SELECT * FROM digest_before), 'is undone with it');
SAVEPOINT here;
SELECT is_answer(allocation('x1', 'x1'), '"b2"', 'a message after a savepoint');
ROLLBACK TO SAVEPOINT here;
SELECT is(digest(), (SELECT * FROM digest_before), 'is undone with it');
SELECT is_answer(allocation('x2', 'x1'), '"b2"', 'and its id is free');
SELECT refused(format('SELECT alloc.handle(%L)', allocation('x1', 'x1')), 'SK006', '%"x1"%', 'until it is taken again');
SAVEPOINT here;
SELECT is_answer(allocation('x2', 'x1'), '"b2"', 'a repeated message after a savepoint');
ROLLBACK TO SAVEPOINT here;
SELECT is_answer(allocation('x2', 'x1'), '"b2"', 'stays known');

-- Bad messages

SELECT refused(format('SELECT alloc.handle(%L)', message), state, pattern, what)
  FROM (VALUES
	('NULL', NULL, '22004', 'message must not be null'),
	('JSON null', 'null', '22023', 'message is not an object: null'),
	('a string', '"allocate"', '22023', 'message is not an object: "allocate"'),
	('a number', '5', '22023', 'message is not an object: 5'),
	('an array', '[{"command": "allocate"}]', '22023', 'message is not an object: [{"command": "allocate"}]'),
	('an empty object', '{}', '22004', 'command must not be null'),
	('no command', '{"message_id": "m"}', '22004', 'command must not be null'),
	('a command that is null', '{"command": null}', '22004', 'command must not be null'),
	('a command that is a number', '{"command": 1}', '22023', 'command must be a JSON string: 1'),
	('a command that is an object', '{"command": {"a": [1]}}', '22023', 'command must be a JSON string: {"a": [1]}'),
	('an empty command', '{"command": ""}', '22023', 'unknown command ""'),
	('an unknown command', '{"command": "drop_batch"}', '22023', 'unknown command "drop_batch"'),
	('a command in another case', '{"command": "Allocate"}', '22023', 'unknown command "Allocate"'),
	('the beginning of a command', '{"command": "allocat"}', '22023', 'unknown command "allocat"'),
	('handle itself', '{"command": "handle"}', '22023', 'unknown command "handle"'),
	('a command with its schema', '{"command": "alloc.allocate"}', '22023', 'unknown command "alloc.allocate"'),
	('a long command', format('{"command": "%s"}', repeat('k', 1000000)), '22023', 'unknown command "kkkkkkkk%..."'),
	('an unknown key', '{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "qty": 4}', '22023', 'unknown key "qty" of deallocate'),
	('an empty key', '{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "": 4}', '22023', 'unknown key "" of deallocate'),
	('a key in another case', '{"command": "deallocate", "OrderId": "o1", "sku": "LAMP"}', '22023', 'unknown key "OrderId" of deallocate'),
	('a key that has a quote', '{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "a\"b": 4}', '22023', 'unknown key "a\\"b" of deallocate'),
	('a missing key', '{"command": "allocate", "orderid": "o9", "qty": 4}', '22004', 'sku must not be null'),
	('a missing quantity', '{"command": "allocate", "orderid": "o9", "sku": "LAMP"}', '22004', 'qty must not be null'),
	('a missing day, which null would say is none', '{"command": "change_batch_eta", "ref": "b1"}', '22004', 'the message has no key "eta"'),
	('a key that is null', '{"command": "allocate", "orderid": null, "sku": "LAMP", "qty": 4}', '22004', 'orderid must not be null'),
	('an empty text', '{"command": "allocate", "orderid": "", "sku": "LAMP", "qty": 4}', '22023', 'orderid must not be empty%'),
	('a text that is a number', '{"command": "allocate", "orderid": 12, "sku": "LAMP", "qty": 4}', '22023', 'orderid must be a JSON string: 12'),
	('a text that is a boolean', '{"command": "allocate", "orderid": true, "sku": "LAMP", "qty": 4}', '22023', 'orderid must be a JSON string: true'),
	('a text that is an object', '{"command": "allocate", "orderid": {"id": "o1"}, "sku": "LAMP", "qty": 4}', '22023', 'orderid must be a JSON string: {"id": "o1"}'),
	('a text that is deep', format('{"command": "allocate", "orderid": %s1%s, "sku": "LAMP", "qty": 4}', repeat('[', 1000), repeat(']', 1000)), '22023', 'orderid must be a JSON string: [[[[%...'),
	('a text of 256 bytes', format('{"command": "allocate", "orderid": "%s", "sku": "LAMP", "qty": 4}', repeat('é', 128)), '22001', 'orderid is too long: "éé%'),
	('a text of 10 MB', format('{"command": "allocate", "orderid": "%s", "sku": "LAMP", "qty": 4}', repeat('k', 10485760)), '22001', 'orderid is too long: "kk%'),
	('a number that is a text', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": "4"}', '22023', 'qty must be a JSON number: "4"'),
	('a number that is an array', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": [4]}', '22023', 'qty must be a JSON number: [4]'),
	('a fraction', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": 1.5}', '22023', 'qty is not a whole number: 1.5'),
	('a small fraction', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": 1e-300}', '22023', 'qty is not a whole number: 0.000%'),
	('2^63', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": 9223372036854775808}', '22003', 'qty is out of the range of bigint: 9223372036854775808'),
	('-2^63 - 1', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": -9223372036854775809}', '22003', 'qty is out of the range of bigint: -9223372036854775809'),
	('nearly 2^63', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": 9223372036854775807.5}', '22003', 'qty is out of the range of bigint: 9223372036854775807.5'),
	('-2^63', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": -9223372036854775808}', '22023', 'qty must be at least 1: -9223372036854775808'),
	('1e400', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": 1e400}', '22003', 'qty is out of the range of bigint: 10000%...'),
	('1e131071', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": -1e131071}', '22003', 'qty is out of the range of bigint: -10000%...'),
	('zero', '{"command": "allocate", "orderid": "o9", "sku": "LAMP", "qty": 0}', '22023', 'qty must be at least 1: 0'),
	('a day that is a number', '{"command": "add_batch", "ref": "b9", "sku": "LAMP", "qty": 4, "eta": 20310301}', '22023', 'eta must be a JSON string: 20310301'),
	('a day without dashes', '{"command": "add_batch", "ref": "b9", "sku": "LAMP", "qty": 4, "eta": "20310301"}', '22007', 'eta is not a date in ISO 8601: "20310301"'),
	('a day with blanks', '{"command": "add_batch", "ref": "b9", "sku": "LAMP", "qty": 4, "eta": " 2031-03-01"}', '22007', 'eta is not a date in ISO 8601: " 2031-03-01"'),
	('a day in words', '{"command": "add_batch", "ref": "b9", "sku": "LAMP", "qty": 4, "eta": "tomorrow"}', '22007', 'eta is not a date in ISO 8601: "tomorrow"'),
	('a day and a time', '{"command": "add_batch", "ref": "b9", "sku": "LAMP", "qty": 4, "eta": "2031-03-01T00:00:00Z"}', '22007', 'eta is not a date in ISO 8601: "2031-03-01T00:00:00Z"'),
	('no day', '{"command": "add_batch", "ref": "b9", "sku": "LAMP", "qty": 4, "eta": "soon"}', '22007', '%date%"soon"'),
	('an empty day', '{"command": "add_batch", "ref": "b9", "sku": "LAMP", "qty": 4, "eta": ""}', '22007', '%date%""'),
	('a day that there is not', '{"command": "add_batch", "ref": "b9", "sku": "LAMP", "qty": 4, "eta": "2031-02-29"}', '22008', '%"2031-02-29"'),
	('a day of 1 MB', format('{"command": "add_batch", "ref": "b9", "sku": "LAMP", "qty": 4, "eta": "%s"}', repeat('2', 1000000)), '22007', 'eta is not a date in ISO 8601: "2222%...'),
	('an id that is null', '{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "message_id": null}', '22004', 'message_id must not be null'),
	('an id that is a number', '{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "message_id": 7}', '22023', 'message_id must be a JSON string: 7'),
	('an empty id', '{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "message_id": ""}', '22023', 'message_id must not be empty%'),
	('an id of 256 bytes', format('{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "message_id": "%s"}', repeat('k', 256)), '22001', 'message_id is too long: "kk%'),
	('an id of 10 MB', format('{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "message_id": "%s"}', repeat('k', 10485760)), '22001', 'message_id is too long: "kk%'),
	('a traceparent that is a number', '{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "traceparent": 7}', '22023', 'traceparent must be a JSON string: 7'),
	('a traceparent that is none', '{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "traceparent": "00-1"}', '22023', '%"alloc.traceparent"%"00-1"'),
	('lines that are missing', '{"command": "allocate_lines"}', '22004', 'lines must not be null'),
	('lines that are null', '{"command": "allocate_lines", "lines": null}', '22004', 'lines must not be null'),
	('lines that are an object', '{"command": "allocate_lines", "lines": {"orderid": "o9", "sku": "LAMP", "qty": 1}}', '22023', 'lines must be a JSON array: {%'),
	('lines that are a text', '{"command": "allocate_lines", "lines": "{}"}', '22023', 'lines must be a JSON array: "{}"'),
	('a line that is null', '{"command": "allocate_lines", "lines": [{"orderid": "o9", "sku": "LAMP", "qty": 1}, null]}', '22004', 'an order line must not be null'),
	('a line that is an array', '{"command": "allocate_lines", "lines": [["o9", "LAMP", 1]]}', '22023', 'an order line must be a JSON object: ["o9", "LAMP", 1]'),
	('a line that is a text', '{"command": "allocate_lines", "lines": ["(o9,LAMP,1)"]}', '22023', 'an order line must be a JSON object: "(o9,LAMP,1)"'),
	('a line with an unknown key', '{"command": "allocate_lines", "lines": [{"orderid": "o9", "sku": "LAMP", "qty": 1, "eta": null}]}', '22023', 'unknown key "eta" of an order line'),
	('a line without a quantity', '{"command": "allocate_lines", "lines": [{"orderid": "o9", "sku": "LAMP"}]}', '22004', 'qty must not be null'),
	('a line with a quantity in letters', '{"command": "allocate_lines", "lines": [{"orderid": "o9", "sku": "LAMP", "qty": "1"}]}', '22023', 'qty must be a JSON number: "1"'),
	('a line with half a unit', '{"command": "allocate_lines", "lines": [{"orderid": "o9", "sku": "LAMP", "qty": 0.5}]}', '22023', 'qty is not a whole number: 0.5'),
	('a line with an unknown sku', '{"command": "allocate_lines", "message_id": "m10", "lines": [{"orderid": "o9", "sku": "LAMP", "qty": 1}, {"orderid": "o9", "sku": "none", "qty": 1}]}', 'SK001', 'unknown sku "none"'),
	('an error of the command', '{"command": "allocate", "orderid": "o1", "sku": "LAMP", "qty": 5, "message_id": "m10"}', 'SK003', 'order line ("o1", "LAMP")%'),
	('an unknown batch', '{"command": "change_batch_quantity", "ref": "none", "qty": 5, "message_id": "m10"}', 'SK002', 'unknown batch "none"'),
	('hold without a duration', '{"command": "hold", "orderid": "o1", "sku": "LAMP", "qty": 1}', '22004', 'ttl must not be null'),
	('hold for a number', '{"command": "hold", "orderid": "o1", "sku": "LAMP", "qty": 1, "ttl": 900}', '22023', 'ttl must be a JSON string: 900'),
	('hold for words', '{"command": "hold", "orderid": "o1", "sku": "LAMP", "qty": 1, "ttl": "15 minutes"}', '22007', 'ttl is not a duration in ISO 8601: "15 minutes"'),
	('hold for an odd duration', '{"command": "hold", "orderid": "o1", "sku": "LAMP", "qty": 1, "ttl": "P1X"}', '22007', '%interval: "P1X"'),
	('hold for no time', '{"command": "hold", "orderid": "o1", "sku": "LAMP", "qty": 1, "ttl": "PT0S"}', '22023', 'ttl must be more than 0%'),
	('hold for an empty duration', '{"command": "hold", "orderid": "o1", "sku": "LAMP", "qty": 1, "ttl": ""}', '22007', 'ttl is not a duration in ISO 8601: ""'),
	('confirm of a line', '{"command": "confirm", "orderid": "o1", "sku": "LAMP"}', '22023', 'unknown key "sku" of confirm'),
	('ship without an order', '{"command": "ship", "sku": "LAMP"}', '22004', 'orderid must not be null'),
	('ship of an order that is null', '{"command": "ship", "orderid": null}', '22004', 'orderid must not be null'),
	('ship of an empty sku', '{"command": "ship", "orderid": "o1", "sku": ""}', '22023', 'sku must not be empty%'),
	('ship of a sku that is a number', '{"command": "ship", "orderid": "o1", "sku": 7}', '22023', 'sku must be a JSON string: 7'),
	('ship with a quantity', '{"command": "ship", "orderid": "o1", "qty": 1}', '22023', 'unknown key "qty" of ship'),
	('change_batch_eta without a batch', '{"command": "change_batch_eta", "eta": "2031-01-01"}', '22004', 'ref must not be null'),
	('change_batch_eta of an unknown batch', '{"command": "change_batch_eta", "ref": "none", "eta": "2031-01-01", "message_id": "m10"}', 'SK002', 'unknown batch "none"'),
	('change_batch_eta with a day in letters', '{"command": "change_batch_eta", "ref": "b2", "eta": "soon"}', '22007', '%date%"soon"'),
	('change_batch_eta with a day that is a number', '{"command": "change_batch_eta", "ref": "b2", "eta": 20310101}', '22023', 'eta must be a JSON string: 20310101'),
	('change_batch_eta with the key of the rows', '{"command": "change_batch_eta", "ref": "b2", "new_eta": "2031-01-01"}', '22023', 'unknown key "new_eta" of change_batch_eta'),
	('a purge', '{"command": "purge_shipped", "before": "infinity"}', '22023', 'unknown command "purge_shipped"'),
	('a query', '{"command": "promise", "sku": "LAMP", "qty": 1}', '22023', 'unknown command "promise"'),
	('a batch with other values', '{"command": "add_batch", "ref": "c1", "sku": "VASE", "qty": 9, "message_id": "m10"}', '23505', 'batch "c1"%')
  ) AS bad (what, message, state, pattern);
SELECT refused($$SET LOCAL transaction_read_only = on; SELECT alloc.handle('{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "message_id": "ro"}')$$,
	'25006', '%handle()%', 'a message with an id in a read-only transaction');
SELECT refused($$SET LOCAL transaction_read_only = on; SELECT alloc.handle('{"command": "deallocate", "orderid": "o1", "sku": "LAMP"}')$$,
	'25006', '%deallocate()%', 'a message without an id in a read-only transaction');

-- The trace is that of the message, for as long as it is at work

CREATE FUNCTION traces() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(' ', orderid, payload->>'traceparent') FROM alloc.events
	 WHERE event_id > current_setting('test.mark')::bigint ORDER BY event_id
$$;
SET LOCAL alloc.traceparent = '00-00000000000000000000000000000001-0000000000000001-00';
SELECT mark();
SELECT alloc.handle(allocation('t1', 't1') || '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}');
SELECT alloc.handle(allocation('t2', 't2'));
SELECT alloc.handle(allocation('t3', 't3') || '{"traceparent": ""}');
SELECT alloc.handle(allocation('t4', 't4') || '{"traceparent": null}');
SELECT throws_ok($$SELECT alloc.handle('{"command": "allocate", "orderid": "t5", "sku": "none", "qty": 1, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}')$$, 'SK001', NULL, 'an error in a trace');
SELECT results_eq('SELECT traces()', ARRAY[
	't1 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
	't2 00-00000000000000000000000000000001-0000000000000001-00', 't3',
	't4 00-00000000000000000000000000000001-0000000000000001-00'], 'events have the traceparent of their message, or the session''s');
SELECT is(current_setting('alloc.traceparent'), '00-00000000000000000000000000000001-0000000000000001-00', 'the session''s stays, after an error, too');
RESET alloc.traceparent;

-- EXECUTE on handle() and on the command, and nothing else

SELECT alloc.add_batch('b3', 'LAMP', 100, '2032-01-01');
CREATE ROLE regress_sender;
CREATE FUNCTION as_sender(message jsonb, path text DEFAULT 'pg_catalog') RETURNS text LANGUAGE sql AS $$
	SELECT format('SET LOCAL ROLE regress_sender; SET LOCAL search_path = %s; DO %L; RESET search_path; RESET ROLE', path,
				  format('DECLARE r pg_catalog.jsonb; BEGIN r := alloc.handle(%L); PERFORM pg_catalog.set_config(''test.answer'', r::pg_catalog.text, false); END', message))
$$;
GRANT USAGE ON SCHEMA alloc TO regress_sender;
SELECT refused(as_sender(allocation('s1', 's1')), '42501', '%function handle', 'without EXECUTE on handle()');
GRANT EXECUTE ON FUNCTION alloc.handle(jsonb) TO regress_sender;
SELECT refused(as_sender(message), '42501', '%function ' || (message->>'command'), (message->>'command') || ' with EXECUTE on handle() only')
  FROM unnest(ARRAY[
	allocation('s1', 's1'), allocation('s1', 's1') - 'message_id',
	'{"command": "add_batch", "ref": "s1", "sku": "LAMP", "qty": 10, "message_id": "s1"}',
	'{"command": "deallocate", "orderid": "o1", "sku": "LAMP", "message_id": "s1"}',
	'{"command": "change_batch_quantity", "ref": "b2", "qty": 1, "message_id": "s1"}',
	'{"command": "change_batch_eta", "ref": "b2", "eta": null, "message_id": "s1"}',
	'{"command": "ship", "orderid": "o1", "message_id": "s1"}',
	'{"command": "allocate_order", "orderid": "o9", "lines": [{"sku": "LAMP", "qty": 1}], "message_id": "s1"}',
	'{"command": "allocate_lines", "lines": [{"orderid": "o9", "sku": "LAMP", "qty": 1}], "message_id": "s1"}']) AS message;
GRANT EXECUTE ON FUNCTION alloc.allocate(text, text, bigint), alloc.allocate_lines(alloc.order_line[]) TO regress_sender;
SELECT lives_ok(as_sender(allocation('s1', 's1')), 'with EXECUTE on both');
SELECT is(current_setting('test.answer')::jsonb, '{"result": "b3"}', 'it is carried out');
SELECT lives_ok(as_sender(allocation('s1', 's1')), 'and again');
SELECT is(current_setting('test.answer')::jsonb, '{"result": "b3"}', 'with the same answer');
SELECT lives_ok(as_sender('{"command": "allocate_lines", "lines": [{"orderid": "s1", "sku": "LAMP", "qty": 1}]}'),
	'lines, without a right on their type');
SELECT refused(as_sender('{"command": "deallocate", "orderid": "s1", "sku": "LAMP"}'), '42501', '%function deallocate', 'another command stays closed');
SELECT throws_ok('SET LOCAL ROLE regress_sender; SELECT FROM alloc.message', '42501', NULL, 'table message is closed');
REVOKE EXECUTE ON FUNCTION alloc.allocate(text, text, bigint) FROM regress_sender;
SELECT refused(as_sender(allocation('s2', 's2')), '42501', '%function allocate', 'EXECUTE is looked for each time');
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA alloc TO regress_sender;

-- No name is looked for along the caller's search_path

CREATE SCHEMA alloc_hostile AUTHORIZATION regress_sender;
CREATE FUNCTION alloc_hostile.allocate(text, text, bigint) RETURNS text LANGUAGE plpgsql AS
	$$ BEGIN RAISE 'hostile allocate' USING ERRCODE = 'XX999'; END $$;
CREATE TYPE alloc_hostile.order_line AS (hostile int);
CREATE DOMAIN alloc_hostile.text AS pg_catalog.text CHECK (false);
CREATE DOMAIN alloc_hostile.jsonb AS pg_catalog.jsonb CHECK (false);
CREATE TABLE alloc_hostile.message (message_id pg_catalog.text);
SELECT lives_ok(as_sender(message, path), (message->>'command') || ' with search_path ' || path)
  FROM unnest(ARRAY['alloc_hostile', 'alloc_hostile, pg_catalog', '''''', 'pg_temp, alloc_hostile, pg_catalog']) WITH ORDINALITY AS p (path, n),
	   unnest(ARRAY[
	allocation('h' || n, 'h' || n),
	jsonb_build_object('command', 'add_batch', 'ref', 'h' || n, 'sku', 'HAT', 'qty', 10, 'eta', '2031-01-01', 'message_id', 'hb' || n),
	jsonb_build_object('command', 'deallocate', 'orderid', 'h' || n, 'sku', 'LAMP', 'message_id', 'hd' || n),
	jsonb_build_object('command', 'change_batch_quantity', 'ref', 'h' || n, 'qty', 1, 'message_id', 'hq' || n),
	jsonb_build_object('command', 'change_batch_eta', 'ref', 'h' || n, 'eta', '2031-01-02', 'message_id', 'he' || n),
	jsonb_build_object('command', 'ship', 'orderid', 'h' || n, 'message_id', 'hs' || n),
	jsonb_build_object('command', 'allocate_order', 'orderid', 'hh', 'lines', '[{"sku": "HAT", "qty": 1}]'::jsonb, 'message_id', 'ho' || n),
	jsonb_build_object('command', 'allocate_lines', 'lines', '[{"orderid": "h", "sku": "HAT", "qty": 1}]'::jsonb, 'message_id', 'hl' || n)]) AS message;
SELECT is((SELECT count(*) FROM alloc.message WHERE message_id LIKE 'h%'), 32::bigint, 'all of them are kept');
SELECT sound('senders');
ROLLBACK;

-- Whole orders

BEGIN;
SELECT alloc.add_batch('b1', 'LAMP', 10), alloc.add_batch('b2', 'RUG', 1);
SELECT mark();
SELECT is_answer('{"command": "allocate_order", "orderid": "o1", "lines": [{"sku": "LAMP", "qty": 2}, {"orderid": "o1", "sku": "RUG", "qty": 2}, {"orderid": null, "sku": "LAMP", "qty": 1}]}',
	'[{"sku": "LAMP", "qty": 3, "batchref": null, "status": "not_taken"}, {"sku": "RUG", "qty": 2, "batchref": null, "status": "out_of_stock"}]',
	'allocate_order without a mode: all or nothing, a row for each sku');
SELECT is_answer('{"command": "allocate_order", "orderid": "o1", "mode": "partial", "message_id": "m1", "lines": [{"sku": "LAMP", "qty": 2}, {"sku": "RUG", "qty": 2}]}',
	'[{"sku": "LAMP", "qty": 2, "batchref": "b1", "status": "allocated"}, {"sku": "RUG", "qty": 2, "batchref": null, "status": "out_of_stock"}]',
	'allocate_order, partial');
SELECT is_answer('{"command": "allocate_order", "orderid": "o1", "lines": [{"sku": "LAMP", "qty": 2}, {"sku": "RUG", "qty": 2}], "mode": "partial", "message_id": "m1"}',
	'[{"sku": "LAMP", "qty": 2, "batchref": "b1", "status": "allocated"}, {"sku": "RUG", "qty": 2, "batchref": null, "status": "out_of_stock"}]',
	'the message again, the same answer');
SELECT is_answer('{"command": "allocate_order", "orderid": "o2", "mode": null, "lines": []}', '[]', 'allocate_order without lines, its mode null');
SELECT results_eq('SELECT news()', ARRAY['out_of_stock o1 RUG 2', 'allocated o1 LAMP 2 b1', 'out_of_stock o1 RUG 2'], 'the events are those of the orders, once');
SELECT is_answer('{"command": "allocate_order", "orderid": "o1", "mode": "backorder", "lines": [{"sku": "LAMP", "qty": 2}, {"sku": "RUG", "qty": 2}]}',
	'[{"sku": "LAMP", "qty": 2, "batchref": "b1", "status": "allocated"}, {"sku": "RUG", "qty": 2, "batchref": null, "status": "backordered"}]',
	'allocate_order, backorder');
SELECT is_answer('{"command": "cancel_backorder", "orderid": "o1", "sku": "RUG"}', 'true', 'cancel_backorder');
SELECT is_answer('{"command": "cancel_backorder", "orderid": "o1", "sku": "RUG"}', 'false', 'cancel_backorder of nothing');
SELECT refused(format('SELECT alloc.handle(%L)', message), state, pattern, 'allocate_order: ' || what)
  FROM (VALUES
	('no order', '{"command": "allocate_order", "lines": []}', '22004', 'orderid must not be null'),
	('no lines', '{"command": "allocate_order", "orderid": "o3"}', '22004', 'lines must not be null'),
	('a line of another order', '{"command": "allocate_order", "orderid": "o3", "lines": [{"orderid": "o4", "sku": "LAMP", "qty": 1}]}', '22023', '%"o3"%"o4"'),
	('an unknown mode', '{"command": "allocate_order", "orderid": "o3", "lines": [], "mode": "some"}', '22023', 'unknown mode "some"'),
	('a mode that is a number', '{"command": "allocate_order", "orderid": "o3", "lines": [], "mode": 1}', '22023', 'mode must be a JSON string: 1'),
	('an unknown sku', '{"command": "allocate_order", "orderid": "o3", "lines": [{"sku": "none", "qty": 1}], "message_id": "m2"}', 'SK001', 'unknown sku "none"'),
	('a quantity of its own', '{"command": "allocate_order", "orderid": "o3", "lines": [], "qty": 1}', '22023', 'unknown key "qty" of allocate_order')
  ) AS bad (what, message, state, pattern);
SELECT sound('orders');
ROLLBACK;

-- Old messages are forgotten

BEGIN;
SELECT alloc.add_batch('b', 'LAMP', 100);
SELECT count(alloc.handle(allocation('o' || n, 'm' || n))) FROM generate_series(1, 10) n;
UPDATE alloc.message SET received_at = now() - interval '6 days' WHERE message_id IN ('m1', 'm2', 'm3', 'm4', 'm5');
SELECT alloc.handle(allocation('o11', 'm11'));
SELECT is((SELECT count(*) FROM alloc.message), 11::bigint, 'a message of six days is kept by default');
UPDATE alloc.message SET received_at = now() - interval '7 days' - substr(message_id, 2)::int * interval '1 hour'
 WHERE message_id IN ('m1', 'm2', 'm3', 'm4', 'm5');
SELECT is_answer(allocation('o5', 'm5'), '"b"', 'one that is older, and still there, has its answer');
SELECT is_answer(allocation('o12', 'm12') - 'message_id', '"b"', 'a message without an id');
SELECT is((SELECT count(*) FROM alloc.message), 11::bigint, 'neither takes any away');
SELECT is_answer(allocation('o13', 'm13'), '"b"', 'a new message');
SELECT bag_eq('SELECT message_id FROM alloc.message', ARRAY['m1', 'm2', 'm3', 'm6', 'm7', 'm8', 'm9', 'm10', 'm11', 'm13'], 'takes the two oldest away');
SELECT throws_ok($$SELECT alloc.handle('{"command": "deallocate", "orderid": "o4", "sku": "LAMP", "message_id": "m3"}')$$, 'SK006', NULL, 'the others keep their ids');
SELECT is_answer('{"command": "deallocate", "orderid": "o4", "sku": "LAMP", "message_id": "m4"}', '"b"', 'an id that was forgotten is free');
SELECT bag_eq('SELECT message_id FROM alloc.message', ARRAY['m1', 'm4', 'm6', 'm7', 'm8', 'm9', 'm10', 'm11', 'm13'], 'and takes the next two');
SAVEPOINT here;
SET LOCAL alloc.message_retention = '8d';
SELECT alloc.handle(allocation('o14', 'm14'));
SELECT isnt_empty($$SELECT FROM alloc.message WHERE message_id = 'm1'$$, 'alloc.message_retention says for how long');
ROLLBACK TO SAVEPOINT here;
SELECT alloc.handle(allocation('o14', 'm14'));
SELECT is_empty($$SELECT FROM alloc.message WHERE message_id = 'm1'$$, 'after a rollback, too');
SET LOCAL alloc.message_retention = 0;
SELECT count(alloc.handle(allocation('p' || n, 'n' || n))) FROM generate_series(1, 50) n;
SELECT bag_eq('SELECT message_id FROM alloc.message', ARRAY['n50'], 'with 0 only the last one is kept');
SELECT is_answer(allocation('p50', 'n50'), '"b"', 'which has its answer');
SET LOCAL alloc.message_retention = '24855d';
SELECT count(alloc.handle(allocation('q' || n, 'q' || n))) FROM generate_series(1, 10) n;
SELECT is((SELECT count(*) FROM alloc.message), 11::bigint, 'with the longest time nothing is forgotten');
ROLLBACK;

-- Type order_line is as it was created, or there are no lines

BEGIN;
SELECT alloc.add_batch('b', 'LAMP', 100);
ALTER TYPE alloc.order_line ADD ATTRIBUTE note json;
SELECT refused($$SELECT alloc.handle('{"command": "allocate_lines", "lines": [{"orderid": "o1", "sku": "LAMP", "qty": 1}]}')$$,
	'55000', '%alloc.order_line%', 'an attribute more');
SELECT refused($$SELECT alloc.handle('{"command": "allocate_lines", "lines": [{"orderid": "o1", "sku": "LAMP", "qty": 1, "note": {}}]}')$$,
	'0A000', '%"note"%json', 'an attribute more, that a line has');
ALTER TYPE alloc.order_line DROP ATTRIBUTE note;
SELECT refused($$SELECT alloc.handle('{"command": "allocate_lines", "lines": [{"orderid": "o1", "sku": "LAMP", "qty": 1, "note": {}}]}')$$,
	'22023', 'unknown key "note"%', 'an attribute that is gone');
ROLLBACK;

-- The extension may go, and come again, in the life of a session

SELECT is_answer(m, to_jsonb(m->>'ref'), 'before') FROM jsonb('{"command": "add_batch", "ref": "b", "sku": "LAMP", "qty": 2, "message_id": "a"}') m;
SELECT is_answer('{"command": "allocate_lines", "lines": []}', '[]', 'lines before');
DROP EXTENSION alloc;
CREATE EXTENSION alloc;
SELECT is_answer('{"command": "add_batch", "ref": "b", "sku": "LAMP", "qty": 1, "message_id": "a"}', '"b"', 'a new extension, a new message');
SELECT is_answer('{"command": "allocate_lines", "lines": [{"orderid": "o", "sku": "LAMP", "qty": 1}]}',
	'[{"orderid": "o", "sku": "LAMP", "qty": 1, "batchref": "b"}]', 'lines of the new type');

SELECT * FROM finish();
