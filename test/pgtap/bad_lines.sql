-- Bad input of allocate_lines(): the right SQLSTATE, the value in the message,
-- nothing changed; and odd input that is good.

\ir common.psql
BEGIN;
SELECT plan(194);

SELECT alloc.add_batch('b1', 's1', 10), alloc.add_batch('b2', 's1', 20, '2011-01-01');
SELECT alloc.allocate('o1', 's1', 4), alloc.allocate('o2', 's1', 5), alloc.allocate('o3', 's1', 6);

-- call: with lines, an SQL expression.
CREATE FUNCTION call(lines text) RETURNS text
LANGUAGE sql AS $$
	SELECT format('SELECT * FROM alloc.allocate_lines(%s)', lines)
$$;

-- The array

SELECT refused(call('NULL'), '22004', 'lines must not be null', 'an array that is NULL');
SELECT refused(call(lines), '22004', 'an order line must not be null', what)
  FROM (VALUES
	('ARRAY[NULL]::alloc.order_line[]', 'a line that is NULL'),
	($$ARRAY[('new', 's1', 1), NULL]::alloc.order_line[]$$, 'a line that is NULL after a good one'),
	($$ARRAY[NULL, ('new', 's1', 1)]::alloc.order_line[]$$, 'a line that is NULL before a good one'),
	($$'{NULL}'$$, 'a line that is NULL in a literal')) AS bad (lines, what);
SELECT refused(call('ARRAY[(NULL, NULL, NULL)]::alloc.order_line[]'), '22004', '%orderid%null%', 'a line of NULLs');
SELECT refused(call($$'{"(new,s1,x)"}'$$), '22P02', '%"x"%', 'a quantity that is no number');
SELECT refused(call($$'{"(new,s1)"}'$$), '22P02', '%(new,s1)%', 'a line with two columns');
SELECT refused(call($$'{"(new,s1,9223372036854775808)"}'$$), '22003', '%9223372036854775808%', 'a quantity of 2^63');

-- Each column of a line, in each place

CREATE FUNCTION line(attribute text, value text) RETURNS text
LANGUAGE sql AS $$
	SELECT format('ROW(%s)', string_agg(CASE name WHEN attribute THEN value ELSE good END, ', '))
	  FROM (VALUES ('orderid', $v$'new'$v$), ('sku', $v$'s1'$v$), ('qty', '1')) AS a (name, good)
$$;
CREATE TEMPORARY TABLE bad AS
SELECT line(attribute, value) AS line, state, format(pattern, attribute) AS pattern, format('%s %s', attribute, what) AS what
  FROM unnest(ARRAY['orderid', 'sku']) AS attribute, (VALUES
	('NULL', 'that is NULL', '22004', '%%%s%%null%%'),
	($$''$$, 'that is empty', '22023', '%%%s%%empty%%""%%'),
	($$repeat('k', 256)$$, 'of 256 bytes', '22001', '%%%s%%too long%%"kkkkkkkk%%'),
	($$repeat('é', 128)$$, 'of 128 characters in 256 bytes', '22001', '%%%s%%too long%%"éééééééé%%'),
	($$repeat('k', 10 * 1024 * 1024)$$, 'of 10 MB', '22001', '%%%s%%too long%%"kkkkkkkk%%')
  ) AS bad (value, what, state, pattern)
UNION ALL
SELECT line('qty', value), CASE value WHEN 'NULL' THEN '22004' ELSE '22023' END,
	   CASE value WHEN 'NULL' THEN '%qty%null%' ELSE '%qty%at least 1: ' || value END, 'qty ' || value
  FROM unnest(ARRAY['NULL', '0', '-1', '-9223372036854775808']) AS value;
SELECT refused(call(format('ARRAY[%s]::alloc.order_line[]', line)), state, pattern, what) FROM bad;
SELECT refused(call(format('ARRAY[(''good'', ''s1'', 1), %s, (''better'', ''s1'', 2)]::alloc.order_line[]', line)), state, pattern,
			   what || ' between good lines') FROM bad;

