-- allocate_order() with mode backorder: what cannot be served waits.

\ir common.psql
BEGIN;
SELECT no_plan();

-- try: a row for each line, in words.
CREATE FUNCTION try(orderid text, lines text, mode text DEFAULT 'backorder') RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT concat_ws(' ', o.sku, o.qty, o.batchref, o.status)
	  FROM alloc.allocate_order(orderid, lines::alloc.order_line[], mode) o
$$;
-- queue: who waits, in words.
CREATE FUNCTION queue() RETURNS SETOF text
LANGUAGE sql STABLE AS $$ SELECT concat_ws(' ', orderid, sku, qty) FROM alloc.backorders $$;

SELECT alloc.add_batch('lamp-1', 'lamp', 3), alloc.add_batch('lamp-2', 'lamp', 2, '2031-01-01'), alloc.add_batch('rug', 'rug', 5), alloc.add_batch('none', 'none', 0);
SELECT mark();
SELECT results_eq($$SELECT try('o1', '{"(,lamp,2)","(,rug,9)","(,none,1)","(,lamp,2)"}')$$,
	ARRAY['lamp 4 backordered', 'rug 9 backordered', 'none 1 backordered'], 'an order of which nothing can be served waits');
SELECT results_eq('SELECT news()', ARRAY['out_of_stock o1 lamp 4', 'backordered o1 lamp 4', 'out_of_stock o1 rug 9', 'backordered o1 rug 9',
	'out_of_stock o1 none 1', 'backordered o1 none 1'], 'which is recorded, line by line');
SELECT results_eq('SELECT queue()', ARRAY['o1 lamp 4', 'o1 rug 9', 'o1 none 1'], 'and in the queue');
SELECT mark();
SELECT results_eq($$SELECT try('o1', '{"(,lamp,4)","(,rug,9)","(,none,1)"}')$$,
	ARRAY['lamp 4 backordered', 'rug 9 backordered', 'none 1 backordered'], 'again: the same answer');
SELECT is_empty('SELECT news()', 'and no event');
SELECT results_eq($$SELECT try('o2', '{"(,none,2)","(,lamp,3)","(,rug,1)"}')$$,
	ARRAY['none 2 backordered', 'lamp 3 lamp-1 allocated', 'rug 1 rug allocated'], 'what can be served is');
SELECT results_eq($$SELECT try('o2', '{"(,none,2)","(,lamp,3)","(,rug,1)"}')$$,
	ARRAY['none 2 backordered', 'lamp 3 lamp-1 allocated', 'rug 1 rug allocated'], 'again: the same');
SELECT results_eq('SELECT news()', ARRAY['out_of_stock o2 none 2', 'backordered o2 none 2', 'allocated o2 lamp 3 lamp-1', 'allocated o2 rug 1 rug'], 'once');
SELECT refused($$SELECT try('o1', '{"(,rug,1)","(,lamp,5)"}')$$, 'SK003', '%("o1", "rug")%quantity 9, not 1%', 'a line that waits with another quantity, which could be served');
SELECT refused($$SELECT try('o1', '{"(,lamp,5)"}')$$, 'SK003', '%("o1", "lamp")%quantity 4, not 5%', 'one that could not');
SELECT refused($$SELECT try('o1', '{"(,lamp,5)"}', 'all')$$, 'SK003', '%("o1", "lamp")%quantity 4, not 5%', 'likewise with mode all');
SELECT refused($$SELECT try('o3', '{"(,lamp,9)","(,sofa,1)"}')$$, 'SK001', '%"sofa"%', 'an unknown sku');
SELECT refused($$SELECT try('o2', '{"(,none,9)","(,lamp,4)"}')$$, 'SK003', '%quantity%', 'another quantity');
SELECT sound('orders that wait');
SELECT agrees('orders that wait');

-- With the other modes such a line goes on waiting

SELECT mark();
SELECT results_eq($$SELECT try('o1', '{"(,lamp,4)","(,rug,9)"}', 'all')$$, ARRAY['lamp 4 out_of_stock', 'rug 9 out_of_stock'], 'mode all: out of stock');
SELECT results_eq($$SELECT try('o1', '{"(,lamp,4)","(,rug,9)"}', 'partial')$$, ARRAY['lamp 4 out_of_stock', 'rug 9 out_of_stock'], 'mode partial: out of stock');
SELECT results_eq('SELECT queue()', ARRAY['o1 lamp 4', 'o1 rug 9', 'o1 none 1', 'o2 none 2'], 'it goes on waiting');

