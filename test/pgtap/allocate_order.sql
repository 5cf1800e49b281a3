-- allocate_order(): the lines of one order, all of them or what there is.

\ir common.psql
SELECT plan(235);

-- try: allocate_order(), its rows in words.
CREATE FUNCTION try(orderid text, lines alloc.order_line[], mode text DEFAULT 'all') RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT concat_ws(' ', o.sku, o.qty, o.batchref, o.status) FROM alloc.allocate_order(orderid, lines, mode) AS o
$$;

-- call: of it, with lines an SQL expression.
CREATE FUNCTION call(lines text, orderid text DEFAULT 'o', mode text DEFAULT 'all') RETURNS text
LANGUAGE sql AS $$
	SELECT format('SELECT * FROM alloc.allocate_order(%L, %s, %L)', orderid, lines, mode)
$$;

-- stock: of each batch that somebody has taken from, in words.
CREATE FUNCTION stock() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT format('%s %s', ref, allocated_qty) FROM alloc.batches WHERE allocated_qty > 0 ORDER BY ref
$$;

-- scatter: a third of each batch's stock to a second slot, nothing to a third.
CREATE FUNCTION scatter() RETURNS void
LANGUAGE sql AS $$
	INSERT INTO alloc.slot (batch_id, slot, available, spread, eta, ref, sku)
	SELECT batch_id, 50 + n, CASE n WHEN 1 THEN available / 3 ELSE 0 END, true, eta, ref, sku
	  FROM alloc.slot, generate_series(1, 2) AS n
	 WHERE slot = 0;
	UPDATE alloc.slot SET available = available - available / 3 WHERE slot = 0;
	UPDATE alloc.slot SET spread = true;
$$;

SELECT alloc.add_batch('lamp-store', 'lamp', 10), alloc.add_batch('lamp-ship', 'lamp', 20, '2011-01-01'),
	   alloc.add_batch('rug', 'rug', 5), alloc.add_batch('vase', 'vase', 8), alloc.add_batch('none', 'none', 0);

-- The function

SELECT is((SELECT format('%s(%s) %s', proname, pg_get_function_arguments(oid), pg_get_function_result(oid))
			 FROM pg_proc WHERE oid = 'alloc.allocate_order'::regproc),
	'allocate_order(orderid text, lines alloc.order_line[], mode text DEFAULT ''all''::text, OUT sku text, OUT qty bigint, OUT batchref text, OUT status text) SETOF record',
	'the signature is that of the contract');
SELECT isnt(obj_description('alloc.allocate_order'::regproc, 'pg_proc'), NULL, 'the function has a comment');

-- Each line can be served: in both modes the same

