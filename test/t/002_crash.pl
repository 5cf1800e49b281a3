# The server is killed under load: ten times the whole of it, once one of its
# backends, and once it is told to stop at once.  After each recovery all that
# was acknowledged is there, and stock, lines and log agree.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocLoad qw(add_stock start_load wait_for_work finish_load errors lost);
use AllocTest qw(new_node problems);
use PostgreSQL::Test::Utils;
use Test::More;

# The kill of a backend is about that; the test library turns it off.
my $node = new_node('main', <<'END');
restart_after_crash = on
log_statement = none
END

add_stock($node);

sub count_events
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM alloc.event');
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

sub kill_server
{
	my @pids = split(/\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity'));

	push @pids, slurp_file($node->data_dir . '/postmaster.pid') =~ /\A(\d+)/;
	$node->kill9;
	# Until its children have noticed, their shared memory is in use.
	wait_for_end(@pids);
	return $node->start;
}

sub stop_server
{
	$node->stop('immediate');
	return $node->start;
}

sub kill_backend
{
	my $pid = $node->safe_psql('postgres', <<'END');
SELECT pid FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1
END

	return kill('KILL', $pid) == 1 || die "no process $pid";
}

my @rounds = (
	[ 'immediate shutdown', \&stop_server ],
	[ 'kill -9 of a backend', \&kill_backend ],
	([ 'kill -9 of the postmaster', \&kill_server ]) x 10);

my $round = 0;
foreach (@rounds)
{
	my ($how, $kill) = @$_;
	my $clients = 4 + $round++ % 5;
	my $load = start_load($node, $round, $clients);

	$how = "round $round, $how of $clients clients";
	wait_for_work($load);
	$kill->();
	# They end by the error, or they would still be at work.
	is(finish_load($load), $clients, "$how: all were at work until then");
	is(errors($load), '', "$how: without any error");
	$node->poll_query_until('postgres', 'SELECT true') or die 'no recovery';
	is(lost($node, $load), '', "$how: nothing acknowledged is lost");
	is(problems($node, 'postgres'), '', "$how: sound");
	is($node->safe_psql('postgres', 'SELECT * FROM alloc.check()'), '',
		"$how: sound, check() says as well");

	my $events = count_events();
	is($node->safe_psql('postgres', "SELECT alloc.allocate('after $round', 'sku 2', 1)"),
		'batch 1 of 2', "$how: goes on allocating");
	is(count_events(), $events + 1, "$how: with one more event");
}

$node->stop;
done_testing();
