-- Slots: the stock of a batch in several rows is one batch, for allocate() and
-- for allocate_lines(); when there are several; those with nothing left.

\ir common.psql
SELECT plan(89);

-- slots: what the slots of a batch have, the fullest first.
CREATE FUNCTION slots(batchref text) RETURNS bigint[]
LANGUAGE sql STABLE AS $$
	SELECT array_agg(available ORDER BY available DESC) FROM alloc.slot WHERE ref = batchref
$$;

-- scatter: the stock of a batch that has one slot over slots with so much.
CREATE FUNCTION scatter(batchref text, parts bigint[]) RETURNS void
LANGUAGE sql AS $$
	INSERT INTO alloc.slot (batch_id, slot, available, spread, waiting, eta, ref, sku)
	SELECT s.batch_id, 7 * n, part, true, s.waiting, s.eta, s.ref, s.sku
	  FROM alloc.slot s, unnest(parts) WITH ORDINALITY AS p (part, n)
	 WHERE s.ref = batchref AND n > 1;
	UPDATE alloc.slot SET available = parts[1], spread = true WHERE ref = batchref AND slot = 0;
$$;

-- bulk: a call for one line.
CREATE FUNCTION bulk(orderid text, sku text, qty bigint) RETURNS text
LANGUAGE sql AS $$
	SELECT batchref FROM alloc.allocate_lines(ARRAY[ROW(orderid, sku, qty)]::alloc.order_line[])
$$;

-- How many there are

SELECT is(current_setting('alloc.max_slots', true), NULL, 'before the library is loaded the setting is unknown');
SELECT alloc.add_batch('small', 'size', 999), alloc.add_batch('large', 'size', 1000), alloc.add_batch('empty', 'size', 0);
SELECT is(current_setting('alloc.max_slots'), '128', 'alloc.max_slots is 128 by default');
SELECT is(slots('small'), ARRAY[999]::bigint[], 'a batch of 999 units has one slot');
SELECT is(slots('large'), ARRAY[500, 500]::bigint[], 'one of 1,000 has two');
SELECT is(slots('empty'), ARRAY[0]::bigint[], 'one of none has one');
SET alloc.max_slots = 1;
SELECT alloc.add_batch('large, max 1', 'size', 1000), alloc.add_batch('huge, max 1', 'size', 9000000000000000000);
SELECT is(slots('large, max 1'), ARRAY[1000]::bigint[], 'with alloc.max_slots = 1 a large batch has one as well');
SELECT is(slots('huge, max 1'), ARRAY[9000000000000000000]::bigint[], 'however large');
RESET alloc.max_slots;
SELECT throws_ok(format('SET alloc.max_slots = %s', n), '22023', NULL, format('alloc.max_slots = %s is refused', n))
  FROM unnest(ARRAY[0, -1, 1025]) AS n;
CREATE ROLE regress_slots;
SET ROLE regress_slots;
SELECT throws_ok('SET alloc.max_slots = 2', '42501', NULL, 'who is no superuser may not set it');
RESET ROLE;
DROP ROLE regress_slots;

-- Who has to wait for a slot splits it, unless alloc.max_slots is 1.  The other
-- session commits when this one waits for it.

CREATE EXTENSION dblink;
SELECT dblink_connect('other', format('host=%L port=%L user=%L dbname=%L',
	split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_user, current_database()))
	AS connected \gset
-- hold: the other session has done a command, and keeps what it locked until
-- this one waits.
CREATE FUNCTION hold(command text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dblink_exec('other', 'BEGIN');
	PERFORM * FROM dblink('other', command) AS answer (answer text);
	RETURN CASE dblink_send_query('other', format(
		$q$DO $d$
		BEGIN
			WHILE NOT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted) LOOP
				PERFORM pg_sleep(0.01);
			END LOOP;
		END
		$d$; COMMIT$q$, pg_backend_pid())) WHEN 1 THEN 'held' END;
END
$$;
CREATE FUNCTION end_hold() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM dblink_get_result('other', false) AS answer (answer text)) LOOP
	END LOOP;
	PERFORM * FROM dblink_get_result('other', false) AS answer (answer text);
	PERFORM * FROM dblink_get_result('other', false) AS answer (answer text);
