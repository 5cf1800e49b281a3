-- Keys are any text of 1 to 255 bytes: what goes in comes out of tables,
-- events and JSON.

\ir common.psql
BEGIN;

CREATE TEMPORARY TABLE key (what text, key text);
INSERT INTO key VALUES
	('one letter', 'x'),
	('a single quote', 'O''Reilly'),
	('only single quotes', ''''''),
	('a double quote', 'a "large" lamp'),
	('a newline', E'two\nlines'),
	('carriage return and newline', E'two\r\nlines'),
	('only a newline', E'\n'),
	('tabs', E'\ta\tb\t'),
	('a backslash', E'C:\\lamp'),
	('a backslash at the end', E'lamp\\'),
	('an escape that is none', E'\\u0041\\n\\x41'),
	('one blank', ' '),
	('blanks around', '  lamp  '),
	('SQL', '''; DROP TABLE alloc.batch; --'),
	('dollar quotes', '$$x$$ $1 :x'),
	('JSON', '{"sku": "lamp", "qty": [1, null]}'),
	('a format', '%s %n %1$s %%'),
	('a LIKE pattern', '_%\%'),
	('a row', '(a,"b c",)'),
	('an array', '{a,NULL}'),
	('NULL in letters', 'NULL'),
	('a number', '007'),
	('markup', '<b>&amp;</b>'),
	('umlauts', 'Füße-Größe'),
	('a precomposed letter', U&'caf\00E9'),
	('a combining accent', U&'cafe\0301'),
	('Greek', 'Λάμπα'),
	('Hebrew, right to left', 'מנורה'),
	('Japanese', '照明器具'),
	('an emoji', '🪔'),
	('an emoji of several characters', '👩‍🚀👨‍👩‍👧‍👦🏴‍☠️'),
	('a zero-width space', U&'a\200Bb'),
	('a byte order mark', U&'\FEFFlamp'),
	('a line separator', U&'a\2028b'),
	('a no-break space', U&'\00A0'),
	('not a character', U&'\+00FFFF'),
	('the last code point', U&'\+10FFFF'),
	('all control characters', (SELECT string_agg(chr(n), '' ORDER BY n) FROM generate_series(1, 31) n) || chr(127)),
	('C1 control characters', (SELECT string_agg(chr(n), '' ORDER BY n) FROM generate_series(128, 159) n)),
	('255 bytes', repeat('k', 255)),
	('255 bytes, another end', repeat('k', 254) || 'l'),
	('254 bytes', repeat('k', 254)),
	('127 characters in 255 bytes', repeat('é', 127) || 'e'),
	('85 characters in 255 bytes', repeat('€', 85)),
	('64 characters in 255 bytes', repeat('🪔', 63) || '€'),
	('255 control characters', repeat(chr(1), 255)),
	('255 double quotes', repeat('"', 255)),
	('255 backslashes', repeat(E'\\', 255)),
	('255 deletes', repeat(chr(127), 255));
SELECT plan(12 + 11 * (SELECT count(*)::int FROM key));

-- trip: one key as orderid, sku and ref, through all commands and views.
CREATE FUNCTION trip(key text, what text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	freed text;
	unknown text;
BEGIN
	PERFORM mark();
	RETURN NEXT is(alloc.add_batch(key, key, 3), key, what || ': add_batch() returns it');
	RETURN NEXT is(alloc.allocate(key, key, 2), key, what || ': allocate() returns it');
	RETURN NEXT is(alloc.allocate(key, key, 2), key, what || ': the same line is known');
	RETURN NEXT results_eq(
		format('SELECT a.orderid, a.sku, a.qty, a.batchref, b.available_qty, s.available_qty
				  FROM alloc.allocations a JOIN alloc.batches b ON b.ref = a.batchref JOIN alloc.stock s ON s.sku = a.sku
				 WHERE a.orderid = %1$L AND a.sku = %1$L', key),
		format('VALUES (%1$L, %1$L, 2::bigint, %1$L, 1::bigint, 1::bigint)', key), what || ': in the views');
	RETURN NEXT results_eq(
		format('SELECT * FROM alloc.change_batch_quantity(%L, 1)', key),
		format('VALUES (%1$L, %1$L, 2::bigint, %1$L, NULL)', key), what || ': change_batch_quantity() returns it');
	RETURN NEXT results_eq(
		format('SELECT orderid, sku FROM alloc.backorders WHERE orderid = %L', key),
		format('VALUES (%1$L, %1$L)', key), what || ': it waits');
	RETURN NEXT is(alloc.cancel_backorder(key, key), true, what || ': cancel_backorder() finds it');
	PERFORM alloc.allocate(key, key, 1);
	freed := alloc.deallocate(key, key);
	RETURN NEXT is(freed, key, what || ': deallocate() returns it');
	RETURN NEXT results_eq(
		format($q$SELECT type, orderid, sku, batchref FROM alloc.events
				   WHERE event_id > current_setting('test.mark')::bigint ORDER BY event_id$q$),
		format($q$VALUES ('batch_created', NULL, %1$L, %1$L), ('allocated', %1$L, %1$L, %1$L), ('deallocated', %1$L, %1$L, %1$L),
						 ('batch_quantity_changed', NULL, %1$L, %1$L), ('out_of_stock', %1$L, %1$L, NULL),
						 ('backordered', %1$L, %1$L, NULL), ('deallocated', %1$L, %1$L, NULL),
						 ('allocated', %1$L, %1$L, %1$L), ('deallocated', %1$L, %1$L, %1$L)$q$, key), what || ': in events');
	RETURN NEXT is_empty(
		$q$SELECT payload FROM alloc.events
			WHERE event_id > current_setting('test.mark')::bigint
			  AND (orderid, sku, batchref) IS DISTINCT FROM
				  (payload::text::jsonb->>'orderid', payload::text::jsonb->>'sku', payload::text::jsonb->>'batchref')$q$,
		what || ': in the JSON');
	unknown := '?' || left(key, -1);
	RETURN NEXT throws_ok(format('SELECT alloc.change_batch_quantity(%L, 1)', unknown), 'SK002',
		format('unknown batch "%s"', shown(unknown)), what || ': in a message, the beginning if it is long');
END
$$;

-- shown: a key in a message, whole or its first 64 bytes.
CREATE FUNCTION shown(key text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	n int := length(key);
BEGIN
	IF octet_length(key) <= 64 THEN
		RETURN key;
	END IF;
	WHILE octet_length(left(key, n)) > 64 LOOP
		n := n - 1;
	END LOOP;
	RETURN left(key, n) || '...';
END
$$;

SELECT trip(key, what) FROM key;
SELECT sound('all keys');

-- All keys are different keys

SELECT is((SELECT count(DISTINCT convert_to(key, 'UTF8')) FROM key), (SELECT count(*) FROM key), 'no key is here twice');
SELECT is((SELECT count(*) FROM alloc.stock), (SELECT count(*) FROM key), 'no two keys are the same sku');
SELECT bag_eq('SELECT sku FROM alloc.product', 'SELECT key FROM key', 'each is there as it was given');

-- The longest payload that there can be: each byte escaped to six

SELECT alloc.change_batch_quantity(repeat(chr(1), 255), 9223372036854775807),
	   alloc.add_batch(repeat(chr(2), 255), repeat(chr(1), 255), 0, '-infinity');
SET LOCAL alloc.notify = 'commit';
SELECT is(alloc.allocate(repeat(chr(3), 255), repeat(chr(1), 255), 9223372036854775807), repeat(chr(1), 255),
	'three keys of 255 control characters are sent as well');
SELECT cmp_ok((SELECT octet_length(payload::text) FROM alloc.events ORDER BY event_id DESC LIMIT 1), '>', 6 * 3 * 255,
	'though each is escaped');
SELECT cmp_ok((SELECT octet_length(payload::text) FROM alloc.events ORDER BY event_id DESC LIMIT 1), '<', 8000,
	'the payload is below the 8000 bytes of NOTIFY');

-- As types that are like text

SELECT alloc.add_batch('varchar'::varchar(20), 'varchar'::varchar, 5);
SELECT is(alloc.allocate('o'::name, 'varchar'::name, 1), 'varchar', 'keys may be given as name');
SELECT is(alloc.allocate('p'::char(5), 'varchar'::char(20), 1), 'varchar', 'keys may be given as char(n), whose blanks do not count');
SELECT results_eq($$SELECT orderid FROM alloc.allocations WHERE batchref = 'varchar' ORDER BY 1$$, ARRAY['o', 'p'],
	'and are kept as text');

-- Keys that compare equal in some collations

CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
SELECT is(alloc.add_batch('Case' COLLATE any_case, 'Case' COLLATE any_case, 1) COLLATE "default", 'Case', 'a collation of the caller is accepted');
SELECT is(alloc.deallocate('O' COLLATE any_case, 'VARCHAR' COLLATE any_case) COLLATE "default", NULL, 'but keys are compared by bytes');

SELECT * FROM finish();
ROLLBACK;