-- Stock comes

SELECT mark();
SELECT alloc.add_batch('none-2', 'none', 2);
SELECT results_eq('SELECT news()', ARRAY['batch_created none 2 none-2', 'allocated o1 none 1 none-2'], 'who came first is served');
SELECT mark();
SELECT is(alloc.deallocate('o2', 'lamp'), 'lamp-1', 'three lamps are free');
SELECT results_eq('SELECT news()', ARRAY['deallocated o2 lamp 3 lamp-1'], 'too few for four');
SELECT results_eq($$SELECT orderid FROM alloc.change_batch_quantity('lamp-2', 6)$$, '{}'::text[], 'four more');
SELECT results_eq('SELECT news()', ARRAY['deallocated o2 lamp 3 lamp-1', 'batch_quantity_changed lamp 6 lamp-2 was 2', 'allocated o1 lamp 4 lamp-2'], 'serve them');
SELECT results_eq($$SELECT try('o1', '{"(,lamp,4)","(,rug,9)","(,none,1)"}')$$,
	ARRAY['lamp 4 lamp-2 allocated', 'rug 9 backordered', 'none 1 none-2 allocated'], 'the order knows');
SELECT sound('stock that comes');
SELECT agrees('stock that comes');

-- Holds that are over

SELECT alloc.add_batch('bed', 'bed', 2), alloc.hold('h', 'bed', 2, '1 millisecond');
SELECT pg_sleep(0.003);
SELECT results_eq($$SELECT try('o4', '{"(,bed,1)"}')$$, ARRAY['bed 1 bed allocated'], 'a hold that is over makes nobody wait');
SELECT alloc.hold('h2', 'bed', 1, '20 milliseconds');
SELECT results_eq($$SELECT try('o5', '{"(,bed,1)"}')$$, ARRAY['bed 1 backordered'], 'one that lasts does');
SELECT pg_sleep(0.03);
SELECT mark();
SELECT is(alloc.allocate('o6', 'bed', 1), NULL, 'when it is over somebody needs it');
SELECT results_eq('SELECT news()', ARRAY['hold_expired h2 bed 1 bed', 'allocated o5 bed 1 bed', 'out_of_stock o6 bed 1'], 'but the line that waits is first');
SELECT alloc.hold('h7', 'lamp', 3, '1 hour');
SELECT results_eq($$SELECT try('o7', '{"(,lamp,3)"}')$$, ARRAY['lamp 3 backordered'], 'a line waits for what is held');
SELECT mark();
SELECT is(alloc.release('h7'), 1::bigint, 'it is released');
SELECT results_eq('SELECT news()', ARRAY['hold_released h7 lamp 3 lamp-1', 'allocated o7 lamp 3 lamp-1'], 'and serves the line');
SELECT mark();
SELECT is(alloc.hold('o1', 'rug', 9, '1 hour'), NULL, 'hold() of a line that waits');
SELECT alloc.change_batch_quantity('rug', 9);
SELECT is(alloc.cancel_backorder('o1', 'rug'), true, 'it waits still');
SELECT is(alloc.deallocate('o2', 'rug'), 'rug', 'a rug is free');
SELECT results_eq($$SELECT try('o8', '{"(,rug,10)"}')$$, ARRAY['rug 10 backordered'], 'ten rugs');
SELECT alloc.add_batch('rug-0', 'rug', 1, '2035-01-01');
SELECT results_eq('SELECT queue()', ARRAY['o2 none 2', 'o8 rug 10'], 'one rug is not ten');
SELECT sound('holds');
SELECT agrees('holds');
-- However many wait, a transaction changes their product once: here it made it.
SELECT alloc.add_batch('scarce', 'scarce', 0);
SELECT set_config('test.updates', pg_stat_get_xact_tuples_updated('alloc.product'::regclass)::text, true);
SELECT is(count(*), 30::bigint, 'thirty orders wait')
  FROM generate_series(1, 30) AS n,
	   alloc.allocate_order('waits ' || n, ARRAY[(NULL, 'scarce', 1)]::alloc.order_line[], 'backorder') AS o
 WHERE o.status = 'backordered';
SELECT is(pg_stat_get_xact_tuples_updated('alloc.product'::regclass)::text, current_setting('test.updates'),
	'their product has no new version for each');
SELECT * FROM finish();
ROLLBACK;
