-- Bad input: the right SQLSTATE, the value in the message, nothing changed.

\ir common.psql
BEGIN;
SELECT plan(267);

SELECT alloc.add_batch('b1', 's1', 10), alloc.add_batch('b2', 's1', 20, '2011-01-01');
SELECT alloc.allocate('o1', 's1', 4), alloc.allocate('o2', 's1', 5), alloc.allocate('o3', 's1', 6);
CREATE TEMPORARY TABLE digest_before AS SELECT digest();

-- call: a command with a value, an SQL expression, as its argument, and good
-- values for all others.
CREATE FUNCTION call(command text, argument text, value text) RETURNS text
LANGUAGE sql AS $$
	SELECT format('SELECT alloc.%s(%s)', call.command, string_agg(
		format('%I => %s', p.argument, CASE WHEN p.argument = call.argument THEN call.value ELSE p.good END), ', '))
	  FROM (VALUES
		('add_batch', 'ref', $v$'new'$v$), ('add_batch', 'sku', $v$'s1'$v$), ('add_batch', 'qty', '1'),
		('allocate', 'orderid', $v$'new'$v$), ('allocate', 'sku', $v$'s1'$v$), ('allocate', 'qty', '1'),
		('deallocate', 'orderid', $v$'o1'$v$), ('deallocate', 'sku', $v$'s1'$v$),
		('change_batch_quantity', 'ref', $v$'b2'$v$), ('change_batch_quantity', 'qty', '1')
	  ) AS p (command, argument, good)
	 WHERE p.command = call.command
$$;
CREATE TEMPORARY TABLE argument (command text, argument text, least bigint);
INSERT INTO argument VALUES
	('add_batch', 'ref', NULL), ('add_batch', 'sku', NULL), ('add_batch', 'qty', 0),
	('allocate', 'orderid', NULL), ('allocate', 'sku', NULL), ('allocate', 'qty', 1),
	('deallocate', 'orderid', NULL), ('deallocate', 'sku', NULL),
	('change_batch_quantity', 'ref', NULL), ('change_batch_quantity', 'qty', 0);

-- The good values are good

SELECT lives_ok(call(command, NULL, NULL), format('%s(): a good call works', command))
  FROM (SELECT DISTINCT command FROM argument) a;
SELECT isnt(digest(), (SELECT * FROM digest_before), 'and changes tables, as digest() sees');
SELECT alloc.allocate('o1', 's1', 4), alloc.allocate('o2', 's1', 5), alloc.change_batch_quantity('b2', 20), alloc.allocate('o3', 's1', 6),
	   alloc.deallocate('new', 's1');

-- Keys

SELECT refused(call(command, argument, value), state, format(pattern, argument),
			   format('%s(): %s %s', command, argument, what))
  FROM argument, (VALUES
	('NULL', 'that is NULL', '22004', '%%%s%%null%%'),
	($$''$$, 'that is empty', '22023', '%%%s%%empty%%""%%'),
	($$repeat('k', 256)$$, 'of 256 bytes', '22001', '%%%s%%too long%%"kkkkkkkk%%'),
	($$repeat('é', 128)$$, 'of 128 characters in 256 bytes', '22001', '%%%s%%too long%%"éééééééé%%'),
	($$repeat('k', 10 * 1024 * 1024)$$, 'of 10 MB', '22001', '%%%s%%too long%%"kkkkkkkk%%'),
	($$repeat('€', 3 * 1024 * 1024)$$, 'of 9 MB of three-byte characters', '22001', '%%%s%%too long%%"€€€€€€€€%%')
  ) AS bad (value, what, state, pattern)
 WHERE least IS NULL;

-- A key as a table keeps it: compressed, out of line

CREATE TEMPORARY TABLE big (kept text, key text);
ALTER TABLE big ALTER key SET STORAGE external;
INSERT INTO big SELECT 'out of line', repeat('k', 10 * 1024 * 1024);
ALTER TABLE big ALTER key SET STORAGE extended;
INSERT INTO big SELECT 'compressed', repeat('k', 10 * 1024 * 1024);
SELECT refused(format('SELECT alloc.allocate(key, %L, 1) FROM big WHERE kept = %L', 's1', kept), '22001', '%too long%"kkkkkkkk%',
			   'a key of 10 MB kept ' || kept)
  FROM big;
-- Quantities

SELECT refused(call(command, argument, 'NULL'), '22004', '%qty%null%', format('%s(): qty that is NULL', command))
  FROM argument WHERE least IS NOT NULL;
SELECT refused(call(command, argument, value), '22023', '%qty%at least ' || least || ': ' || value,
			   format('%s(): qty %s', command, value))
  FROM argument, unnest(ARRAY['-1', '-9223372036854775808', '0']) AS value
 WHERE value::bigint < least;
SELECT refused($$SELECT alloc.allocate(NULL, NULL, NULL)$$, '22004', '%orderid%null%', 'allocate(): all that is NULL');
SELECT refused($$SELECT alloc.allocate('', '', 0)$$, '22023', '%orderid%empty%', 'allocate(): the first bad argument is told');

-- Sums

SELECT alloc.add_batch('huge', 'huge', 9223372036854775800), alloc.add_batch('seven', 'huge', 7, '2011-01-01');
SELECT refused($$SELECT alloc.add_batch('one', 'huge', 1)$$, '22003', '%1%"huge"%',
	'add_batch(): a sum of 2^63');
