-- sync_batches(): what a feed changes, in which order, and what is refused.

\ir common.psql
CREATE EXTENSION file_fdw;
BEGIN;
SELECT plan(64);

-- synced: sync_batches(), its rows in words.
CREATE FUNCTION synced(source regclass, dry_run boolean DEFAULT false)
RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT format('%s %s %s: %s to %s', action, ref, sku,
				  coalesce(old_qty || coalesce('@' || old_eta, ''), 'nothing'),
				  new_qty || coalesce('@' || new_eta, ''))
	  FROM alloc.sync_batches(source, dry_run)
$$;

CREATE TABLE feed (ref text, sku text, qty bigint, eta date);

-- The shape

SELECT is(pg_get_function_arguments('alloc.sync_batches'::regproc),
	'source regclass, dry_run boolean DEFAULT false, OUT action text, OUT ref text, OUT sku text, OUT old_qty bigint, OUT new_qty bigint, OUT old_eta date, OUT new_eta date',
	'names and types of its columns are known to clients');
SELECT is_empty($$SELECT * FROM synced('feed')$$, 'an empty feed and no batch: nothing');

-- One of each, from a table

SELECT alloc.add_batch('grow', 'LAMP', 5, '2030-01-01'), alloc.add_batch('later', 'LAMP', 5, '2030-01-02'),
	   alloc.add_batch('shrink', 'LAMP', 20), alloc.add_batch('same', 'LAMP', 4, '2030-01-04'),
	   alloc.add_batch('gone', 'LAMP', 7, '2030-01-03'), alloc.add_batch('gone too', 'RUG', 3);
SELECT alloc.allocate('o1', 'LAMP', 10), alloc.allocate('o2', 'LAMP', 10);
INSERT INTO feed VALUES
	('vase', 'VASE', 0, '2031-01-01'), ('new', 'LAMP', 8, '2030-01-05'),
	('grow', 'LAMP', 6, '2030-01-01'), ('later', 'LAMP', 5, '2030-02-02'),
	('shrink', 'LAMP', 10, NULL), ('same', 'LAMP', 4, '2030-01-04');
SELECT mark();
CREATE TEMPORARY TABLE before AS SELECT digest();
SELECT results_eq($$SELECT synced('feed', true)$$, ARRAY[
	'create new LAMP: nothing to 8@2030-01-05',
	'change_quantity grow LAMP: 5@2030-01-01 to 6@2030-01-01',
	'change_eta later LAMP: 5@2030-01-02 to 5@2030-02-02',
	'change_quantity shrink LAMP: 20 to 10',
	'retire gone LAMP: 7@2030-01-03 to 0@2030-01-03',
	'retire gone too RUG: 3 to 0',
	'create vase VASE: nothing to 0@2031-01-01'],
	'a dry run: by sku; then create, more, eta, less, retire; a row for each');
SELECT is(digest(), (SELECT * FROM before), 'a dry run changes nothing');
CREATE TEMPORARY TABLE planned AS SELECT synced FROM synced('feed', true);
SELECT results_eq($$SELECT synced('feed')$$, 'SELECT synced FROM planned', 'the same rows when it is done');
SELECT results_eq('SELECT news()', ARRAY[
	'batch_created LAMP 8 new eta 2030-01-05',
	'batch_quantity_changed LAMP 6 grow was 5',
	'batch_eta_changed LAMP later eta 2030-02-02 eta was 2030-01-02',
	'deallocated o2 LAMP 10 shrink',
	'batch_quantity_changed LAMP 10 shrink was 20',
	'out_of_stock o2 LAMP 10',
	'backordered o2 LAMP 10',
	'batch_quantity_changed LAMP 0 gone was 7',
	'batch_quantity_changed RUG 0 gone too was 3',
	'batch_created VASE 0 vase eta 2031-01-01'],
	'events: those of the ordinary commands, in the same order');
SELECT bag_eq($$SELECT ref, sku, purchased_qty, eta FROM alloc.batches WHERE ref NOT LIKE 'gone%'$$,
	'SELECT ref, sku, qty, eta FROM feed', 'the batches are what the feed says');
