# Orders over several partitions, each a server of its own: whoever dies in the
# middle of one, it is whole or absent in the end, and the next call for it tells
# which.  Without deaths it does what a single database does.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocFleet qw(new_partition new_router fleet_contents);
use AllocTest qw(new_node sqlstate wait_for_lock);
use IPC::Run qw(start timeout);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @partitions = map { new_partition("partition_$_", "shared_preload_libraries = 'alloc'\n") } 0 .. 3;
my $router = new_router('router', @partitions);
# Skus by partition; the last of the first is scarce.
my @skus = ('sku 5', 'sku 1', 'sku 2', 'sku 4');
my $scarce = 'sku 9';

$router->safe_psql('postgres', 'CREATE DATABASE plain');
$router->safe_psql('plain', 'CREATE EXTENSION alloc');
foreach my $database ('plain', 'postgres')
{
	$router->safe_psql($database, <<'SQL');
SELECT alloc.add_batch('batch ' || n, 'sku ' || n, CASE n WHEN 9 THEN 10 ELSE 100000 END)
  FROM generate_series(1, 12) n;

-- What a command answers, or its error.
CREATE FUNCTION try(command text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE format('SELECT string_agg(r::text, '' '') FROM (%s) AS r', command) INTO answer;
	RETURN coalesce(answer, '');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
SQL
}
is(rows("SELECT string_agg((alloc.partition_of(s) & 3)::text, '') FROM unnest('{sku 5, sku 1, sku 2, sku 4, sku 9}'::text[]) s"),
	'01230', 'the skus are on the partitions that the test means');

# An order as far as the step that is named; then its session may go.  A sku of
# each partition once.
$router->safe_psql('postgres', <<'SQL');
CREATE FUNCTION begin_order(orderid text, skus text[], qtys bigint[], mode text, last_step text)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	parts integer[] := alloc._homes_of(skus);
	attempt bigint;
BEGIN
	PERFORM alloc_router.find_order(orderid, NULL);
	IF last_step = 'found' THEN
		RETURN NULL;
	END IF;
	attempt := alloc_router.begin_order(orderid, mode, skus, qtys, NULL);
	IF last_step IN ('prepared on one', 'prepared') THEN
		PERFORM alloc_router.prepare_order(parts[1:1], orderid, attempt, skus[1:1], qtys[1:1], mode, alloc._order_ttl(), NULL);
	END IF;
	IF last_step = 'prepared' THEN
		PERFORM alloc_router.prepare_order(parts[2:], orderid, attempt, skus[2:], qtys[2:], mode, alloc._order_ttl(), NULL);
	END IF;
	RETURN attempt;
END
$$;

CREATE FUNCTION end_order(orderid text, attempt bigint, skus text[], qtys bigint[], mode text, last_step text)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	parts integer[] := alloc._homes_of(skus);
BEGIN
	PERFORM alloc_router.move_order(orderid, attempt, 'begun', 'decided', skus, NULL);
	IF last_step IN ('finished on one', 'finished', 'ended') THEN
		PERFORM alloc_router.finish_order(parts[1:1], orderid, attempt, skus[1:1], qtys[1:1], mode, NULL);
	END IF;
	IF last_step IN ('finished', 'ended') THEN
		PERFORM alloc_router.finish_order(parts[2:], orderid, attempt, skus[2:], qtys[2:], mode, NULL);
	END IF;
	IF last_step = 'ended' THEN
		PERFORM alloc_router.move_order(orderid, attempt, 'decided', NULL, NULL, NULL);
	ELSIF last_step IN ('undoing', 'undone on one') THEN
		PERFORM alloc_router.move_order(orderid, attempt, 'decided', 'undoing', NULL, NULL);
	END IF;
	IF last_step = 'undone on one' THEN
		PERFORM alloc_router.undo_order(parts[1:1], orderid, attempt, skus[1:1], qtys[1:1], skus, NULL);
	END IF;
END
$$;

CREATE FUNCTION leave_order(orderid text, skus text[], qtys bigint[], mode text, last_step text)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	attempt bigint;
BEGIN
	IF last_step IN ('found', 'begun', 'prepared on one', 'prepared') THEN
		RETURN begin_order(orderid, skus, qtys, mode, last_step);
	END IF;
	attempt := begin_order(orderid, skus, qtys, mode, 'prepared');
	PERFORM end_order(orderid, attempt, skus, qtys, mode, last_step);
	RETURN attempt;
END
$$;
SQL

sub rows
{
	my ($query) = @_;
	return $router->safe_psql('postgres', $query);
}

# The call of an order, of pairs of sku and quantity.
sub order
{
	my ($orderid, $mode, @lines) = @_;
	my @rows;

	while (my ($sku, $qty) = splice(@lines, 0, 2))
	{
		push @rows, "(NULL, '$sku', $qty)";
	}
	return sprintf("SELECT sku, qty, batchref, status FROM alloc.allocate_order('%s', ARRAY[%s]::alloc.order_line[], '%s')",
		$orderid, join(', ', @rows), $mode);
}

# One of each of the skus.
sub each_sku { my ($orderid, $mode) = @_; return order($orderid, $mode // 'all', map { $_ => 1 } @skus); }

# Leaves such an order after a step: the session ends.
sub leave
{
	my ($orderid, $step, $mode, $settings) = @_;
	my $skus = join(', ', @skus);

	return $router->safe_psql('postgres', ($settings // '')
		. "SELECT leave_order('$orderid', '{$skus}', '{1, 1, 1, 1}', '" . ($mode // 'all') . "', '$step')");
}

# Lines of an order: "allocated" and "held" ones.
sub lines_of
{
	my ($orderid) = @_;
	return rows(<<"END");
SELECT coalesce(string_agg(CASE WHEN expires_at IS NULL THEN 'allocated' ELSE 'held' END || ' ' || sku, ', ' ORDER BY sku), 'none')
  FROM alloc.allocations WHERE orderid = '$orderid'
END
}

my $whole = join(', ', map { "allocated $_" } sort @skus);
my $all_rows = join("\n", map { "$_|1|" . s/sku/batch/r . '|allocated' } @skus);

# The rows that partitions keep for orders which are not over.
sub kept { return fleet_contents('SELECT orderid, state FROM alloc.fleet_order UNION ALL SELECT orderid, attempt::text FROM alloc.fleet_hold', @partitions); }

# Calls recover_orders() until it has something to tell: that a session is gone
# is known a moment later.
sub recovered
{
	my ($seconds) = @_;
	my $tries = 10 * ($seconds // $PostgreSQL::Test::Utils::timeout_default);

	while ($tries-- > 0)
	{
		my $outcome = rows('SELECT * FROM alloc.recover_orders()');

		return $outcome if $outcome ne '';
		select(undef, undef, undef, 0.1);
	}
	return 'nothing';
}

# Calls it until nothing is kept of orders.
sub settled
{
	my $tries = 10 * $PostgreSQL::Test::Utils::timeout_default;

	while ($tries-- > 0)
	{
		rows('SELECT * FROM alloc.recover_orders()');
		return 1 if kept() eq '';
		select(undef, undef, undef, 0.1);
	}
	return 0;
}

# ---- without deaths, the same as on a single database ----

# Runs commands in both; is told what each answers, and what is left of it.
sub same
{
	my ($name, $look_for, @commands) = @_;
	my $look = <<"END";
SELECT orderid, sku, qty, batchref, expires_at IS NULL FROM alloc.allocations
 WHERE orderid LIKE '$look_for%' ORDER BY 1, 2;
SELECT orderid, sku, qty FROM alloc.backorders WHERE orderid LIKE '$look_for%' ORDER BY 1, 2;
SELECT * FROM alloc.stock ORDER BY 1;
END
	my @calls = map { "SELECT try(\$call\$$_\$call\$);\n" } @commands;
	my @answers = map { $router->safe_psql($_, join('', @calls) . $look) } ('postgres', 'plain');

	is($answers[0], $answers[1], "as on a single database: $name");
	return $answers[0];
}

my ($a, $b, $c, $d) = @skus;
my $hold = 'SELECT alloc.hold';

same('an order of each mode, and again', 'plain ',
	map { my $mode = $_; my @call = order("plain $mode", $mode, $a => 2, $b => 3, $c => 4, $b => 1); (@call, @call) }
		('all', 'partial', 'backorder'));
like(same('one line too large', 'large ',
		map { order("large $_", $_, $b => 1, $scarce => 11, $c => 1) } ('all', 'partial', 'backorder')),
	qr/out_of_stock.*backordered/s, 'which is out of stock, or waits');
same('an order that waits', 'large ', map { my $mode = $_;
	(order('large backorder', $mode, $b => 1, $scarce => 11, $d => 1),
	 order('large backorder', $mode, $b => 1, $scarce => 11, $c => 200000)) } ('all', 'partial', 'backorder'));
same('stock comes for it', 'large ', "SELECT alloc.change_batch_quantity('batch 9', 30)",
	map { order('large backorder', $_, $b => 1, $scarce => 11) } ('all', 'partial'));
like(same('an unknown sku', 'unknown ', map { order("unknown $_", $_, $a => 1, $b => 1, 'no sku' => 1) } ('all', 'partial', 'backorder')),
	qr/^(?:SK001\n){3}/, 'is an error');
like(same('another quantity', 'other ', "SELECT alloc.allocate('other 1', '$b', 2)",
		(map { order('other 1', $_, $a => 1, $b => 1, $c => 1) } ('all', 'partial', 'backorder')),
		order('other 2', 'backorder', $scarce => 100, $a => 1),
		map { order('other 2', $_, $b => 1, $scarce => 101, $c => 1) } ('all', 'partial', 'backorder')),
	qr/SK003\nSK003\nSK003\n.*SK003\nSK003\nSK003\n/s, 'is an error');
same('lines that were held before', 'held ', "$hold('held 1', '$a', 1, '1 hour')", "$hold('held 1', '$b', 2, '1 hour')",
	order('held 1', 'all', $a => 1, $b => 2, $scarce => 100), order('held 1', 'partial', $a => 1, $c => 1, $scarce => 100),
	order('held 1', 'all', $a => 1, $b => 2, $c => 1));
same('lines that were allocated before', 'before ', "SELECT alloc.allocate('before 1', '$a', 1)",
	map { order('before 1', 'all', $a => 1, $b => 2, $scarce => $_) } (100, 1));
like(same('confirm() of holds on several partitions, then again', 'confirm 1', (map { "$hold('confirm 1', '$_', 1, '1 hour')" } @skus),
		("SELECT alloc.confirm('confirm 1')") x 2),
	qr/^\(4\)\n\(0\)\n/m, 'counts them');
like(same('confirm() when one of them is over', 'confirm 2', "$hold('confirm 2', '$a', 1, '1 microsecond')",
		(map { "$hold('confirm 2', '$_', 1, '1 hour')" } $b, $c), "SELECT alloc.confirm('confirm 2')",
		order('confirm 2', 'all', map { $_ => 1 } $a, $b, $c)),
	qr/^SK005\n/m, 'confirms none');
same('release() of an order of which some is allocated', 'release 1', (map { "$hold('release 1', '$_', 1, '1 hour')" } $a, $b),
	"SELECT alloc.allocate('release 1', '$c', 1)", ("SELECT alloc.release('release 1')") x 2);
like(same('ship() of an order of which some is only held', 'ship 1', "$hold('ship 1', '$a', 1, '1 hour')",
		(map { "SELECT alloc.allocate('ship 1', '$_', 1)" } $b, $c), "SELECT alloc.ship('ship 1')",
		"SELECT alloc.confirm('ship 1')", "SELECT alloc.ship('ship 1')", order('ship 1', 'all', map { $_ => 1 } $a, $b, $c)),
	qr/^55000\n\(1\)\n\(3\)\n/m, 'ships none');
same('bad calls', 'bad', order('bad', 'some', $a => 1, $b => 1), order('bad', 'all', $a => 0, $b => 1),
	order('bad', 'all', $a => '9223372036854775807', $b => 1, $a => 1), order('', 'all', $a => 1, $b => 1),
	"SELECT * FROM alloc.allocate_order('bad', ARRAY[('good', '$a', 1), (NULL, '$b', 1)]::alloc.order_line[])");
ok(settled(), 'nothing is kept of orders that are over');

# ---- the client dies ----

foreach my $end (
	[ 'found', '', 'none' ],
	(map { [ $_, 'undone', 'none' ] } ('begun', 'prepared on one', 'prepared')),
	(map { [ $_, 'finished', $whole ] } ('decided', 'finished on one', 'finished')),
	(map { [ $_, 'undone', 'none' ] } ('undoing', 'undone on one')),
	[ 'ended', '', $whole ])
{
	my ($step, $outcome, $lines) = @$end;

	leave("left $step", $step);
	is(rows(each_sku("left $step")), $all_rows, "who calls again when one died at \"$step\" gets all");
	leave("died $step", $step);
	is(recovered(), "died $step|$outcome", "recover_orders() of one who died at \"$step\"") if $outcome ne '';
	is(lines_of("died $step"), $lines, 'leaves ' . ($lines eq 'none' ? 'none' : 'all') . ' of it');
}
is(rows('SELECT count(*) FROM alloc.allocations WHERE orderid LIKE \'left %\''), 40, 'each line is there once');
is(fleet_contents("SELECT DISTINCT string_agg(type, ' ' ORDER BY event_id) FROM alloc.event WHERE orderid = 'left decided'", @partitions),
	join("\n", ('held confirmed') x 4), 'each partition tells of it under the same orderid');

# ---- holds of one who died are over ----

leave("expired $_", $_, 'all', 'SET alloc.order_ttl = 1;')
	foreach ('begun', 'prepared on one', 'prepared', 'decided', 'finished on one', 'finished', 'undoing', 'undone on one', 'ended');

ok($partitions[0]->poll_query_until('postgres', "SELECT count(*) = 0 FROM alloc.hold WHERE orderid LIKE 'expired %' AND NOT ended"),
	'they end by themselves');
my %recovered = map { split /\|/ } split(/\n/, rows('SELECT * FROM alloc.recover_orders()'));
is_deeply(\%recovered, {
	(map { ("expired $_" => 'undone') } ('begun', 'prepared on one', 'prepared', 'undoing', 'undone on one')),
	(map { ("expired $_" => 'finished') } ('decided', 'finished on one', 'finished')) },
	'an order that was decided is finished where there is stock');
is(lines_of("expired $_"), $whole, "whole: $_") foreach ('decided', 'finished on one', 'finished', 'ended');
is(lines_of("expired $_"), 'none', "absent: $_") foreach ('begun', 'prepared on one', 'prepared', 'undoing');

# Without stock: of the scarce sku all goes to somebody else.
sub lose
{
	my ($orderid, $step, $mode) = @_;
	my $skus = join(', ', $b, $c, $scarce);

	$router->safe_psql('postgres', "SELECT alloc.allocate('$orderid', '$b', 1)") if $orderid =~ /before/;
	$router->safe_psql('postgres', <<"END");
SET alloc.order_ttl = 1;
SELECT leave_order('$orderid', '{$skus}', '{1, 1, 1}', '$mode', '$step');
END
	$partitions[0]->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM alloc.hold WHERE sku = '$scarce' AND NOT ended)");
	rows("SELECT alloc.allocate('thief of $orderid', '$scarce', available_qty) FROM alloc.stock WHERE sku = '$scarce'");
	return;
}

sub give_back { return rows("SELECT alloc.deallocate(orderid, sku) FROM alloc.allocations WHERE sku = '$scarce' AND orderid LIKE 'thief %'"); }

my @short = ($b => 1, $c => 1, $scarce => 1);
foreach my $step ('decided', 'finished on one')
{
	lose("lost $step", $step, 'all');
	is(rows(order("lost $step", 'all', @short)), "$b|1||not_taken\n$c|1||not_taken\n$scarce|1||out_of_stock",
		"stock that went while the order was left at \"$step\": it is refused");
	is(lines_of("lost $step"), 'none', 'and nothing of it is left');
	give_back();
	is(rows(order("lost $step", 'all', @short)), "$b|1|batch 1|allocated\n$c|1|batch 2|allocated\n$scarce|1|batch 9|allocated",
		'with stock again it is taken');
}
lose('lost to recover', 'decided', 'all');
is(recovered(), 'lost to recover|undone', 'recover_orders() undoes it as well');
is(lines_of('lost to recover'), 'none', 'as a whole');
give_back();
lose('lost partial', 'decided', 'partial');
is(recovered(), 'lost partial|finished', 'a partial order is finished');
is(lines_of('lost partial'), "allocated $b, allocated $c", 'with what there is');
give_back();
lose('lost backorder', 'decided', 'backorder');
is(recovered(), 'lost backorder|finished', 'an order whose rest may wait is finished');
is(rows("SELECT sku FROM alloc.backorders WHERE orderid = 'lost backorder'"), $scarce, 'and what it lacks waits');
give_back();
is(lines_of('lost backorder'), "allocated $b, allocated $c, allocated $scarce", 'until there is stock');

# A line becomes another one in between: its error, and nothing is left.
leave('changed', 'decided');
rows("SELECT alloc.deallocate('changed', '$c'), alloc.allocate('changed', '$c', 7)");
is(sqlstate($router, 'postgres', each_sku('changed') . ';'), 'SK003', 'a line of an order that was decided became another one');
is(lines_of('changed'), "allocated $c", 'which is all that is left');
is(recovered(1), 'nothing', 'and nothing is left to recover');

# Somebody frees lines in between, and is told so: they do not come back.
leave('freed', 'decided');
is(rows("SELECT alloc.release('freed')"), 4, 'an order that was decided is released');
is(recovered(), 'freed|undone', 'it is undone');
is(lines_of('freed'), 'none', 'and no line comes back');
leave('freed one', 'decided');
is(rows("SELECT alloc.deallocate('freed one', '$c')"), 'batch 2', 'a line of one is freed');
is(recovered(), 'freed one|undone', 'it is undone');
is(lines_of('freed one'), 'none', 'as a whole');
leave('freed partly', 'decided', 'partial');
rows("SELECT alloc.deallocate('freed partly', '$c')");
is(recovered(), 'freed partly|finished', 'of an order that may be had in part');
is(lines_of('freed partly'), join(', ', map { "allocated $_" } sort $a, $b, $d), 'the others are taken');

# A handler refuses what was decided: the command fails, and leaves nothing.
$_->safe_psql('postgres', sprintf(<<'SQL', $b)) foreach @partitions, $router;
CREATE FUNCTION refuse(event jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF event->>'sku' = '%s' AND event->>'orderid' LIKE 'refused%%' THEN
		RAISE 'refused';
	END IF;
END
$$;
SQL
rows("SELECT alloc.subscribe('confirmed', 'refuse(jsonb)', 'sync')");
is(sqlstate($router, 'postgres', each_sku("refused $_", $_) . ';'), 'P0001', "a handler refuses, mode $_") foreach ('all', 'partial', 'backorder');
is(sqlstate($router, 'postgres', order('refused rest', 'backorder', $b => 1, $scarce => 1000000, $c => 1) . ';'), 'P0001', 'and with one that would wait');
is(rows("SELECT (SELECT count(*) FROM alloc.allocations WHERE orderid LIKE 'refused%') + (SELECT count(*) FROM alloc.backorders WHERE orderid LIKE 'refused%')"),
	0, 'nothing is left of the orders');
is(recovered(1), 'nothing', 'nor to recover');
rows("SELECT alloc.unsubscribe('confirmed', 'refuse(jsonb)')");

# What the customer holds lasts until the order can be finished.
rows("$hold('short', '$a', 1, '1 hour'), alloc.hold('short', '$b', 1, '10 s')");
$router->safe_psql('postgres', "SELECT leave_order('short', '{$a, $b}', '{1, 1}', 'all', 'prepared')");
is(rows("SELECT min(expires_at) > now() + interval '30 s', max(expires_at) > now() + interval '30 min' FROM alloc.allocations WHERE orderid = 'short'"), 't|t',
	'a short hold lasts as long as those that were made for the order, a long one stays long');
is(recovered(), 'short|undone', 'the client has died');
is(lines_of('short'), join(', ', map { "held $_" } sort $a, $b), 'who held lines still does');
rows("SELECT alloc.release('short')");

# ---- somebody is at work on the order ----

# A psql that goes on while the test does something else; what it is told, and
# what it has told so far.
sub session
{
	my ($node, $commands) = @_;
	my %session = (input => '', output => '', errors => '');

	$session{run} = start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres') ],
		'<', \$session{input}, '>', \$session{output}, '2>', \$session{errors},
		timeout($PostgreSQL::Test::Utils::timeout_default));
	instruct(\%session, $commands);
	return \%session;
}

sub instruct
{
	my ($session, $commands) = @_;

	$session->{input} .= "$commands;\n";
	$session->{run}->pump_nb while length $session->{input};
	return;
}

# Waits for what was told to be done.
sub heard
{
	my ($session) = @_;

	$session->{input} .= "\\echo done\n";
	$session->{run}->pump until $session->{output} =~ s/^done\n//m;
	return $session->{output} =~ s/\n\z//r;
}

sub end { my ($session) = @_; $session->{run}->finish; return; }

sub waiting { my ($node, $sessions) = @_; wait_for_lock($node, $sessions); return; }

# The partition that keeps an order.
sub home { my ($orderid) = @_; return $partitions[ rows("SELECT alloc._home('$orderid', alloc._homes())") ]; }

my $live = session($router, "SELECT begin_order('live', '{$a, $b, $c, $d}', '{1, 1, 1, 1}', 'all', 'prepared') AS attempt \\gset\nSELECT 'prepared'");
is(heard($live), 'prepared', 'somebody is in the middle of an order');
is(rows('SELECT * FROM alloc.recover_orders()'), '', 'recover_orders() leaves it to him');
my $second = session($router, each_sku('live'));
waiting(home('live'), 1);
is(lines_of('live'), $whole =~ s/allocated/held/gr, 'who calls for the same order waits');
instruct($live, "SELECT end_order('live', :attempt, '{$a, $b, $c, $d}', '{1, 1, 1, 1}', 'all', 'ended');
	SELECT alloc_router.unlock_order('live', NULL)");
is(heard($second), $all_rows, 'and gets what there is');
end($_) foreach $live, $second;

# As a client does it: the first waits for a partition's lock.
my $lock = session($partitions[2], 'BEGIN; LOCK alloc.fleet_hold IN SHARE MODE');
heard($lock);
my @twins = (session($router, each_sku('twins')));
waiting($partitions[2], 1);
push @twins, session($router, each_sku('twins'));
waiting(home('twins'), $partitions[2] == home('twins') ? 2 : 1);
is(rows('SELECT count(*) FROM alloc.fleet_order') . rows('SELECT * FROM alloc.recover_orders()'), '0', 'both are left alone')
	if $partitions[2] != home('twins');
instruct($lock, 'COMMIT');
is(heard($_), $all_rows, 'one of two at the same time') foreach @twins;
end($_) foreach @twins, $lock;
is(rows("SELECT count(*), count(DISTINCT sku) FROM alloc.events WHERE orderid = 'twins' AND type = 'confirmed'"), '4|4',
	'there is one allocation of each line');

# ---- calls that are cancelled, killed, late ----

# Blocks one partition, and waits for an order that needs it.
sub blocked
{
	my ($orderid, $settings) = @_;
	my $holder = session($partitions[2], 'BEGIN; LOCK alloc.fleet_hold IN SHARE MODE');

	heard($holder);
	my $client = session($router, ($settings // '') . each_sku($orderid));

	waiting($partitions[2], 1);
	return ($holder, $client);
}

my ($holder, $cancelled) = blocked('cancelled', "SET statement_timeout = '1s'; ");
heard($cancelled);
like($cancelled->{errors}, qr/57014/, 'a call is cancelled');
instruct($holder, 'COMMIT');
heard($holder);
is(rows("SET statement_timeout = '20s'; " . each_sku('cancelled')), $all_rows, 'while its session is idle another one takes the order');
end($_) foreach $holder, $cancelled;

my $killed;
($holder, $killed) = blocked('killed');
rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%''killed''%' AND pid <> pg_backend_pid()");
instruct($holder, 'COMMIT');
heard($holder);
is(recovered(), 'killed|undone', 'a router\'s backend is killed: its order is undone');
ok(settled(), 'and what it had sent too late to be undone');
is(lines_of('killed'), 'none', 'is not held any more');
end($_) foreach $holder, $killed;

# What a partition does when it gets a call late, by one who lost the order.
my $attempt = leave('late finish', 'ended');
rows("SELECT alloc.deallocate('late finish', '$c')");
is(rows("SELECT sku, status FROM alloc_router.finish_order(alloc._homes_of('{$b, $c}'), 'late finish', $attempt, '{$b, $c}', '{1, 1}', 'all', NULL) ORDER BY sku"),
	"$b|allocated\n$c|out_of_stock", 'a call to finish an order that is over tells what there is');
is(lines_of('late finish'), $whole =~ s/allocated $c, //r, 'and does nothing');

sub prepare_late
{
	my ($orderid, $late) = @_;
	return rows("SELECT sku, status FROM alloc_router.prepare_order(alloc._homes_of('{$b, $c}'), '$orderid', $late, '{$b, $c}', '{1, 1}', 'all', '1 hour', NULL) ORDER BY sku");
}

my %late;
foreach my $orderid ('late 1', 'late 2', 'late 3')
{
	$late{$orderid} = leave($orderid, 'begun');
	is(recovered(), "$orderid|undone", 'an order is undone');
	is(eval { prepare_late($orderid, $late{$orderid}); 1 }, undef, 'what was sent to hold its lines comes late');
	like($@, qr/was taken over/, 'and is refused');
}
ok(settled(), 'much later that is forgotten');
is(prepare_late($_, $late{$_}), "$b|held\n$c|held", 'and what comes then holds them') foreach sort keys %late;
is(rows(each_sku('late 1')), $all_rows, 'the order is called again and gets all');
is(rows("SELECT alloc.allocate('late 2', '$c', 1)"), 'batch 2', 'of another one a line is allocated');
ok(settled(), 'recover_orders() frees what is held');
is(join(' - ', map { lines_of("late $_") } 1 .. 3), "$whole - allocated $c - none", 'and what is allocated stays');

my $former = leave('former', 'begun');
is(recovered(), 'former|undone', 'an order is undone');
leave('former', 'prepared');
is(sqlstate($router, 'postgres', "SELECT alloc_router.prepare_order(ARRAY[1], 'former', $former, '{$b}', '{1}', 'all', '1 hour', NULL);"),
	'40001', 'who lost it does not come in between');
is(recovered(), 'former|undone', 'nor is there anything left');
ok(settled(), 'of it');
is(lines_of('former'), 'none', 'at all');

# A confirmation that was decided in time is not refused later.
rows("SELECT alloc.hold('in time', s, 1, '2 seconds') FROM unnest('{$b, $c}'::text[]) s");
$router->safe_psql('postgres', <<"END");
SET alloc.order_ttl = 1;
SELECT leave_order('in time', '{$b, $c}', '{1, 1}', 'all', 'decided');
SELECT pg_sleep(2.2);
END
is(rows("SELECT alloc.confirm('in time')"), 2, 'confirm() that died when it had decided: the next one tells so');
is(lines_of('in time'), "allocated $b, allocated $c", 'and it is so');

# ---- a partition is down ----

$partitions[1]->stop('immediate');
is(sqlstate($router, 'postgres', each_sku('down') . ';'), '08006', 'a partition is down: no order that needs it');
is(fleet_contents("SELECT orderid FROM alloc.allocations WHERE orderid = 'down'", @partitions[ 0, 2, 3 ]), '', 'and the others hold nothing');
$partitions[1]->start;
is(rows(each_sku('down')), $all_rows, 'it is up again: the same order gets all');

leave('half down', 'decided');
$partitions[1]->stop('immediate');
is(sqlstate($router, 'postgres', each_sku('half down') . ';'), '08006', 'an order that was decided waits for a partition that is down');
like(rows('SELECT * FROM alloc.recover_orders()'), qr/^\|left: partition 1: /m, 'recover_orders() says that it is down');
$partitions[1]->start;
is(recovered(), 'half down|finished', 'and is finished then');
is(lines_of('half down'), $whole, 'as a whole');

# ---- the end ----

ok(settled(), 'nothing is kept of orders');
is(fleet_contents('SELECT * FROM alloc.check()', @partitions), '', 'check() finds nothing on any partition');
is(rows('SELECT * FROM alloc.check()'), '', 'nor at the router');
is(fleet_contents("SELECT pid, objid FROM pg_locks WHERE locktype = 'advisory'", @partitions), '', 'nobody works on an order');

$_->stop foreach $router, @partitions;
done_testing();
