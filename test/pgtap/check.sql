-- check() is empty when all is sound, and names what is not; repair() makes the
-- state equal to the log again.  Damage is done by a superuser.

\ir common.psql
SELECT plan(138);

-- found: what check() says, in words.
CREATE FUNCTION found() RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT concat_ws(' ', problem, sku, batchref, orderid)
	  FROM alloc.check() ORDER BY 1
$$;
-- go_on: commands of all kinds on each batch; the lines that left with it.
CREATE FUNCTION go_on() RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	b record;
	expected text[];
	moved text[];
	stays bigint;
BEGIN
	FOR b IN SELECT ref, sku FROM alloc.batches ORDER BY ref LOOP
		PERFORM alloc.change_batch_quantity(b.ref, (SELECT purchased_qty + 5 FROM alloc.batches WHERE ref = b.ref));
		PERFORM alloc.allocate('new ' || b.ref || n, b.sku, 1) FROM generate_series(1, 3) n;
		PERFORM alloc.deallocate('new ' || b.ref || 2, b.sku);
		-- The older half stays, and fills the batch.
		SELECT array_agg(orderid ORDER BY event_id) FILTER (WHERE place > lines / 2),
			   coalesce(sum(qty) FILTER (WHERE place <= lines / 2), 0)
		  INTO expected, stays
		  FROM (SELECT a.*, row_number() OVER (ORDER BY event_id) AS place, count(*) OVER () AS lines
				  FROM alloc.allocation a JOIN alloc.batch USING (batch_id) WHERE ref = b.ref) s;
		SELECT array_agg(m.orderid) INTO moved FROM alloc.change_batch_quantity(b.ref, stays) m;
		IF moved IS DISTINCT FROM expected THEN
			RETURN NEXT format('of %s left %s, not %s', b.ref, moved, expected);
		END IF;
		PERFORM alloc.add_batch(b.ref || ' new', b.sku, 10);
	END LOOP;
	RETURN QUERY SELECT 'afterwards: ' || f FROM found() f;
	RETURN QUERY SELECT 'afterwards: ' || f FROM unlike_replay() f;
END
$$;
-- repairs: what repair() says, in words.
CREATE FUNCTION repairs(dry_run boolean) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT concat_ws(' ', action, sku, batchref, orderid) FROM alloc.repair(dry_run)
$$;
-- not_unique: from here on a line can be there twice.
CREATE FUNCTION not_unique() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	DROP INDEX alloc.allocation_line;
	CREATE INDEX allocation_line ON alloc.allocation (orderid text_pattern_ops, sku text_pattern_ops);
END
$$;
-- trial: what check() finds after some damage, what a dry run of repair()
-- would do and what repair() does if that is something else, then all that is
-- wrong in the end.  Nothing of it is left.
CREATE FUNCTION trial(damage text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	told alloc.batches[] := ARRAY(SELECT r FROM alloc.replay() r);
	last_event bigint := (SELECT max(event_id) FROM alloc.event);
	damaged text;
	would text[];
	did text[];
	row text;
BEGIN
	EXECUTE damage;
	RETURN QUERY SELECT found();
	damaged := digest();
	would := ARRAY(SELECT repairs(true));
	IF digest() <> damaged THEN
		RETURN NEXT 'the dry run has changed something';
	END IF;
	did := ARRAY(SELECT repairs(false));
	RETURN QUERY SELECT 'mended: ' || action FROM unnest(did) AS action;
	IF would <> did THEN
		RETURN QUERY SELECT 'the dry run told: ' || action FROM unnest(would) AS action;
	END IF;
	IF (SELECT count(*) FILTER (WHERE type = 'repaired') FROM alloc.events WHERE event_id > last_event)
	   <> (SELECT count(*) FROM unnest(did) AS action WHERE action NOT LIKE 'not_mended%' AND action <> 'sequence_advanced') THEN
		RETURN NEXT 'not each repair is an event';
	END IF;
	RETURN QUERY SELECT 'left: ' || f FROM found() f;
	RETURN QUERY SELECT f FROM unlike_replay() f;
	RETURN QUERY SELECT 'unsound: ' || f FROM unsound() f;
	RETURN QUERY SELECT 'replay has changed: ' || r FROM (SELECT * FROM alloc.replay() EXCEPT ALL SELECT * FROM unnest(told)) r;
	RETURN QUERY SELECT go_on();
	RAISE EXCEPTION USING ERRCODE = 'UNDO1';
EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
	RETURN;
END
$$;

-- trials: likewise, where it is much: how often there is what.
CREATE FUNCTION trials(damage text) RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT kind || ' ' || count(*)
	  FROM (SELECT substring(t FROM '^(?:mended: )?\w+') AS kind FROM trial(damage) t) s
	 GROUP BY kind ORDER BY kind COLLATE "C"
$$;

-- Sound states

SELECT is_empty('SELECT * FROM alloc.check()', 'a new database is sound');
SELECT is_empty('SELECT * FROM alloc.repair()', 'and needs no repair');
SELECT alloc.add_batch('lamp', 'LAMP', 10), alloc.add_batch('later', 'LAMP', 20, '2030-01-01'), alloc.add_batch('none', 'LAMP', 0, '2031-01-01'),
	   alloc.add_batch('rug', 'RUG', 6000), alloc.add_batch('desk', 'DESK', 5), alloc.add_batch(E'\u00e9 "x" \\', E'it''s', 7);
SELECT is_empty('SELECT * FROM alloc.check()', 'batches');
SELECT alloc.allocate('o' || n, sku, n) FROM generate_series(1, 4) n, unnest(ARRAY['LAMP', 'RUG', E'it''s', 'DESK']) sku;
SELECT is_empty('SELECT * FROM alloc.check()', 'lines');
SELECT alloc.deallocate('o2', 'RUG');
SELECT count(*) FROM alloc.allocate_lines(ARRAY[('b1', 'LAMP', 2), ('b2', 'RUG', 7), ('b3', 'LAMP', 99), ('b1', 'RUG', 3500)]::alloc.order_line[]);
SELECT is_empty('SELECT * FROM alloc.check()', 'lines in bulk, a line freed');
SELECT moves('lamp', 5);
SELECT moves('later', 30);
SELECT is_empty('SELECT * FROM alloc.check()', 'lines that moved');
-- In several slots, whose lists were merged
SELECT alloc.add_batch('merged', 'MERGED', 2000);
SELECT alloc.allocate('o' || n, 'MERGED', n) FROM generate_series(1, 60) n;
SELECT moves('merged', 1900);
SELECT is_empty('SELECT * FROM alloc.check()', 'slots that were merged');
BEGIN;
SELECT alloc.allocate('undone', 'LAMP', 1);
SELECT is_empty('SELECT * FROM alloc.check()', 'within a transaction');
ROLLBACK;
SELECT is_empty('SELECT * FROM alloc.check()', 'after it is rolled back');
SELECT is_empty('SELECT * FROM alloc.repair(false)', 'nothing to repair');
SELECT is((SELECT count(*) FROM alloc.event WHERE type = 'repaired'), 0::bigint, 'nothing recorded');
SELECT ok((SELECT count(*) FROM alloc.slot WHERE ref = 'rug') > 1, 'a batch has several slots');

-- Damage, what check() says to it, and what repair() does about it

SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET available = available + 3 WHERE ref = ''later''')$$,
	ARRAY['not_conserved LAMP later', 'stock_differs LAMP later', 'mended: slots_rebuilt LAMP later'], 'slot: more available');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET available = 0 WHERE ref = ''rug''')$$,
	ARRAY['not_conserved RUG rug', 'stock_differs RUG rug', 'mended: slots_rebuilt RUG rug'], 'slots: nothing available');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET available = 9223372036854775807 WHERE ref = ''rug''')$$,
	ARRAY['not_conserved RUG rug', 'stock_differs RUG rug', 'mended: slots_rebuilt RUG rug'], 'slots: more than 2^63-1 available');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET shipped = 3 WHERE ref = ''lamp''')$$,
	ARRAY['not_conserved LAMP lamp', 'stock_differs LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: shipped');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET available = available - 3, shipped = 3 WHERE ref = ''later''')$$,
	ARRAY['stock_differs LAMP later', 'mended: slots_rebuilt LAMP later'], 'slot: shipped what was available');
SELECT results_eq($$SELECT trial('ALTER TABLE alloc.slot DROP CONSTRAINT slot_available_not_negative; UPDATE alloc.slot SET available = -3 WHERE ref = ''lamp''')$$,
	ARRAY['not_conserved LAMP lamp', 'slot_negative LAMP lamp', 'stock_differs LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: less than nothing available');