SELECT bag_eq($$SELECT ref FROM alloc.batches WHERE purchased_qty = 0$$,
	ARRAY['gone', 'gone too', 'vase'], 'those that were not in it are there, with nothing');
SELECT sound('one of each');
SELECT mark();
SELECT is_empty($$SELECT synced('feed')$$, 'the same feed again: no row');
SELECT is_empty('SELECT news()', 'the same feed again: no event');
SELECT is_empty('SELECT * FROM alloc.check()', 'check() finds nothing');
SELECT results_eq('SELECT ref, sku, eta, purchased_qty, available_qty FROM alloc.replay() ORDER BY ref',
	'SELECT ref, sku, eta, purchased_qty, available_qty FROM alloc.batches ORDER BY ref',
	'replay() folds the same batches from the log');

-- Both changes of one batch; a batch that comes back

TRUNCATE feed;
INSERT INTO feed VALUES ('grow', 'LAMP', 9, '2030-03-01'), ('same', 'LAMP', 1, NULL),
	('gone', 'LAMP', 2, '2030-01-03'), ('shrink', 'LAMP', 10, NULL);
SELECT results_eq($$SELECT synced('feed')$$, ARRAY[
	'change_quantity gone LAMP: 0@2030-01-03 to 2@2030-01-03',
	'change_quantity grow LAMP: 6@2030-01-01 to 9@2030-01-01',
	'change_eta grow LAMP: 9@2030-01-01 to 9@2030-03-01',
	'change_eta same LAMP: 4@2030-01-04 to 4',
	'change_quantity same LAMP: 4 to 1',
	'retire later LAMP: 5@2030-02-02 to 0@2030-02-02',
	'retire new LAMP: 8@2030-01-05 to 0@2030-01-05'],
	'quantity and day of one batch: two rows, each with what it was between them');
SELECT sound('both changes of one batch');

-- Lines that must leave find the stock that comes with the same feed

TRUNCATE feed;
SELECT alloc.add_batch('old', 'SOFA', 10);
SELECT alloc.allocate('o1', 'SOFA', 4), alloc.allocate('o2', 'SOFA', 6);
INSERT INTO feed SELECT ref, sku, purchased_qty, eta FROM alloc.batches WHERE ref <> 'old';
INSERT INTO feed VALUES ('a later one', 'SOFA', 10, '2030-02-01'), ('z', 'SOFA', 4, '2030-01-01');
SELECT results_eq($$SELECT synced('feed')$$, ARRAY[
	'create a later one SOFA: nothing to 10@2030-02-01',
	'create z SOFA: nothing to 4@2030-01-01',
	'retire old SOFA: 10 to 0'], 'a batch is replaced by two');
SELECT results_eq($$SELECT orderid, batchref FROM alloc.allocations WHERE sku = 'SOFA' ORDER BY orderid$$,
	$$VALUES ('o1', 'z'), ('o2', 'a later one')$$, 'its lines go to them, by the usual preference');
SELECT sound('a batch is replaced');

-- What has been shipped stays

SELECT alloc.add_batch('s', 'SHIP', 20);
SELECT alloc.allocate('gone', 'SHIP', 6), alloc.allocate('o1', 'SHIP', 5);
SELECT alloc.ship('gone', 'SHIP');
SELECT results_eq($$SELECT synced('feed')$$, ARRAY['retire s SHIP: 20 to 6'],
	'not in the feed: down to what has been shipped');
SELECT is_empty($$SELECT synced('feed')$$, 'again: it is there already');
SELECT results_eq($$SELECT purchased_qty, shipped_qty, allocated_qty FROM alloc.batches WHERE ref = 's'$$,
	'VALUES (6::bigint, 6::bigint, 0::bigint)', 'its line had to leave');
