# The server is killed under load, three times.  After each recovery all that
# was acknowledged is there, and stock, lines and log agree.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems);
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Test::More;

my $clients = 4;
my $skus = 3;

# Round 3 is about that; the test library turns it off.
my $node = new_node('main', "restart_after_crash = on\n");
my $dir = $PostgreSQL::Test::Utils::tmp_check;

$node->safe_psql('postgres', "SELECT alloc.add_batch('batch ' || n || ' of ' || sku, 'sku ' || sku, 100000)
	FROM generate_series(1, 2) n, generate_series(1, $skus) sku");

# What a client does: each result that it has read was committed.  One in
# four lines is freed again, and a batch shrinks and grows, so that its lines
# move.
sub script
{
	my ($round, $client) = @_;
	my @commands;

	foreach my $n (1 .. 20000)
	{
		my $order = "order $round.$client.$n";
		my $sku = 'sku ' . (1 + $n % $skus);
		my $qty = 1 + $n % 7;

		push @commands, "SELECT 'allocated', '$order', $qty, alloc.allocate('$order', '$sku', $qty);";
		push @commands, "SELECT 'deallocated', '$order', $qty, alloc.deallocate('$order', '$sku');"
			if $n % 4 == 0;
		push @commands,
			"SELECT FROM alloc.change_batch_quantity('batch 1 of 1', " . ($n % 40 ? 5 : 100000) . ');'
			if $client == 1 && $n % 20 == 0;
	}
	return join("\n", @commands) . "\n";
}

sub run_clients
{
	my ($round) = @_;
	my @handles;

	foreach my $client (1 .. $clients)
	{
		my $name = "$dir/client_$round.$client";

		append_to_file("$name.sql", script($round, $client));
		push @handles, start(
			[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', "$name.sql",
				'-d', $node->connstr('postgres') ],
			'>', "$name.out", '2>', "$name.err");
	}
	return @handles;
}

sub count_events
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM alloc.event');
}

# Lets the clients work until each has had its turn many times.
sub wait_for_work
{
	my ($round) = @_;

	$node->poll_query_until('postgres', <<"END") or die 'the clients do not work';
SELECT count(*) = $clients
  FROM (SELECT split_part(orderid, '.', 2) AS client
          FROM alloc.event WHERE orderid LIKE 'order $round.%'
         GROUP BY 1 HAVING count(*) >= 100) busy
END
	return;
}

sub wait_for_recovery
{
	$node->poll_query_until('postgres', 'SELECT true') or die 'no recovery';
	return;
}

# Not by waitpid(): they are no children of ours.
sub wait_for_end
{
	my (@pids) = @_;
	my $tries = 20 * $PostgreSQL::Test::Utils::timeout_default;

	while (kill(0, @pids) > 0)
	{
		die "still there: @pids" if $tries-- == 0;
		select(undef, undef, undef, 0.05);
	}
	return;
}

# Puts what the clients have read into a table beside what the log says.
sub lost
{
	my ($round) = @_;
	my $acknowledged = '';
	my $sessions = 0;

	foreach my $client (1 .. $clients)
	{
		my $read = slurp_file("$dir/client_$round.$client.out");

		# The last line is incomplete if psql was cut off in the middle of it.
		$read =~ s/[^\n]*\z//;
		$acknowledged .= $read;
		# Nothing but the crash has ended it.
		$sessions++ if $read =~ /^allocated/m
			&& slurp_file("$dir/client_$round.$client.err") =~ /connection/;
	}
	is($sessions, $clients, "round $round: all clients were at work until then");

	append_to_file("$dir/acknowledged.$round", $acknowledged);
	return $node->safe_psql('postgres', <<"END");
CREATE TEMP TABLE acknowledged (type text, orderid text, qty bigint, batchref text);
\\copy acknowledged FROM '$dir/acknowledged.$round' (DELIMITER '|', NULL '')
SELECT a.* FROM acknowledged a
  LEFT JOIN alloc.event e USING (type, orderid, qty, batchref)
 WHERE e.event_id IS NULL LIMIT 10;
END
}

my %kill = (
	1 => [ 'immediate shutdown', sub {
			$node->stop('immediate');
			$node->start;
		} ],
	2 => [ 'kill -9 of the postmaster', sub {
			my @pids = split(/\n/, $node->safe_psql('postgres',
					'SELECT pid FROM pg_stat_activity'));
			push @pids, slurp_file($node->data_dir . '/postmaster.pid') =~ /\A(\d+)/;
			$node->kill9;
			# Until its children have noticed, their shared memory is in use.
			wait_for_end(@pids);
			$node->start;
		} ],
	3 => [ 'kill -9 of a backend', sub {
			my $pid = $node->safe_psql('postgres', <<'END');
SELECT pid FROM pg_stat_activity
 WHERE query LIKE '%alloc.allocate(%' AND pid <> pg_backend_pid() LIMIT 1
END
			kill('KILL', $pid) == 1 or die "no process $pid";
		} ]);

foreach my $round (1 .. 3)
{
	my ($how, $kill) = @{ $kill{$round} };
	my @clients = run_clients($round);

	wait_for_work($round);
	$kill->();
	# They end by the error, or they would still be at work.
	$_->finish foreach @clients;
	wait_for_recovery();
	is(lost($round), '', "round $round, $how: nothing acknowledged is lost");
	is(problems($node, 'postgres'), '', "round $round, $how: sound");

	my $events = count_events();
	is($node->safe_psql('postgres', "SELECT alloc.allocate('after $round', 'sku 2', 1)"),
		'batch 1 of 2', "round $round, $how: goes on allocating");
	is(count_events(), $events + 1, "round $round, $how: with one more event");
}

$node->stop;
done_testing();