SELECT results_eq($$SELECT trial('ALTER TABLE alloc.slot DROP CONSTRAINT slot_shipped_not_negative; UPDATE alloc.slot SET shipped = -3, available = available + 3 WHERE ref = ''lamp''')$$,
	ARRAY['slot_negative LAMP lamp', 'stock_differs LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: less than nothing shipped');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET newest = NULL WHERE ref = ''lamp''')$$,
	ARRAY['lines_unlisted LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: no list of lines');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET newest = (SELECT newest FROM alloc.slot WHERE ref = ''desk'') WHERE ref = ''lamp''')$$,
	ARRAY['lines_unlisted LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: the list of another batch');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET newest = (SELECT previous FROM alloc.event WHERE event_id = newest) WHERE ref = ''desk''')$$,
	ARRAY['lines_unlisted DESK desk', 'mended: slots_rebuilt DESK desk'], 'slot: an older beginning');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET merged = NULL WHERE ref = ''merged''')$$,
	ARRAY['lines_unlisted MERGED merged', 'mended: slots_rebuilt MERGED merged'], 'slot: merged lost');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET newest = NULL, merged = NULL')$$,
	ARRAY['lines_unlisted DESK desk', 'lines_unlisted LAMP lamp', 'lines_unlisted LAMP later', 'lines_unlisted MERGED merged',
	'lines_unlisted RUG rug', 'lines_unlisted it''s é "x" \', 'mended: slots_rebuilt DESK desk', 'mended: slots_rebuilt LAMP lamp',
	'mended: slots_rebuilt LAMP later', 'mended: slots_rebuilt MERGED merged', 'mended: slots_rebuilt RUG rug',
	'mended: slots_rebuilt it''s é "x" \'], 'slots: no lists at all');
SELECT is_empty($$SELECT trial('UPDATE alloc.slot SET merged = ARRAY[1, 2, 99999] WHERE ref = ''lamp''')$$, 'slot: merged leads nowhere besides: harmless');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET ref = ''wrong'' WHERE ref = ''lamp''')$$,
	ARRAY['slot_differs LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: ref');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET sku = ''RUG'' WHERE ref = ''lamp''')$$,
	ARRAY['slot_differs LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: sku');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET eta = ''2001-01-01'' WHERE ref = ''lamp''')$$,
	ARRAY['slot_differs LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: eta');
SELECT results_eq($$SELECT trial('UPDATE alloc.slot SET spread = false WHERE ref = ''rug''')$$,
	ARRAY['slot_differs RUG rug', 'slot_differs RUG rug', 'mended: slots_rebuilt RUG rug'], 'slots: not spread');
