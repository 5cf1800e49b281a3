-- The run: each random command is put to both sides, and their answers and
-- the events that they recorded are compared at once; the tables now and then.

CREATE TABLE compare.journal (
	n       int PRIMARY KEY,
	command compare.command NOT NULL,
	undone  boolean NOT NULL,	-- rolled back to a savepoint after the answer
	answer  text NOT NULL		-- the peer's
);
CREATE TABLE compare.outcome (
	outcome text NOT NULL
);
-- The first difference: the run ends there.
CREATE TABLE compare.difference (
	n        int NOT NULL,
	what     text NOT NULL,
	ours     text,
	the_peer text
);

-- question: the query that puts a command ($1) to one side.
CREATE FUNCTION compare.question(side name, command_name text) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT format(CASE command_name
		WHEN 'add_batch' THEN
			'SELECT %1$I.add_batch(($1).ref, ($1).sku, ($1).qty, ($1).eta)'
		WHEN 'allocate' THEN
			'SELECT %1$I.allocate(($1).orderid, ($1).sku, ($1).qty)'
		WHEN 'allocate_lines' THEN
			'SELECT string_agg(r::text, '' '' ORDER BY r.ordinality)
			   FROM %1$I.allocate_lines(($1).lines::text::%1$I.order_line[])
					WITH ORDINALITY AS r'
		WHEN 'allocate_order' THEN
			'SELECT string_agg(r::text, '' '' ORDER BY r.ordinality)
			   FROM %1$I.allocate_order(($1).orderid, ($1).lines::text::%1$I.order_line[], ($1).mode)
					WITH ORDINALITY AS r'
		WHEN 'deallocate' THEN
			'SELECT %1$I.deallocate(($1).orderid, ($1).sku)'
		WHEN 'cancel_backorder' THEN
			'SELECT %1$I.cancel_backorder(($1).orderid, ($1).sku)'
		WHEN 'change_batch_quantity' THEN
			'SELECT string_agg(r::text, '' '' ORDER BY r.ordinality)
			   FROM %1$I.change_batch_quantity(($1).ref, ($1).qty)
					WITH ORDINALITY AS r'
		WHEN 'change_batch_eta' THEN
			'SELECT string_agg(r::text, '' '' ORDER BY r.ordinality)
			   FROM %1$I.change_batch_eta(($1).ref, ($1).eta)
					WITH ORDINALITY AS r'
		WHEN 'hold' THEN
			'SELECT %1$I.hold(($1).orderid, ($1).sku, ($1).qty, ($1).ttl)'
		WHEN 'confirm' THEN
			'SELECT %1$I.confirm(($1).orderid)'
		WHEN 'release' THEN
			'SELECT %1$I.release(($1).orderid)'
		WHEN 'extend_hold' THEN
			'SELECT %1$I.extend_hold(($1).orderid, ($1).ttl)'
		WHEN 'ship' THEN
			'SELECT %1$I.ship(($1).orderid, ($1).sku)'
		WHEN 'purge_shipped' THEN
			'SELECT %1$I.purge_shipped(($1).eta)'
		WHEN 'promise' THEN
			'SELECT string_agg(r::text, '' '') FROM %1$I.promise(($1).sku, ($1).qty) AS r'
		WHEN 'available_to_promise' THEN
			'SELECT %1$I.available_to_promise(($1).sku, ($1).eta)'
	END, side)
$$;

-- answer: what one side says to a command, an error as its SQLSTATE.  Undo:
-- roll it back to the savepoint before.
CREATE FUNCTION compare.answer(side name, c compare.command, undo boolean)
RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	EXECUTE compare.question(side, c.name) INTO said USING c;
	said := coalesce(said, 'NULL');
	IF undo THEN
		RAISE EXCEPTION USING ERRCODE = 'UNDO1', MESSAGE = said;
	END IF;
	RETURN said;
