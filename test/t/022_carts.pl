# Carts: 32 customers hold what others want as well, think, and confirm,
# extend, release or walk away, some of them too late.  Meanwhile batches grow
# and shrink, ships are late, orders leave, and now and then a backend is
# killed.  Nothing is oversold, nothing stays lost, and no live hold is refused.
#
#   CARTS_SECONDS=300 test/run tap      the full run; 15 without

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node answers problems differences);
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $clients = 32;
my $seconds = $ENV{CARTS_SECONDS} // 15;
my $round_seconds = $seconds < 60 ? 5 : 20;

# With the durability that users have; the test library turns it off, and has a
# server stay down after a crash.
my $node = new_node('main', <<'END');
fsync = on
restart_after_crash = on
max_connections = 100
deadlock_timeout = 50ms
log_statement = none
log_line_prefix = '%e '
END

# Of each product about 40 units, where carts want 50.
$node->safe_psql('postgres', <<'SQL');
SELECT alloc.add_batch('batch ' || n || ' of ' || sku, 'sku ' || sku, 8 + 6 * n,
                       CASE WHEN n > 1 THEN '2030-01-01'::date + n END)
  FROM generate_series(1, 3) n, generate_series(1, 4) sku;

-- What each customer was told when it wanted to confirm, and when.
CREATE TABLE told (
	orderid text NOT NULL, answer text NOT NULL,
	began timestamptz NOT NULL, ended timestamptz NOT NULL);
CREATE TABLE look (at timestamptz NOT NULL, wrong bigint NOT NULL, held bigint, available bigint);

