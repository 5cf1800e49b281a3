-- promise() and available_to_promise(): what allocate() would do, without doing
-- it.

\ir common.psql
SELECT no_plan();

-- promised: promise(), its row in words.
CREATE FUNCTION promised(sku text, qty bigint) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT batchref || coalesce(' ' || eta, '') FROM alloc.promise(sku, qty)
$$;

-- Answers

BEGIN;
SELECT alloc.add_batch('late', 'lamp', 30, '2031-02-01'), alloc.add_batch('soon', 'lamp', 20, '2031-01-01'), alloc.add_batch('here', 'lamp', 10),
	   alloc.add_batch('empty', 'lamp', 0), alloc.add_batch('never', 'lamp', 40, 'infinity'), alloc.add_batch('rug', 'rug', 99), alloc.add_batch('none', 'none', 0);
CREATE TEMPORARY TABLE before AS SELECT digest();
SELECT results_eq($$SELECT batchref, eta FROM alloc.promise(sku => 'lamp', qty => 1)$$, $$VALUES ('here', NULL::date)$$, 'what is here has no day');
SELECT results_eq($$SELECT qty, promised('lamp', qty) FROM unnest(ARRAY[10, 11, 20, 21, 30, 31, 40, 41, 100, 9223372036854775807]) AS qty$$,
	$$VALUES (10::bigint, 'here'), (11, 'soon 2031-01-01'), (20, 'soon 2031-01-01'), (21, 'late 2031-02-01'), (30, 'late 2031-02-01'), (31, 'never infinity'),
			 (40, 'never infinity'), (41, NULL), (100, NULL), (9223372036854775807, NULL)$$, 'the first batch that can serve all');
SELECT is_empty($$SELECT * FROM alloc.promise('lamp', 41)$$, 'out of stock is no row');
SELECT is_empty($$SELECT * FROM alloc.promise('none', 1)$$, 'nor is a sku with nothing');
SELECT results_eq($$SELECT by, alloc.available_to_promise(sku => 'lamp', by => by) FROM unnest(ARRAY['-infinity', '2030-12-31', '2031-01-01', '2031-01-31', '2031-02-01',
																										 '5874897-12-31', 'infinity', NULL]::date[]) AS by$$,
	$$VALUES ('-infinity'::date, 10::bigint), ('2030-12-31', 10), ('2031-01-01', 30), ('2031-01-31', 30), ('2031-02-01', 60),
			 ('5874897-12-31', 60), ('infinity', 100), (NULL, 100)$$, 'available by a day, or at all');
SELECT is(alloc.available_to_promise('lamp'), 100::bigint, 'the day has a default');
SELECT is(alloc.available_to_promise('none'), 0::bigint, 'a sku with nothing has 0');
SELECT is(digest(), (SELECT * FROM before), 'nothing has changed, no event');
SELECT alloc.allocate('o1', 'lamp', 5), alloc.allocate('o2', 'lamp', 18);
SELECT alloc.ship('o1');
SELECT results_eq($$SELECT promised('lamp', 5), promised('lamp', 6), alloc.available_to_promise('lamp', '2031-01-01'), alloc.available_to_promise('lamp')$$,
	$$VALUES ('here', 'late 2031-02-01', 7::bigint, 77::bigint)$$, 'what is allocated or shipped is promised to nobody');
SELECT alloc.change_batch_eta('late', NULL);
SELECT results_eq($$SELECT promised('lamp', 5), promised('lamp', 6), alloc.available_to_promise('lamp', '-infinity')$$, $$VALUES ('late', 'late', 35::bigint)$$, 'days as they are now');
SELECT alloc.change_batch_eta('soon', '-infinity');
SELECT is(alloc.available_to_promise('lamp', '-infinity'), 37::bigint, 'the first of all days');
SELECT alloc.add_batch('most', 'sand', 9223372036854775800), alloc.add_batch('more', 'sand', 7, '2031-01-01');
SELECT is(alloc.available_to_promise('sand'), 9223372036854775807, 'sums of 2^63-1');
SELECT is(promised('sand', 9223372036854775800), 'most', 'in one batch');
SELECT is(promised('sand', 9223372036854775801), NULL, 'but a line is never split');
SELECT alloc.add_batch('longest', repeat('k', 255), 1);
SELECT is(alloc.available_to_promise(repeat('k', 255)), 1::bigint, 'a sku of 255 bytes');