SELECT refused($$SELECT alloc.add_batch('most', 'huge', 9223372036854775807)$$, '22003', '%9223372036854775807%"huge"%',
	'add_batch(): a sum of almost 2^64');
SELECT refused($$SELECT alloc.change_batch_quantity('seven', 8)$$, '22003', '%8%"huge"%',
	'change_batch_quantity(): a sum of 2^63');
SELECT refused($$SELECT alloc.change_batch_quantity('seven', 9223372036854775807)$$, '22003', '%9223372036854775807%"huge"%',
	'change_batch_quantity(): a sum of almost 2^64');
SELECT refused($$SELECT alloc.change_batch_quantity('huge', 9223372036854775801)$$, '22003', '%9223372036854775801%"huge"%',
	'change_batch_quantity(): a sum of 2^63 by the large batch');
SELECT is((SELECT purchased_qty FROM alloc.stock WHERE sku = 'huge'), 9223372036854775807, 'a sum of 2^63-1 is no error');
SELECT lives_ok($$SELECT alloc.change_batch_quantity('huge', 9223372036854775799), alloc.change_batch_quantity('seven', 8)$$,
	'what one batch gives up another may have');
SELECT is(alloc.add_batch('other', 'other', 9223372036854775807), 'other', 'the limit is for each sku');
SELECT is(alloc.allocate('all', 'other', 9223372036854775807), 'other', 'and can be allocated');
SELECT refused($$SELECT alloc.add_batch('more', 'other', 1)$$, '22003', '%1%"other"%', 'add_batch(): a sum of 2^63, all allocated');
SELECT sound('large sums');

-- What is not known

SELECT refused($$SELECT alloc.allocate('o', 'no such sku', 1)$$, 'SK001', '%"no such sku"%', 'allocate(): an unknown sku');
SELECT refused($$SELECT alloc.allocate('o1', 'S1', 1)$$, 'SK001', '%"S1"%', 'allocate(): a sku in another case');
SELECT refused($$SELECT alloc.allocate('o1', 's1 ', 1)$$, 'SK001', '%"s1 "%', 'allocate(): a sku with a blank more');
SELECT refused($$SELECT alloc.allocate('o1', 'b1', 1)$$, 'SK001', '%"b1"%', 'allocate(): a batch for a sku');
SELECT refused($$SELECT alloc.change_batch_quantity('no such ref', 1)$$, 'SK002', '%"no such ref"%',
	'change_batch_quantity(): an unknown ref');
SELECT refused($$SELECT * FROM alloc.change_batch_quantity('s1', 0)$$, 'SK002', '%"s1"%',
	'change_batch_quantity(): a sku for a ref');
SELECT refused($$SELECT alloc.allocate('o', repeat('u', 255), 1)$$, 'SK001', '%"' || repeat('u', 60) || '%',
	'allocate(): an unknown sku of 255 bytes');

-- What is there with other values

SELECT refused($$SELECT alloc.add_batch('b1', 's1', 11)$$, '23505', '%"b1"%', 'add_batch(): a ref with another quantity');
SELECT refused($$SELECT alloc.add_batch('b1', 's1', 6)$$, '23505', '%"b1"%', 'add_batch(): a ref with what it has left');
SELECT refused($$SELECT alloc.add_batch('b1', 'huge', 10)$$, '23505', '%"b1"%', 'add_batch(): a ref with another sku');
SELECT refused($$SELECT alloc.add_batch('b1', 'new sku', 10)$$, '23505', '%"b1"%', 'add_batch(): a ref with a new sku');
SELECT refused($$SELECT alloc.add_batch('b1', 's1', 10, '2011-01-01')$$, '23505', '%"b1"%', 'add_batch(): a ref with an eta that it had not');
SELECT refused($$SELECT alloc.add_batch('b2', 's1', 20)$$, '23505', '%"b2"%', 'add_batch(): a ref without its eta');
SELECT refused($$SELECT alloc.add_batch('b2', 's1', 20, '2011-01-02')$$, '23505', '%"b2"%', 'add_batch(): a ref with another eta');
SELECT refused($$SELECT alloc.add_batch('b2', 's1', 20, '2000-01-01')$$, '23505', '%"b2"%', 'add_batch(): a ref with day 0 as eta');
SELECT refused($$SELECT alloc.add_batch('b1', 's1', 10, '2000-01-01')$$, '23505', '%"b1"%', 'add_batch(): a ref in stock with day 0 as eta');
SELECT refused($$SELECT alloc.allocate('o1', 's1', 5)$$, 'SK003', '%"o1"%"s1"%4%5%', 'allocate(): a line with another quantity');

-- Read-only transactions

SELECT refused('SET LOCAL transaction_read_only = on; ' || call(command, NULL, NULL), '25006', '%' || command || '()%read-only%',
			   command || '(): in a read-only transaction')
  FROM (SELECT DISTINCT command FROM argument) a;
SELECT refused($$SET LOCAL transaction_read_only = on; SELECT alloc.allocate('o1', 's1', 4)$$, '25006', '%allocate()%',
	'allocate(): in a read-only transaction, though the line is there');
SELECT refused($$SET LOCAL transaction_read_only = on; SELECT alloc.deallocate('nobody', 's1')$$, '25006', '%deallocate()%',
	'deallocate(): in a read-only transaction, though there is no such line');

-- After all this

SELECT sound('bad input');
SELECT is(alloc.allocate('last', 's1', 1), 'b1', 'good input still works');
SELECT * FROM finish();
ROLLBACK;