SELECT is_empty($$SELECT trial('UPDATE alloc.slot SET spread = true WHERE ref = ''lamp''')$$, 'slot: spread without need: harmless');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.slot WHERE ref = ''lamp''')$$,
	ARRAY['not_conserved LAMP lamp', 'slot_missing LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: gone');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.slot WHERE ref = ''rug'' AND slot <> 0')$$,
	ARRAY['not_conserved RUG rug', 'stock_differs RUG rug', 'mended: slots_rebuilt RUG rug'], 'slots: one of two gone');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.slot WHERE ref = ''rug''')$$,
	ARRAY['not_conserved RUG rug', 'slot_missing RUG rug', 'mended: slots_rebuilt RUG rug'], 'slots: all of a batch gone');
SELECT results_eq($$SELECT trials('TRUNCATE alloc.slot')$$,
	ARRAY['mended: slots_rebuilt 7', 'not_conserved 7', 'slot_missing 7'], 'slots: all gone');
SELECT results_eq($$SELECT trial('INSERT INTO alloc.slot (batch_id, available, ref, sku) VALUES (1000, 5, ''ghost'', ''LAMP'')')$$,
	ARRAY['slot_of_no_batch LAMP ghost', 'mended: slots_removed LAMP ghost'], 'slot: of no batch');
SELECT results_eq($$SELECT trial('INSERT INTO alloc.slot (batch_id, available, ref, sku) VALUES (1000, 5, ''lamp'', ''LAMP'')')$$,
	ARRAY['slot_of_no_batch LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'slot: of no batch, with a known ref');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.allocation WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_missing LAMP lamp o1', 'not_conserved LAMP lamp', 'mended: line_added LAMP lamp o1'], 'line: gone');
SELECT results_eq($$SELECT trials('TRUNCATE alloc.allocation')$$,
	ARRAY['line_missing 75', 'mended: line_added 75', 'not_conserved 6'], 'lines: all gone');
SELECT results_eq($$SELECT trials('TRUNCATE alloc.allocation; UPDATE alloc.slot SET newest = NULL, merged = NULL')$$,
	ARRAY['line_missing 75', 'mended: line_added 75', 'mended: slots_rebuilt 6', 'not_conserved 6', 'the 75'], 'lines: all gone, and the lists');
SELECT results_eq($$SELECT trial('INSERT INTO alloc.allocation (batch_id, event_id, qty, orderid, sku) SELECT batch_id, 3, 1, ''ghost'', sku FROM alloc.batch WHERE ref = ''lamp''')$$,
	ARRAY['line_unknown LAMP lamp ghost', 'lines_unlisted LAMP lamp', 'not_conserved LAMP lamp', 'mended: line_removed LAMP ghost',
	'mended: slots_rebuilt LAMP lamp'], 'line: unknown');
SELECT results_eq($$SELECT trial('INSERT INTO alloc.allocation (batch_id, event_id, qty, orderid, sku) SELECT batch_id, 3, 1, ''ghost'', ''GHOST'' FROM alloc.batch WHERE ref = ''lamp''')$$,
	ARRAY['line_of_other_sku GHOST lamp ghost', 'line_unknown GHOST lamp ghost', 'lines_unlisted LAMP lamp',
	'not_conserved LAMP lamp', 'mended: line_removed GHOST ghost', 'mended: slots_rebuilt LAMP lamp'], 'line: of an unknown sku');
SELECT results_eq($$SELECT trial('INSERT INTO alloc.allocation (batch_id, event_id, qty, orderid, sku) VALUES (1000, 3, 1, ''ghost'', ''LAMP'')')$$,
	ARRAY['line_of_no_batch LAMP ghost', 'line_unknown LAMP ghost', 'mended: line_removed LAMP ghost'], 'line: unknown, of no batch');
SELECT results_eq($$SELECT trial('UPDATE alloc.allocation SET qty = qty + 1 WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_differs LAMP lamp o1', 'not_conserved LAMP lamp', 'mended: line_changed LAMP lamp o1'], 'line: more units');
SELECT results_eq($$SELECT trial('UPDATE alloc.allocation SET event_id = 2 WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_differs LAMP lamp o1', 'lines_unlisted LAMP lamp', 'mended: line_changed LAMP lamp o1',
	'mended: slots_rebuilt LAMP lamp'], 'line: event_id');
SELECT results_eq($$SELECT trial('UPDATE alloc.allocation SET batch_id = (SELECT batch_id FROM alloc.batch WHERE ref = ''later'') WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_differs LAMP lamp o1', 'not_conserved LAMP lamp', 'not_conserved LAMP later',
	'mended: line_changed LAMP lamp o1'], 'line: another batch');
SELECT results_eq($$SELECT trial('UPDATE alloc.allocation SET batch_id = (SELECT batch_id FROM alloc.batch WHERE ref = ''rug'') WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_differs LAMP lamp o1', 'line_of_other_sku LAMP lamp o1', 'not_conserved LAMP lamp',
	'not_conserved RUG rug', 'mended: line_changed LAMP lamp o1'], 'line: a batch of another sku');
SELECT results_eq($$SELECT trial('UPDATE alloc.allocation SET batch_id = 1000 WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_differs LAMP lamp o1', 'line_of_no_batch LAMP lamp o1', 'not_conserved LAMP lamp',
	'mended: line_changed LAMP lamp o1'], 'line: no batch');
SELECT results_eq($$SELECT trial('UPDATE alloc.allocation SET sku = ''GHOST'' WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_missing LAMP lamp o1', 'line_of_other_sku GHOST lamp o1', 'line_unknown GHOST lamp o1', 'lines_unlisted LAMP lamp',
	'mended: line_removed GHOST o1', 'mended: line_added LAMP lamp o1', 'mended: slots_rebuilt LAMP lamp'], 'line: an unknown sku');
