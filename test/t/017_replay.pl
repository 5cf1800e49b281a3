# Random sequences of commands, with transactions and savepoints that are rolled
# back, with snapshots and archives of the log, and with crashes: the log tells
# the state, now and at each moment that was recorded.  Then the same of many
# sessions at once on one sku.
#
# ALLOC_REPLAY_SEEDS: how many sequences; ALLOC_REPLAY_SEED: the only one.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node bench);
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Test::More;

my $only = $ENV{ALLOC_REPLAY_SEED};
my @seeds = defined $only ? ($only) : (1 .. $ENV{ALLOC_REPLAY_SEEDS} // 50);
# A crash in each so many sequences: at the end, or in the middle of it.
my $crash_in = 10;
my $transactions = 150;

# In seconds the server has done less than a checkpoint: recovery replays it.
my $node = new_node('main', "log_statement = none\n");

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE recorded (event_id bigint, batches text[]);
CREATE TABLE archived (event_id bigint);

CREATE FUNCTION dice(n int) RETURNS int
LANGUAGE sql VOLATILE AS 'SELECT 1 + floor(random() * n)::int';

-- Few orders and small batches: lines exist already, and stock runs out.
CREATE FUNCTION command() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	sku int := dice(4);
	batch text := format('batch %s of %s', dice(4), sku);
	orderid int := dice(25);
BEGIN
	CASE dice(14)
	WHEN 1 THEN
		PERFORM alloc.add_batch(batch, 'sku ' || sku, dice(5) * 6,
			CASE dice(3) WHEN 1 THEN NULL ELSE date '2030-01-01' + dice(3) END);
	WHEN 2, 3 THEN
		PERFORM alloc.change_batch_quantity(batch, dice(40) - 1);
	WHEN 4, 5 THEN
		PERFORM alloc.deallocate('order ' || orderid, 'sku ' || sku);
	WHEN 6 THEN
		PERFORM alloc.change_batch_eta(batch,
			CASE dice(3) WHEN 1 THEN NULL ELSE date '2030-01-01' + dice(3) END);
	WHEN 7 THEN
		PERFORM alloc.ship('order ' || orderid, CASE WHEN dice(3) > 1 THEN 'sku ' || sku END);
	WHEN 8 THEN
		PERFORM alloc.purge_shipped('infinity') WHERE dice(3) = 1;
	WHEN 9 THEN
		PERFORM alloc.allocate_lines(ARRAY(
			SELECT ROW('order ' || n, 'sku ' || s, 1 + (n + s) % 7)::alloc.order_line
			  FROM generate_series(orderid, orderid + dice(6)) n, generate_series(sku, 4) s));
	WHEN 10 THEN
		PERFORM alloc.cancel_backorder(w.orderid, w.sku)
		   FROM (SELECT * FROM alloc.backorder ORDER BY event_id LIMIT 1) w;
	ELSE
		PERFORM alloc.allocate('order ' || orderid, 'sku ' || sku, 1 + (orderid + sku) % 7);
	END CASE;
EXCEPTION
	-- There with another quantity, or not there, or below what has left
	WHEN unique_violation OR SQLSTATE 'SK001' OR SQLSTATE 'SK002' OR SQLSTATE 'SK004' THEN
		NULL;
END
$$;

-- To so much above what has left; more may leave before it has its locks.
CREATE FUNCTION change(ref text, qty bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.change_batch_quantity(b.ref, b.shipped_qty + qty)
	   FROM alloc.batches b WHERE b.ref = change.ref;
EXCEPTION WHEN SQLSTATE 'SK004' THEN
	NULL;
END
$$;

CREATE FUNCTION undone() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM command() FROM generate_series(1, dice(3));
	RAISE EXCEPTION USING ERRCODE = 'UNDO1';
EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
	NULL;
END
$$;

-- What is there after the last event is recorded in the same transaction.
CREATE PROCEDURE play(seed int, transactions int)
LANGUAGE plpgsql AS $$
DECLARE
	last_event bigint;
BEGIN
	PERFORM setseed(1.0 / seed);
	FOR n IN 1 .. transactions LOOP
		FOR m IN 1 .. dice(4) LOOP
			PERFORM CASE dice(6) WHEN 1 THEN undone() ELSE command() END;
		END LOOP;
		IF dice(4) = 1 THEN
			INSERT INTO recorded
			SELECT coalesce((SELECT max(event_id) FROM alloc.event), 0), ARRAY(SELECT b::text FROM alloc.batches b);
		END IF;
		IF dice(8) = 1 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
		IF dice(30) = 1 THEN
			last_event := alloc.snapshot_log();
			COMMIT;
			IF last_event > 0 AND dice(4) = 1 THEN
				INSERT INTO archived
				SELECT event_id FROM alloc.archive_events('infinity');
				COMMIT;
			END IF;
		END IF;
	END LOOP;
END
$$;

-- What differs between the log and the state, a row for each.
CREATE FUNCTION wrong_now() RETURNS SETOF text
LANGUAGE sql AS $$
	(SELECT 'only replayed: ' || r FROM (SELECT * FROM alloc.replay() EXCEPT ALL SELECT * FROM alloc.batches) r)
	UNION ALL
	(SELECT 'only there: ' || b FROM (SELECT * FROM alloc.batches EXCEPT ALL SELECT * FROM alloc.replay()) b)
	UNION ALL
	SELECT 'check: ' || c FROM alloc.check() c
$$;

-- The same at 20 of the events that were recorded: those that the log has, or a
-- snapshot before them.
CREATE FUNCTION wrong_then() RETURNS SETOF text
LANGUAGE sql AS $$
	SELECT format('after event %s: %s', r.event_id, wrong)
	  FROM (SELECT DISTINCT ON (event_id) * FROM recorded ORDER BY event_id) r
	 CROSS JOIN LATERAL (
		(SELECT b::text FROM alloc.replay(NULL, r.event_id) b EXCEPT ALL SELECT unnest(r.batches))
		UNION ALL
		(SELECT unnest(r.batches) EXCEPT ALL SELECT b::text FROM alloc.replay(NULL, r.event_id) b)) wrong
	 WHERE r.event_id IN (
		SELECT event_id FROM recorded
		 WHERE NOT EXISTS (SELECT FROM alloc.archive)
		    OR event_id >= (SELECT min(event_id) FROM alloc.snapshot)
		 ORDER BY random() LIMIT 20)
$$;
SQL

sub crash
{
	$node->stop('immediate');
	$node->start;
	return;
}

# Runs a sequence; how is what happens to the server.
sub play
{
	my ($seed, $how) = @_;
	my $errors = '';

	$node->safe_psql('postgres', <<'END');
DROP EXTENSION alloc CASCADE;
CREATE EXTENSION alloc;
TRUNCATE recorded, archived;
END
	my $session = start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			'-c', "CALL play($seed, $transactions)" ], '2>', \$errors);
	if ($how eq 'crash in the middle')
	{
		$node->poll_query_until('postgres', 'SELECT count(*) > 10 FROM recorded')
			or die 'nothing is recorded';
		crash();
	}
	# Where the server is gone so is the session.
	$session->finish;
	is($errors, '', "seed $seed: no error") if $how ne 'crash in the middle';
	crash() if $how eq 'crash at the end';
	return;
}