-- In one statement, and where nothing can be written

SELECT is((SELECT string_agg(coalesce(promised('rug', 50), 'none') || ' ' || alloc.allocate('r' || n, 'rug', 30), ', ') FROM generate_series(1, 3) n),
	'rug rug, rug rug, rug rug', 'all calls of a statement see what it sees');
SELECT is(promised('rug', 50), NULL, 'the next one what it has left');
SET LOCAL transaction_read_only = on;
SELECT is(alloc.available_to_promise('rug'), 9::bigint, 'available_to_promise() in a read-only transaction');
SELECT is(promised('rug', 9), 'rug', 'promise() likewise');
ROLLBACK;
SELECT results_eq($$SELECT provolatile, proparallel, proretset, procost > 0 FROM pg_proc WHERE oid IN ('alloc.promise'::regproc, 'alloc.available_to_promise'::regproc) ORDER BY proretset$$,
	$$VALUES ('s'::"char", 'r'::"char", false, true), ('s', 'r', true, true)$$, 'both are stable');

-- Bad input

BEGIN;
SELECT alloc.add_batch('b1', 's1', 10);
SELECT refused(format(call, value), state, format(pattern, 'sku'), format(call, what))
  FROM unnest(ARRAY['SELECT * FROM alloc.promise(%s, 1)', 'SELECT alloc.available_to_promise(%s)', $$SELECT alloc.available_to_promise(%s, '2031-01-01')$$]) AS call,
	   (VALUES
	('NULL', 'NULL', '22004', '%%%s%%null%%'),
	($$''$$, 'empty', '22023', '%%%s%%empty%%""%%'),
	($$repeat('k', 256)$$, '256 bytes', '22001', '%%%s%%too long%%"kkkkkkkk%%'),
	($$repeat('é', 128)$$, '128 characters in 256 bytes', '22001', '%%%s%%too long%%"éééééééé%%'),
	($$repeat('k', 10 * 1024 * 1024)$$, '10 MB', '22001', '%%%s%%too long%%"kkkkkkkk%%'),
	($$'no such sku'$$, 'unknown', 'SK001', '%%"no such sku"%%'),
	($$'S1'$$, 'in another case', 'SK001', '%%"S1"%%'),
	($$'b1'$$, 'a ref', 'SK001', '%%"b1"%%')) AS bad (value, what, state, pattern);
SELECT refused(format('SELECT * FROM alloc.promise(%L, %s)', 's1', qty), state, pattern, format('promise(): qty %s', qty))
  FROM (VALUES ('NULL', '22004', '%qty%null%'), ('0', '22023', '%qty%at least 1: 0'), ('-1', '22023', '%qty%at least 1: -1'),
			   ('-9223372036854775808', '22023', '%qty%at least 1: -9223372036854775808')) AS bad (qty, state, pattern);
SELECT is(promised('s1', 10), 'b1', 'good input still works');
ROLLBACK;

-- What is promised is what allocate() then gives, in whatever state