SELECT results_eq($$SELECT trial('UPDATE alloc.allocation SET sku = ''RUG'' WHERE orderid = ''o2'' AND sku = ''LAMP''')$$,
	ARRAY['line_missing LAMP lamp o2', 'line_of_other_sku RUG lamp o2', 'line_unknown RUG lamp o2', 'lines_unlisted LAMP lamp',
	'mended: line_added LAMP lamp o2', 'mended: line_removed RUG o2', 'mended: slots_rebuilt LAMP lamp'], 'line: another sku');
SELECT results_eq($$SELECT trial('UPDATE alloc.allocation SET orderid = ''ghost'' WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_missing LAMP lamp o1', 'line_unknown LAMP lamp ghost', 'lines_unlisted LAMP lamp', 'mended: line_removed LAMP ghost',
	'mended: line_added LAMP lamp o1', 'mended: slots_rebuilt LAMP lamp'], 'line: another order');
SELECT results_eq($$SELECT trial('UPDATE alloc.allocation SET orderid = ''x'' WHERE orderid = ''o1'' AND sku = ''LAMP''; UPDATE alloc.allocation SET orderid = ''o1'' WHERE orderid = ''o2'' AND sku = ''LAMP''; UPDATE alloc.allocation SET orderid = ''o2'' WHERE orderid = ''x''')$$,
	ARRAY['line_differs LAMP lamp o1', 'line_differs LAMP lamp o2', 'lines_unlisted LAMP lamp', 'mended: line_changed LAMP lamp o1',
	'mended: line_changed LAMP lamp o2', 'mended: slots_rebuilt LAMP lamp'], 'line: two orders exchanged');
SELECT results_eq($$SELECT trial('SELECT not_unique(); INSERT INTO alloc.allocation SELECT * FROM alloc.allocation WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_twice LAMP lamp o1', 'line_twice LAMP lamp o1', 'lines_unlisted LAMP lamp', 'not_conserved LAMP lamp',
	'mended: line_changed LAMP lamp o1', 'mended: slots_rebuilt LAMP lamp'], 'line: twice');
SELECT results_eq($$SELECT trial('SELECT not_unique(); INSERT INTO alloc.allocation SELECT batch_id, event_id, 50, expires_at, shipped_at, orderid, sku FROM alloc.allocation WHERE orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_differs LAMP lamp o1', 'line_twice LAMP lamp o1', 'line_twice LAMP lamp o1', 'lines_unlisted LAMP lamp',
	'not_conserved LAMP lamp', 'mended: line_changed LAMP lamp o1', 'mended: slots_rebuilt LAMP lamp'], 'line: twice, with other units');
SELECT results_eq($$SELECT trial('UPDATE alloc.batch SET purchased = 50 WHERE ref = ''lamp''')$$,
	ARRAY['batch_differs LAMP lamp', 'not_conserved LAMP lamp', 'mended: batch_changed LAMP lamp'], 'batch: purchased');
SELECT results_eq($$SELECT trial('UPDATE alloc.batch SET eta = NULL WHERE ref = ''later''')$$,
	ARRAY['batch_differs LAMP later', 'slot_differs LAMP later', 'mended: batch_changed LAMP later'], 'batch: eta');
SELECT results_eq($$SELECT trial('UPDATE alloc.batch SET eta = NULL WHERE ref = ''later''; UPDATE alloc.slot SET eta = NULL WHERE ref = ''later''')$$,
	ARRAY['batch_differs LAMP later', 'mended: batch_changed LAMP later', 'mended: slots_rebuilt LAMP later'], 'batch and its slot: eta');