INSERT INTO feed VALUES ('s', 'SHIP', 5, NULL), ('fresh', 'APPLE', 5, NULL);
SELECT refused($$SELECT synced('feed')$$, 'SK004', '%5%"s"%6%', 'below what has been shipped');
SELECT refused($$SELECT synced('feed', true)$$, 'SK004', '%5%"s"%6%', 'likewise in a dry run');
DELETE FROM feed WHERE sku IN ('SHIP', 'APPLE');

-- A view, also one over the batches themselves

CREATE VIEW own_state AS SELECT eta, purchased_qty AS qty, sku, ref, now() AS other FROM alloc.batches;
SELECT is_empty($$SELECT synced('own_state')$$, 'from a view: the batches as they are, nothing to do');
CREATE SCHEMA "odd ""schema";
CREATE VIEW "odd ""schema"."odd ""feed" AS
SELECT ref::varchar(80) AS ref, sku::varchar AS sku, (purchased_qty + 1)::smallint AS qty, eta
  FROM alloc.batches WHERE ref = 'old';
SELECT results_eq($$SELECT synced('"odd ""schema"."odd ""feed"', true) LIMIT 1$$,
	ARRAY['retire gone LAMP: 2@2030-01-03 to 0@2030-01-03'], 'names are quoted');
SELECT ok('change_quantity old SOFA: 0 to 1' IN (SELECT synced('"odd ""schema"."odd ""feed"', true)),
	'varchar and smallint are welcome');
CREATE DOMAIN quantity AS integer;
CREATE VIEW with_domain AS SELECT ref, sku, purchased_qty::quantity AS qty, eta FROM alloc.batches;
SELECT is_empty($$SELECT synced('with_domain')$$, 'as are domains');
CREATE TABLE parted (LIKE feed) PARTITION BY HASH (ref);
CREATE TABLE part_0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE part_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parted SELECT ref, sku, qty, eta FROM own_state;
SELECT is_empty($$SELECT synced('parted')$$, 'and partitioned tables');

-- A CSV file

CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE csv (ref text, sku text, qty bigint, eta date) SERVER files
	OPTIONS (program $$printf 'ref,sku,qty,eta\n"c,1",CUP,3,\nc2,"CUP",4,2032-02-29\n'$$, format 'csv', header 'true');
SELECT results_eq($$SELECT synced('csv') OFFSET 0 LIMIT 2$$, ARRAY[
	'create c,1 CUP: nothing to 3', 'create c2 CUP: nothing to 4@2032-02-29'], 'from a CSV file');
SELECT is((SELECT sum(purchased_qty) FROM alloc.batches WHERE sku <> 'CUP'), 6::numeric,
	'which has nothing else: all others are down to what has been shipped');
SELECT is_empty($$SELECT synced('csv')$$, 'again: nothing to do');
ALTER FOREIGN TABLE csv OPTIONS (SET program $$printf 'ref,sku,qty,eta\nc2,CUP,four,\n'$$);
SELECT throws_ok($$SELECT synced('csv')$$, '22P02', NULL, 'what is no number in the file: the error of file_fdw');

-- Bad rows refuse the whole feed

TRUNCATE feed;
INSERT INTO feed SELECT ref, sku, purchased_qty, eta FROM alloc.batches ORDER BY ref COLLATE "C" LIMIT 1;
CREATE FUNCTION detail(source regclass) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	PERFORM alloc.sync_batches(source);
	RETURN NULL;
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS found = PG_EXCEPTION_DETAIL;
	RETURN SQLERRM || E'\n' || found;
END
$$;
INSERT INTO feed VALUES
	('good', 'LAMP', 1, NULL), (NULL, 'LAMP', 1, NULL), ('n', NULL, NULL, NULL), ('', repeat('ß', 128), -1, NULL),
	('good', 'LAMP', 1, NULL), ('old', 'LAMP', -2, NULL), ('good', 'RUG', 1, NULL);