my ($events, $archived, $compared, $shipped, $delayed, $waited) = (0) x 6;
foreach my $n (0 .. $#seeds)
{
	my $seed = $seeds[$n];
	my $how = $n % $crash_in == 0 ? 'crash in the middle'
		: $n % $crash_in == 5 ? 'crash at the end' : 'no crash';

	play($seed, $how);
	is($node->safe_psql('postgres', 'SELECT wrong_now()'), '', "seed $seed, $how: the log tells the state");
	is($node->safe_psql('postgres', 'SELECT wrong_then()'), '', "seed $seed, $how: and how it was");
	my @counts = split /\|/, $node->safe_psql('postgres', <<'END');
SELECT (SELECT count(*) FROM alloc.event), (SELECT count(*) FROM archived),
       (SELECT count(*) FROM recorded
         WHERE event_id >= coalesce((SELECT max(event_id) FROM alloc.archive), 0)),
       (SELECT count(*) FROM alloc.event WHERE type = 'shipped'),
       (SELECT count(*) FROM alloc.event WHERE type = 'promise_changed'),
       (SELECT count(*) FROM alloc.event WHERE type = 'backordered')
END
	$events += $counts[0];
	$archived += $counts[1];
	$compared += $counts[2];
	$shipped += $counts[3];
	$delayed += $counts[4];
	$waited += $counts[5];
}
cmp_ok($events, '>', 100 * @seeds, 'there were many events');
cmp_ok($archived, '>', 0, 'some were archived') if @seeds >= 10;
cmp_ok($compared, '>', 5 * @seeds, 'many states were recorded');
cmp_ok($shipped, '>', 5 * @seeds, 'many lines were shipped');
cmp_ok($delayed, '>', 5 * @seeds, 'many promises were changed');
cmp_ok($waited, '>', 5 * @seeds, 'many lines had to wait');

# Many sessions on one sku, while snapshots are taken and events archived.
$node->safe_psql('postgres', <<'END');
DROP EXTENSION alloc CASCADE;
CREATE EXTENSION alloc;
SELECT alloc.add_batch('batch ' || n, 'sku', 2000, CASE WHEN n > 1 THEN date '2030-01-01' + n END)
  FROM generate_series(1, 3) n;
SELECT alloc.snapshot_log();
END
my ($wrong, %times) = bench($node, [ '-c', '8', '-T', '6' ],
	allocate => [ 60, <<'END' ],
\set orderid random(1, 3000)
SELECT alloc.allocate('order ' || :orderid, 'sku', 1 + :orderid % 5);
END
	deallocate => [ 30, <<'END' ],
\set orderid random(1, 3000)
SELECT alloc.deallocate('order ' || :orderid, 'sku');
END
	change => [ 10, <<'END' ],
\set batch random(1, 3)
\set qty random(0, 3000)
SELECT change('batch ' || :batch, :qty);
END
	cancel => [ 3, <<'END' ],
\set orderid random(1, 3000)
SELECT alloc.cancel_backorder('order ' || :orderid, 'sku');
END
	eta => [ 5, <<'END' ],
\set batch random(1, 3)
\set day random(0, 3)
SELECT * FROM alloc.change_batch_eta('batch ' || :batch, nullif(date '2030-01-01' + :day, '2030-01-01'));
END
	ship => [ 5, <<'END' ],
\set orderid random(1, 3000)
SELECT alloc.ship('order ' || :orderid);
END
	purge => [ 1, <<'END' ],
SELECT alloc.purge_shipped(now() - interval '1 second');
END
	add => [ 5, <<'END' ],
\set batch random(1, 1000000000)
SELECT alloc.add_batch('new ' || :batch, 'sku', 1);
END
	repair => [ 1, <<'END' ],
SELECT 1 / (SELECT count(*) = 0 FROM alloc.repair(false))::int;
END
	snapshot => [ 1, <<'END' ],
SELECT alloc.snapshot_log();
END
	archive => [ 1, <<'END' ],
INSERT INTO archived SELECT event_id FROM alloc.archive_events(now() - interval '1 second');
END
	check => [ 1, <<'END' ]);
SELECT 1 / (SELECT count(*) = 0 FROM alloc.check())::int;
END

is($wrong, '', 'many sessions: no error, and check() finds nothing at any time');
cmp_ok($times{$_}, '>', 0, "many sessions: $_ was called") foreach sort keys %times;
is($node->safe_psql('postgres', 'SELECT wrong_now()'), '', 'many sessions: the log tells the state');
crash();
is($node->safe_psql('postgres', 'SELECT wrong_now()'), '', '... after a crash');
is($node->safe_psql('postgres', <<'END'), '', '... and after rebuild()');
CREATE TABLE batches AS SELECT * FROM alloc.batches;
CREATE TABLE lines AS SELECT * FROM alloc.allocations;
CREATE TABLE waiting AS SELECT * FROM alloc.backorder;
TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;
DO 'BEGIN PERFORM alloc.rebuild(); END';
SELECT wrong_now();
SELECT * FROM batches EXCEPT SELECT * FROM alloc.batches;
SELECT * FROM lines EXCEPT SELECT * FROM alloc.allocations;
SELECT * FROM alloc.allocations EXCEPT SELECT * FROM lines;
SELECT * FROM waiting EXCEPT SELECT * FROM alloc.backorder;
END

$node->stop('fast');
done_testing();