END
$$;
SELECT alloc.add_batch('wait' || n, 'wait' || n, 400) FROM generate_series(1, 4) AS n;
SET alloc.max_slots = 1;
SELECT is(hold($$SELECT alloc.allocate('other', 'wait1', 1)$$), 'held', 'max_slots = 1: another session has the slot of a batch');
SELECT is(alloc.allocate('mine', 'wait1', 1), 'wait1', 'allocate() waits and is served');
SELECT end_hold();
SELECT is(slots('wait1'), ARRAY[398]::bigint[], 'and the batch still has one slot');
SELECT is(hold($$SELECT alloc.allocate('other', 'wait2', 1)$$), 'held', 'max_slots = 1: another session has the slot of a batch');
SELECT is(bulk('mine', 'wait2', 1), 'wait2', 'allocate_lines() waits and is served');
SELECT end_hold();
SELECT is(slots('wait2'), ARRAY[398]::bigint[], 'and the batch still has one slot');
RESET alloc.max_slots;
SELECT is(hold($$SELECT alloc.allocate('other', 'wait3', 1)$$), 'held', 'max_slots = 128: another session has the slot of a batch');
SELECT is(alloc.allocate('mine', 'wait3', 1), 'wait3', 'allocate() waits and is served');
SELECT end_hold();
SELECT cmp_ok(cardinality(slots('wait3')), '>', 1, 'and the batch has more than one slot');
SELECT is(hold($$SELECT alloc.allocate('other', 'wait4', 1)$$), 'held', 'max_slots = 128: another session has the slot of a batch');
SELECT is(bulk('mine', 'wait4', 1), 'wait4', 'allocate_lines() waits and is served');
SELECT end_hold();
SELECT cmp_ok(cardinality(slots('wait4')), '>', 1, 'and the batch has more than one slot');
SELECT sound('waiting');

-- A batch in several slots is one batch: by single calls and in bulk

