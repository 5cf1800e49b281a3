-- A database that takes skus over from another one: prepare_partition(), what is
-- copied, settle_partition().  The copy is made here by hand.

\ir common.psql
SELECT no_plan();

CREATE FUNCTION shares() RETURNS SETOF text
LANGUAGE sql STABLE AS 'SELECT number || '' of '' || count FROM alloc.partition';

SELECT refused(command, sqlstate, '%' || names || '%', command)
  FROM (VALUES
	('SELECT alloc.prepare_partition(NULL)', '22004', 'era'),
	('SELECT alloc.prepare_partition(0)', '22023', 'era%: 0'),
	('SELECT alloc.prepare_partition(1000000)', '22023', 'era%: 1000000'),
	('SELECT alloc.settle_partition(NULL, 4)', '22004', 'number'),
	('SELECT alloc.settle_partition(2, NULL)', '22004', 'count'),
	('SELECT alloc.settle_partition(2, 4)', '55000', 'not being filled')) AS t (command, sqlstate, names);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT throws_ok('SELECT alloc.prepare_partition(1)', '25000', NULL, 'prepare_partition() is for READ COMMITTED');
ROLLBACK;
BEGIN READ ONLY;
SELECT throws_ok('SELECT alloc.settle_partition(0, 2)', '25006', NULL, 'settle_partition() is for transactions that write');
ROLLBACK;

SELECT alloc.prepare_partition(2);
SELECT is((SELECT count(*) FROM alloc.era), 3::bigint, 'prepare_partition(): the era is later than that of what will come');
SELECT lives_ok('SELECT alloc.prepare_partition(2)', 'again: that is as good');
SELECT is((SELECT count(*) FROM alloc.era), 3::bigint, '... and changes nothing');
SELECT results_eq('SELECT shares()', ARRAY['-1 of 65536'], 'it has no share');

-- What is copied: LAMP, of partition 1 of 2, with a line, a line that is held until
-- a while ago, and their events, of an era before.

SELECT now() - interval '30 minutes' AS over \gset
INSERT INTO alloc.product VALUES ('LAMP');
INSERT INTO alloc.batch (batch_id, purchased, ref, sku) VALUES (70, 10, 'lamp', 'LAMP');
INSERT INTO alloc.event (event_id, at, xact, qty, relay, type, sku, orderid, batchref, expires_at, previous)
SELECT id, now() - interval '1 hour', (2::bigint << 48) + 1000000000 + id, qty, true, type, 'LAMP', orderid, 'lamp', expires_at, previous
  FROM (VALUES (901, 10, 'batch_created', NULL, NULL::timestamptz, NULL::bigint), (902, 2, 'allocated', 'one', NULL, NULL),
			   (903, 4, 'held', 'cart', :'over'::timestamptz, 902)) AS e (id, qty, type, orderid, expires_at, previous);
INSERT INTO alloc.allocation (batch_id, event_id, qty, orderid, sku, expires_at)
VALUES (70, 902, 2, 'one', 'LAMP', NULL), (70, 903, 4, 'cart', 'LAMP', :'over');
INSERT INTO alloc.hold (batch_id, qty, expires_at, orderid, sku, batchref)
VALUES (70, 4, :'over', 'cart', 'LAMP', 'lamp');
INSERT INTO alloc.slot (batch_id, available, newest, hold_until, sku, ref)
VALUES (70, 4, 903, :'over', 'LAMP', 'lamp');

SELECT refused(call, '55000', '%is not served by this partition%', call)
  FROM (VALUES ($$SELECT alloc.allocate('o', 'LAMP', 1)$$), ($$SELECT alloc.allocate('o', 'CHAIR', 1)$$),
			   ($$SELECT alloc.add_batch('chair', 'CHAIR', 1)$$)) AS t (call);
SELECT is_empty('SELECT sku FROM alloc.stock', 'the views show nothing');
SELECT is(alloc.confirm('cart') + alloc.release('cart') + alloc.ship('one'), 0::bigint, 'what goes by order passes over all');
SELECT refused('SELECT alloc.prepare_partition(2)', '55000', '%has stock of its own%', 'what has been filled is not prepared');
SELECT refused('SELECT alloc.drop_moved()', '55000', '%not a partition%', 'drop_moved() is not for it: it would forget all');

-- A subscription that is not connected does no harm, but may again.
SET client_min_messages = error;
CREATE SUBSCRIPTION filled CONNECTION 'dbname=nowhere' PUBLICATION filled WITH (connect = false);
RESET client_min_messages;
INSERT INTO pg_subscription_rel SELECT oid, 'alloc.batch'::regclass, 'r', NULL FROM pg_subscription WHERE subname = 'filled';
SELECT refused('SELECT alloc.settle_partition(1, 2)', '55000', '%"filled" still fills%', 'as long as there is a subscription it is not settled');
SELECT results_eq('SELECT shares()', ARRAY['-1 of 65536'], '... and nothing has changed');
ALTER SUBSCRIPTION filled SET (slot_name = NONE);
DROP SUBSCRIPTION filled;