SELECT results_eq($$SELECT trial('UPDATE alloc.batch SET sku = ''RUG'' WHERE ref = ''lamp''')$$,
	ARRAY['batch_differs LAMP lamp', 'line_of_other_sku LAMP lamp o1', 'line_of_other_sku LAMP lamp o2', 'lines_unlisted LAMP lamp',
	'slot_differs RUG lamp', 'mended: batch_changed LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'batch: another sku');
SELECT results_eq($$SELECT trial('UPDATE alloc.batch SET sku = ''GHOST'' WHERE ref = ''lamp''')$$,
	ARRAY['batch_differs LAMP lamp', 'line_of_other_sku LAMP lamp o1', 'line_of_other_sku LAMP lamp o2', 'lines_unlisted LAMP lamp',
	'slot_differs GHOST lamp', 'mended: batch_changed LAMP lamp', 'mended: slots_rebuilt LAMP lamp'], 'batch: an unknown sku');
SELECT results_eq($$SELECT trial('UPDATE alloc.batch SET sku = ''GHOST'' WHERE ref = ''desk''; UPDATE alloc.slot SET sku = ''GHOST'' WHERE ref = ''desk''; UPDATE alloc.allocation SET sku = ''GHOST'' WHERE sku = ''DESK''; UPDATE alloc.product SET sku = ''GHOST'' WHERE sku = ''DESK''')$$,
	ARRAY['batch_differs DESK desk', 'line_missing DESK desk o1', 'line_missing DESK desk o2', 'line_unknown GHOST desk o1',
	'line_unknown GHOST desk o2', 'product_missing DESK desk', 'product_unknown GHOST', 'mended: product_added DESK',
	'mended: product_removed GHOST', 'mended: batch_changed DESK desk', 'mended: line_added DESK desk o1',
	'mended: line_added DESK desk o2', 'mended: line_removed GHOST o1', 'mended: line_removed GHOST o2',
	'mended: slots_rebuilt DESK desk'], 'batch, slot and lines: an unknown sku');
SELECT results_eq($$SELECT trial('UPDATE alloc.batch SET ref = ''wrong'' WHERE ref = ''lamp''')$$,
	ARRAY['batch_missing LAMP lamp', 'batch_unknown LAMP wrong', 'line_differs LAMP lamp o1', 'line_differs LAMP lamp o2',
	'slot_differs LAMP wrong', 'mended: batch_added LAMP lamp', 'mended: batch_removed LAMP wrong',
	'mended: line_changed LAMP lamp o1', 'mended: line_changed LAMP lamp o2', 'mended: slots_rebuilt LAMP lamp',
	'mended: slots_removed LAMP wrong'], 'batch: ref');
SELECT results_eq($$SELECT trial('UPDATE alloc.batch SET batch_id = 1000 WHERE ref = ''lamp''')$$,
	ARRAY['line_differs LAMP lamp o1', 'line_differs LAMP lamp o2', 'line_of_no_batch LAMP lamp o1', 'line_of_no_batch LAMP lamp o2',
	'not_conserved LAMP lamp', 'sequence_behind', 'slot_missing LAMP lamp', 'slot_of_no_batch LAMP lamp',
	'mended: sequence_advanced', 'mended: line_changed LAMP lamp o1', 'mended: line_changed LAMP lamp o2',
	'mended: slots_rebuilt LAMP lamp'], 'batch: batch_id');
SELECT results_eq($$SELECT trials('UPDATE alloc.batch SET batch_id = -batch_id')$$,
	ARRAY['line_differs 75', 'line_of_no_batch 75', 'mended: line_changed 75', 'mended: slots_rebuilt 7', 'not_conserved 7',
	'slot_missing 7', 'slot_of_no_batch 8'], 'batches: all batch_ids');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.batch WHERE ref = ''lamp''')$$,
	ARRAY['batch_missing LAMP lamp', 'line_differs LAMP lamp o1', 'line_differs LAMP lamp o2', 'line_of_no_batch LAMP lamp o1',
	'line_of_no_batch LAMP lamp o2', 'slot_of_no_batch LAMP lamp', 'mended: batch_added LAMP lamp'], 'batch: gone');
SELECT results_eq($$SELECT trials('TRUNCATE alloc.batch')$$,
	ARRAY['batch_missing 7', 'line_differs 75', 'line_of_no_batch 75', 'mended: batch_added 7', 'slot_of_no_batch 8'], 'batches: all gone');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.batch WHERE ref = ''lamp''; DELETE FROM alloc.slot WHERE ref = ''lamp''')$$,
	ARRAY['batch_missing LAMP lamp', 'line_differs LAMP lamp o1', 'line_differs LAMP lamp o2', 'line_of_no_batch LAMP lamp o1',
	'line_of_no_batch LAMP lamp o2', 'mended: batch_added LAMP lamp', 'mended: line_changed LAMP lamp o1',
	'mended: line_changed LAMP lamp o2', 'mended: slots_rebuilt LAMP lamp'], 'batch and slot: gone');
SELECT results_eq($$SELECT trials('TRUNCATE alloc.batch, alloc.slot')$$,
	ARRAY['batch_missing 7', 'line_differs 75', 'line_of_no_batch 75', 'mended: batch_added 7', 'mended: line_changed 75',
	'mended: slots_rebuilt 7'], 'batches and slots: all gone');
SELECT results_eq($$SELECT trial('INSERT INTO alloc.batch VALUES (1000, 5, NULL, ''ghost'', ''LAMP'')')$$,
	ARRAY['batch_unknown LAMP ghost', 'not_conserved LAMP ghost', 'mended: batch_removed LAMP ghost',
	'mended: slots_removed LAMP ghost'], 'batch: unknown, without slot');
SELECT results_eq($$SELECT trial('INSERT INTO alloc.batch VALUES (1000, 5, NULL, ''ghost'', ''GHOST''); INSERT INTO alloc.slot (batch_id, available, newest, ref, sku) VALUES (1000, 3, 2, ''ghost'', ''GHOST''); INSERT INTO alloc.allocation VALUES (1000, 2, 2, NULL, NULL, ''ghost'', ''GHOST'')')$$,
	ARRAY['batch_unknown GHOST ghost', 'line_unknown GHOST ghost ghost', 'mended: batch_removed GHOST ghost',
	'mended: line_removed GHOST ghost', 'mended: slots_removed GHOST ghost'], 'batch: unknown, with a slot and a line');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.product WHERE sku = ''LAMP''')$$,
	ARRAY['product_missing LAMP lamp', 'product_missing LAMP later', 'product_missing LAMP none', 'mended: product_added LAMP'], 'product: gone');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.product WHERE sku = ''DESK''; DELETE FROM alloc.batch WHERE sku = ''DESK''')$$,
	ARRAY['batch_missing DESK desk', 'line_differs DESK desk o1', 'line_differs DESK desk o2', 'line_of_no_batch DESK desk o1',
	'line_of_no_batch DESK desk o2', 'product_missing DESK desk', 'slot_of_no_batch DESK desk', 'mended: product_added DESK',
	'mended: batch_added DESK desk'], 'product and batch: gone');
SELECT results_eq($$SELECT trial('INSERT INTO alloc.product VALUES (''GHOST'')')$$,
	ARRAY['product_unknown GHOST', 'mended: product_removed GHOST'], 'product: unknown');