SELECT is(detail('feed'), $$feed "feed" has 10 flaws
Row 3: ref is null.
Row 4: sku is null.
Row 4: qty is null.
Row 5: ref is empty.
Row 5: sku has 256 bytes, more than 255.
Row 5: qty is -1.
Row 7: qty is -2.
Row 6: ref "good" is in an earlier row as well.
Row 8: ref "good" is in an earlier row as well.
Row 7: ref "old" is a batch of sku "SOFA".$$, 'what is wrong with each row is in the detail');
SELECT refused($$SELECT synced('feed')$$, '22023', 'feed "feed" has 10 flaws', 'bad rows');
SELECT refused($$SELECT synced('feed', true)$$, '22023', 'feed "feed" has 10 flaws', 'bad rows, in a dry run');
INSERT INTO feed SELECT 'many', 'LAMP', 1 FROM generate_series(1, 100);
SELECT matches(detail('feed'), '^feed "feed" has 109 flaws\nRow 3(.*\n){10}And 99 more\.$',
	'of many flaws the first are told, and how many more there are');

-- Columns

CREATE TABLE no_qty (ref text, sku text, eta date);
SELECT refused($$SELECT synced('no_qty')$$, '42703', '%"no_qty"%"qty"%', 'a missing column');
CREATE TABLE numbers (ref text, sku text, qty numeric, eta date);
SELECT refused($$SELECT synced('numbers')$$, '42804', '%"qty"%"numbers"%numeric%', 'a quantity with fractions');
CREATE TABLE moments (ref text, sku text, qty int, eta timestamptz);
SELECT throws_ok($$SELECT synced('moments')$$, '42804', 'column "eta" of feed "moments" is of type timestamp with time zone',
	'a moment instead of a day');

-- Arguments

SELECT refused('SELECT synced(NULL)', '22004', 'source%', 'no source');
SELECT refused($$SELECT synced('feed', NULL)$$, '22004', 'dry_run%', 'a dry run or not?');
SELECT throws_ok('SELECT synced(1)', '42P01', NULL, 'a table that does not exist');

-- The caller's rights, and search_path

TRUNCATE feed;
INSERT INTO feed VALUES ('mine', 'LAMP', 1, NULL);
CREATE ROLE alloc_feeder;
GRANT USAGE ON SCHEMA alloc TO alloc_feeder;
GRANT EXECUTE ON FUNCTION alloc.sync_batches(regclass, boolean) TO alloc_feeder;
SET LOCAL ROLE alloc_feeder;
SELECT throws_ok($$SELECT * FROM alloc.sync_batches('feed')$$, '42501', NULL, 'who may not read the feed: 42501');
RESET ROLE;
GRANT SELECT (ref, sku, qty, eta) ON feed TO alloc_feeder;
SET LOCAL ROLE alloc_feeder;
SELECT lives_ok($$SELECT * FROM alloc.sync_batches('feed')$$, 'who may read its columns needs nothing else');
RESET ROLE;
SELECT is((SELECT purchased_qty FROM alloc.batches WHERE ref = 'mine'), 1::bigint, 'and it is done');
CREATE SCHEMA evil;
CREATE FUNCTION evil.ref(feed) RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
CREATE TABLE evil.feed (ref text, sku text, qty bigint, eta date);
DO $$ BEGIN PERFORM set_config('test.feed', 'feed'::regclass::oid::text, true); END $$;
SET LOCAL search_path = evil, public;
SELECT is_empty($$SELECT * FROM alloc.sync_batches(current_setting('test.feed')::oid)$$,
	'the caller''s search_path finds no other table');
RESET search_path;

-- A feed whose view calls a command, and a command of an aborted savepoint

CREATE FUNCTION buys() RETURNS bigint LANGUAGE sql AS $$SELECT length(alloc.add_batch('by the view', 'LAMP', 4))::bigint - 7$$;
CREATE VIEW buying AS SELECT 'by the view'::text AS ref, 'LAMP'::text AS sku, buys() AS qty, NULL::date AS eta;
SELECT results_eq($$SELECT synced('buying')$$, ARRAY['retire mine LAMP: 1 to 0'],
	'a view may call commands: what they did is there when the feed is compared');

SELECT sound('all of it');
SELECT * FROM finish();
ROLLBACK;