EXCEPTION
	WHEN SQLSTATE 'UNDO1' THEN
		RETURN SQLERRM;
	-- statement_timeout: a command that does not end is a difference.
	WHEN query_canceled OR OTHERS THEN
		RETURN 'error ' || SQLSTATE;
END
$$;

-- new_events: those of one side after an event_id, without their ids, one a
-- line.  Their moment is that of the CALL on both sides.
CREATE FUNCTION compare.new_events(side name, after bigint, OUT listed text, OUT last_id bigint)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format(
		'SELECT string_agg(ROW(type, orderid, sku, qty, batchref, eta, old_qty,
							   old_eta, at, expires_at)::text, E''\n'' ORDER BY event_id),
				coalesce(max(event_id), $1)
		   FROM %I.event WHERE event_id > $1', side)
	   INTO listed, last_id USING after;
END
$$;

-- taken: how many lines a change of quantity takes off its batch to begin
-- with; 0 if what is left covers all of them.
CREATE FUNCTION compare.taken(c compare.command) RETURNS bigint
LANGUAGE sql STABLE AS $$
	SELECT count(*)
	  FROM (SELECT v.purchased_qty - v.available_qty - c.qty AS deficit,
				   sum(a.qty) OVER (ORDER BY a.event_id DESC) - a.qty AS before
			  FROM alloc_peer.batches v
			  JOIN alloc_peer.batch b USING (ref)
			  JOIN alloc_peer.allocation a USING (batch_id)
			 WHERE v.ref = c.ref AND c.qty >= v.shipped_qty
			   AND a.shipped_at IS NULL
			   AND (a.expires_at IS NULL OR a.expires_at > statement_timestamp())) AS line
	 WHERE before < deficit
$$;

-- outcomes: what a command came to, to count that everything happens.
CREATE FUNCTION compare.outcomes(c compare.command, answer text, events text, taken bigint)
RETURNS SETOF text
LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF events LIKE '%(hold_expired,%' THEN
		RETURN NEXT 'holds end';
		IF c.name <> 'change_batch_quantity'
			AND regexp_count(events, '^\(allocated,', 1, 'n')
				> (c.name = 'allocate' AND answer <> 'NULL')::int
		THEN
			RETURN NEXT 'holds end, lines that wait are served';
		END IF;
	END IF;
	IF answer LIKE 'error %' THEN
		RETURN NEXT answer;
	ELSIF c.name = 'add_batch' THEN
		RETURN NEXT CASE WHEN events IS NULL THEN 'same again' ELSE 'created' END;
		RETURN QUERY SELECT compare.outcomes_of_service(events);
	ELSIF c.name IN ('allocate', 'hold') THEN
		RETURN QUERY SELECT compare.outcomes_of_allocate(c, answer, events);
	ELSIF c.name = 'allocate_lines' THEN
		RETURN QUERY SELECT compare.outcomes_of_lines(c, events);
	ELSIF c.name = 'allocate_order' THEN
		RETURN QUERY SELECT compare.outcomes_of_order(c, answer, events);
	ELSIF c.name = 'deallocate' THEN
		RETURN NEXT CASE
			WHEN answer <> 'NULL' THEN 'done'
			WHEN compare.was_shipped(c) THEN 'a line that was shipped'
			ELSE 'no such line' END;
		RETURN QUERY SELECT compare.outcomes_of_service(events);
	ELSIF c.name = 'cancel_backorder' THEN
		RETURN NEXT CASE WHEN events IS NULL THEN 'no such line' ELSE 'done' END;
	ELSIF c.name = 'ship' THEN
		RETURN NEXT CASE
			WHEN answer = '0' THEN 'nothing to ship'
			WHEN c.sku IS NOT NULL THEN 'a line'
			WHEN answer = '1' THEN 'an order of one line'
			ELSE 'an order of several lines' END;
	ELSIF c.name IN ('confirm', 'release', 'extend_hold') THEN
		RETURN NEXT CASE answer WHEN '0' THEN 'nothing' WHEN '1' THEN 'a line' ELSE 'several lines' END;
		IF c.name = 'release' THEN
			RETURN QUERY SELECT compare.outcomes_of_service(events);
		END IF;
	ELSIF c.name = 'change_batch_eta' THEN
		RETURN QUERY SELECT compare.outcomes_of_eta(c, answer, events);
	ELSIF c.name = 'promise' THEN
		RETURN NEXT CASE answer WHEN 'NULL' THEN 'out of stock' ELSE 'a batch' END;
	ELSIF c.name IN ('available_to_promise', 'purge_shipped') THEN
		RETURN NEXT CASE answer WHEN '0' THEN 'nothing' ELSE 'something' END;
	ELSE
		RETURN QUERY SELECT compare.outcomes_of_change(answer, events, taken);
	END IF;