SELECT results_eq($$SELECT trials('TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation')$$,
	ARRAY['batch_missing 7', 'line_missing 75', 'mended: batch_added 7', 'mended: line_added 75', 'mended: product_added 5',
	'mended: slots_rebuilt 7', 'product_missing 7'], 'all gone');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.event WHERE type = ''allocated'' AND orderid = ''o1'' AND sku = ''LAMP''')$$,
	ARRAY['line_unknown LAMP lamp o1', 'lines_unlisted LAMP lamp', 'stock_differs LAMP lamp', 'mended: line_removed LAMP o1',
	'mended: slots_rebuilt LAMP lamp', 'replay has changed: (lamp,LAMP,,5,0,2,3)'], 'log: an allocation is gone');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.event WHERE type = ''batch_created'' AND batchref = ''lamp''')$$,
	ARRAY['batch_differs LAMP lamp', 'log_contradicts LAMP lamp', 'stock_differs LAMP lamp', 'mended: not_mended LAMP lamp',
	'left: batch_differs LAMP lamp', 'left: log_contradicts LAMP lamp', 'left: stock_differs LAMP lamp',
	'only replayed: (lamp,LAMP,,-5,0,3,-8)', 'only in batches: (lamp,LAMP,,5,0,3,2)', 'replay has changed: (lamp,LAMP,,-5,0,3,-8)',
	'afterwards: batch_differs LAMP lamp', 'afterwards: log_contradicts LAMP lamp', 'afterwards: stock_differs LAMP lamp',
	'afterwards: only replayed: (lamp,LAMP,,-7,0,3,-10)', 'afterwards: only in batches: (lamp,LAMP,,3,0,3,0)'], 'log: a batch''s creation is gone');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.event WHERE type = ''batch_created'' AND batchref = ''none''')$$,
	ARRAY['batch_unknown LAMP none', 'mended: batch_removed LAMP none', 'mended: slots_removed LAMP none'], 'log: the creation is all that there was');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.event WHERE type = ''deallocated'' AND batchref = ''lamp'' AND orderid = ''o4''')$$,
	ARRAY['log_contradicts LAMP lamp', 'stock_differs LAMP lamp', 'mended: not_mended LAMP lamp', 'left: log_contradicts LAMP lamp',
	'left: stock_differs LAMP lamp', 'only replayed: (lamp,LAMP,,5,0,7,-2)', 'only in batches: (lamp,LAMP,,5,0,3,2)',
	'replay has changed: (lamp,LAMP,,5,0,7,-2)', 'afterwards: log_contradicts LAMP lamp', 'afterwards: stock_differs LAMP lamp',
	'afterwards: only replayed: (lamp,LAMP,,3,0,7,-4)', 'afterwards: only in batches: (lamp,LAMP,,3,0,3,0)'], 'log: a deallocation is gone');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.event WHERE type = ''batch_created'' AND batchref = ''lamp''; DELETE FROM alloc.batch WHERE ref = ''lamp''; DELETE FROM alloc.slot WHERE ref = ''lamp''; DELETE FROM alloc.allocation WHERE sku = ''LAMP''')$$,
	ARRAY['batch_missing LAMP lamp', 'line_missing LAMP lamp o1', 'line_missing LAMP lamp o2', 'line_missing LAMP later b1',
	'line_missing LAMP later o3', 'line_missing LAMP later o4', 'log_contradicts LAMP lamp', 'not_conserved LAMP later',
	'mended: line_added LAMP later b1', 'mended: line_added LAMP later o3', 'mended: line_added LAMP later o4',
	'mended: not_mended LAMP lamp', 'left: batch_missing LAMP lamp', 'left: line_missing LAMP lamp o1',
	'left: line_missing LAMP lamp o2', 'left: log_contradicts LAMP lamp', 'only replayed: (lamp,LAMP,,-5,0,3,-8)',
	'replay has changed: (lamp,LAMP,,-5,0,3,-8)', 'afterwards: batch_missing LAMP lamp', 'afterwards: line_missing LAMP lamp o1',
	'afterwards: line_missing LAMP lamp o2', 'afterwards: log_contradicts LAMP lamp',
	'afterwards: only replayed: (lamp,LAMP,,-5,0,3,-8)'], 'log: a creation and the batch are gone');

-- What cannot be mended

SELECT alloc.create_consumer('shop'), alloc.create_consumer('mail', 'beginning');
SELECT count(*) FROM alloc.fetch_events('mail', 10);
CREATE FUNCTION handler(event jsonb) RETURNS void LANGUAGE sql AS '';
SELECT alloc.subscribe('allocated', 'handler(jsonb)');
-- glance: what check() finds after some damage, and what repair() says.
CREATE FUNCTION glance(damage text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE damage;
	RETURN QUERY SELECT concat_ws(' ', problem, sku, batchref, orderid, substring(detail FROM '^consumer "mail": .*')) FROM alloc.check() ORDER BY 1;
	RETURN QUERY SELECT concat_ws(' ', action, sku, batchref, orderid, split_part(detail, ':', 1)) FROM alloc.repair(false);
	RAISE EXCEPTION USING ERRCODE = 'UNDO1';
EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
	RETURN;
END
$$;
-- of_mail: one test, of damage to the position of a consumer.
CREATE FUNCTION of_mail(change text, detail text) RETURNS text
LANGUAGE sql AS $$
	SELECT results_eq(format('SELECT glance(%L)', format('UPDATE alloc.position SET %s FROM alloc.consumer c WHERE c.consumer_id = position.consumer_id AND c.name = ''mail''', change)),
		ARRAY['position_unsound consumer "mail": ' || detail, 'not_mended position_unsound'], 'position: ' || change)
$$;
SELECT is_empty('SELECT * FROM alloc.check()', 'consumers and handlers');
SELECT results_eq($$SELECT glance('DELETE FROM alloc.position WHERE consumer_id = (SELECT consumer_id FROM alloc.consumer WHERE name = ''mail'')')$$,
	ARRAY['position_missing consumer "mail": it has no position', 'not_mended position_missing'], 'position: gone');
