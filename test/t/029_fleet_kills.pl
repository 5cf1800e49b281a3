# Random orders by many clients of a fleet, whose partitions are stopped hard and
# started in turn, and whose router's backends are killed.  Afterwards every
# order is whole or absent, as its client was told; nothing was oversold, and
# nothing is held or kept for ever.
#
#   FLEET_SECONDS=300 test/run tap      the full run; 20 without

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocFleet qw(new_partition new_router fleet_contents);
use AllocTest qw(differences);
use IPC::Run qw(run start timeout);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{FLEET_SECONDS} // 20;
my $clients = 16;
my $skus = 40;
my %did = map { $_ => 0 }
	('stops', 'looks', 'orders recovered', 'partitions backends killed', 'routers backends killed');

my @partitions = map { new_partition("partition_$_", <<'END') } 0 .. 3;
shared_preload_libraries = 'alloc'
deadlock_timeout = 50ms
log_statement = none
END
my $router = new_router('router', @partitions);

# Of each sku two batches, which are not enough for all that is wanted.
rows("SELECT alloc.add_batch('batch ' || n || ' of ' || sku, 'sku ' || sku, 25 * n, CASE n WHEN 2 THEN date '2030-01-01' END)
        FROM generate_series(1, 2) n, generate_series(1, $skus) sku");
# Holds that the protocol takes are over soon.
rows('ALTER DATABASE postgres SET alloc.order_ttl = 3');

sub rows
{
	my ($query) = @_;
	return $router->safe_psql('postgres', $query);
}

# Kills backends that are at work for an order, and counts them.
my $kill = <<'END';
SELECT 'killed ' || count(pg_terminate_backend(pid)) FROM (
	SELECT pid FROM pg_stat_activity
	 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state = 'active'
	   AND query LIKE '%\_order%'
	 ORDER BY random() LIMIT 2) AS two;
END

# One look at a partition by one snapshot: what cannot be.  Then some of its
# backends are killed.  A server that is not there shows nothing.
sub look
{
	my ($node) = @_;
	my ($output, $errors) = ('', '');
	my $look = <<'END';
SELECT b.ref, b.purchased_qty, b.available_qty, b.allocated_qty, a.qty
  FROM alloc.batches b
  LEFT JOIN (SELECT batchref AS ref, sum(qty) AS qty FROM alloc.allocations GROUP BY 1) a USING (ref)
 WHERE b.available_qty < 0 OR b.allocated_qty < 0 OR b.shipped_qty < 0
    OR coalesce(a.qty, 0) <> b.allocated_qty
    OR coalesce(a.qty, 0) + b.shipped_qty + b.available_qty <> b.purchased_qty
END
	# No input: see answers() of AllocTest.
	run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $look, '-c', $kill ],
		'<', \undef, '>', \$output, '2>', \$errors) or return undef;
	$did{looks}++;
	$output =~ s/^killed (\d+)\n\z//m and $did{'partitions backends killed'} += $1;
	return $output;
}

# ---- the run ----

my ($told, $errors) = ('', '');
my $run = start(
	[ '/usr/bin/python3', "$FindBin::RealBin/fleet_clients.py", $router->connstr('postgres'), $seconds, $clients, $skus ],
	'<', \undef, '>', \$told, '2>', \$errors, timeout($seconds + 10 * $PostgreSQL::Test::Utils::timeout_default));
my $until = time + $seconds;
my @wrong;

while (time < $until)
{
	my $victim = $partitions[ $did{stops} % @partitions ];

	$victim->stop('immediate');
	$did{stops}++;
	meanwhile(0.5 + rand(1));
	$victim->start;
	meanwhile(2 + rand(1));
}

# Goes on with all else for some seconds.
sub meanwhile
{
	my ($for) = @_;
	my $end = time + $for;

	do
	{
		$run->pump_nb if $run->pumpable;
		my (undef, $outcomes) = $router->psql('postgres', 'SELECT outcome FROM alloc.recover_orders()');

		$did{'orders recovered'} += () = $outcomes =~ /^(?:finished|undone)$/mg;
		push @wrong, grep { defined && $_ ne '' } map { look($_) } @partitions;
		$did{'routers backends killed'} += $1 if rows($kill) =~ /(\d+)/;
	} while (time < $end);
	return;
}