CREATE FUNCTION served(how text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	wanted alloc.order_line[] := ARRAY[('o', 'vase', 3), (NULL, 'lamp', 6), ('o', 'rug', 5), (NULL, 'lamp', 5), ('o', 'vase', 1)]::alloc.order_line[];
	lines  text[] := ARRAY['vase 4 vase allocated', 'lamp 11 lamp-ship allocated', 'rug 5 rug allocated'];
BEGIN
	PERFORM mark();
	RETURN NEXT results_eq(format('SELECT try(%L, %L, %L)', 'o', wanted, how), lines,
		how || ': a row for each sku, where it first appears, with its sum');
	RETURN NEXT results_eq('SELECT news()', ARRAY['allocated o vase 4 vase', 'allocated o lamp 11 lamp-ship', 'allocated o rug 5 rug'],
		how || ': an event for each of these');
	RETURN NEXT bag_eq('SELECT orderid, sku, qty, batchref FROM alloc.allocations',
		$v$VALUES ('o', 'vase', 4::bigint, 'vase'), ('o', 'lamp', 11, 'lamp-ship'), ('o', 'rug', 5, 'rug')$v$, how || ': they are in allocations');
	RETURN NEXT results_eq('SELECT stock()', ARRAY['lamp-ship 11', 'rug 5', 'vase 4'], how || ': and taken from the stock');
	PERFORM mark();
	RETURN NEXT results_eq(format('SELECT try(%L, %L, %L)', 'o', wanted, how), lines, how || ': the same order again has the same answer');
	RETURN NEXT results_eq(format('SELECT try(%L, %L, %L)', 'o', wanted, CASE how WHEN 'all' THEN 'partial' ELSE 'all' END), lines,
		how || ': in the other mode, too');
	RETURN NEXT is(alloc.allocate('o', 'lamp', 11), 'lamp-ship', how || ': and of allocate()');
	RETURN NEXT is_empty('SELECT news()', how || ': none of which is an event');
	RETURN NEXT sound(how || ', all served');
	RETURN NEXT agrees(how || ', all served');
END
$$;
BEGIN;
SELECT served('all');
ROLLBACK;
BEGIN;
SELECT served('partial');
ROLLBACK;
BEGIN;
SELECT scatter();
SELECT served('all');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT served('all');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT scatter();
SELECT served('partial');
ROLLBACK;

BEGIN;
SELECT results_eq($$SELECT * FROM alloc.allocate_order('o', ARRAY[('o', 'lamp', 2)]::alloc.order_line[])$$,
	$$VALUES ('lamp', 2::bigint, 'lamp-store', 'allocated')$$, 'without a mode it is all');
SELECT is_empty(call($$'{}'$$), 'no line, no row');
SELECT is_empty(call($$'{}'$$, 'o', 'partial'), 'partial: likewise');
SELECT results_eq($$SELECT try('p', ARRAY[[('p', 'lamp', 1), ('p', 'rug', 1)], [('p', 'lamp', 2), ('p', 'vase', 1)]]::alloc.order_line[])$$,
	ARRAY['lamp 3 lamp-store allocated', 'rug 1 rug allocated', 'vase 1 vase allocated'], 'an array of two dimensions: line by line of it');
ROLLBACK;

-- Some cannot: all

CREATE FUNCTION refused_whole(setting text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	wanted alloc.order_line[] := ARRAY[('o', 'lamp', 2), ('o', 'rug', 3), ('o', 'none', 1), (NULL, 'rug', 3), ('o', 'vase', 8)]::alloc.order_line[];
	lines  text[] := ARRAY['lamp 2 not_taken', 'rug 6 out_of_stock', 'none 1 out_of_stock', 'vase 8 not_taken'];
	events text[] := ARRAY['out_of_stock o rug 6', 'out_of_stock o none 1'];
BEGIN
	PERFORM mark();
	RETURN NEXT results_eq(format('SELECT try(%L, %L)', 'o', wanted), lines, setting || ': a line that cannot be served, and no other is taken');
	RETURN NEXT results_eq('SELECT news()', events, setting || ': an event for each that cannot be served');
	RETURN NEXT is_empty('SELECT * FROM alloc.allocations', setting || ': no line is allocated');
	RETURN NEXT is_empty('SELECT stock()', setting || ': no stock is taken');
	PERFORM mark();
	RETURN NEXT results_eq(format('SELECT try(%L, %L)', 'o', wanted), lines, setting || ': again, the same');
	RETURN NEXT results_eq('SELECT news()', events, setting || ': with its events, as from allocate()');
	PERFORM alloc.allocate('o', 'lamp', 2);
	PERFORM mark();
	RETURN NEXT results_eq(format('SELECT try(%L, %L)', 'o', wanted),
		ARRAY['lamp 2 lamp-store allocated', 'rug 6 out_of_stock', 'none 1 out_of_stock', 'vase 8 not_taken'],
		setting || ': a line that is there stays, though the order is not taken');
	RETURN NEXT results_eq('SELECT news()', events, setting || ': which is no event');
	RETURN NEXT results_eq('SELECT stock()', ARRAY['lamp-store 2'], setting || ': and takes nothing more');
	PERFORM alloc.add_batch('rug-2', 'rug', 6), alloc.add_batch('none-2', 'none', 1);
	PERFORM mark();
	RETURN NEXT results_eq(format('SELECT try(%L, %L)', 'o', wanted),
		ARRAY['lamp 2 lamp-store allocated', 'rug 6 rug-2 allocated', 'none 1 none-2 allocated', 'vase 8 vase allocated'],
		setting || ': when there is stock the rest is served');
	RETURN NEXT results_eq('SELECT news()', ARRAY['allocated o rug 6 rug-2', 'allocated o none 1 none-2', 'allocated o vase 8 vase'],
		setting || ': with an event for each that is new');
	RETURN NEXT sound(setting || ', not taken');
	RETURN NEXT agrees(setting || ', not taken');
END
$$;
BEGIN;
SELECT refused_whole('one slot');
ROLLBACK;
BEGIN;
SELECT scatter();
SELECT refused_whole('several slots');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT refused_whole('REPEATABLE READ');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT refused_whole('SERIALIZABLE');
ROLLBACK;

BEGIN;
SELECT alloc.allocate('o', 'rug', 5), alloc.allocate('o', 'vase', 1);
SELECT mark();
SELECT results_eq($$SELECT try('o', ARRAY[('o', 'vase', 1), ('o', 'rug', 2), ('o', 'rug', 3), ('o', 'lamp', 1)]::alloc.order_line[])$$,
	ARRAY['vase 1 vase allocated', 'rug 5 rug allocated', 'lamp 1 lamp-store allocated'], 'a line that is there has its stock: nothing is left, and the order is taken');
SELECT results_eq('SELECT news()', ARRAY['allocated o lamp 1 lamp-store'], 'what is new is an event');
SELECT is(alloc.ship('o', 'rug'), 1::bigint, 'a line is shipped');
SELECT results_eq($$SELECT try('o', ARRAY[('o', 'rug', 5), ('o', 'none', 1)]::alloc.order_line[])$$,
	ARRAY['rug 5 rug allocated', 'none 1 out_of_stock'], 'and is known as before');
SELECT sound('lines that are there');
ROLLBACK;

-- Some cannot: partial

BEGIN;
SELECT mark();
SELECT results_eq($$SELECT try('o', ARRAY[('o', 'lamp', 2), ('o', 'rug', 3), ('o', 'none', 1), (NULL, 'rug', 3), ('o', 'vase', 8)]::alloc.order_line[], 'partial')$$,
	ARRAY['lamp 2 lamp-store allocated', 'rug 6 out_of_stock', 'none 1 out_of_stock', 'vase 8 vase allocated'], 'partial: what can be served is');
SELECT results_eq('SELECT news()', ARRAY['allocated o lamp 2 lamp-store', 'out_of_stock o rug 6', 'out_of_stock o none 1', 'allocated o vase 8 vase'],
	'partial: an event for each, in order');
SELECT results_eq('SELECT stock()', ARRAY['lamp-store 2', 'vase 8'], 'partial: which is taken from the stock');
SELECT mark();
SELECT results_eq($$SELECT try('o', ARRAY[('o', 'lamp', 2), ('o', 'rug', 6), ('o', 'none', 1), ('o', 'vase', 8)]::alloc.order_line[], 'partial')$$,
	ARRAY['lamp 2 lamp-store allocated', 'rug 6 out_of_stock', 'none 1 out_of_stock', 'vase 8 vase allocated'], 'partial: again, the same');
SELECT results_eq('SELECT news()', ARRAY['out_of_stock o rug 6', 'out_of_stock o none 1'], 'partial: what was served is no event');
SELECT sound('partial');
SELECT agrees('partial');
ROLLBACK;

-- Sums

BEGIN;
SELECT alloc.add_batch('much', 'sand', 9223372036854775807);
SELECT results_eq($$SELECT try('o', ARRAY[('o', 'sand', 9223372036854775806), ('o', 'lamp', 1), ('o', 'sand', 1)]::alloc.order_line[])$$,
	ARRAY['sand 9223372036854775807 much allocated', 'lamp 1 lamp-store allocated'], 'a sum of 2^63-1');
SELECT refused(call($$ARRAY[('p', 'lamp', 1), ('p', 'sand', 9223372036854775807), ('p', 'sand', 1)]::alloc.order_line[]$$, 'p', mode),
	'22003', '%"p"%"sand"%', mode || ': a sum of 2^63') FROM unnest(ARRAY['all', 'partial']) AS mode;
SELECT results_eq($$SELECT try('q', ARRAY(SELECT ROW(CASE WHEN n % 2 = 0 THEN 'q' END, 'sku ' || n % 200, 1)::alloc.order_line FROM generate_series(0, 3999) n))
					  FROM (SELECT count(alloc.add_batch('batch ' || n, 'sku ' || n, 20)) FROM generate_series(0, 199) n) AS bought$$,
	$$SELECT format('sku %s 20 batch %s allocated', n, n) FROM generate_series(0, 199) n$$, '4,000 lines of 200 skus: each sum just fits');
SELECT results_eq($$SELECT status, count(*) FROM alloc.allocate_order('r', ARRAY(SELECT ROW(NULL, 'sku ' || n, 1)::alloc.order_line FROM generate_series(0, 199) n))
					 GROUP BY status$$, $$VALUES ('out_of_stock', 200::bigint)$$, 'then nothing is left');
SELECT sound('sums');
ROLLBACK;

-- Bad input

BEGIN;
SELECT alloc.allocate('o1', 'lamp', 4);
SELECT refused(call(lines, orderid, mode), state, pattern, what)
  FROM (VALUES
	(NULL, $$'{}'$$, 'all', '22004', 'orderid must not be null', 'an order that is NULL'),
	('', $$'{}'$$, 'all', '22023', 'orderid must not be empty%', 'an order that is empty'),
	(repeat('k', 256), $$'{}'$$, 'all', '22001', 'orderid is too long: "kk%', 'an order of 256 bytes'),
	('o', 'NULL', 'all', '22004', 'lines must not be null', 'lines that are NULL'),
	('o', $$ARRAY[('o', 'lamp', 1), NULL]::alloc.order_line[]$$, 'all', '22004', 'an order line must not be null', 'a line that is NULL'),
	('o', $$'{}'$$, NULL, '22004', 'mode must not be null', 'a mode that is NULL'),
	('o', $$'{}'$$, 'some', '22023', 'unknown mode "some"', 'an unknown mode'),
	('o', $$'{}'$$, 'All', '22023', 'unknown mode "All"', 'a mode in another case'),
	('o', $$'{}'$$, '', '22023', 'unknown mode ""', 'an empty mode'),
	('o', $$ARRAY[('o', 'lamp', 1), ('p', 'lamp', 1)]::alloc.order_line[]$$, 'all', '22023', '%"o"%"p"%', 'a line of another order'),
	('o', $$ARRAY[('O', 'lamp', 1)]::alloc.order_line[]$$, 'partial', '22023', '%"o"%"O"%', 'a line of an order in another case'),
	('o', $$ARRAY[('', 'lamp', 1)]::alloc.order_line[]$$, 'all', '22023', 'orderid must not be empty%', 'a line of an empty order'),
	('o', $$ARRAY[(repeat('k', 256), 'lamp', 1)]::alloc.order_line[]$$, 'all', '22001', 'orderid is too long: "kk%', 'a line of an order of 256 bytes'),
	('o', $$ARRAY[(NULL, NULL, 1)]::alloc.order_line[]$$, 'all', '22004', 'sku must not be null', 'a sku that is NULL'),
	('o', $$ARRAY[(NULL, '', 1)]::alloc.order_line[]$$, 'all', '22023', 'sku must not be empty%', 'a sku that is empty'),
	('o', $$ARRAY[(NULL, repeat('k', 256), 1)]::alloc.order_line[]$$, 'all', '22001', 'sku is too long: "kk%', 'a sku of 256 bytes'),
	('o', $$ARRAY[(NULL, 'lamp', NULL)]::alloc.order_line[]$$, 'all', '22004', 'qty must not be null', 'a quantity that is NULL'),
	('o', $$ARRAY[(NULL, 'lamp', 2), (NULL, 'lamp', 0)]::alloc.order_line[]$$, 'all', '22023', 'qty must be at least 1: 0', 'a quantity of 0 that is added to another'),
	('o', $$ARRAY[(NULL, 'lamp', -1)]::alloc.order_line[]$$, 'all', '22023', 'qty must be at least 1: -1', 'a quantity below 0'),
	('o', $$ARRAY[(NULL, 'lamp', 1), (NULL, 'LAMP', 1)]::alloc.order_line[]$$, 'all', 'SK001', 'unknown sku "LAMP"', 'all: an unknown sku'),
	('o', $$ARRAY[(NULL, 'lamp', 1), (NULL, 'LAMP', 1)]::alloc.order_line[]$$, 'partial', 'SK001', 'unknown sku "LAMP"', 'partial: an unknown sku'),
	('o', $$ARRAY[(NULL, 'none', 1), (NULL, 'LAMP', 1)]::alloc.order_line[]$$, 'all', 'SK001', 'unknown sku "LAMP"', 'all: an unknown sku after one out of stock'),
	('o', $$ARRAY[(NULL, 'none', 1), (NULL, 'LAMP', 1)]::alloc.order_line[]$$, 'partial', 'SK001', 'unknown sku "LAMP"', 'partial: an unknown sku after one out of stock'),
	('o1', $$ARRAY[(NULL, 'rug', 1), (NULL, 'lamp', 5)]::alloc.order_line[]$$, 'all', 'SK003', '%"o1", "lamp"%4%5%', 'all: another quantity'),
	('o1', $$ARRAY[(NULL, 'rug', 1), (NULL, 'lamp', 5)]::alloc.order_line[]$$, 'partial', 'SK003', '%"o1", "lamp"%4%5%', 'partial: another quantity'),
	('o1', $$ARRAY[(NULL, 'lamp', 4), (NULL, 'lamp', 4)]::alloc.order_line[]$$, 'all', 'SK003', '%"o1", "lamp"%4%8%', 'all: the quantity twice is another one'),
	('o1', $$ARRAY[(NULL, 'none', 1), (NULL, 'lamp', 3)]::alloc.order_line[]$$, 'all', 'SK003', '%"o1", "lamp"%4%3%', 'all: another quantity after one out of stock'),
	('o1', $$ARRAY[(NULL, 'lamp', 3), (NULL, 'none', 1)]::alloc.order_line[]$$, 'all', 'SK003', '%"o1", "lamp"%4%3%', 'all: another quantity before one out of stock'),
	('o1', $$ARRAY[(NULL, 'lamp', 300), (NULL, 'rug', 1)]::alloc.order_line[]$$, 'all', 'SK003', '%"o1", "lamp"%4%300%', 'all: another quantity that nobody has')
  ) AS bad (orderid, lines, mode, state, pattern, what);
SELECT throws_ilike($$SELECT alloc.allocate_order('o', '{}', repeat('m', 10000000))$$, 'unknown mode "mmmm%...%', 'a long mode is cut');
CREATE FUNCTION hint_of(command text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	EXECUTE command;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN hint;
END
$$;
SELECT is(hint_of(call($$'{}'$$, 'o', 'some')), 'Modes are all, partial, backorder.', 'the hint names the modes');
SELECT is(hint_of(call($$ARRAY[('p', 'lamp', 1)]::alloc.order_line[]$$)), 'The orderid of a line is that of its order, or null.',
	'the hint says what the order of a line may be');
SELECT throws_ok('SET LOCAL transaction_read_only = on; ' || call($$'{}'$$), '25006', NULL, 'in a read-only transaction, though there is no line');
SELECT results_eq($$SELECT try('o1', ARRAY[('o1', 'lamp', 4), (NULL, 'rug', 1)]::alloc.order_line[])$$,
	ARRAY['lamp 4 lamp-store allocated', 'rug 1 rug allocated'], 'good input still works');
ROLLBACK;

-- What the caller undoes, and blocks

BEGIN;
CREATE TEMPORARY TABLE digest_before AS SELECT digest();
SAVEPOINT here;
SELECT results_eq($$SELECT try('o', ARRAY[('o', 'lamp', 1), ('o', 'rug', 1)]::alloc.order_line[])$$,
	ARRAY['lamp 1 lamp-store allocated', 'rug 1 rug allocated'], 'within a savepoint: served');
SELECT results_eq($$SELECT try('p', ARRAY[('p', 'lamp', 1), ('p', 'none', 1)]::alloc.order_line[])$$,
	ARRAY['lamp 1 not_taken', 'none 1 out_of_stock'], 'and another not taken');
SELECT isnt(digest(), (SELECT * FROM digest_before), 'which is there to see');
ROLLBACK TO SAVEPOINT here;
SELECT is(digest(), (SELECT * FROM digest_before), 'rolled back to the savepoint: stock, lines and events as before');
SELECT results_eq($$SELECT try('o', ARRAY[('o', 'lamp', 2), ('o', 'rug', 1)]::alloc.order_line[])$$,
	ARRAY['lamp 2 lamp-store allocated', 'rug 1 rug allocated'], 'the undone line can have another quantity');
SELECT is(alloc.deallocate('o', 'lamp'), 'lamp-store', 'a line of an order can be freed');
SELECT results_eq($$SELECT try('q', ARRAY[('q', 'lamp', 10), ('q', 'rug', 4)]::alloc.order_line[])$$,
	ARRAY['lamp 10 lamp-store allocated', 'rug 4 rug allocated'], 'and its units be given to the next order');
SELECT sound('savepoints');
ROLLBACK;

CREATE FUNCTION catch(orderid text, lines alloc.order_line[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT string_agg(status, ' ') FROM alloc.allocate_order(orderid, lines, 'partial'));
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
BEGIN;
SELECT results_eq($$SELECT catch('o', ARRAY[('o', 'lamp', 1), ('o', 'none', 1)]::alloc.order_line[])
					UNION ALL SELECT catch('o', ARRAY[('o', 'rug', 1), ('o', 'lamp', 2)]::alloc.order_line[])
					UNION ALL SELECT catch('o', ARRAY[('o', 'rug', 1), ('o', '?', 2)]::alloc.order_line[])
					UNION ALL SELECT catch('o', ARRAY[('o', 'rug', 2), ('o', 'lamp', 1)]::alloc.order_line[])$$,
	ARRAY['allocated out_of_stock', 'SK003', 'SK001', 'allocated allocated'], 'an exception block catches errors, after which the next call works');
SELECT sound('exception blocks');
ROLLBACK;

-- Synchronous handlers

BEGIN;
CREATE TABLE handled (event text);
CREATE FUNCTION note(event jsonb) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.handled VALUES (concat_ws(' ', event->>'type', event->>'orderid', event->>'sku'))
$$;
SELECT alloc.subscribe(type, 'note(jsonb)', 'sync') FROM unnest(ARRAY['allocated', 'out_of_stock']) AS type;
SELECT count(*) FROM alloc.allocate_order('o', ARRAY[('o', 'lamp', 1), ('o', 'none', 1)]::alloc.order_line[]);
SELECT results_eq('TABLE handled', ARRAY['out_of_stock o none'], 'handlers hear of an order that is not taken');
SELECT count(*) FROM alloc.allocate_order('o', ARRAY[('o', 'lamp', 1), ('o', 'rug', 1)]::alloc.order_line[]);
SELECT count(*) FROM alloc.allocate_order('o', ARRAY[('o', 'lamp', 1), ('o', 'rug', 1)]::alloc.order_line[]);
SELECT results_eq('TABLE handled', ARRAY['out_of_stock o none', 'allocated o lamp', 'allocated o rug'], 'and once of one that is');
ROLLBACK;

SELECT sound('all that is undone');
SELECT * FROM finish();