SELECT results_eq($$SELECT glance('DELETE FROM alloc.consumer WHERE name = ''mail''')$$,
	ARRAY['position_of_no_reader', 'not_mended position_of_no_reader'], 'consumer: gone');
SELECT results_eq($$SELECT glance('DELETE FROM alloc.consumer WHERE kind = ''handler''')$$,
	ARRAY['position_missing', 'position_of_no_reader', 'not_mended position_missing', 'not_mended position_of_no_reader'], 'reader of a handler: gone');
SELECT of_mail('upto_xmax = upto_xmax + (1::bigint << 50)', 'it has seen transactions that have not begun');
SELECT of_mail('seen_xmax = 100, upto_xmax = 50', 'its batch ends before it begins');
SELECT of_mail('seen_open = ARRAY[seen_xmax]', 'transactions count as open that it has not seen at all');
SELECT of_mail('upto_open = ARRAY[upto_xmax + 3]', 'transactions count as open that it has not seen at all');
SELECT of_mail('upto_open = ARRAY[7, 5]::bigint[]', 'its open transactions are not in order');
SELECT of_mail('given_to = NULL', 'half of a batch is missing');
SELECT of_mail('batch_end = NULL', 'half of a batch is missing');
SELECT of_mail('last_event_id = 1000000', format('it is beyond the last event, %s', (SELECT last_value FROM alloc.event_id_seq)));
SELECT of_mail('marks = marks[1:1]', 'its marks are not pairs');

SELECT alloc.snapshot_log();
SELECT alloc.allocate('since', 'RUG', 1), alloc.deallocate('o3', 'LAMP');
SELECT is_empty('SELECT * FROM alloc.check()', 'a snapshot');
SELECT results_eq(format('SELECT glance(%L)', damage), ARRAY['snapshot_differs' || what, 'not_mended' || regexp_replace(what, ' b1$', '') || ' snapshot_differs'], damage)
  FROM (VALUES
	('UPDATE alloc.snapshot_batch SET purchased = purchased + 1 WHERE ref = ''lamp''', ' LAMP lamp'),
	('UPDATE alloc.snapshot_batch SET shipped = shipped + 1 WHERE ref = ''lamp''', ' LAMP lamp'),
	('UPDATE alloc.snapshot_batch SET allocated = allocated + 1 WHERE ref = ''lamp''', ' LAMP lamp'),
	('UPDATE alloc.snapshot_batch SET created = created + 1 WHERE ref = ''lamp''', ' LAMP lamp'),
	('UPDATE alloc.snapshot_batch SET eta = NULL WHERE ref = ''later''', ' LAMP later'),
	('UPDATE alloc.snapshot_batch SET sku = ''RUG'' WHERE ref = ''lamp''', ' LAMP lamp'),
	('DELETE FROM alloc.snapshot_batch WHERE ref = ''lamp''', ' LAMP lamp'),
	('INSERT INTO alloc.snapshot_batch SELECT snapshot, created, purchased, shipped, allocated, eta, ''ghost'', ''GHOST'' FROM alloc.snapshot_batch WHERE ref = ''lamp''', ' GHOST ghost'),
	('UPDATE alloc.snapshot_line SET qty = qty + 1 WHERE orderid = ''b1'' AND sku = ''LAMP''', ' LAMP later b1'),
	('UPDATE alloc.snapshot_line SET event_id = 1 WHERE orderid = ''b1'' AND sku = ''LAMP''', ' LAMP later b1'),
	('UPDATE alloc.snapshot_line SET batchref = ''lamp'' WHERE orderid = ''b1'' AND sku = ''LAMP''', ' LAMP later b1'),
	('DELETE FROM alloc.snapshot_line WHERE orderid = ''b1'' AND sku = ''LAMP''', ' LAMP later b1')) AS trial (damage, what);
SELECT results_eq($$SELECT glance('UPDATE alloc.snapshot_line SET orderid = ''b1x'' WHERE orderid = ''b1'' AND sku = ''LAMP''')$$,
	ARRAY['snapshot_differs LAMP later b1', 'snapshot_differs LAMP later b1x', 'not_mended LAMP later snapshot_differs'], 'a line of a snapshot that has another order');
SELECT results_eq($$SELECT trial('DELETE FROM alloc.allocation WHERE orderid = ''since''')$$,
	ARRAY['line_missing RUG rug since', 'not_conserved RUG rug', 'mended: line_added RUG rug since'], 'with a snapshot repairs go on');

-- Without the snapshot of what was archived the log tells nothing.

SELECT alloc.drop_consumer('mail'), alloc.drop_consumer('shop'), alloc.unsubscribe('allocated', 'handler(jsonb)');

SELECT ok(count(*) > 50, 'events are archived') FROM alloc.archive_events('infinity');
SELECT is_empty('SELECT * FROM alloc.check()', 'what is left is sound');
CREATE TABLE before AS SELECT digest();
SELECT results_eq($$SELECT glance('DELETE FROM alloc.snapshot; DELETE FROM alloc.slot WHERE ref = ''lamp''')$$,
	ARRAY['snapshot_missing', 'not_mended snapshot_missing'], 'the snapshot is gone: nothing is mended by half a log');
SELECT results_eq($$SELECT glance('DELETE FROM alloc.snapshot; UPDATE alloc.slot SET eta = now() WHERE ref = ''lamp''')$$,
	ARRAY['slot_differs LAMP lamp', 'snapshot_missing', 'not_mended LAMP lamp slot_differs', 'not_mended snapshot_missing'], '... not even what shows');
SELECT is(digest(), (SELECT digest FROM before), 'nothing has changed');

-- Sequences, which no rollback sets back