END
$$;

CREATE FUNCTION compare.was_shipped(c compare.command) RETURNS boolean
LANGUAGE sql STABLE AS $$
	SELECT EXISTS (SELECT FROM alloc_peer.allocation
					WHERE orderid = c.orderid AND sku = c.sku AND shipped_at IS NOT NULL)
$$;

-- outcomes_of_service: of a command that allocates nothing itself.
CREATE FUNCTION compare.outcomes_of_service(events text) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT CASE served WHEN 1 THEN 'serves a line that waits'
					   ELSE 'serves several lines that wait' END
	  FROM regexp_count(events, '^\(allocated,', 1, 'n') AS served
	 WHERE served > 0
$$;

CREATE FUNCTION compare.waits(c compare.command) RETURNS boolean
LANGUAGE sql STABLE AS $$
	SELECT EXISTS (SELECT FROM alloc_peer.backorder
					WHERE orderid = c.orderid AND sku = c.sku)
$$;

CREATE FUNCTION compare.outcomes_of_allocate(c compare.command, answer text, events text)
RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT CASE
		WHEN events IS NULL AND compare.was_shipped(c) THEN 'a line that was shipped'
		WHEN events IS NULL THEN 'same line again'
		WHEN answer = 'NULL' AND compare.waits(c) THEN 'waits and goes on waiting'
		WHEN answer = 'NULL' THEN 'out of stock'
		WHEN events ~ '^\(confirmed,' THEN 'a line that was held'
		WHEN answer = (SELECT ref FROM alloc_peer.batch WHERE sku = c.sku
						ORDER BY eta NULLS FIRST, batch_id LIMIT 1)
		THEN 'by the first batch'
		ELSE 'by a later batch'
	END
$$;

CREATE FUNCTION compare.outcomes_of_eta(c compare.command, answer text, events text)
RETURNS SETOF text
LANGUAGE sql STABLE AS $$
	SELECT outcome FROM (VALUES
		('same day', events IS NULL),
		('it arrives', events IS NOT NULL AND c.eta IS NULL),
		('another day', events IS NOT NULL AND c.eta IS NOT NULL),
		('no line', events IS NOT NULL AND answer = 'NULL'),
		('one line', regexp_count(events, '^\(promise_changed,', 1, 'n') = 1),
		('several lines', regexp_count(events, '^\(promise_changed,', 1, 'n') > 1)) AS v (outcome, holds)
	 WHERE holds
$$;

CREATE FUNCTION compare.outcomes_of_lines(c compare.command, events text)
RETURNS SETOF text
LANGUAGE plpgsql STABLE AS $$
DECLARE
	lines  bigint := cardinality(c.lines);
	known  bigint := lines - regexp_count(coalesce(events, ''), '^\((allocated|out_of_stock),', 1, 'n');
	unmet  bigint := regexp_count(coalesce(events, ''), '^\(out_of_stock,', 1, 'n');
	skus   bigint;
	keys   bigint;
	values bigint;