ok($run->finish, 'the clients got their answers');
is($errors, '', 'and nothing else');
is(join("\n", @wrong), '', 'at each look each unit was available, shipped or on one line');

# ---- what is left ----

my $tries = 10 * $PostgreSQL::Test::Utils::timeout_default;
my $kept;
do
{
	sleep 0.1;
	$did{'orders recovered'} += () = rows('SELECT * FROM alloc.recover_orders()') =~ /\|/g;
	$kept = fleet_contents(<<'END', @partitions);
SELECT orderid FROM alloc.fleet_order UNION ALL SELECT orderid FROM alloc.fleet_hold
UNION ALL SELECT orderid FROM alloc.hold WHERE NOT ended AND expires_at < now() + interval '4 seconds'
END
} while ($kept ne '' && $tries-- > 0);
is($kept, '', 'nothing is kept of orders, and no hold for longer than it lasts');

my (%told, %errors, %left);
my $calls = 0;
foreach my $line (map { decode_json($_) } split /\n/, $told)
{
	if (defined $line->{orderid})
	{
		$told{ $line->{orderid} } = $line;
	}
	else
	{
		$calls += $line->{calls};
		$errors{$_} += $line->{errors}{$_} foreach keys %{ $line->{errors} };
	}
}

# Skus of each order, by what the partitions say: those allocated or shipped,
# and those that wait; backorders that were waiting may have been served.
my %there;
foreach my $row (split /\n/, fleet_contents("SELECT orderid, sku FROM alloc.allocation WHERE expires_at IS NULL", @partitions))
{
	my ($orderid, $sku) = split /\|/, $row;
	push @{ $there{$orderid} }, $sku;
}

# Of what was told and what is there: each but the backorders, which come later.
# Of an order that its client has left there is all or nothing.
sub difference
{
	my ($told) = @_;
	my %waits = map { $_ => 1 } @{ $told->{waits} // [] };
	my $said = join(', ', sort @{ $told->{skus} });
	my $has = join(', ', sort grep { !$waits{$_} } @{ $there{ $told->{orderid} } // [] });

	$left{$has eq ''}++ if $told->{kind} eq 'left';
	return $said eq $has || $told->{kind} eq 'left' && $has eq '' ? () : "$told->{orderid} ($told->{kind}): told \"$said\", there is \"$has\"";
}

my @differences = map { difference($told{$_}) } sort keys %told;
is(join("\n", @differences[ 0 .. ($#differences < 9 ? $#differences : 9) ]), '',
	'every order is as its client was told: whole, absent, or the part of it');
is(join(', ', grep { !$told{$_} } sort keys %there), '', 'there are no others');
is(join('', map { differences($_, 'postgres') } @partitions), '', 'check() finds nothing on any partition, replay() shows what is there');
is(rows('SELECT * FROM alloc.check()'), '', 'nor at the router');
is(fleet_contents("SELECT pid, objid FROM pg_locks WHERE locktype = 'advisory'", @partitions), '', 'nobody works on an order');
is(fleet_contents("SELECT pid, query FROM pg_stat_activity WHERE state <> 'idle' AND backend_type = 'client backend' AND pid <> pg_backend_pid()", $router, @partitions),
	'', 'no session is stuck');
my %kinds;
$kinds{ $_->{kind} }++ foreach values %told;
cmp_ok($kinds{$_} // 0, '>', 0, "there are orders $_") foreach ('all', 'refused', 'partial', 'backorder', 'cancelled', 'confirmed');
cmp_ok($did{$_}, '>', 0, $_) foreach grep { !/recovered/ } sort keys %did;

my %count = (%did, calls => $calls, orders => scalar keys %told);
note(join(', ', map { "$_: $count{$_}" } sort keys %count));
note('orders: ' . join(', ', map { "$_ $kinds{$_}" } sort keys %kinds));
note('errors: ' . join(', ', map { "$_ $errors{$_}" } sort keys %errors));
note('of those that were left there are ' . ($left{''} // 0) . ' whole, ' . ($left{1} // 0) . ' absent');

$_->stop foreach $router, @partitions;
done_testing();