CREATE FUNCTION confirm(orderid text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN alloc.confirm(orderid);
EXCEPTION WHEN SQLSTATE 'SK005' THEN
	RETURN SQLSTATE;
END
$$;

CREATE FUNCTION extend_hold(orderid text, ttl interval) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN alloc.extend_hold(orderid, ttl);
EXCEPTION WHEN SQLSTATE 'SK005' THEN
	RETURN SQLSTATE;
END
$$;

-- An order of which some is only held, or was, does not leave.
CREATE FUNCTION ship(orderid text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN alloc.ship(orderid);
EXCEPTION WHEN SQLSTATE 'SK005' OR SQLSTATE '55000' THEN
	RETURN SQLSTATE;
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

CREATE FUNCTION some_order() RETURNS SETOF alloc.allocations
LANGUAGE sql AS $$
	SELECT * FROM alloc.allocations WHERE expires_at IS NULL ORDER BY random() LIMIT 1
$$;
SQL

# ---- what clients do ----

# A cart: one to three lines, by one transaction each or, with one snapshot, by
# one for all.  One in four customers thinks for longer than most holds last.
# Those who want to confirm write down the answer when they have it.
my $cart = <<'END';
\set next :next + 1
\set lines random(1, 3)
\set first random(1, 4)
\set qty random(1, 5)
\set ttl random(50, 1000)
\set strict random(1, 4)
\set think CASE WHEN random(1, 4) = 1 THEN random(0, 1200) ELSE random(0, 150) END
\set fate random(1, 12)
SELECT quote_literal(CASE :fate WHEN 12 THEN 'buy ' ELSE 'cart ' END
                     || concat_ws('.', :round, :client_id, :next)) AS orderid \gset
\if :strict = 1
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT alloc.hold(:orderid, 'sku ' || sku, :qty, :ttl * interval '1 ms')
  FROM generate_series(:first, least(:first + :lines - 1, 4)) sku;
COMMIT;
\else
SELECT alloc.hold(:orderid, 'sku ' || :first, :qty, :ttl * interval '1 ms');
\if :lines > 1
SELECT alloc.hold(:orderid, 'sku ' || (1 + :first % 4), :qty, :ttl * interval '1 ms');
\endif
\if :lines > 2
SELECT alloc.hold(:orderid, 'sku ' || (1 + (:first + 1) % 4), :qty, :ttl * interval '1 ms');
\endif
\endif
\sleep :think ms
\if :fate = 7 or :fate = 8
SELECT extend_hold(:orderid, '300 ms');
\sleep :think ms
\endif
\if :fate <= 8
\if :strict = 1
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT quote_literal(confirm(:orderid)) AS answer, quote_literal(statement_timestamp()) AS began,
       quote_literal(clock_timestamp()) AS ended \gset
COMMIT;
\else
SELECT quote_literal(confirm(:orderid)) AS answer, quote_literal(statement_timestamp()) AS began,
       quote_literal(clock_timestamp()) AS ended \gset
\endif
INSERT INTO told VALUES (:orderid, :answer, :began, :ended);
\elif :fate <= 10
SELECT alloc.release(:orderid);
\elif :fate = 12
SELECT alloc.allocate(:orderid, 'sku ' || :first, :qty);
\endif
END

# What befalls the stock.  Orders that were confirmed leave, or are cancelled,
# about as fast as they come.
my $fate = <<'END';
\set what random(1, 20)
\set batch random(1, 3)
\set sku random(1, 4)
\if :what <= 3
\set qty random(0, 40)
SELECT change('batch ' || :batch || ' of ' || :sku, :qty);
\elif :what <= 5
\set day random(0, 3)
SELECT * FROM alloc.change_batch_eta('batch ' || :batch || ' of ' || :sku,
                                     nullif('2030-01-01'::date + :day, '2030-01-01'));
\elif :what <= 12
SELECT ship(orderid) FROM some_order();
\else
SELECT alloc.deallocate(orderid, sku) FROM some_order();
\endif
\sleep 5 ms
END

# One look at all that is there, in one statement, so by one snapshot.
my $look = <<'END';
INSERT INTO look
SELECT statement_timestamp(),
       count(*) FILTER (WHERE b.available_qty < 0 OR b.allocated_qty < 0 OR b.shipped_qty < 0
                           OR coalesce(a.qty, 0) <> b.allocated_qty
                           OR coalesce(a.qty, 0) + b.shipped_qty + b.available_qty <> b.purchased_qty
                           OR coalesce(a.qty, 0) + b.shipped_qty > b.purchased_qty),
       sum(a.held), sum(b.available_qty)
  FROM alloc.batches b
  LEFT JOIN (
	SELECT batchref AS ref, sum(qty) AS qty, sum(qty) FILTER (WHERE expires_at IS NOT NULL) AS held
	  FROM alloc.allocations GROUP BY 1) a USING (ref);
\sleep 10 ms
END

my %files = map { ($_->[0] => "${PostgreSQL::Test::Utils::tmp_check}/$_->[0].sql") }
	([ 'cart', $cart ], [ 'fate', $fate ], [ 'look', $look ]);
append_to_file($files{cart}, $cart);
append_to_file($files{fate}, $fate);
append_to_file($files{look}, $look);

sub start_pgbench
{
	my ($script, $count, $round) = @_;

	local $ENV{PGOPTIONS} =
		"-c statement_timeout=${PostgreSQL::Test::Utils::timeout_default}s";
	return start([ 'pgbench', '-n', '-c', $count, '-j', $count > 1 ? 2 : 1, '-T', $round_seconds,
			'--max-tries=1000', '-D', "round=$round", '-D', 'next=0', '-f', $files{$script},
			$node->connstr('postgres') ], '>', '/dev/null', '2>', "$files{$script}.$round.err");
}

sub rows
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# The crash of one backend takes all of them down.
sub kill_a_backend
{
	my $pid = rows(<<'END');
SELECT pid FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query LIKE '%hold%'
 ORDER BY random() LIMIT 1
END
	return 0 if $pid eq '';
	return kill 'KILL', $pid;
}

sub wait_until_up
{
	my $tries = 10 * $PostgreSQL::Test::Utils::timeout_default;

	until (answers($node))
	{
		die 'the server does not come up again' if $tries-- == 0;
		sleep 0.1;
	}
	return;
}

# ---- the run ----

# Every other round ends early, by a crash.
my $rounds = int($seconds / $round_seconds) || 1;
my $killed = 0;

foreach my $round (1 .. $rounds)
{
	my @running = map { start_pgbench($_->[0], $_->[1], $round) }
		([ 'cart', $clients ], [ 'fate', 2 ], [ 'look', 1 ]);

	if ($round % 2 == 0)
	{
		sleep $round_seconds * 0.7;
		$killed += kill_a_backend();
	}
	my @ended = map { $_->finish ? 1 : 0 } @running;
	is("@ended", '1 1 1', "round $round: clients went on until the end") if $round % 2;
	wait_until_up();
}
cmp_ok($killed, '>=', int($rounds / 2), 'backends were killed') if $rounds > 1;

# 40001 is tried again; the others are of a crash.
my %errors;
$errors{$_} = 1
	foreach grep { !/^(?:40001|57P0[123]|58P01) / }
	slurp_file($node->logfile) =~ /^(\w{5} (?:ERROR|FATAL|PANIC):  .*)/mg;
is(join("\n", sort keys %errors), '', 'no client and no command failed');

# ---- while it ran ----

is(rows('SELECT sum(wrong) FROM look'), 0, 'at each look each unit was available, shipped or on one line');
cmp_ok(rows('SELECT count(*) FROM look WHERE held > 0'), '>=', 20, 'there were many looks');

# The story of each line.  held again: the same hold, extended, or moved.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE log AS TABLE alloc.event;
CREATE INDEX ON log (orderid, sku, event_id);
ANALYZE log, told;
CREATE TABLE story AS
SELECT orderid, sku,
       string_agg(CASE type WHEN 'held' THEN CASE WHEN payload ? 'old_qty' THEN 'x' ELSE 'h' END
                            WHEN 'hold_released' THEN 'r' WHEN 'hold_expired' THEN 'e'
                            ELSE left(type, 1) END, '' ORDER BY event_id) AS story,
       max((payload->>'expires_at')::timestamptz) FILTER (WHERE type = 'held') AS expires_at,
       max(at) FILTER (WHERE type = 'hold_expired') AS ended_at
  FROM alloc.events WHERE orderid IS NOT NULL AND type <> 'promise_changed'
 GROUP BY orderid, sku;
CREATE INDEX ON story (orderid);
SQL

# ---- what was confirmed and what was refused ----

is(rows(<<'END'), '', 'no hold was confirmed that was over, none ended that was not');
SELECT e.event_id, e.type, e.orderid, e.sku, e.at, before.expires_at
  FROM log e
 CROSS JOIN LATERAL (
	SELECT h.expires_at FROM log h
	 WHERE h.orderid = e.orderid AND h.sku = e.sku AND h.type = 'held' AND h.event_id < e.event_id
	 ORDER BY h.event_id DESC LIMIT 1) before
 WHERE e.type = 'confirmed' AND e.at >= before.expires_at
    OR e.type = 'hold_expired' AND e.at < before.expires_at
 LIMIT 5
END

# A refusal needs a line that lost its units to a smaller batch, or one that was
# over when the confirmation ended.  Where that had begun in time somebody, who
# began when the hold was over, was faster: the log tells of him.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE refused AS
SELECT t.*,
       bool_or(s.story ~ '^hx*(rhx*)*ro') AS lost,
       bool_or(s.expires_at <= t.began) AS late,
       bool_or(s.expires_at <= t.ended AND s.ended_at >= s.expires_at) AS just_late
  FROM told t LEFT JOIN story s ON s.orderid = t.orderid AND s.story LIKE 'h%'
 WHERE t.answer = 'SK005'
 GROUP BY t.orderid, t.answer, t.began, t.ended;
SQL
is(rows('SELECT * FROM refused WHERE (lost OR late OR just_late) IS NOT TRUE LIMIT 5'), '',
	'no confirmation of a live hold was refused');
note('refused: ' . rows(<<'END'));
SELECT format('%s late, %s lost to a smaller batch, %s that had begun in time and met who had not',
              count(*) FILTER (WHERE late), count(*) FILTER (WHERE lost AND NOT late),
              count(*) FILTER (WHERE just_late AND NOT late AND NOT lost)) FROM refused
END
is(rows(<<'END'), '', 'whoever was told that lines are confirmed finds them in the log');
SELECT t.*, count(e.event_id)
  FROM told t
  LEFT JOIN log e ON e.orderid = t.orderid AND e.type = 'confirmed' AND e.at = t.began
 WHERE t.answer <> 'SK005'
 GROUP BY t.orderid, t.answer, t.began, t.ended
HAVING count(e.event_id) <> t.answer::bigint LIMIT 5
END
is(rows(<<'END'), '', 'and each is there, was shipped, or was taken off by an event');
SELECT c.orderid, c.sku, s.story
  FROM log c
  JOIN story s USING (orderid, sku)
  LEFT JOIN alloc.allocation a USING (orderid, sku)
 WHERE c.type = 'confirmed'
   AND (a.orderid IS NOT NULL AND a.expires_at IS NULL AND (a.shipped_at IS NOT NULL) = (s.story ~ 's$')
        OR a.orderid IS NULL AND s.story ~ 'do?$') IS NOT TRUE LIMIT 5
END

my %least = (held => 200, confirmed => 50, hold_released => 30, hold_expired => 50, shipped => 20,
	deallocated => 20, out_of_stock => 50, promise_changed => 20, batch_quantity_changed => 20);
my %events = map { split(/\|/) } split(/\n/, rows('SELECT type, count(*) FROM alloc.events GROUP BY type'));

foreach my $type (sort keys %least)
{
	cmp_ok($events{$type} // 0, '>=', $least{$type}, "there are events $type");
	note("$type: $events{$type}");
}
note('told: ' . rows("SELECT string_agg(answer || ': ' || n, ', ' ORDER BY answer)
	FROM (SELECT answer, count(*) AS n FROM told GROUP BY 1) t"));
note('lines by story: ' . rows("SELECT string_agg(story || ' ' || n, ', ' ORDER BY n DESC)
	FROM (SELECT story, count(*) AS n FROM story GROUP BY 1 ORDER BY 2 DESC LIMIT 30) s"));
note('looks: ' . rows('SELECT count(*) FROM look') . ", backends killed: $killed, deadlocks: "
	. rows("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'"));

# ---- when all holds are over ----

ok($node->poll_query_until('postgres',
		'SELECT NOT EXISTS (SELECT FROM alloc.allocations WHERE expires_at IS NOT NULL)'),
	'all holds are over');
note('over, and not yet ended: ' . rows('SELECT count(*) FROM alloc.hold WHERE NOT ended'));
is(rows('SELECT * FROM alloc.check()'), '', 'check() finds nothing before they were ended');

my $free = rows('SELECT sku, available_qty FROM alloc.stock ORDER BY sku');
is(rows(<<'END'), '', 'what is not allocated or shipped is available');
SELECT * FROM alloc.stock s
 WHERE available_qty <> purchased_qty
     - (SELECT coalesce(sum(qty), 0) FROM alloc.allocation a
         WHERE a.sku = s.sku AND (a.shipped_at IS NOT NULL OR a.expires_at IS NULL))
END
$node->safe_psql('postgres', <<'SQL');
DO $$
DECLARE
	p_sku text;
	n     bigint;
BEGIN
	FOR p_sku IN SELECT sku FROM alloc.stock LOOP
		n := 0;
		WHILE alloc.allocate('last ' || n, p_sku, 1) IS NOT NULL LOOP
			n := n + 1;
		END LOOP;
	END LOOP;
END $$
SQL
is(rows(<<'END'), $free, 'one last customer gets all of it');
SELECT sku, count(a.sku) FROM alloc.stock
  LEFT JOIN alloc.allocations a USING (sku)
 WHERE a.orderid LIKE 'last %' OR a.orderid IS NULL GROUP BY sku ORDER BY sku
END
is(rows('SELECT sum(available_qty) FROM alloc.stock'), 0, 'and nothing is left');
is(rows('SELECT count(*) FROM alloc.hold WHERE NOT ended'), 0, 'all that was over has been ended');
is(differences($node, 'postgres'), '', 'check() finds nothing, replay() shows what is there');

# A cart's line is held; then that ends in one way, and nothing comes after it but
# what befalls a line that is allocated.  Lines move with a batch that shrinks, or
# wait, and may be served later.
my $for_good = '(d(ob)?a)*(d(ob)?|s)?';
my $held = 'hx*(rhx*)*';
$node->safe_psql('postgres', <<'SQL');
TRUNCATE story;
INSERT INTO story
SELECT orderid, sku,
       string_agg(CASE type WHEN 'held' THEN CASE WHEN payload ? 'old_qty' THEN 'x' ELSE 'h' END
                            WHEN 'hold_released' THEN 'r' WHEN 'hold_expired' THEN 'e'
                            ELSE left(type, 1) END, '' ORDER BY event_id)
  FROM alloc.events WHERE orderid IS NOT NULL AND type <> 'promise_changed'
 GROUP BY orderid, sku
SQL
is(rows(<<"END"), '', 'the log tells a sound story of each line');
SELECT * FROM story
 WHERE orderid LIKE 'cart %' AND story !~ '^(o|$held(ro?|e|c$for_good))\$'
    OR orderid LIKE 'buy %' AND story !~ '^(o?(o|a$for_good)|o|$held(ro?|e|(ro?|e)?(o|a$for_good)|c$for_good))\$'
 LIMIT 5
END

$node->stop;
done_testing();