-- The place is in the context of the message.
CREATE FUNCTION context_of(command text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	context text;
BEGIN
	EXECUTE command;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
	RETURN context;
END
$$;
SELECT matches(context_of(call($$ARRAY[('a', 's1', 1), ('b', 's1', 1), ('c', 's1', 0)]::alloc.order_line[]$$)), '^element 3 of the lines\n',
	'the message about a bad line says where it is');

-- A key as a table keeps it: compressed, out of line

CREATE TEMPORARY TABLE big (kept text, key text);
ALTER TABLE big ALTER key SET STORAGE external;
INSERT INTO big SELECT 'out of line', repeat('k', 10 * 1024 * 1024);
ALTER TABLE big ALTER key SET STORAGE extended;
INSERT INTO big SELECT 'compressed', repeat('k', 10 * 1024 * 1024);
SELECT refused(format('SELECT alloc.allocate_lines(ARRAY[ROW(key, %L, 1)]::alloc.order_line[]) FROM big WHERE kept = %L', 's1', kept),
			   '22001', '%too long%"kkkkkkkk%', 'a key of 10 MB kept ' || kept)
  FROM big;
-- Of a row with many keys each is compressed, or moved out of line.
CREATE TEMPORARY TABLE wide (kept text, k1 text, k2 text, k3 text, k4 text, k5 text, k6 text, k7 text, k8 text, k9 text, k10 text);
INSERT INTO wide
SELECT 'compressed', k || 1, k || 2, k || 3, k || 4, k || 5, k || 6, k || 7, k || 8, k || 9, k || 0 FROM repeat('k', 254) AS k;
ALTER TABLE wide ALTER k1 SET STORAGE external, ALTER k2 SET STORAGE external;
INSERT INTO wide
SELECT 'out of line', k || 1, k || 2, k || 3, k || 4, k || 5, k || 6, k || 7, k || 8, k || 9, k || 0
  FROM (SELECT string_agg(chr(33 + n * n * n % 90), '' ORDER BY n) FROM generate_series(1, 254) AS n) AS x (k);
SELECT cmp_ok((SELECT sum(pg_column_size(k1) + pg_column_size(k2)) FROM wide WHERE kept = 'compressed'), '<', 100::bigint,
	'keys of 255 bytes in a wide row are compressed');
SELECT alloc.add_batch('wide ' || kept, k2, 100) FROM wide;
SELECT results_eq($$SELECT kept, r.orderid = k1, r.sku = k2, r.batchref
					  FROM wide, alloc.allocate_lines(ARRAY[ROW(k1, k2, 3), ROW(k3, k2, 3), ROW(k1, k2, 3)]::alloc.order_line[])
						   WITH ORDINALITY AS r
					 ORDER BY kept, ordinality$$,
	$$SELECT kept, n <> 2, true, 'wide ' || kept FROM wide, generate_series(1, 3) AS n ORDER BY kept, n$$, 'and are keys like any other');

-- What is not known, or there with another quantity

SELECT refused(call(lines), 'SK001', pattern, what)
  FROM (VALUES
	($$ARRAY[('o', 'no such sku', 1)]::alloc.order_line[]$$, '%"no such sku"%', 'an unknown sku'),
	($$ARRAY[('o', 's1', 1), ('o', 'S1', 1)]::alloc.order_line[]$$, '%"S1"%', 'a sku in another case after a good line'),
	($$ARRAY[('o', 's1 ', 1), ('o', 's1', 1)]::alloc.order_line[]$$, '%"s1 "%', 'a sku with a blank more before a good line'),
	($$ARRAY[('o', 'zz', 1), ('o', 'aa', 1)]::alloc.order_line[]$$, '%"zz"%', 'two unknown skus: the first is told'),
	($$ARRAY[('o', 'zz', 1), ('o1', 's1', 5)]::alloc.order_line[]$$, '%"zz"%', 'an unknown sku, then another quantity: the first is told')
  ) AS bad (lines, pattern, what);
SELECT refused(call(lines), 'SK003', pattern, what)
  FROM (VALUES
	($$ARRAY[('o1', 's1', 5)]::alloc.order_line[]$$, '%"o1"%"s1"%4%5%', 'a line with another quantity'),
	($$ARRAY[('o', 's1', 1), ('o3', 's1', 7), ('p', 's1', 1)]::alloc.order_line[]$$, '%"o3"%"s1"%6%7%', 'a line with another quantity among good ones'),
	($$ARRAY[('o1', 's1', 9223372036854775807)]::alloc.order_line[]$$, '%"o1"%"s1"%4%9223372036854775807%', 'a line with another quantity, 2^63-1'),
	($$ARRAY[('o', 's1', 1), ('o', 's1', 2)]::alloc.order_line[]$$, '%"o"%"s1"%1%2%', 'a line twice with different quantities'),
	($$ARRAY[('o', 's1', 1), ('o', 's1', 1), ('o', 's1', 99)]::alloc.order_line[]$$, '%"o"%"s1"%1%99%', 'a line thrice, then more than there is'),
	($$ARRAY[('o1', 's1', 5), ('o', 'zz', 1)]::alloc.order_line[]$$, '%"o1"%"s1"%4%5%', 'another quantity, then an unknown sku: the first is told'),
	($$ARRAY[('o', 's1', 1), ('o', 's1', 2), ('o', 'zz', 1)]::alloc.order_line[]$$, '%"o"%"s1"%1%2%', 'another quantity in the array, then an unknown sku: the first is told'),
	($$ARRAY[('o2', 's1', 1), ('o1', 's1', 1)]::alloc.order_line[]$$, '%"o2"%"s1"%5%1%', 'two lines with other quantities: the first is told')
  ) AS bad (lines, pattern, what);
-- All lines are read before anything is looked for.
SELECT refused(call($$ARRAY[('o', 'zz', 1), ('o1', 's1', 5), ('o', 's1', 0)]::alloc.order_line[]$$), '22023', '%at least 1: 0',
			   'a bad quantity is told before an unknown sku');

-- A large call that fails at its end

SELECT refused(call($$(SELECT array_agg(ROW('n' || n, 's1', 1)::alloc.order_line) FROM generate_series(1, 3000) n) || ROW('o', 'zz', 1)::alloc.order_line$$),
			   'SK001', '%"zz"%', 'an unknown sku after 3,000 good lines');
SELECT refused(call($$(SELECT array_agg(ROW('n' || n, 's1', 1)::alloc.order_line) FROM generate_series(1, 3000) n) || ROW('o1', 's1', 1)::alloc.order_line$$),
			   'SK003', '%"o1"%', 'another quantity after 3,000 good lines');

-- Read-only transactions

SELECT refused('SET LOCAL transaction_read_only = on; ' || call(lines), '25006', '%allocate_lines()%read-only%', 'in a read-only transaction' || what)
  FROM (VALUES ($$ARRAY[('new', 's1', 1)]::alloc.order_line[]$$, ''),
			   ($$ARRAY[('o1', 's1', 4)]::alloc.order_line[]$$, ', though the line is there'),
			   ($$'{}'$$, ', though there is no line')) AS v (lines, what);

-- A type that was changed

SAVEPOINT here;
ALTER TYPE alloc.order_line ADD ATTRIBUTE note text;
SELECT refused(call($$ARRAY[('new', 's1', 1, 'gift')]::alloc.order_line[]$$), '55000', '%order_line%attributes%', 'an attribute that somebody has added');
ROLLBACK TO SAVEPOINT here;

-- Odd arrays that are good

SELECT results_eq(call($$'{}'$$), 'SELECT ''''::text, ''''::text, 0::bigint, ''''::text WHERE false', 'an empty array: no rows');
SELECT is_empty(call($$array_remove(ARRAY[NULL]::alloc.order_line[], NULL)$$), 'an array without its only line: no rows');
SELECT results_eq(call($$ARRAY[[('d1', 's1', 1), ('d2', 's1', 9)], [('d3', 's1', 1), ('d1', 's1', 1)]]::alloc.order_line[]$$),
	$$VALUES ('d1', 's1', 1::bigint, 'b1'), ('d2', 's1', 9, 'b2'), ('d3', 's1', 1, 'b2'), ('d1', 's1', 1, 'b1')$$,
	'an array of two dimensions: line by line of it');
SELECT results_eq(call($$'[-5:-4]={"(e1,s1,1)","(e2,s1,2)"}'$$), $$VALUES ('e1', 's1', 1::bigint, 'b2'), ('e2', 's1', 2, 'b2')$$,
	'an array that begins at -5');
SELECT results_eq(call($$'[2147483640:2147483641]={"(e3,s1,1)","(e4,s1,1)"}'$$), $$VALUES ('e3', 's1', 1::bigint, 'b2'), ('e4', 's1', 1, NULL)$$,
	'an array that begins near the end of the integers');
SELECT alloc.add_batch('b3', 's1', 1000, '2011-01-02');
SELECT results_eq(call($$(ARRAY[('f1', 's1', 1), ('f2', 's1', 2), ('f3', 's1', 3), ('f4', 's1', 4)]::alloc.order_line[])[2:3]$$),
	$$VALUES ('f2', 's1', 2::bigint, 'b3'), ('f3', 's1', 3, 'b3')$$, 'a slice of an array');
SELECT results_eq(call($$ARRAY[('g1'::name, 's1'::varchar(9), 1::smallint)]::alloc.order_line[]$$), $$VALUES ('g1', 's1', 1::bigint, 'b3')$$,
	'columns of other types are cast');
-- All kinds of keys

CREATE TEMPORARY TABLE key (key text);
INSERT INTO key VALUES
	('x'), ('O''Reilly'), (''''''), ('a "large" lamp'), (E'two\r\nlines'), (E'\ta\tb\t'), (E'C:\\lamp\\'), (' '), ('  lamp  '),
	('''; DROP TABLE alloc.batch; --'), ('{"sku": "lamp", "qty": [1, null]}'), ('%s %n %%'), ('(a,"b c",)'), ('{a,NULL}'), ('NULL'),
	('Füße'), (U&'cafe\0301'), (U&'caf\00E9'), ('照明器具'), ('👩‍🚀🪔'), (U&'\FEFFlamp'), (U&'\+10FFFF'),
	((SELECT string_agg(chr(n), '') FROM generate_series(1, 31) n)), (repeat('k', 255)), (repeat('k', 254) || 'l'),
	(repeat('é', 127) || 'e'), (repeat('"', 255)), (repeat(E'\\', 255));
SELECT count(alloc.add_batch(key, key, 5)) FROM key;
CREATE TEMPORARY TABLE line AS
SELECT row_number() OVER (ORDER BY s.key COLLATE "C", o.key COLLATE "C" DESC) AS n, o.key AS orderid, s.key AS sku, 1 + (o.key = s.key)::int AS qty
  FROM key AS s, (TABLE key ORDER BY key COLLATE "C" LIMIT 3) AS o;
SELECT mark();
SELECT results_eq(call('(SELECT array_agg(ROW(orderid, sku, qty)::alloc.order_line ORDER BY n) FROM line)'),
	'SELECT orderid, sku, qty::bigint, sku AS batchref FROM line ORDER BY n', 'keys with quotes, escapes, Unicode and the like are returned as they were');
SELECT results_eq($$SELECT type, orderid, sku, qty, batchref FROM alloc.events WHERE event_id > current_setting('test.mark')::bigint ORDER BY event_id$$,
	$$SELECT 'allocated', orderid, sku, qty::bigint, sku AS batchref FROM line ORDER BY n$$, 'and are in the events');
SELECT bag_eq('SELECT orderid, sku, qty, batchref FROM alloc.allocations WHERE sku IN (SELECT key FROM key)',
	'SELECT orderid, sku, qty::bigint, sku AS batchref FROM line', 'and in allocations');
SELECT results_eq('SELECT alloc.allocate(orderid, sku, qty) FROM line ORDER BY n', 'SELECT sku FROM line ORDER BY n',
	'and allocate() knows these lines');
SELECT results_eq($$SELECT (SELECT count(batchref) FROM alloc.allocate_lines(ARRAY[ROW('ab', 'c', 1), ROW('a', 'bc', 1)]::alloc.order_line[]))
					  FROM (SELECT alloc.add_batch('c', 'c', 1), alloc.add_batch('bc', 'bc', 1)) AS b$$, ARRAY[2::bigint],
	'keys are not run together');

SELECT sound('bad lines');
SELECT is(alloc.allocate('last', 's1', 1), 'b3', 'good input still works');
SELECT * FROM finish();
ROLLBACK;