CREATE FUNCTION next_numbers() RETURNS boolean
LANGUAGE sql AS $$
	SELECT nextval('alloc.event_id_seq') > (SELECT max(event_id) FROM alloc.event)
	   AND nextval('alloc.batch_id_seq') > (SELECT max(batch_id) FROM alloc.batch)
$$;
SELECT setval('alloc.event_id_seq', 5);
SELECT results_eq('SELECT found()', ARRAY['sequence_behind'], 'the sequence of events is behind');
SELECT results_eq('SELECT action, detail FROM alloc.repair()',
	format('SELECT ''sequence_advanced'', ''event_id_seq: to %s''', (SELECT max(event_id) FROM alloc.event)), 'a dry run tells to where it will go');
SELECT is((SELECT last_value FROM alloc.event_id_seq), 5::bigint, 'and leaves it where it is');
SELECT results_eq('SELECT repairs(false)', ARRAY['sequence_advanced'], 'repair() advances it');
SELECT is_empty('SELECT * FROM alloc.check()', 'all is sound');
SELECT setval('alloc.event_id_seq', 1, false), setval('alloc.batch_id_seq', 1);
DELETE FROM alloc.slot WHERE ref = 'desk';
SELECT set_eq('SELECT found()', ARRAY['sequence_behind', 'slot_missing DESK desk', 'not_conserved DESK desk'], 'both are behind, and something else is wrong');
SELECT results_eq('SELECT repairs(false)', ARRAY['sequence_advanced', 'sequence_advanced', 'slots_rebuilt DESK desk'], 'repair() advances both');
SELECT is_empty('SELECT * FROM alloc.check()', 'all is sound');
SELECT ok(next_numbers(), 'new numbers are new');
SELECT setval('alloc.event_id_seq', 1000000, false);
SELECT is_empty('SELECT * FROM alloc.check()', 'a sequence may be ahead');
SELECT is_empty('SELECT * FROM go_on()', 'commands go on');

-- What repair() records

DELETE FROM alloc.allocation WHERE orderid = 'o1' AND sku = 'RUG';
UPDATE alloc.batch SET purchased = 77 WHERE ref = 'lamp';
UPDATE alloc.slot SET available = 99 WHERE ref = 'desk';
DELETE FROM alloc.product WHERE sku = 'LAMP';
SELECT mark();
SELECT count(*) FROM alloc.repair(false);
SELECT results_eq($$SELECT type, sku, batchref, orderid, qty, payload->>'old_qty' FROM alloc.events WHERE event_id > current_setting('test.mark')::bigint ORDER BY event_id$$,
	format($$VALUES ('repaired', 'LAMP', NULL, NULL, NULL::bigint, NULL), ('repaired', 'LAMP', 'lamp', NULL, %s, '77'),
		('repaired', 'RUG', 'rug', 'o1', 1, NULL), ('repaired', 'DESK', 'desk', NULL, %s, '99')$$,
		(SELECT purchased_qty FROM alloc.batches WHERE ref = 'lamp'), available('desk')), 'what was mended, now and before');
SELECT is_empty('SELECT unlike_replay()', 'replay() passes over it');
SELECT is((SELECT count(*) FROM alloc.history_of_order('o1') WHERE type = 'repaired'), 1::bigint, 'the history of an order tells it');

-- Arguments, and where it cannot run

SELECT refused('SELECT * FROM alloc.repair(NULL)', '22004', '%dry_run%', 'repair(NULL)');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT throws_ok('SELECT * FROM alloc.repair(false)', '25000', NULL, 'repair(false) in REPEATABLE READ');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT throws_like('SELECT * FROM alloc.repair(false)', '%repair()%serializable%', '... in SERIALIZABLE: the message says so');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT is_empty('SELECT * FROM alloc.check()', 'check() runs in any transaction');
SELECT is_empty('SELECT * FROM alloc.repair()', 'and so does a dry run');
ROLLBACK;
DELETE FROM alloc.product WHERE sku = 'RUG';
BEGIN READ ONLY;
SELECT throws_ok('SELECT * FROM alloc.repair(false)', '25006', NULL, 'repair(false) in a read-only transaction');
ROLLBACK;

SELECT results_eq('SELECT repairs(false)', ARRAY['product_added RUG'], '... in any other');

-- Progress

SELECT is(current_setting('alloc.progress_interval'), '5s', 'alloc.progress_interval is five seconds by default');
SELECT alloc.add_batch('many', 'MANY', 1000000);
SELECT count(*) FROM alloc.allocate_lines(ARRAY(SELECT ROW('many' || n, 'MANY', 1)::alloc.order_line FROM generate_series(1, 20000) n));
\set told `psql -XqAt -d :DBNAME -c "SET alloc.progress_interval = 1" -c "SELECT count(*) FROM alloc.check()" 2>&1 | sed -E 's/^NOTICE: +[0-9]+/NOTICE/' | sort -u | tr '\n' ';'`
SELECT matches(:'told'::text, 'NOTICE .* read', 'a long check() tells how far it has come');
SELECT matches(:'told'::text, '^0;', '... and finds nothing');
\set told `psql -XqAt -d :DBNAME -c "SET alloc.progress_interval = 0" -c "SELECT count(*) FROM alloc.check()" 2>&1`
SELECT is(:'told'::text, '0', 'not with alloc.progress_interval = 0');
\set told `psql -XqAt -d :DBNAME -c "SELECT count(*) FROM alloc.check()" -c "SELECT count(*) FROM alloc.replay()" 2>&1 | tr '\n' ' '`
SELECT is(:'told'::text, format('0 %s ', (SELECT count(*) FROM alloc.batch)), 'nor in less than five seconds');

SELECT * FROM finish();