SELECT refused('SELECT alloc.settle_partition(2, 2)', '22023', '%number%: 2%', 'settle_partition() refuses what set_partition() does');
SELECT alloc.settle_partition(1, 2);
SELECT results_eq('SELECT shares()', ARRAY['1 of 2'], 'settle_partition(): it has its share');
SELECT is_empty('SELECT * FROM alloc.check()', 'and is sound');
SELECT refused('SELECT alloc.settle_partition(1, 2)', '55000', '%not being filled%', 'once is enough');
SELECT cmp_ok(nextval('alloc.fleet_attempt_seq'), '>', 3::bigint << 40, 'attempts are other ones than before');

-- A consumer of the fleet, whose router hears of it late.
SELECT is(alloc.allocate('two', 'LAMP', 1), 'lamp', 'it serves');
SELECT is(alloc._add_fleet_consumer('mail'), true, 'a router reads it as well');
SELECT is(alloc._add_fleet_consumer('mail'), true, '... and once more, if that failed');
SELECT results_eq('SELECT event_id > 903, type, orderid FROM alloc._fetch_fleet_events(ARRAY[1], ''mail'', ARRAY[0::bigint], ARRAY[0::bigint], 100, 7) WHERE type <> ''hold_expired''',
	$$VALUES (true, 'allocated', 'two')$$, 'it has what happened here, and nothing that was copied');
SELECT refused('SELECT * FROM alloc._fetch_fleet_events(ARRAY[0], ''mail'', ARRAY[1::bigint], ARRAY[1::bigint], 100, 8)', '55000',
	'%not partition 0%', 'who takes it for another partition is refused');
SELECT throws_ok($$SELECT * FROM alloc._fetch_fleet_events(ARRAY[1], 'mail', ARRAY[0::bigint], ARRAY[0::bigint], 100, 6)$$, '40001',
	'a later fetch for consumer "mail" was first', 'a fetch that comes late');
SELECT throws_ok($$SELECT alloc.confirm('cart')$$, 'SK005', NULL, 'a hold that is over is told to be');
SELECT is_empty('SELECT * FROM alloc.check()', 'all is sound');
SELECT is(alloc.add_batch('more', 'LAMP', 1), 'more', 'a new batch');
SELECT is((SELECT batch_id > 70 FROM alloc.batch WHERE ref = 'more'), true, '... comes after those that were copied');

-- What is kept by the hash of its own key, of partition 1
-- of 2.

CREATE FUNCTION named(rest integer) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT 'key ' || n FROM generate_series(1, 100) n WHERE alloc.partition_of('key ' || n) & 1 = rest LIMIT 1
$$;
SELECT is(alloc._claim_ref(named(1), 'LAMP', NULL, false), 'LAMP', 'a reference that is kept here');
SELECT refused(format('SELECT alloc._claim_ref(%L, ''LAMP'', NULL, false)', named(0)), '55000', '%not kept by this partition%', 'one that is not');
SELECT refused(format(call, named(0)), '55000', '%not kept by this partition%', call)
  FROM (VALUES ('SELECT alloc._find_order(%L)'), ('SELECT alloc._begin_order(%L, ''all'', ''{LAMP}'', ''{1}'')'),
			   ('SELECT alloc._move_order(%L, 1, ''begun'', ''decided'', NULL)')) AS t (call);
SELECT is(alloc._require_homes('{0,1}'), true, 'a router that knows the share');
SELECT is(alloc._require_homes('{0,1,0,1}'), true, '... as of four');
SELECT is(alloc._require_homes('{0,1,2,1}'), true, '... of which the other one was doubled');
SELECT refused(format('SELECT alloc._require_homes(%L)', homes), '55000', '%other skus than the router knows%', 'one that does not: ' || homes)
  FROM unnest(ARRAY['{0}', '{0,1,0,3}', '{0,1,2,3}']) AS homes;
SELECT alloc._unlock_order('all');

-- Of skus that moved there are events in two logs, until they are dropped.
INSERT INTO alloc.product (sku) VALUES (named(0));
SELECT refused($$SELECT alloc._create_fleet_consumer('all', 'beginning')$$, '55000', '%does not serve%', 'from the beginning: not yet');
SELECT is(alloc._create_fleet_consumer('later', 'now'), true, 'from now: it is');
SELECT is(alloc._drop_fleet_consumer('later'), true, 'and goes again');
SELECT alloc.drop_moved();
SELECT is(alloc._create_fleet_consumer('all', 'beginning'), true, 'after drop_moved() from the beginning');
SELECT is(alloc._drop_fleet_consumer('all'), true, 'too');

-- A consumer of the fleet that somebody drops here.
SELECT alloc.drop_consumer('mail');
SELECT alloc.create_consumer('own', 'now');
SELECT is(alloc._drop_fleet_consumer('own'), false, 'another consumer is none of the fleet''s');
SELECT is(alloc._drop_fleet_consumer('mail'), true, 'one that was dropped by hand has left something');
SELECT results_eq('SELECT kind, name FROM alloc.consumer WHERE kind NOT IN (''relay'', ''handler'')',
	$$VALUES ('consumer', 'own')$$, 'which is gone then');
SELECT is_empty('SELECT * FROM alloc.fleet_place', 'with its places');
SELECT * FROM finish();
