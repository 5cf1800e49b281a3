-- hold(), confirm(), release(), extend_hold(): lines that end by themselves,
-- by the clock, whether or not anybody has ended them.

\ir common.psql
SELECT no_plan();

-- over: lets holds of a millisecond be over in the next statement.
CREATE FUNCTION over() RETURNS void
LANGUAGE sql AS $$ SELECT pg_sleep(0.003) $$;
-- held: what is held, and whether until then, in words.
CREATE FUNCTION held(until timestamptz DEFAULT NULL) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT concat_ws(' ', orderid, sku, qty, batchref, CASE WHEN expires_at = until THEN 'until then' END)
	  FROM alloc.allocations WHERE expires_at IS NOT NULL ORDER BY 1
$$;
-- quantities: of a batch, as view batches has them.
CREATE FUNCTION quantities(batchref text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT format('%s allocated, %s available', allocated_qty, available_qty)
	  FROM alloc.batches WHERE ref = batchref
$$;

-- A hold takes stock as allocate() does

BEGIN;
SELECT alloc.add_batch('shop', 'chair', 10), alloc.add_batch('ship', 'chair', 20, '2031-01-01');
SELECT mark();
SELECT is(alloc.hold('o1', 'chair', 4, '1 hour'), 'shop', 'hold() answers the preferred batch');
SELECT results_eq('SELECT news()', ARRAY['held o1 chair 4 shop'], 'it is recorded as held');
SELECT results_eq($$SELECT payload - ARRAY['event_id', 'at', 'expires_at'],
						   (payload->>'expires_at')::timestamptz - (payload->>'at')::timestamptz
					  FROM alloc.events ORDER BY event_id DESC LIMIT 1$$,
	$$VALUES ('{"type": "held", "orderid": "o1", "sku": "chair", "qty": 4, "batchref": "shop"}'::jsonb, '1 hour'::interval)$$,
	'the event tells until when, counted from its moment');
SELECT results_eq('SELECT held((SELECT at + interval ''1 hour'' FROM alloc.events ORDER BY event_id DESC LIMIT 1))',
	ARRAY['o1 chair 4 shop until then'], 'so does view allocations');
SELECT is(quantities('shop'), '4 allocated, 6 available', 'its units are taken');
SELECT is(alloc.hold('o2', 'chair', 7, '1 day'), 'ship', 'what does not fit goes to the next batch');
SELECT is(alloc.hold('o3', 'chair', 21, '1 day'), NULL, 'NULL: out of stock');
SELECT is((SELECT payload - ARRAY['event_id', 'at'] FROM alloc.events ORDER BY event_id DESC LIMIT 1),
	'{"type": "out_of_stock", "orderid": "o3", "sku": "chair", "qty": 21}', 'that is recorded as by allocate()');
SELECT mark();
SELECT is(alloc.hold('o1', 'chair', 4, '2 hours'), 'shop', 'the same line again: its batch');
SELECT is_empty('SELECT news()', 'and no event');
SELECT results_eq('SELECT held((SELECT min(at) + interval ''1 hour'' FROM alloc.events WHERE type = ''held''))',
	ARRAY['o1 chair 4 shop until then', 'o2 chair 7 ship'], 'nor another end');
SELECT refused($$SELECT alloc.hold('o1', 'chair', 5, '1 hour')$$, 'SK003', '%("o1", "chair")%quantity 4, not 5%', 'another quantity');
SELECT refused($$SELECT alloc.hold('o1', 'sofa', 5, '1 hour')$$, 'SK001', '%"sofa"%', 'an unknown sku');
SELECT refused($$SELECT alloc.allocate('o1', 'chair', 5)$$, 'SK003', '%("o1", "chair")%quantity 4, not 5%', 'another quantity by allocate()');
SELECT sound('hold');
SELECT agrees('hold');

-- allocate() makes it one for good, hold() leaves what is allocated

SELECT mark();
SELECT is(alloc.allocate('o1', 'chair', 4), 'shop', 'allocate() of a line that is held: its batch');
SELECT results_eq('SELECT news()', ARRAY['confirmed o1 chair 4 shop'], 'which confirms it');
SELECT results_eq('SELECT held()', ARRAY['o2 chair 7 ship'], 'so that it does not end');
SELECT is(alloc.hold('o1', 'chair', 4, '1 hour'), 'shop', 'hold() of a line that is allocated: its batch');
SELECT results_eq('SELECT held()', ARRAY['o2 chair 7 ship'], 'it stays allocated');
SELECT is(alloc.ship('o1'), 1::bigint, 'it can be shipped');
SELECT is(alloc.hold('o1', 'chair', 4, '1 hour'), 'shop', 'hold() of a line that was shipped: its batch');
SELECT results_eq('SELECT held()', ARRAY['o2 chair 7 ship'], 'it stays shipped');
SELECT sound('allocate() of a hold');
SELECT agrees('allocate() of a hold');

-- confirm, release, deallocate

SELECT alloc.add_batch('desk', 'desk', 5), alloc.add_batch('Lamp', 'Lamp', 5);
SELECT alloc.hold('o4', sku, 1, '1 hour') FROM unnest('{desk,Lamp,chair}'::text[]) AS sku;
SELECT alloc.allocate('o4b', 'desk', 1);
SELECT mark();
SELECT is(alloc.confirm('o4'), 3::bigint, 'confirm() answers how many lines');
SELECT results_eq('SELECT news()', ARRAY['confirmed o4 Lamp 1 Lamp', 'confirmed o4 chair 1 shop', 'confirmed o4 desk 1 desk'],
	'each is recorded, by the bytes of their skus');
SELECT is(alloc.confirm('o4'), 0::bigint, 'again: none');
SELECT is(alloc.confirm('o4b'), 0::bigint, 'an order without holds: none');
SELECT is(alloc.confirm('nobody'), 0::bigint, 'an order that nobody knows: none');
SELECT is(alloc.release('o4'), 0::bigint, 'what is confirmed cannot be released');
SELECT is(alloc.release('nobody'), 0::bigint, 'nor what nobody knows');
SELECT results_eq($$SELECT sku, batchref, expires_at FROM alloc.allocations WHERE orderid = 'o4' ORDER BY sku COLLATE "C"$$,
	$$VALUES ('Lamp', 'Lamp', NULL::timestamptz), ('chair', 'shop', NULL), ('desk', 'desk', NULL)$$, 'it is allocated for good');
SELECT alloc.hold('o5', sku, 2, '1 hour') FROM unnest('{desk,Lamp}'::text[]) AS sku;
SELECT alloc.allocate('o5', 'chair', 2);
SELECT mark();
SELECT is(alloc.release('o5'), 2::bigint, 'release() answers how many lines');
SELECT results_eq('SELECT news()', ARRAY['hold_released o5 Lamp 2 Lamp', 'hold_released o5 desk 2 desk'], 'each is recorded');
SELECT results_eq($$SELECT sku FROM alloc.allocations WHERE orderid = 'o5'$$, ARRAY['chair'], 'what is allocated for good stays');
SELECT is(quantities('desk'), '2 allocated, 3 available', 'the units are available again');
SELECT is(alloc.release('o5'), 0::bigint, 'again: none');
SELECT alloc.hold('o6', 'desk', 3, '1 hour');
SELECT mark();
SELECT is(alloc.deallocate('o6', 'desk'), 'desk', 'deallocate() frees a line that is held');
SELECT results_eq('SELECT news()', ARRAY['hold_released o6 desk 3 desk'], 'recorded as what it is');
SELECT is(alloc.confirm('o6'), 0::bigint, 'then there is nothing to confirm');
SELECT sound('confirm and release');
SELECT agrees('confirm and release');

-- extend_hold

SELECT alloc.hold('o7', 'desk', 1, '1 hour'), alloc.hold('o7', 'Lamp', 1, '3 hours');
SELECT mark();
SELECT is(alloc.extend_hold('o7', '2 hours'), 2::bigint, 'extend_hold() answers how many holds there are');
SELECT results_eq('SELECT news()', ARRAY['held o7 desk 1 desk was 1'], 'records those that last longer now, with what was held before');
SELECT results_eq($$SELECT sku, expires_at - statement_timestamp() > '2 hours' FROM alloc.allocations WHERE orderid = 'o7' ORDER BY sku DESC$$,
	$$VALUES ('desk', false), ('Lamp', true)$$, 'one that lasts longer anyway stays as it is');
SELECT results_eq($$SELECT (payload->>'expires_at')::timestamptz - at FROM alloc.events ORDER BY event_id DESC LIMIT 1$$,
	ARRAY['2 hours'::interval], 'it lasts from the statement on');
SELECT is(alloc.extend_hold('o4', '1 hour'), 0::bigint, 'an order without holds: none');
SELECT is(alloc.confirm('o7'), 2::bigint, 'what was extended can be confirmed');
SELECT agrees('extend_hold');
ROLLBACK;

-- Over by the clock, whoever looks

BEGIN;
SELECT alloc.add_batch('shop', 'chair', 10), alloc.add_batch('ship', 'chair', 20, '2031-01-01');
SELECT alloc.hold('o1', 'chair', 8, '1 millisecond'), alloc.hold('o2', 'chair', 1, '1 hour');
SELECT over();
SELECT mark();
SELECT results_eq('SELECT held()', ARRAY['o2 chair 1 shop'], 'a hold that is over is not in allocations');
SELECT is(quantities('shop'), '1 allocated, 9 available', 'its units are available in view batches');
SELECT is((SELECT on_hand_qty FROM alloc.stock WHERE sku = 'chair'), 9::bigint, 'and in view stock');
SELECT is(alloc.available_to_promise('chair', '2030-01-01'), 9::bigint, 'and to promise');
SELECT is((SELECT batchref FROM alloc.promise('chair', 9)), 'shop', 'promise() counts them');
SELECT is((SELECT batchref FROM alloc.promise('chair', 10)), 'ship', 'no more of them than there are');
SELECT is_empty('SELECT news()', 'nobody has ended it');
SELECT is_empty('SELECT unsound()', 'a hold that is over and not ended: tables are sound');
SELECT is_empty('SELECT * FROM alloc.check()', 'check() finds nothing');
SELECT refused($$SELECT alloc.confirm('o1')$$, 'SK005', '%("o1", "chair")%expired%', 'confirm() of a hold that is over');
SELECT refused($$SELECT alloc.extend_hold('o1', '1 hour')$$, 'SK005', '%("o1", "chair")%expired%', 'extend_hold() of one');
SELECT refused($$SELECT alloc.ship('o1')$$, 'SK005', '%("o1", "chair")%expired%', 'ship() of one');
SELECT refused($$SELECT alloc.ship('o1', 'chair')$$, 'SK005', '%("o1", "chair")%expired%', 'ship() of one line');
SELECT refused($$SELECT alloc.ship('o2')$$, '55000', '%("o2", "chair")%only held%', 'ship() of one that is not over');
SELECT is(alloc.ship('o1', 'desk'), 0::bigint, 'ship() of another line of the order');
SELECT is(alloc.allocate('o3', 'chair', 9), 'shop', 'allocate() takes its units in the same call');
SELECT results_eq('SELECT news()', ARRAY['hold_expired o1 chair 8 shop', 'allocated o3 chair 9 shop'], 'which ends it first');
SELECT is(quantities('shop'), '10 allocated, 0 available', 'the batch is full');
SELECT refused($$SELECT alloc.confirm('o1')$$, 'SK005', '%("o1", "chair")%expired%', 'confirm() of a hold that was ended');
SELECT refused($$SELECT alloc.extend_hold('o1', '1 hour')$$, 'SK005', '%("o1", "chair")%expired%', 'extend_hold() of one that was ended');
SELECT refused($$SELECT alloc.ship('o1', 'chair')$$, 'SK005', '%("o1", "chair")%expired%', 'ship() of one that was ended');
SELECT is(alloc.deallocate('o1', 'chair'), NULL, 'deallocate() of one that was ended');
SELECT sound('a hold that is over');
SELECT agrees('a hold that is over');
SELECT is(alloc.hold('o1', 'chair', 2, '1 hour'), 'ship', 'the line can be held again');
SELECT is(alloc.confirm('o1'), 1::bigint, 'and confirmed');

-- Each way to end one

SELECT alloc.add_batch('b' || n, 's' || n, 5, '2031-01-01') FROM generate_series(1, 9) n;
SELECT alloc.hold('c' || n, 's' || n, 5, '1 millisecond') FROM generate_series(1, 9) n;
SELECT over();
SELECT is((SELECT sum(available_qty) FROM alloc.batches WHERE ref LIKE 'b%'), 45::numeric, 'nine are over');
SELECT mark();
SELECT is(alloc.hold('d', 's1', 5, '1 hour'), 'b1', 'by hold()');
SELECT is(alloc.release('c2'), 0::bigint, 'by release(), which frees none');
SELECT is(alloc.confirm('c2'), 0::bigint, 'and forgets that it was over');
SELECT is(alloc.deallocate('c3', 's3'), NULL, 'by deallocate(), which finds none');
SELECT results_eq($$SELECT orderid FROM alloc.change_batch_quantity('b4', 0)$$, '{}'::text[], 'by change_batch_quantity(), which moves none');
SELECT results_eq($$SELECT orderid FROM alloc.change_batch_eta('b5', '2032-01-01')$$, '{}'::text[], 'by change_batch_eta(), which promises to none');
SELECT is(alloc.allocate('c6', 's6', 4), 'b6', 'by allocate() of the same line, with any quantity');
SELECT is(alloc.hold('c7', 's7', 5, '1 hour'), 'b7', 'by hold() of the same line');
SELECT results_eq('SELECT * FROM news() n WHERE n LIKE ''hold_expired%''',
	$$SELECT format('hold_expired c%s s%s 5 b%s', n, n, n) FROM generate_series(1, 7) n$$, 'each is recorded once');
SELECT is(alloc.available_to_promise('s8'), 5::bigint, 'one that nobody has looked at');
SELECT alloc.change_batch_quantity('b9', 10);
SELECT is(quantities('b9'), '0 allocated, 10 available', 'a batch that grows while one is over');
SELECT is_empty('SELECT unsound()', 'each way to end one: tables are sound');
SELECT is_empty('SELECT * FROM alloc.check()', 'each way to end one: check() finds nothing');

-- Many, in many slots

SELECT alloc.add_batch('many', 'nail', 1000);
SELECT alloc.hold('n' || n, 'nail', 10, CASE WHEN n % 2 = 0 THEN interval '1 millisecond' ELSE '1 hour' END) FROM generate_series(1, 100) n;
SELECT results_eq($$SELECT count(*), sum(available) FROM alloc.slot WHERE ref = 'many'$$, 'VALUES (2::bigint, 0::numeric)', 'two slots, and no units');
SELECT over();
SELECT is(alloc.available_to_promise('nail'), 500::bigint, 'half of them are over');
SELECT is(alloc.allocate('all', 'nail', 501), NULL, 'no more than that can be taken');
SELECT is(alloc.allocate('all', 'nail', 500), 'many', 'all of that can');
SELECT is(alloc.allocate('one', 'nail', 1), NULL, 'then nothing is left');
SELECT is((SELECT sum(alloc.confirm('n' || n)) FROM generate_series(1, 99, 2) n), 50::numeric, 'the other half can be confirmed');
SELECT is_empty('SELECT unsound()', 'many: tables are sound');
SELECT is_empty('SELECT * FROM alloc.check()', 'many: check() finds nothing');
ROLLBACK;

-- A batch that shrinks

BEGIN;
SELECT alloc.add_batch('shop', 'chair', 10), alloc.add_batch('ship', 'chair', 5, '2031-01-01');
SELECT alloc.allocate('o1', 'chair', 4), alloc.hold('o2', 'chair', 3, '1 hour'), alloc.hold('o3', 'chair', 3, '2 hours');
SELECT mark();
SELECT results_eq($$SELECT moves('shop', 4)$$, ARRAY['o2 chair 3: shop to ship', 'o3 chair 3: shop to nowhere'], 'lines that are held leave as others do');
SELECT results_eq('SELECT news()', ARRAY['hold_released o3 chair 3 shop', 'hold_released o2 chair 3 shop', 'batch_quantity_changed chair 4 shop was 10',
	'held o2 chair 3 ship', 'out_of_stock o3 chair 3'], 'recorded as what they are');
SELECT results_eq($$SELECT held((SELECT at + interval '1 hour' FROM alloc.events WHERE type = 'held' AND orderid = 'o2' ORDER BY event_id LIMIT 1))$$,
	ARRAY['o2 chair 3 ship until then'], 'one that moves lasts as long as it did');
SELECT refused($$SELECT alloc.confirm('o3')$$, 'SK005', '%("o3", "chair")%', 'confirm() of one that lost its units');
SELECT is(alloc.confirm('o2'), 1::bigint, 'confirm() of one that has moved');
SELECT sound('a hold that moved');
SELECT agrees('a hold that moved');
SELECT alloc.hold('o4', 'chair', 2, '300 milliseconds');
SELECT count(*) FROM alloc.change_batch_quantity('ship', 9);
SELECT count(*) FROM alloc.change_batch_quantity('shop', 0);
SELECT results_eq($$SELECT batchref FROM alloc.allocations WHERE orderid IN ('o1', 'o4')$$, ARRAY['ship', 'ship'], 'both kinds have moved');
SELECT pg_sleep(0.3);
SELECT is(alloc.allocate('o5', 'chair', 2), 'ship', 'one that moved to a batch is over there');
SELECT agrees('a hold that moved and is over');
ROLLBACK;

-- change_batch_eta tells those who hold

BEGIN;
SELECT alloc.add_batch('ship', 'chair', 5, '2031-01-01');
SELECT alloc.allocate('o1', 'chair', 1), alloc.hold('o2', 'chair', 1, '1 hour'), alloc.hold('o3', 'chair', 1, '1 millisecond');
SELECT over();
SELECT results_eq($$SELECT orderid FROM alloc.change_batch_eta('ship', '2031-02-01')$$, ARRAY['o1', 'o2'], 'but not those whose hold is over');
ROLLBACK;

-- A line that ended as a hold, and then came and went as another one

BEGIN;
SELECT alloc.add_batch('b', 's', 1);
SELECT alloc.hold('o', 's', 1, '1 millisecond'), over();
SELECT alloc.allocate('p', 's', 2), alloc.deallocate('p', 's');
SELECT throws_ok($$SELECT alloc.confirm('o')$$, 'SK005', NULL, 'it has ended');
SELECT alloc.allocate('o', 's', 1), alloc.deallocate('o', 's');
SELECT is(alloc.confirm('o'), 0::bigint, 'when it was freed nobody speaks of the hold any more');
SELECT alloc.hold('o', 's', 1, '1 millisecond'), over();
SELECT alloc.allocate('p', 's', 2), alloc.allocate('o', 's', 1);
SELECT is(alloc.ship('o'), 1::bigint, 'nor when it was shipped');
SELECT alloc.purge_shipped('infinity');
SELECT is(alloc.confirm('o'), 0::bigint, 'and forgotten');
ROLLBACK;

-- Many lines in one call, whole orders

BEGIN;
CREATE FUNCTION bulk(lines text) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT concat_ws(' ', l.orderid, l.sku, l.qty, coalesce(l.batchref, 'nowhere'))
	  FROM alloc.allocate_lines(lines::alloc.order_line[]) l
$$;
CREATE FUNCTION whole(orderid text, lines text, mode text) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT concat_ws(' ', o.sku, o.qty, o.batchref, o.status)
	  FROM alloc.allocate_order(orderid, lines::alloc.order_line[], mode) o
$$;
SELECT alloc.add_batch('shop', 'chair', 10), alloc.add_batch('desk', 'desk', 5);
SELECT alloc.hold('o1', 'chair', 6, '1 hour'), alloc.hold('o2', 'desk', 5, '1 millisecond');
SELECT over();
SELECT mark();
SELECT results_eq($$SELECT bulk('{"(o1,chair,6)","(o2,desk,1)","(o3,chair,4)","(o1,chair,6)","(o4,desk,5)"}')$$,
	ARRAY['o1 chair 6 shop', 'o2 desk 1 desk', 'o3 chair 4 shop', 'o1 chair 6 shop', 'o4 desk 5 nowhere'], 'allocate_lines(): held lines, and one whose hold is over');
SELECT results_eq('SELECT news()', ARRAY['hold_expired o2 desk 5 desk', 'confirmed o1 chair 6 shop', 'allocated o2 desk 1 desk', 'allocated o3 chair 4 shop',
	'out_of_stock o4 desk 5'], 'the hold ends, the other one is confirmed');
SELECT is_empty('SELECT held()', 'none is held any more');
SELECT agrees('allocate_lines()');
SELECT alloc.hold('o5', 'desk', 2, '1 hour');
SELECT refused($$SELECT bulk('{"(o5,desk,3)"}')$$, 'SK003', '%("o5", "desk")%quantity 2, not 3%', 'a held line with another quantity');
SELECT refused($$SELECT whole('o5', '{"(,desk,3)"}', 'all')$$, 'SK003', '%("o5", "desk")%quantity 2, not 3%', 'in an order');
SELECT refused($$SELECT whole('o5', '{"(,desk,3)","(,chair,99)"}', 'all')$$, 'SK003', '%("o5", "desk")%quantity 2, not 3%', 'in an order that is not taken');
SELECT results_eq($$SELECT whole('o5', '{"(,desk,2)","(,chair,99)"}', 'all')$$, ARRAY['desk 2 not_taken', 'chair 99 out_of_stock'], 'an order that is not taken');
SELECT results_eq('SELECT held()', ARRAY['o5 desk 2 desk'], 'leaves the line held');
SELECT results_eq($$SELECT whole('o5', '{"(,desk,2)","(,chair,99)"}', 'partial')$$, ARRAY['desk 2 desk allocated', 'chair 99 out_of_stock'], 'an order in part');
SELECT is_empty('SELECT held()', 'confirms it');
SELECT alloc.hold('o6', 'desk', 2, '1 millisecond');
SELECT over();
SELECT results_eq($$SELECT whole('o6', '{"(,desk,1)","(,chair,99)"}', 'all')$$, ARRAY['desk 1 not_taken', 'chair 99 out_of_stock'], 'a line whose hold is over is not there, whatever its quantity');
SELECT results_eq($$SELECT whole('o7', '{"(,desk,1)","(,desk,1)"}', 'all')$$, ARRAY['desk 2 desk allocated'], 'an order takes what is free by the clock');
SELECT agrees('orders');
ROLLBACK;

-- A savepoint, a cap, bad input

BEGIN;
SELECT alloc.add_batch('b', 's', 10), alloc.hold('o1', 's', 1, '1 hour'), alloc.hold('o1b', 's', 9, '1 millisecond');
SELECT over();
SAVEPOINT s;
SELECT alloc.confirm('o1'), alloc.allocate('o2', 's', 9);
ROLLBACK TO SAVEPOINT s;
SELECT results_eq('SELECT held()', ARRAY['o1 s 1 b'], 'after ROLLBACK TO SAVEPOINT it is held again');
SELECT is(quantities('b'), '1 allocated, 9 available', 'and the other one over');
SELECT is(alloc.allocate('o3', 's', 9), 'b', 'as it was');
SELECT agrees('a savepoint');
ROLLBACK;

BEGIN;
SELECT alloc.add_batch('b' || n, 's' || n, 10) FROM generate_series(1, 4) n;
SET LOCAL alloc.max_holds_per_order = 2;
SELECT alloc.hold('o', 's1', 1, '1 hour'), alloc.hold('o', 's2', 1, '1 millisecond'), alloc.allocate('o', 's4', 1);
SELECT over();
SELECT is(alloc.hold('o', 's3', 1, '1 hour'), 'b3', 'one that is over does not count, nor what is allocated');
SELECT refused($$SELECT alloc.hold('o', 's2', 1, '1 hour')$$, '53400', '%"o" may not have another hold%', 'a third hold of two');
SELECT is(alloc.hold('o', 's3', 1, '1 hour'), 'b3', 'one of them again is none more');
SELECT is(alloc.hold('p', 's3', 1, '1 hour'), 'b3', 'another order has its own');
SELECT is(alloc.hold('o', 's4', 1, '1 hour'), 'b4', 'a line that is allocated is no hold');
SELECT is(alloc.hold('o', 's2', 100, '1 hour'), NULL, 'nor is one that is out of stock');
SELECT is(alloc.confirm('o'), 2::bigint, 'SK005 is not raised where the order is to be confirmed')
 WHERE alloc.allocate('o', 's2', 1) IS NOT NULL;
SELECT is(alloc.hold('o', 's3', 1, '1 hour'), 'b3', 'and can hold again');
SET LOCAL alloc.max_holds_per_order = 0;
SELECT refused($$SELECT alloc.hold('q', 's1', 1, '1 hour')$$, '53400', '%"q" may not have another hold%', 'no holds at all');
SET LOCAL alloc.max_holds_per_order = -1;
SELECT is((SELECT count(alloc.hold('q', 's' || n, 1, '1 hour')) FROM generate_series(1, 4) n), 4::bigint, 'any number');
ROLLBACK;

BEGIN;
SELECT alloc.add_batch('b', 's', 10), alloc.hold('o', 's', 1, '1 hour');
SELECT refused(format('SELECT alloc.hold(%s)', arguments), sqlstate, pattern, 'hold(' || arguments || ')')
  FROM (VALUES
	($$NULL, 's', 1, '1 hour'$$, '22004', '%orderid%null%'), ($$'p', NULL, 1, '1 hour'$$, '22004', '%sku%null%'),
	($$'p', 's', NULL, '1 hour'$$, '22004', '%qty%null%'), ($$'p', 's', 1, NULL$$, '22004', '%ttl%null%'),
	($$'', 's', 1, '1 hour'$$, '22023', '%orderid%empty%'), ($$'p', 's', 0, '1 hour'$$, '22023', '%0%'),
	($$'p', 's', -1, '1 hour'$$, '22023', '%-1%'), ($$'p', 's', 1, '0'$$, '22023', '%ttl%"00:00:00"%'),
	($$'p', 's', 1, '-1 second'$$, '22023', '%ttl%"-00:00:01"%'), ($$'p', 's', 1, '1000 years 1 second'$$, '22023', '%ttl%1000 years 00:00:01%'),
	($$'p', 's', 1, '-170000000 years'$$, '22023', '%ttl%-170000000 years%'), ($$'p', 's', 1, '170000000 years'$$, '22023', '%ttl%'),
	($$repeat('p', 256), 's', 1, '1 hour'$$, '22001', '%orderid is too long: "ppp%')) AS bad (arguments, sqlstate, pattern);
SELECT refused('SELECT alloc.' || call, sqlstate, pattern, call)
  FROM (VALUES
	($$confirm(NULL)$$, '22004', '%orderid%'), ($$release(NULL)$$, '22004', '%orderid%'), ($$extend_hold(NULL, '1 hour')$$, '22004', '%orderid%'),
	($$confirm('')$$, '22023', '%orderid%'), ($$release('')$$, '22023', '%orderid%'), ($$extend_hold('', '1 hour')$$, '22023', '%orderid%'),
	($$extend_hold('o', NULL)$$, '22004', '%ttl%'), ($$extend_hold('o', '0')$$, '22023', '%ttl%'),
	($$release(repeat('o', 10000000))$$, '22001', '%orderid is too long: "ooo%')) AS bad (call, sqlstate, pattern);
SELECT is(alloc.hold('p', 's', 1, '1000 years'), 'b', 'a thousand years are no problem');
SELECT is(alloc.hold('q', 's', 1, '1 microsecond'), 'b', 'nor is a microsecond');
SELECT is(alloc.hold('r', 's', 1, '1 month -29 days'), 'b', 'an interval of several parts counts as a whole');
ROLLBACK;

-- The log: time travel, snapshots, another table of state from it alone

SELECT alloc.add_batch('shop', 'chair', 10), alloc.add_batch('ship', 'chair', 20, '2031-01-01');
SELECT alloc.hold('o1', 'chair', 4, '1 hour');
SELECT alloc.extend_hold('o1', '2 hours');
SELECT alloc.hold('o2', 'chair', 3, '1 hour'), alloc.hold('o3', 'chair', 3, '1 hour'), alloc.hold('o4', 'chair', 5, '1 millisecond');
SELECT alloc.confirm('o2'), alloc.release('o3'), over();
SELECT alloc.allocate('o5', 'chair', 20);
SELECT results_eq($$SELECT e.type, r.allocated_qty, r.available_qty FROM alloc.events e
					 CROSS JOIN LATERAL alloc.replay('chair', e.event_id) r WHERE r.ref = 'shop' ORDER BY e.event_id$$,
	$$VALUES ('batch_created', 0::bigint, 10::bigint), ('batch_created', 0, 10), ('held', 4, 6), ('held', 4, 6), ('held', 7, 3), ('held', 10, 0),
			 ('held', 10, 0), ('confirmed', 10, 0), ('hold_released', 7, 3), ('hold_expired', 7, 3), ('allocated', 7, 3)$$,
	'replay() tells what was held after each event');
SELECT agrees('time travel');
CREATE TABLE state_before AS SELECT * FROM alloc.allocations;
SELECT alloc.snapshot_log();
SELECT results_eq($$SELECT orderid, expires_at FROM alloc.snapshot_line ORDER BY 1$$, 'SELECT orderid, expires_at FROM state_before ORDER BY 1',
	'a snapshot tells until when lines are held');
SELECT count(*) FROM alloc.archive_events('infinity');
SELECT alloc.confirm('o1'), alloc.hold('o6', 'chair', 1, '1 hour');
SELECT agrees('an archive');
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
SELECT lives_ok('SELECT alloc.rebuild()', 'rebuild() makes holds from the log');
SELECT results_eq('SELECT orderid, expires_at IS NOT NULL FROM alloc.allocations ORDER BY 1',
	$$VALUES ('o1', false), ('o2', false), ('o5', false), ('o6', true)$$, 'as they were');
SELECT agrees('rebuild()');
SELECT is(alloc.confirm('o6'), 1::bigint, 'they can be confirmed');
SELECT alloc.hold('o7', 'chair', 1, '1 millisecond'), over();
SELECT alloc.allocate('o8', 'chair', 1000000);
SELECT results_eq('SELECT count(*), bool_and(ended) FROM alloc.hold', 'VALUES (1::bigint, true)', 'one has ended');
SELECT is(alloc.purge_shipped('infinity'), 0::bigint, 'purge_shipped() counts lines that were shipped');
SELECT is_empty('SELECT * FROM alloc.hold', 'and forgets holds that have ended');
SELECT is(alloc.confirm('o7'), 0::bigint, 'so that confirm() does not know of them');

INSERT INTO alloc.hold (batch_id, qty, expires_at, ended, orderid, sku, batchref)
SELECT 1, 1, now() - interval '1 hour' * n, true, 'old ' || n, 'chair', 'shop' FROM generate_series(165, 171) n;
SELECT is(alloc.deallocate('o2', 'chair'), 'shop', 'a unit or more');
SELECT alloc.hold('o10', 'chair', 1, '1 millisecond'), over();
SELECT alloc.allocate('o8', 'chair', 1000000);
SELECT results_eq('SELECT orderid FROM alloc.hold WHERE ended ORDER BY expires_at', ARRAY['old 169', 'old 168', 'old 167', 'old 166', 'old 165', 'o10'],
	'whoever ends a hold forgets up to two that ended a week ago');
SELECT alloc.hold('o10', 'chair', 1, '1 millisecond'), over();
SELECT alloc.allocate('o8', 'chair', 1000000);
SELECT results_eq('SELECT orderid FROM alloc.hold WHERE ended ORDER BY expires_at', ARRAY['old 167', 'old 166', 'old 165', 'o10'],
	'and none that ended later');
SELECT alloc.purge_shipped('infinity');

-- Damage

SELECT alloc.hold('o9', 'chair', 1, '1 hour');
CREATE FUNCTION trial(damage text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE damage;
	RETURN QUERY SELECT concat_ws(' ', problem, sku, batchref, orderid) FROM alloc.check() ORDER BY 1;
	RETURN QUERY SELECT concat_ws(' ', action, sku, batchref, orderid) FROM alloc.repair(true);
	PERFORM alloc.repair(false);
	RETURN QUERY SELECT 'in the end: ' || concat_ws(' ', problem, sku, batchref, orderid) FROM alloc.check();
	RAISE EXCEPTION SQLSTATE 'ZZZZZ';
EXCEPTION WHEN SQLSTATE 'ZZZZZ' THEN
	RETURN;
END
$$;
SELECT results_eq(format('SELECT trial(%L)', damage), found, damage)
  FROM (VALUES
	($$DELETE FROM alloc.hold$$, ARRAY['hold_missing chair shop o9', 'hold_added chair shop o9']),
	($$UPDATE alloc.hold SET expires_at = expires_at + interval '1 s'$$, ARRAY['hold_differs chair shop o9', 'hold_changed chair shop o9']),
	($$UPDATE alloc.hold SET batchref = 'ship'$$, ARRAY['hold_differs chair shop o9', 'hold_changed chair shop o9']),
	($$UPDATE alloc.hold SET qty = 2$$, ARRAY['hold_differs chair shop o9', 'hold_changed chair shop o9']),
	($$UPDATE alloc.hold SET ended = true$$, ARRAY['hold_missing chair shop o9', 'hold_added chair shop o9']),
	($$UPDATE alloc.hold SET orderid = 'x'$$, ARRAY['hold_missing chair shop o9', 'hold_unknown chair shop x',
		'hold_added chair shop o9', 'hold_removed chair x']),
	($$UPDATE alloc.slot SET hold_until = NULL$$, ARRAY['hold_uncovered chair shop', 'slots_rebuilt chair shop']),
	($$UPDATE alloc.slot SET hold_until = hold_until + interval '1 day'$$, ARRAY['hold_uncovered chair shop', 'slots_rebuilt chair shop']),
	($$UPDATE alloc.allocation SET expires_at = NULL WHERE orderid = 'o9'$$,
		ARRAY['hold_unknown chair shop o9', 'line_differs chair shop o9', 'line_changed chair shop o9', 'hold_removed chair o9']),
	($$DELETE FROM alloc.allocation WHERE orderid = 'o9'$$,
		ARRAY['hold_unknown chair shop o9', 'line_missing chair shop o9', 'not_conserved chair shop', 'line_added chair shop o9', 'hold_removed chair o9'])
  ) AS trials (damage, found);
SELECT * FROM finish();