BEGIN
	SELECT count(DISTINCT sku), count(DISTINCT (orderid, sku)), count(DISTINCT (orderid, sku, qty))
	  INTO skus, keys, values FROM unnest(c.lines);
	RETURN QUERY
	SELECT outcome FROM (VALUES
		('no line', lines = 0),
		('more than 20 lines', lines > 20),
		('several skus', skus > 1),
		('each line is new and served', lines > 0 AND known = 0 AND unmet = 0),
		('some served, some out of stock', unmet > 0 AND known + unmet < lines),
		('a line that was there', known > 0 AND keys = lines),
		('every line was there', known = lines AND lines > 0),
		('a line twice', keys < lines),
		('out of stock, then with another quantity', keys < values)) AS v (outcome, holds)
	 WHERE holds;
END
$$;

CREATE FUNCTION compare.outcomes_of_change(answer text, events text, taken bigint)
RETURNS SETOF text
LANGUAGE plpgsql STABLE AS $$
DECLARE
	lost   bigint := regexp_count(events, '^\(out_of_stock,', 1, 'n');
	held   bigint := regexp_count(events, '^\(hold_released,', 1, 'n');
	moved  bigint := regexp_count(events, '^\(deallocated,', 1, 'n') + held - lost;
	served bigint := regexp_count(events, '^\((allocated|held),', 1, 'n') - moved;
BEGIN
	IF events IS NULL THEN
		RETURN NEXT 'same quantity';
	ELSIF taken = 0 THEN
		RETURN QUERY SELECT CASE
			WHEN qty > old_qty THEN 'more' ELSE 'less, but enough for all lines' END
			  FROM alloc_peer.event WHERE type = 'batch_quantity_changed'
			 ORDER BY event_id DESC LIMIT 1;
	ELSE
		RETURN QUERY
		SELECT outcome FROM (VALUES
			('one line taken off', taken = 1),
			('several lines taken off', taken > 1),
			('some stay, some leave', moved + lost BETWEEN 1 AND taken - 1),
			('several lines leave', moved + lost > 1),
			('a line moves', moved > 0),
			('a line that is held leaves', held > 0),
			('a line loses its stock', lost > 0),
			('one moves, one loses', moved > 0 AND lost > 0)) AS v (outcome, holds)
		 WHERE holds;
	END IF;
	IF served > 0 THEN
		RETURN NEXT CASE WHEN moved + lost > 0 THEN 'some leave, others are served'
						 ELSE 'serves lines that wait' END;
	END IF;
END
$$;

CREATE PROCEDURE compare.analyze(ours name)
LANGUAGE plpgsql AS $$
DECLARE
	side name;
