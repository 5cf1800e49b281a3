-- allocate_lines(): the same result as allocate() for each line in turn.

\ir common.psql
SELECT plan(269);

-- line: a line, from columns of a query.
CREATE FUNCTION line(orderid text, sku text, qty bigint) RETURNS alloc.order_line
LANGUAGE sql IMMUTABLE AS $$
	SELECT ROW(orderid, sku, qty)::alloc.order_line
$$;

-- bulk, loop: the lines in one call, and one by one.
CREATE FUNCTION bulk(lines alloc.order_line[]) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT format('SELECT * FROM alloc.allocate_lines(%L)', lines)
$$;
CREATE FUNCTION loop(lines alloc.order_line[]) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT format('SELECT orderid, sku, qty, alloc.allocate(orderid, sku, qty) FROM unnest(%L::alloc.order_line[])', lines)
$$;

-- outcome: what a query came to, a row of it or a fact of the state after it
-- in each row; then it is undone.
CREATE FUNCTION outcome(command text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	facts text[];
BEGIN
	PERFORM mark();
	BEGIN
		EXECUTE format('SELECT array_agg(r::text) FROM (%s) AS r', command) INTO facts;
		RAISE EXCEPTION USING ERRCODE = 'UNDO1', MESSAGE = (
			SELECT array_agg(fact)
			  FROM (SELECT 'answer ' || a FROM unnest(facts) AS a
					UNION ALL SELECT 'event ' || e FROM news() AS e
					UNION ALL (SELECT 'line ' || l FROM alloc.allocations l ORDER BY sku, orderid)
					UNION ALL (SELECT 'batch ' || b FROM alloc.batches b ORDER BY ref)
					UNION ALL SELECT 'unsound ' || u FROM unsound() AS u) AS f (fact));
	EXCEPTION
		WHEN SQLSTATE 'UNDO1' THEN facts := SQLERRM;
		WHEN OTHERS THEN facts := ARRAY['error ' || SQLSTATE, SQLERRM];
	END;
	RETURN QUERY SELECT unnest(facts);
END
$$;

-- same: one test, that the lines in one call come to the same as one by one.
CREATE FUNCTION same(lines alloc.order_line[], what text) RETURNS text
LANGUAGE sql AS $$
	SELECT results_eq(format('SELECT outcome(%L)', bulk(lines)), format('SELECT outcome(%L)', loop(lines)),
					  what || ': the same as one by one')
$$;

-- scatter: a third of each batch's stock to a second slot, nothing to a third.
CREATE FUNCTION scatter() RETURNS void
LANGUAGE sql AS $$
	INSERT INTO alloc.slot (batch_id, slot, available, spread, waiting, eta, ref, sku)
	SELECT batch_id, 50 + n, CASE n WHEN 1 THEN available / 3 ELSE 0 END, true, waiting, eta, ref, sku
	  FROM alloc.slot, generate_series(1, 2) AS n
	 WHERE slot = 0;
	UPDATE alloc.slot SET available = available - available / 3 WHERE slot = 0;
	UPDATE alloc.slot SET spread = true;
$$;

-- What it returns and records

BEGIN;
SELECT alloc.add_batch('lamp-store', 'lamp', 10), alloc.add_batch('lamp-ship', 'lamp', 20, '2011-01-01'),
	   alloc.add_batch('rug', 'rug', 5), alloc.add_batch('none', 'none', 0);
SELECT is((SELECT format('%s(%s) %s', proname, pg_get_function_identity_arguments(oid), pg_get_function_result(oid))
			 FROM pg_proc WHERE oid = 'alloc.allocate_lines'::regproc),
	'allocate_lines(lines alloc.order_line[], OUT orderid text, OUT sku text, OUT qty bigint, OUT batchref text) SETOF record',
	'the signature is that of the contract');
SELECT isnt(obj_description('alloc.allocate_lines'::regproc, 'pg_proc'), NULL, 'the function has a comment');
SELECT isnt(obj_description('alloc.order_line'::regtype, 'pg_type'), NULL, 'so has type order_line');
SELECT mark();
SELECT results_eq($$SELECT * FROM alloc.allocate_lines(ARRAY[
		('o3', 'rug', 3), ('o1', 'lamp', 8), ('o1', 'rug', 3), ('o2', 'lamp', 3), ('o4', 'none', 1), ('o0', 'lamp', 2)]::alloc.order_line[])$$,
	$$VALUES ('o3', 'rug', 3::bigint, 'rug'), ('o1', 'lamp', 8, 'lamp-store'), ('o1', 'rug', 3, NULL),
			 ('o2', 'lamp', 3, 'lamp-ship'), ('o4', 'none', 1, NULL), ('o0', 'lamp', 2, 'lamp-store')$$,
	'a row for each line in the order of the array: its batch, or NULL');
SELECT results_eq('SELECT news()', ARRAY[
	'allocated o3 rug 3 rug',
	'allocated o1 lamp 8 lamp-store',
	'out_of_stock o1 rug 3',
	'allocated o2 lamp 3 lamp-ship',
	'out_of_stock o4 none 1',
	'allocated o0 lamp 2 lamp-store'], 'an event for each line, in the order of the array');
SELECT bag_eq('SELECT orderid, sku, qty, batchref, eta, expires_at FROM alloc.allocations',
	$$VALUES ('o3', 'rug', 3::bigint, 'rug', NULL::date, NULL::timestamptz), ('o1', 'lamp', 8, 'lamp-store', NULL, NULL),
			 ('o2', 'lamp', 3, 'lamp-ship', '2011-01-01', NULL), ('o0', 'lamp', 2, 'lamp-store', NULL, NULL)$$,
	'who is served is in allocations');
SELECT results_eq('SELECT ref, allocated_qty, available_qty FROM alloc.batches ORDER BY ref',
	$$VALUES ('lamp-ship', 3::bigint, 17::bigint), ('lamp-store', 10, 0), ('none', 0, 0), ('rug', 3, 2)$$,
	'and what they have is taken from the batches');
SELECT is((SELECT count(DISTINCT at) FROM alloc.events WHERE event_id > current_setting('test.mark')::bigint), 1::bigint,
	'all events have the moment of the statement');
SELECT mark();
SELECT results_eq($$SELECT * FROM alloc.allocate_lines(ARRAY[
		('o0', 'lamp', 2), ('o3', 'rug', 3), ('o2', 'lamp', 3), ('o1', 'lamp', 8)]::alloc.order_line[])$$,
	$$VALUES ('o0', 'lamp', 2::bigint, 'lamp-store'), ('o3', 'rug', 3, 'rug'), ('o2', 'lamp', 3, 'lamp-ship'), ('o1', 'lamp', 8, 'lamp-store')$$,
	'lines that are there: the batches that they have');
SELECT is_empty('SELECT news()', 'which is no event');
SELECT is_empty($$SELECT * FROM alloc.allocate_lines('{}')$$, 'no line, no row');
SELECT is_empty('SELECT news()', 'and no event');
SELECT sound('the first calls');
ROLLBACK;

-- As one by one: all kinds of arrays, on the same stock

SELECT alloc.add_batch('s1', 's', 10), alloc.add_batch('s2', 's', 20, '2011-01-01'), alloc.add_batch('s3', 's', 9, '2011-01-01'),
	   alloc.add_batch('t1', 't', 5), alloc.add_batch('none', 'none', 0),
	   alloc.add_batch('u1', 'u', 9223372036854775000), alloc.add_batch('u2', 'u', 800, '2011-01-01'),
	   alloc.add_batch('large', 'large', 5000);
SELECT alloc.allocate('old', 's', 4), alloc.allocate('old', 't', 5), alloc.allocate('older', 's', 3);

CREATE TABLE example (what text, lines alloc.order_line[]);
INSERT INTO example VALUES
	('one line', ARRAY[('a', 's', 1)]::alloc.order_line[]),
	('lines of one sku', ARRAY[('c', 's', 1), ('a', 's', 1), ('b', 's', 1)]::alloc.order_line[]),
	('lines of several skus by turns', ARRAY[('a', 't', 1), ('a', 's', 1), ('a', 'u', 1), ('b', 's', 1), ('b', 'none', 1), ('b', 'u', 1)]::alloc.order_line[]),
	('one batch to its last unit', ARRAY[('a', 's', 1), ('b', 's', 2)]::alloc.order_line[]),
	('one unit more than the preferred batch', ARRAY[('a', 's', 1), ('b', 's', 3), ('c', 's', 2)]::alloc.order_line[]),
	('a batch that a later line fits', ARRAY[('a', 's', 20), ('b', 's', 8), ('c', 's', 2), ('d', 's', 1), ('e', 's', 1)]::alloc.order_line[]),
	('all that there is', ARRAY[('a', 's', 20), ('b', 's', 9), ('c', 's', 3)]::alloc.order_line[]),
	('more than there is', ARRAY[('a', 's', 20), ('b', 's', 9), ('c', 's', 4), ('d', 's', 3), ('e', 's', 1)]::alloc.order_line[]),
	('a line too large, then small ones', ARRAY[('a', 's', 21), ('b', 's', 3), ('c', 's', 21), ('d', 's', 20)]::alloc.order_line[]),
	('a sku without stock', ARRAY[('a', 'none', 1), ('b', 'none', 2)]::alloc.order_line[]),
	('a large batch', ARRAY[('a', 'large', 2000), ('b', 'large', 2999), ('c', 'large', 2), ('d', 'large', 1)]::alloc.order_line[]),
	('2^63-1 units', ARRAY[('a', 's', 9223372036854775807), ('b', 's', 1)]::alloc.order_line[]),
	('a sum beyond bigint', ARRAY[('a', 's', 9223372036854775807), ('b', 's', 9223372036854775807), ('c', 's', 9223372036854775807), ('d', 's', 2)]::alloc.order_line[]),
	('a sum beyond bigint, some of it there', ARRAY[('a', 'u', 9223372036854775000), ('b', 'u', 9223372036854775000), ('c', 'u', 800), ('d', 'u', 1)]::alloc.order_line[]),
	('a line that is there', ARRAY[('old', 's', 4)]::alloc.order_line[]),
	('a line that is there, nothing left', ARRAY[('old', 't', 5)]::alloc.order_line[]),
	('a line that is there among new ones', ARRAY[('a', 's', 1), ('old', 's', 4), ('b', 's', 2), ('older', 's', 3), ('old', 't', 5), ('c', 't', 1)]::alloc.order_line[]),
	('a line that is there, and its stock just enough for the others', ARRAY[('older', 's', 3), ('a', 's', 3), ('b', 's', 20), ('c', 's', 9)]::alloc.order_line[]),
	('a line that is there after one out of stock', ARRAY[('a', 's', 21), ('old', 's', 4)]::alloc.order_line[]),
	('a line twice', ARRAY[('a', 's', 3), ('a', 's', 3)]::alloc.order_line[]),
	('a line twice, others between and after', ARRAY[('a', 's', 2), ('b', 's', 1), ('a', 't', 1), ('a', 's', 2), ('c', 's', 1), ('a', 's', 2)]::alloc.order_line[]),
	('a line twice that takes all', ARRAY[('a', 's', 20), ('b', 's', 20), ('a', 's', 20), ('b', 's', 20)]::alloc.order_line[]),
	('a line out of stock twice', ARRAY[('a', 's', 21), ('a', 's', 21)]::alloc.order_line[]),
	('out of stock, then with a smaller quantity', ARRAY[('a', 's', 21), ('a', 's', 3)]::alloc.order_line[]),
	('out of stock, then with a smaller quantity twice', ARRAY[('a', 's', 21), ('a', 's', 3), ('b', 's', 21), ('a', 's', 3)]::alloc.order_line[]),
	('out of stock, smaller, then as at first', ARRAY[('a', 's', 21), ('a', 's', 3), ('a', 's', 21)]::alloc.order_line[]),
	('a line that is there twice', ARRAY[('old', 's', 4), ('old', 's', 4), ('a', 's', 1), ('old', 's', 4)]::alloc.order_line[]),
	('a line that is there with a smaller quantity', ARRAY[('a', 's', 1), ('old', 's', 3)]::alloc.order_line[]),
	('a line that is there with a greater quantity', ARRAY[('a', 's', 1), ('old', 's', 5)]::alloc.order_line[]),
	('a line that is there with more than there is', ARRAY[('a', 's', 1), ('old', 's', 50)]::alloc.order_line[]),
	('a line twice with another quantity', ARRAY[('a', 's', 3), ('b', 's', 3), ('a', 's', 2)]::alloc.order_line[]),
	('a line twice, out of stock the second time', ARRAY[('a', 's', 3), ('a', 's', 21)]::alloc.order_line[]),
	('an unknown sku', ARRAY[('a', 'nobody''s', 1)]::alloc.order_line[]),
	('an unknown sku after good lines', ARRAY[('a', 's', 1), ('b', 't', 1), ('a', 'nobody''s', 1)]::alloc.order_line[]),
	('an unknown sku before good lines', ARRAY[('a', 'nobody''s', 1), ('a', 's', 1)]::alloc.order_line[]),
	('two unknown skus', ARRAY[('a', 's', 1), ('a', 'z', 1), ('a', 'nobody''s', 1)]::alloc.order_line[]),
	('an unknown sku, then another quantity', ARRAY[('a', 'nobody''s', 1), ('old', 's', 3)]::alloc.order_line[]),
	('an unknown sku, then another quantity in the array', ARRAY[('a', 's', 1), ('a', 'nobody''s', 1), ('a', 's', 2)]::alloc.order_line[]),
	('another quantity, then an unknown sku', ARRAY[('old', 's', 3), ('a', 'nobody''s', 1)]::alloc.order_line[]),
	('another quantity in the array, then an unknown sku', ARRAY[('a', 's', 1), ('a', 's', 2), ('a', 'nobody''s', 1)]::alloc.order_line[]),
	('another quantity twice', ARRAY[('older', 's', 1), ('old', 's', 1)]::alloc.order_line[]),
	('another quantity, out of stock, then the right one', ARRAY[('old', 's', 3), ('a', 's', 21), ('old', 's', 4)]::alloc.order_line[]),
	('another quantity, then one that is out of stock', ARRAY[('old', 's', 3), ('old', 't', 6)]::alloc.order_line[]);

SELECT same(lines, what) FROM example;
BEGIN;
SELECT scatter();
SELECT same(lines, 'several slots: ' || what) FROM example;
SELECT sound('several slots');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT same(lines, 'REPEATABLE READ: ' || what) FROM example;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT scatter();
SELECT same(lines, 'SERIALIZABLE, several slots: ' || what) FROM example;
ROLLBACK;
SELECT sound('all that is undone');

-- As one by one: a large array over many skus, for good

BEGIN;
SELECT count(alloc.add_batch(format('%s%s-%s', side, sku, n), side || sku, sku * n * 5 % 70 + 30, date '2011-01-01' + (8 - n)))
  FROM unnest(ARRAY['bulk', 'loop']) AS side, generate_series(1, 50) AS sku, generate_series(1, 7) AS n;
-- Some lines are there, in another order than in the array; some are twice in
-- it; some are too large, and are asked for again.
CREATE TABLE delivery AS
SELECT side, array_agg(ROW('o' || n % 4700, side || 1 + n * 7 % 50, CASE WHEN n % 4700 % 97 = 0 THEN 1000 ELSE 1 + n % 4700 % 13 END)::alloc.order_line ORDER BY n) AS lines
  FROM unnest(ARRAY['bulk', 'loop']) AS side, generate_series(1, 5000) AS n
 GROUP BY side;
SELECT count(alloc.allocate(orderid, sku, qty)) FROM delivery, unnest(lines) WITH ORDINALITY WHERE ordinality % 11 = 0;
CREATE TABLE answer (side text, n bigint, orderid text, sku text, qty bigint, batchref text);
SELECT mark();
INSERT INTO answer SELECT side, r.ordinality, orderid, sku, qty, batchref
  FROM delivery, alloc.allocate_lines(lines) WITH ORDINALITY AS r WHERE side = 'bulk';
INSERT INTO answer SELECT side, ordinality, orderid, sku, qty, alloc.allocate(orderid, sku, qty)
  FROM delivery, unnest(lines) WITH ORDINALITY WHERE side = 'loop';
SELECT is((SELECT count(*) FROM answer), 10000::bigint, '5,000 lines of 50 skus: a row for each');
SELECT cmp_ok((SELECT count(*) FILTER (WHERE batchref IS NULL) FROM answer), '>', 100::bigint, 'some of which are out of stock');
SELECT cmp_ok((SELECT count(DISTINCT batchref) FROM answer), '>', 600::bigint, 'the others from many batches');
SELECT results_eq(
	$$SELECT n, orderid, replace(sku, 'bulk', ''), qty, replace(batchref, 'bulk', '') FROM answer WHERE side = 'bulk' ORDER BY n$$,
	$$SELECT n, orderid, replace(sku, 'loop', ''), qty, replace(batchref, 'loop', '') FROM answer WHERE side = 'loop' ORDER BY n$$,
	'5,000 lines of 50 skus: the same answers as one by one in 50 others');
SELECT results_eq(
	$$SELECT replace(e, 'bulk', '') FROM news() AS e WHERE e LIKE '%bulk%'$$,
	$$SELECT replace(e, 'loop', '') FROM news() AS e WHERE e LIKE '%loop%'$$, 'and the same events in the same order');
SELECT results_eq(
	$$SELECT replace(ref, 'bulk', ''), allocated_qty, available_qty FROM alloc.batches WHERE sku LIKE 'bulk%' ORDER BY ref$$,
	$$SELECT replace(ref, 'loop', ''), allocated_qty, available_qty FROM alloc.batches WHERE sku LIKE 'loop%' ORDER BY ref$$,
	'and the same stock');
SELECT results_eq(
	$$SELECT orderid, replace(sku, 'bulk', ''), qty, replace(batchref, 'bulk', '') FROM alloc.allocations WHERE sku LIKE 'bulk%' ORDER BY 1, 2$$,
	$$SELECT orderid, replace(sku, 'loop', ''), qty, replace(batchref, 'loop', '') FROM alloc.allocations WHERE sku LIKE 'loop%' ORDER BY 1, 2$$,
	'and the same lines');
SELECT results_eq($$SELECT replace(m, 'bulk', '') FROM moves('bulk7-2', 5) AS m$$, $$SELECT replace(m, 'loop', '') FROM moves('loop7-2', 5) AS m$$,
	'of which the same leave when a batch shrinks');
SELECT sound('5,000 lines');
ROLLBACK;

-- The newest lines leave first

BEGIN;
SELECT alloc.add_batch('early', 'shed', 20), alloc.add_batch('late', 'shed', 9, '2011-01-01');
SELECT alloc.allocate('one', 'shed', 2);
SELECT count(*) FROM alloc.allocate_lines(ARRAY[('two', 'shed', 3), ('x', 's', 1), ('three', 'shed', 4), ('four', 'shed', 5)]::alloc.order_line[]);
SELECT alloc.allocate('five', 'shed', 1);
SELECT count(*) FROM alloc.allocate_lines(ARRAY[('six', 'shed', 2), ('two', 'shed', 3), ('seven', 'shed', 3)]::alloc.order_line[]);
SELECT results_eq($$SELECT lines('early')$$, ARRAY['one 2', 'two 3', 'three 4', 'four 5', 'five 1', 'six 2', 'seven 3'],
	'lines of a call are as old as their place in it');
SELECT results_eq($$SELECT moves('early', 16)$$, ARRAY['six shed 2: early to late', 'seven shed 3: early to late'],
	'a batch that shrinks sheds the newest lines of the newest call');
SELECT results_eq($$SELECT moves('early', 6)$$, ARRAY['three shed 4: early to late', 'four shed 5: early to nowhere'],
	'then a single one, then the newest of the call before, as long as it must');
SELECT results_eq($$SELECT lines('early')$$, ARRAY['one 2', 'two 3', 'five 1'], 'what is left is the oldest, and what fits again');
SELECT sound('shedding');
ROLLBACK;

BEGIN;
SELECT alloc.add_batch('early', 'shed', 34), alloc.add_batch('late', 'shed', 30, '2011-01-01');
SELECT alloc.allocate('one', 'shed', 2);
SELECT scatter();
SELECT results_eq($$SELECT orderid, batchref FROM alloc.allocate_lines(ARRAY[('two', 'shed', 15), ('three', 'shed', 11), ('four', 'shed', 2)]::alloc.order_line[])$$,
	$$VALUES ('two', 'early'), ('three', 'early'), ('four', 'early')$$, 'lines of more units than any slot has are gathered from several');
SELECT is(alloc.allocate('five', 'shed', 4), 'early', 'and a single one gets the rest');
SELECT results_eq($$SELECT moves('early', 17)$$, ARRAY['three shed 11: early to late', 'four shed 2: early to late', 'five shed 4: early to late'],
	'the newest lines of a batch in several slots leave first');
SELECT sound('shedding from several slots');
ROLLBACK;

-- A transaction of its own making

BEGIN;
CREATE TEMPORARY TABLE digest_before AS SELECT digest();
SAVEPOINT here;
SELECT is((SELECT count(batchref) FROM alloc.allocate_lines(ARRAY[('a', 's', 1), ('b', 'u', 2), ('old', 's', 4)]::alloc.order_line[])), 3::bigint,
	'within a savepoint: served');
SELECT isnt(digest(), (SELECT * FROM digest_before), 'which is there to see');
ROLLBACK TO SAVEPOINT here;
SELECT is(digest(), (SELECT * FROM digest_before), 'rolled back to the savepoint: stock, lines and events as before');
SELECT results_eq($$SELECT batchref FROM alloc.allocate_lines(ARRAY[('a', 's', 2), ('b', 's', 1)]::alloc.order_line[])$$, ARRAY['s1', 's1'],
	'the undone line can have another quantity');
SELECT mark();
SELECT results_eq($$SELECT batchref FROM alloc.allocate_lines(ARRAY[('a', 's', 2), ('c', 's', 1), ('b', 's', 1)]::alloc.order_line[])$$, ARRAY['s1', 's2', 's1'],
	'a second call in the transaction knows the lines of the first');
SELECT is(alloc.allocate('c', 's', 1), 's2', 'so does a single one');
SELECT results_eq('SELECT news()', ARRAY['allocated c s 1 s2'], 'and what was there is no event');
SELECT is(alloc.deallocate('a', 's'), 's1', 'a line of the call can be freed');
SELECT results_eq($$SELECT batchref FROM alloc.allocate_lines(ARRAY[('d', 's', 2), ('a', 's', 2)]::alloc.order_line[])$$, ARRAY['s1', 's2'],
	'and its units be given to another by the next');
SELECT sound('several calls in a transaction');
ROLLBACK;

-- An exception block

CREATE FUNCTION try(lines alloc.order_line[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT string_agg(coalesce(batchref, '-'), ' ') FROM alloc.allocate_lines(lines));
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
CREATE FUNCTION try_twice() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	lines alloc.order_line[] := '{}';
BEGIN
	FOR n IN 1..5 LOOP
		lines := lines || line('in' || n, 's', n);
	END LOOP;
	BEGIN
		RETURN NEXT try(lines);
		RETURN NEXT try(lines || line('in1', 's', 2));
		RETURN NEXT alloc.deallocate('in2', 's');
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RETURN NEXT try(lines[4:5] || lines[1:1]);
	END;
END
$$;
BEGIN;
CREATE TEMPORARY TABLE digest_before AS SELECT digest();
SELECT is(try(lines), state, 'an exception block catches ' || state)
  FROM (VALUES (ARRAY[('a', 's', 1), ('old', 's', 3)]::alloc.order_line[], 'SK003'),
			   (ARRAY[('a', 's', 1), ('a', 's', 2)]::alloc.order_line[], 'SK003'),
			   (ARRAY[('a', 's', 1), ('b', 's', 50), ('old', 't', 3)]::alloc.order_line[], 'SK003'),
			   (ARRAY[('a', 's', 1), ('a', '?', 2)]::alloc.order_line[], 'SK001'),
			   (ARRAY[('a', 's', 1), ('a', NULL, 2)]::alloc.order_line[], '22004'),
			   (ARRAY[('a', 's', 1), NULL]::alloc.order_line[], '22004'),
			   (NULL, '22004'),
			   (ARRAY[('a', 's', 1), ('b', 's', 0)]::alloc.order_line[], '22023')) AS bad (lines, state);
SELECT is(digest(), (SELECT * FROM digest_before), 'after which nothing has changed');
SELECT is(try(ARRAY[('a', 's', 1), ('b', 's', 3), ('c', 's', 2), ('d', 's', 30)]::alloc.order_line[]), 's1 s2 s1 -', 'and the next call works');
SELECT is(try(ARRAY[('a', 's', 1), ('old', 's', 3)]::alloc.order_line[]), 'SK003', 'as does the next error');
SELECT is(alloc.allocate('e', 's', 1), 's2', 'and a single call after it');
SELECT results_eq('SELECT try_twice()', ARRAY['s2 s2 s2 s2 s2', 'SK003', 's2', 's2 s2 s2'], 'lines that a loop put together, blocks within blocks');
SELECT bag_eq($$SELECT orderid, qty FROM alloc.allocations WHERE orderid LIKE 'in%'$$,
	$$VALUES ('in4', 4::bigint), ('in5', 5), ('in1', 1)$$, 'keep what the outer one did not undo');
SELECT sound('exception blocks');
ROLLBACK;

-- Where a query calls it

BEGIN;
SELECT results_eq($$SELECT alloc.allocate_lines(ARRAY[('a', 's', 1), ('b', 's', 50)]::alloc.order_line[])::text$$,
	ARRAY['(a,s,1,s1)', '(b,s,50,)'], 'in the select list');
SELECT results_eq($$SELECT orderid FROM alloc.allocate_lines(ARRAY[('l1', 's', 1), ('l2', 's', 1)]::alloc.order_line[]) LIMIT 1$$,
	ARRAY['l1'], 'under LIMIT 1 one row is returned');
SELECT bag_eq($$SELECT orderid FROM alloc.allocations WHERE orderid LIKE 'l%'$$, ARRAY['l1', 'l2'], 'but all lines are allocated');
SELECT results_eq($$SELECT n, orderid, batchref FROM generate_series(1, 3) AS n,
						   alloc.allocate_lines(ARRAY[line('n' || n, 's', 8), line('n', 's', 9)])$$,
	$$VALUES (1, 'n1', 's2'), (1, 'n', 's2'), (2, 'n2', 's3'), (2, 'n', 's2'), (3, 'n3', NULL), (3, 'n', 's2')$$,
	'for each row of another relation');
SELECT results_eq($$SELECT c.orderid, c.batchref, d.batchref
					  FROM alloc.allocate_lines(ARRAY[('c', 'u', 1)]::alloc.order_line[]) AS c, alloc.allocate_lines(ARRAY[('c', 'u', 1)]::alloc.order_line[]) AS d$$,
	$$VALUES ('c', 'u1', 'u1')$$, 'twice in a statement');
DECLARE bulk CURSOR FOR SELECT orderid FROM alloc.allocate_lines(ARRAY[('f1', 'u', 1), ('f2', 'u', 1)]::alloc.order_line[]);
FETCH bulk;
SELECT is(alloc.allocate('f2', 'u', 1), 'u1', 'a cursor allocates all lines when it is first fetched from');
SELECT throws_ok($$SELECT alloc.allocate('f2', 'u', 2)$$, 'SK003', NULL, 'so that they are there');
CLOSE bulk;
SELECT sound('queries');
ROLLBACK;

-- Triggers and constraints of a DBA

BEGIN;
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('test.seen', concat_ws(' ', current_setting('test.seen'), NEW.orderid), false);
	IF NEW.orderid = 'bad' THEN
		RAISE 'refused by a trigger' USING ERRCODE = 'TT000';
	ELSIF NEW.orderid = 'greedy' THEN
		PERFORM alloc.allocate_lines(ARRAY[('more', NEW.sku, 1)]::alloc.order_line[]);
	ELSIF NEW.orderid = 'content' THEN
		BEGIN
			PERFORM alloc.allocate_lines(ARRAY[('more', NEW.sku, 1)]::alloc.order_line[]);
		EXCEPTION WHEN object_in_use THEN
			PERFORM set_config('test.seen', SQLERRM, false);
		END;
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER see AFTER INSERT ON alloc.allocation FOR EACH ROW EXECUTE FUNCTION see();
SET LOCAL test.seen = '';
SELECT results_eq($$SELECT batchref FROM alloc.allocate_lines(ARRAY[('a', 's', 1), ('b', 's', 50), ('c', 'u', 1)]::alloc.order_line[])$$,
	ARRAY['s1', NULL, 'u1'], 'with a trigger on allocation');
SELECT is(trim(current_setting('test.seen')), 'a c', 'which sees each line that is allocated, in order');
SELECT refused($$SELECT alloc.allocate_lines(ARRAY[('d', 's', 1), ('bad', 's', 1), ('e', 's', 1)]::alloc.order_line[])$$,
	'TT000', 'refused by a trigger', 'a line that a trigger refuses');
SELECT refused($$SELECT alloc.allocate_lines(ARRAY[('d', 's', 1), ('bad', 's', 1), ('d', 's', 1)]::alloc.order_line[])$$,
	'TT000', 'refused by a trigger', 'a line that a trigger refuses, another one twice');
SELECT refused($$SELECT alloc.allocate_lines(ARRAY[('d', 's', 1), ('greedy', 's', 1), ('e', 's', 1)]::alloc.order_line[])$$,
	'55006', 'allocate_lines()%', 'a trigger that calls a command');
SELECT refused($$SELECT alloc.allocate('greedy', 's', 1)$$, '55006', 'allocate_lines()%', 'a trigger that calls it within a single call');
SELECT results_eq($$SELECT batchref FROM alloc.allocate_lines(ARRAY[('d', 's', 1), ('content', 's', 1), ('e', 's', 1)]::alloc.order_line[])$$,
	ARRAY['s1', 's1', 's2'], 'when the trigger catches the error the call goes on');
SELECT matches(current_setting('test.seen'), '^allocate_lines\(\).* e$', 'and the trigger saw it');
DROP TRIGGER see ON alloc.allocation;
ALTER TABLE alloc.allocation ADD CONSTRAINT dba_dozen CHECK (qty <= 12);
SELECT refused($$SELECT alloc.allocate_lines(ARRAY[('f', 's', 1), ('g', 'u', 13), ('h', 's', 1)]::alloc.order_line[])$$,
	'23514', '%dba_dozen%', 'a line that a CHECK of allocation refuses');
ALTER TABLE alloc.allocation DROP CONSTRAINT dba_dozen;
ALTER TABLE alloc.event ADD CONSTRAINT dba_met CHECK (type <> 'out_of_stock') NOT VALID;
SELECT refused($$SELECT alloc.allocate_lines(ARRAY[('f', 's', 1), ('g', 's', 50), ('h', 's', 1)]::alloc.order_line[])$$,
	'23514', '%dba_met%', 'an event that a CHECK of the log refuses');
ALTER TABLE alloc.event DROP CONSTRAINT dba_met;
ALTER TABLE alloc.slot ADD CONSTRAINT dba_reserve CHECK (sku <> 's' OR available > 4) NOT VALID;
SELECT refused($$SELECT alloc.allocate_lines(ARRAY[('f', 'u', 1), ('g', 's', 16)]::alloc.order_line[])$$,
	'23514', '%dba_reserve%', 'a slot that a CHECK refuses');
ALTER TABLE alloc.slot DROP CONSTRAINT dba_reserve;
CREATE UNIQUE INDEX dba_unique ON alloc.allocation (qty) WHERE sku = 'u';
SELECT refused($$SELECT alloc.allocate_lines(ARRAY[('f', 'u', 2), ('g', 'u', 3), ('h', 'u', 2)]::alloc.order_line[])$$,
	'23505', '%dba_unique%', 'lines that a unique index of a DBA refuses');
SELECT results_eq($$SELECT batchref FROM alloc.allocate_lines(ARRAY[('f', 'u', 2), ('g', 'u', 3)]::alloc.order_line[])$$,
	ARRAY['u1', 'u1'], 'what all of them accept is allocated');
SELECT is((SELECT orderid FROM alloc.allocation WHERE sku = 'u' AND qty = 3), 'g', 'and is in the new index');
DROP INDEX alloc.dba_unique;
SELECT sound('triggers and constraints');
ROLLBACK;

SELECT * FROM finish();