CREATE FUNCTION dice(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1 + floor(random() * n)::int';
-- scatter: some of a batch's stock to a slot of its own.
CREATE FUNCTION scatter(batchref text, number int, share float) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	from_slot alloc.slot;
	moved bigint;
BEGIN
	IF EXISTS (SELECT FROM alloc.slot WHERE ref = batchref AND slot = number) THEN
		RETURN;
	END IF;
	SELECT * INTO from_slot FROM alloc.slot WHERE ref = batchref ORDER BY available DESC, slot LIMIT 1;
	moved := floor(from_slot.available * share);
	UPDATE alloc.slot SET spread = true, available = available - CASE slot WHEN from_slot.slot THEN moved ELSE 0 END WHERE ref = batchref;
	INSERT INTO alloc.slot (batch_id, slot, available, spread, waiting, eta, ref, sku)
	VALUES (from_slot.batch_id, number, moved, true, from_slot.waiting, from_slot.eta, batchref, from_slot.sku);
END
$$;
-- step: a random command on a sku with few batches.
CREATE FUNCTION step() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	batch text := (SELECT ref FROM alloc.batch ORDER BY random() LIMIT 1);
	day date := CASE dice(3) WHEN 1 THEN NULL ELSE date '2031-01-01' + dice(3) END;
BEGIN
	CASE dice(8)
	WHEN 1 THEN PERFORM alloc.change_batch_quantity(batch, greatest(dice(40) - 5, (SELECT shipped_qty FROM alloc.batches WHERE ref = batch)));
	WHEN 2 THEN PERFORM alloc.change_batch_eta(batch, day);
	WHEN 3 THEN PERFORM alloc.ship((SELECT orderid FROM alloc.allocation ORDER BY random() LIMIT 1));
	WHEN 4, 5 THEN PERFORM alloc.deallocate((SELECT orderid FROM alloc.allocation ORDER BY random() LIMIT 1), 's');
	WHEN 6 THEN PERFORM scatter(batch, dice(100), random());
	WHEN 7 THEN PERFORM alloc.purge_shipped('infinity') WHERE dice(4) = 1;
	ELSE PERFORM alloc.add_batch('b' || nextval('alloc.batch_id_seq'), 's', dice(40) - 1, day) WHERE (SELECT count(*) < 12 FROM alloc.batch);
	END CASE;
EXCEPTION WHEN null_value_not_allowed THEN
	-- No such line
END
$$;
CREATE TABLE trial (n int, promised text, promised_eta date, given text, given_eta date, in_all bigint, by_day bigint, expected bigint, expected_by_day bigint);
CREATE FUNCTION try(n int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t trial;
	wanted bigint := 1 + floor(30 * random() ^ 2);
	day date := date '2031-01-01' + dice(4) - 1;
BEGIN
	PERFORM step();
	SELECT * INTO t.promised, t.promised_eta FROM alloc.promise('s', wanted);
	t.in_all := alloc.available_to_promise('s');
	t.by_day := alloc.available_to_promise('s', day);
	SELECT sum(available_qty), coalesce(sum(available_qty) FILTER (WHERE eta IS NULL OR eta <= day), 0)
	  INTO t.expected, t.expected_by_day FROM alloc.batches WHERE sku = 's';
	t.n := n;
	t.given := alloc.allocate('o' || n, 's', wanted);
	t.given_eta := (SELECT eta FROM alloc.batches WHERE ref = t.given);
	INSERT INTO trial SELECT t.*;
END
$$;
SELECT setseed(0.5);
SELECT alloc.add_batch('b', 's', 20);
SELECT try(n) FROM generate_series(1, 1000) n;
SELECT is_empty('SELECT * FROM trial WHERE (promised, promised_eta) IS DISTINCT FROM (given, given_eta)', '1,000 random states: what is promised is given');
SELECT is_empty('SELECT * FROM trial WHERE (in_all, by_day) IS DISTINCT FROM (expected, expected_by_day)', 'and what is available adds up');
SELECT cmp_ok((SELECT count(*) FROM trial WHERE given IS NULL), '>', 50::bigint, 'often it was nothing');
SELECT cmp_ok((SELECT count(*) FROM trial WHERE given IS NOT NULL AND given_eta IS NULL), '>', 50::bigint, 'often from the warehouse');
SELECT cmp_ok((SELECT count(*) FROM trial WHERE given_eta IS NOT NULL), '>', 50::bigint, 'often from a ship');
SELECT cmp_ok((SELECT count(*) FROM alloc.event WHERE type = e), '>', 30::bigint, 'with events ' || e)
  FROM unnest(ARRAY['shipped', 'batch_eta_changed', 'promise_changed', 'deallocated', 'batch_quantity_changed']) AS e;
SELECT sound('random commands');
SELECT agrees('random commands');

SELECT * FROM finish();