CREATE FUNCTION one_batch(call text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	qtys bigint[] := '{31,7,23,1,25,5,4,1}';
	served text;
BEGIN
	PERFORM alloc.add_batch('first', 's', 30), alloc.add_batch('second', 's', 30, '2011-01-01');
	PERFORM scatter('first', '{9,0,8,6,0,7}'), scatter('second', '{0,10,10,10}');
	FOR n IN 1..cardinality(qtys) LOOP
		EXECUTE format('SELECT %s(%L, %L, %s)', call, n, 's', qtys[n]) INTO served;
		RETURN NEXT served;
	END LOOP;
	RETURN NEXT (SELECT string_agg(format('%s has %s', ref, available_qty), ', ' ORDER BY ref) FROM alloc.batches WHERE sku = 's');
	RETURN QUERY SELECT unsound();
	RAISE EXCEPTION USING ERRCODE = 'UNDO1';
EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
	RETURN;
END
$$;
SELECT results_eq(format('SELECT one_batch(%L)', call),
	ARRAY[NULL, 'first', 'first', 'second', 'second', NULL, 'second', NULL, 'first has 0, second has 0'],
	call || '(): the preferred batch is used up, from all its slots, before the next, and not one unit more')
  FROM unnest(ARRAY['alloc.allocate', 'bulk']) AS call;
BEGIN;
SELECT alloc.add_batch('first', 's', 30), alloc.add_batch('second', 's', 30, '2011-01-01');
SELECT scatter('first', '{9,0,8,6,0,7}'), scatter('second', '{0,10,10,10}');
SELECT results_eq($$SELECT qty, batchref FROM alloc.allocate_lines(ARRAY[
		('a', 's', 31), ('b', 's', 7), ('c', 's', 23), ('d', 's', 1), ('e', 's', 25), ('f', 's', 5), ('g', 's', 4), ('h', 's', 1)]::alloc.order_line[])$$,
	$$VALUES (31::bigint, NULL), (7, 'first'), (23, 'first'), (1, 'second'), (25, 'second'), (5, NULL), (4, 'second'), (1, NULL)$$,
	'allocate_lines(): the same in one call');
SELECT results_eq($$SELECT alloc.deallocate(orderid, 's') FROM unnest(ARRAY['c', 'g']) AS orderid$$, ARRAY['first', 'second'], 'lines are freed');
SELECT is(available('first'), 23::bigint, 'into some slot of their batch');
SELECT is(bulk('i', 's', 23), 'first', 'allocate_lines() takes it again');
SELECT is(alloc.allocate('j', 's', 4), 'second', 'so does allocate()');
SELECT results_eq($$SELECT moves('second', 20)$$, ARRAY['e s 25: second to nowhere'], 'a batch shrinks that was in several slots');
SELECT is(cardinality(slots('second')), 1, 'and is in one then');
SELECT sound('several slots, freed');
ROLLBACK;

BEGIN;
SELECT alloc.add_batch('twin', 's', 5000);
SELECT is(alloc.allocate('a', 's', 2600), 'twin', 'allocate(): more than half of a large batch, which is more than a slot has');
SELECT is(bulk('b', 's', 1800), 'twin', 'allocate_lines(): so again');
SELECT is(available('twin'), 600::bigint, 'what is left of the large batch');
SET LOCAL alloc.max_slots = 1;
SELECT alloc.add_batch('parts', 'parts', 600), scatter('parts', '{300,100,200}');
SELECT is(alloc.allocate('c', 'parts', 450), 'parts', 'when alloc.max_slots was lowered all slots of a batch serve as before');
SELECT is(bulk('d', 'parts', 150), 'parts', 'to its last unit');
SELECT sound('a large batch');
ROLLBACK;

-- Shipped units lie in slots as well

BEGIN;
SELECT alloc.add_batch('b', 's', 30), alloc.add_batch('c', 's', 30, '2011-01-01');
SELECT alloc.allocate('a', 's', 4);
SELECT alloc.ship('a', 's');
SELECT alloc.allocate('b', 's', 10);
SELECT scatter('b', '{4,5,7}');
UPDATE alloc.slot SET shipped = CASE slot WHEN 0 THEN 1 WHEN 14 THEN 3 ELSE 0 END WHERE ref = 'b';
SELECT throws_ok($$SELECT alloc.change_batch_quantity('b', 3)$$, 'SK004', NULL, 'a batch cannot shrink below what was shipped of all its slots');
SELECT is(bulk('d', 's', 16), 'b', 'allocate_lines() takes no shipped unit');
SELECT results_eq($$SELECT moves('b', 14)$$, ARRAY['d s 16: b to c'], 'it can shrink to what was shipped and is allocated');
SELECT results_eq($$SELECT shipped_qty, allocated_qty, available_qty FROM alloc.batches WHERE ref = 'b'$$, 'VALUES (4::bigint, 10::bigint, 0::bigint)',
	'what was shipped is kept when slots are merged');
SELECT sound('shipped units');
ROLLBACK;

-- Slots with nothing left are not in the index by which stock is found

CREATE FUNCTION found(a_sku text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	plan text;
BEGIN
	SET LOCAL enable_seqscan = off;
	SET LOCAL enable_bitmapscan = off;
	EXECUTE 'EXPLAIN (FORMAT json) SELECT count(*) FROM alloc.slot WHERE sku = $1 AND NOT exhausted' INTO plan USING a_sku;
	IF plan !~ '"Index Name": "slot_preference"' THEN
		RAISE 'the query does not use slot_preference: %', plan;
	END IF;
	RETURN (SELECT count(*) FROM alloc.slot WHERE sku = a_sku AND NOT exhausted);
END
$$;
CREATE FUNCTION exhausts(a_sku text, take text, free text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	n int := cardinality(slots(a_sku));
	answer text;
BEGIN
	RETURN NEXT is(found(a_sku), n::bigint, format('%s, %s: slot_preference has each slot with stock', a_sku, take));
	FOR i IN 1..3 LOOP
		EXECUTE take INTO answer;
		RETURN NEXT is(answer, a_sku, format('%s, %s: all is taken', a_sku, take));
		RETURN NEXT is(found(a_sku), 0::bigint, 'slot_preference has none of them');
		RETURN NEXT is(alloc.allocate('late', a_sku, 1), NULL, 'and nobody is served');
		EXECUTE free INTO answer;
		RETURN NEXT is(found(a_sku), 1::bigint, format('%s, %s: the slot is back', a_sku, free));
		RETURN NEXT is(available(a_sku), 12::bigint, 'with all that there was');
	END LOOP;
END
$$;
BEGIN;
SELECT alloc.add_batch('one', 'one', 12), alloc.add_batch('many', 'many', 12), scatter('many', '{4,5,3}');
SELECT exhausts('one', $$SELECT alloc.allocate('all', 'one', 12)$$, $$SELECT alloc.deallocate('all', 'one')$$);
SELECT exhausts('many', $$SELECT bulk('all', 'many', 12)$$, $$SELECT alloc.deallocate('all', 'many')$$);
SELECT alloc.add_batch('none', 'none', 0);
SELECT is(found('none'), 0::bigint, 'a batch of nothing is not in slot_preference');
SELECT alloc.change_batch_quantity('none', 3);
SELECT is(found('none'), 1::bigint, 'until it gets something');
SELECT is(bulk('o', 'none', 3), 'none', 'and can serve');
SELECT is(found('none'), 0::bigint, 'until that is taken');
SELECT alloc.change_batch_quantity('none', 0);
SELECT is(found('none'), 0::bigint, 'its line was shed: nothing');
SELECT alloc.change_batch_quantity('none', 7);
SELECT is(alloc.allocate('p', 'none', 4), 'none', 'it serves again when it has stock again');
SELECT sound('exhausted slots');
ROLLBACK;

-- A bulk call that meets a line which is there has waited for nobody.
BEGIN;
SELECT alloc.add_batch('quiet', 'quiet', 100), alloc.allocate('1', 'quiet', 1);
SELECT is(slots('quiet'), '{99}', 'one slot');
SELECT results_eq($$SELECT batchref FROM alloc.allocate_lines('{"(1,quiet,1)","(2,quiet,1)"}')$$, ARRAY['quiet', 'quiet'], 'a line that is there, and a new one');
SELECT is(slots('quiet'), '{98}', 'still one slot: nobody was in the way');
-- Slots are merged into any of them: the last need not be the first.
UPDATE alloc.slot SET slot = 33 WHERE ref = 'quiet';
SELECT is(bulk('3', 'quiet', 1), 'quiet', 'the slot that is left of many serves');
SELECT agrees('one slot of another number');
ROLLBACK;

SELECT * FROM finish();