BEGIN
	ANALYZE compare.event_number;
	FOREACH side IN ARRAY ARRAY[ours, 'alloc_peer'] LOOP
		EXECUTE format('ANALYZE %1$I.product, %1$I.batch, %1$I.slot,
								%1$I.allocation, %1$I.hold, %1$I.backorder,
								%1$I.event', side);
	END LOOP;
END
$$;

-- scatter: moves some of a batch's stock, or none, to a slot of its own, as
-- where many clients want it.  Only the extension has such slots.
CREATE PROCEDURE compare.scatter(ours name, progress float)
LANGUAGE plpgsql AS $$
DECLARE
	p_ref   text := compare.random_ref(compare.random_sku_number(), progress);
	number  int := compare.dice(127);
	share   numeric := random();
	fullest record;
	moved   bigint;
BEGIN
	IF ours <> 'alloc' THEN
		RETURN;
	END IF;
	SELECT s.* INTO fullest
	  FROM alloc.slot s
	  JOIN alloc.batch b USING (batch_id)
	 WHERE b.ref = p_ref
	   AND NOT EXISTS (SELECT FROM alloc.slot o
						WHERE o.batch_id = b.batch_id AND o.slot = number)
	 ORDER BY s.available DESC LIMIT 1;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	moved := floor(fullest.available * share);
	UPDATE alloc.slot
	   SET spread = true,
		   available = available - CASE slot WHEN fullest.slot THEN moved ELSE 0 END
	 WHERE batch_id = fullest.batch_id;
	INSERT INTO alloc.slot (batch_id, slot, available, spread, waiting, eta, ref, sku)
		VALUES (fullest.batch_id, number, moved, true, fullest.waiting, fullest.eta, fullest.ref, fullest.sku);
END
$$;

-- end_holds: has both sides end the holds that are over of the skus of an array
-- of lines: the bulk path may do that for all skus at once, or for more of them.
-- Who wants all that there can be of a sku needs it; nobody keeps it.
CREATE PROCEDURE compare.end_holds(ours name, c compare.command)
LANGUAGE plpgsql AS $$
DECLARE
	sku  text;
	side name;
BEGIN
	FOR sku IN
		SELECT DISTINCT line.sku COLLATE "C"
		  FROM unnest(c.lines) AS line
		  JOIN alloc_peer.slot s USING (sku)
		 WHERE s.hold_until <= statement_timestamp()
		 ORDER BY 1
	LOOP
		FOREACH side IN ARRAY ARRAY[ours, 'alloc_peer'] LOOP
			EXECUTE format('SELECT %I.allocate(''nobody'', $1, 9223372036854775807)', side)
			  USING sku;
			EXECUTE format('SELECT %I.deallocate(''nobody'', $1)', side) USING sku;
		END LOOP;
	END LOOP;
END
$$;

-- turn: puts the next 20 commands to schema ours and to the peer until they
-- differ, and compares the tables after each check_every commands and at the
-- end.  Each turn is a CALL of its own, because time stands still within one:
-- holds are over with the next.
CREATE PROCEDURE compare.turn(ours name, turn int, commands int, check_every int)
LANGUAGE plpgsql AS $$
DECLARE
	c          compare.command;
	undo       boolean;
	taken      bigint;
	our_answer text;
	answer     text;
	our_events record := compare.new_events(ours, compare.last_event(ours));
	events     record := compare.new_events('alloc_peer', compare.last_event('alloc_peer'));
BEGIN
	FOR n IN turn * 20 + 1 .. least(turn * 20 + 20, commands) LOOP
		EXIT WHEN EXISTS (SELECT FROM compare.difference);
		IF compare.once_in(10) THEN
			CALL compare.scatter(ours, n::float / commands);
		END IF;
		c := compare.random_command(n::float / commands);
		CALL compare.end_holds(ours, c);
		our_events := compare.new_events(ours, our_events.last_id);
		events := compare.new_events('alloc_peer', events.last_id);
		undo := compare.once_in(50);
		taken := CASE c.name
			WHEN 'change_batch_quantity' THEN compare.taken(c) END;
		our_answer := compare.answer(ours, c, undo);
		answer := compare.answer('alloc_peer', c, undo);
		our_events := compare.new_events(ours, our_events.last_id);
		events := compare.new_events('alloc_peer', events.last_id);

		INSERT INTO compare.journal VALUES (n, c, undo, answer);
		IF undo THEN
			INSERT INTO compare.outcome VALUES ('any command: undone');
		ELSE
			INSERT INTO compare.outcome
			SELECT c.name || ': ' || o
			  FROM compare.outcomes(c, answer, events.listed, taken) AS o;
		END IF;

		INSERT INTO compare.difference
		SELECT n, v.*
		  FROM (VALUES ('answer', our_answer, answer),
					   ('events', our_events.listed, events.listed)) AS v (what, ours, peer)
		 WHERE v.ours IS DISTINCT FROM v.peer;
		IF n % check_every = 0 OR n = commands THEN
			CALL compare.number_events(ours);
			CALL compare.number_events('alloc_peer');
			INSERT INTO compare.difference
			SELECT n, d.* FROM compare.table_differences(ours, n = commands) AS d;
		END IF;
		-- Before autovacuum learns what the tables became: at 500, 1000, 2000, ...
		IF n % 500 = 0 AND (n / 500) & (n / 500 - 1) = 0 THEN
			CALL compare.analyze(ours);
		END IF;
		-- Several commands in a transaction, and several transactions.
		IF compare.once_in(20) THEN
			COMMIT;
		END IF;
	END LOOP;
END
$$;

CREATE FUNCTION compare.last_event(side name) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	last bigint;
BEGIN
	EXECUTE format('SELECT coalesce(max(event_id), 0) FROM %I.event', side) INTO last;
	RETURN last;
END
$$;

-- as_sql: a command as one would type it.
CREATE FUNCTION compare.as_sql(c compare.command) RETURNS text
LANGUAGE sql STABLE AS $$
	SELECT CASE c.name
		WHEN 'add_batch' THEN format('SELECT add_batch(%L, %L, %L, %L);',
									 c.ref, c.sku, c.qty, c.eta)
		WHEN 'allocate' THEN format('SELECT allocate(%L, %L, %L);',
									c.orderid, c.sku, c.qty)
		WHEN 'allocate_lines' THEN
			format('SELECT * FROM allocate_lines(%L);', c.lines)
		WHEN 'allocate_order' THEN
			format('SELECT * FROM allocate_order(%L, %L, %L);', c.orderid, c.lines, c.mode)
		WHEN 'deallocate' THEN format('SELECT deallocate(%L, %L);', c.orderid, c.sku)
		WHEN 'cancel_backorder' THEN
			format('SELECT cancel_backorder(%L, %L);', c.orderid, c.sku)
		WHEN 'change_batch_quantity' THEN
			format('SELECT * FROM change_batch_quantity(%L, %L);', c.ref, c.qty)
		WHEN 'change_batch_eta' THEN
			format('SELECT * FROM change_batch_eta(%L, %L);', c.ref, c.eta)
		WHEN 'hold' THEN format('SELECT hold(%L, %L, %L, %L);',
								c.orderid, c.sku, c.qty, c.ttl)
		WHEN 'confirm' THEN format('SELECT confirm(%L);', c.orderid)
		WHEN 'release' THEN format('SELECT release(%L);', c.orderid)
		WHEN 'extend_hold' THEN format('SELECT extend_hold(%L, %L);', c.orderid, c.ttl)
		WHEN 'ship' THEN format('SELECT ship(%L, %L);', c.orderid, c.sku)
		WHEN 'purge_shipped' THEN format('SELECT purge_shipped(%L);', c.eta)
		WHEN 'promise' THEN format('SELECT * FROM promise(%L, %L);', c.sku, c.qty)
		WHEN 'available_to_promise' THEN
			format('SELECT available_to_promise(%L, %L);', c.sku, c.eta)
	END
$$;

-- skus: those that a command is about.
CREATE INDEX event_order ON alloc_peer.event (orderid);
CREATE FUNCTION compare.skus(c compare.command) RETURNS text[]
LANGUAGE sql STABLE AS $$
	SELECT array_agg(sku)
	  FROM (SELECT c.sku
			UNION SELECT sku FROM alloc_peer.batch WHERE ref = c.ref
			UNION SELECT sku FROM alloc_peer.event
				   WHERE orderid = c.orderid AND c.sku IS NULL
			UNION SELECT sku FROM unnest(c.lines)) AS known
$$;

-- reproduction: the commands on the same skus up to the difference, as SQL to
-- feed to either side.  Nothing but these can have led to it, and an error
-- about another sku in an array of lines.
CREATE VIEW compare.reproduction AS
WITH target AS (
	SELECT d.n, compare.skus(j.command) AS skus
	  FROM compare.difference d
	  JOIN compare.journal j USING (n)
	 LIMIT 1)
SELECT j.n, compare.as_sql(j.command) || CASE WHEN j.undone THEN ' -- rolled back' ELSE '' END
		|| ' -- ' || j.answer AS command
  FROM target
  JOIN compare.journal j ON j.n <= target.n
 WHERE target.skus && compare.skus(j.command)
	OR (j.command).name = 'purge_shipped'
 ORDER BY j.n;
