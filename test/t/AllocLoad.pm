# Clients at work while a test does something to their server.  Each writes
# down what it has read: that was committed, whatever comes after.

package AllocLoad;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep);

our @EXPORT_OK = qw(add_stock start_load wait_for_work wait_for_errors stop_load
	finish_load errors lost unread);

my $skus = 3;

# Before the first load: two batches for each sku, that do not run out.
sub add_stock
{
	my ($node) = @_;

	$node->safe_psql('postgres', <<"END");
SELECT alloc.add_batch('batch ' || n || ' of ' || sku, 'sku ' || sku, 1000000000)
  FROM generate_series(1, 2) n, generate_series(1, $skus) sku
END
	return;
}

# Known only after this file was compiled.
sub path
{
	my ($name) = @_;

	return "${PostgreSQL::Test::Utils::tmp_check}/$name";
}

# What a client does: a third of the orders by allocate_lines(), the others by
# allocate(); some lines are freed again.  The first client has a batch shrink
# and grow, so that its lines move.  Now and then they look whether to stop.
sub script
{
	my ($load, $client) = @_;
	my @commands = '\set VERBOSITY sqlstate';

	foreach my $n (1 .. 10000)
	{
		my $order = "order $load->{name}.$client.$n";
		my $sku = 'sku ' . (1 + $n % $skus);
		my $qty = 1 + $n % 7;

		push @commands, $n % 3 == 0
		  ? "SELECT 'allocated', * FROM alloc.allocate_lines(ARRAY(
				SELECT ROW('$order', 'sku ' || n, $qty)::alloc.order_line FROM generate_series(1, $skus) n));"
		  : "SELECT 'allocated', '$order', '$sku', $qty, alloc.allocate('$order', '$sku', $qty);";
		push @commands,
			"SELECT 'deallocated', '$order', '$sku', $qty, batchref
			   FROM alloc.deallocate('$order', '$sku') batchref WHERE batchref IS NOT NULL;"
		  if $n % 4 == 0;
		push @commands, 'SELECT side.* FROM alloc.change_batch_quantity('
			. "'batch 1 of 1', " . ($n % 40 ? 5 : 1000000000) . ") moved,
			LATERAL (VALUES ('deallocated', orderid, sku, qty, old_batchref),
			                ('allocated', orderid, sku, qty, new_batchref)) side;"
		  if $client == 1 && $n % 20 == 0;
		push @commands, "\\set stop `test -e '$load->{stop}' && echo on || echo off`",
			'\if :stop', '\q', '\endif'
		  if $n % 50 == 0;
	}
	return join("\n", @commands) . "\n";
}

# Starts clients; a name is used once.
sub start_load
{
	my ($node, $name, $clients) = @_;
	my $load = {
		name => $name,
		stop => path("stop_$name"),
		clients => [],
		since => $node->safe_psql('postgres', 'SELECT max(event_id) FROM alloc.event') };

	foreach my $client (1 .. $clients)
	{
		my $path = path("client_$name.$client");

		append_to_file("$path.sql", script($load, $client));
		push @{ $load->{clients} }, {
			path => $path,
			handle => start(
				[ 'psql', '-XAtq', '-f', "$path.sql", '-d', $node->connstr('postgres') ],
				'>', "$path.out", '2>', "$path.err") };
	}
	return $load;
}

# Lets the clients work until each has read some more, a hundred rows or so.
sub wait_for_work
{
	my ($load) = @_;

	return wait_for_growth($load, 'out', 8192);
}

# Lets the clients work until each has met some more errors.
sub wait_for_errors
{
	my ($load) = @_;

	return wait_for_growth($load, 'err', 200);
}

sub wait_for_growth
{
	my ($load, $what, $bytes) = @_;
	my @files = map { "$_->{path}.$what" } @{ $load->{clients} };
	my %size = map { $_ => -s $_ } @files;
	my $tries = 20 * $PostgreSQL::Test::Utils::timeout_default;

	while (grep { -s $_ < $size{$_} + $bytes } @files)
	{
		die "the clients do not work, see @files" if $tries-- == 0;
		sleep 0.05;
	}
	return;
}

# The clients end when they have read the answer to their last command.
sub stop_load
{
	my ($load) = @_;

	append_to_file($load->{stop}, '');
	return finish_load($load);
}

# Waits for clients whose server has gone.  Returns how many have lost it.
sub finish_load
{
	my ($load) = @_;

	foreach my $client (@{ $load->{clients} })
	{
		$client->{handle}->finish;
	}
	return scalar grep { slurp_file("$_->{path}.err") =~ /connection to server was lost/ }
	  @{ $load->{clients} };
}

# The SQLSTATEs of the errors that the clients have met, each once.
sub errors
{
	my ($load) = @_;
	my %seen;

	foreach my $client (@{ $load->{clients} })
	{
		$seen{$_} = 1 foreach slurp_file("$client->{path}.err") =~ /ERROR:  (\w+)/g;
	}
	return join ' ', sort keys %seen;
}

# What the clients have read and the log does not tell.
sub lost
{
	my ($node, $load) = @_;

	return compare($node, $load, 'acknowledged', 'told');
}

# What the log tells of the clients and they have not read: after a crash it
# may be the last command of each, else there is nothing.
sub unread
{
	my ($node, $load) = @_;

	return compare($node, $load, 'told', 'acknowledged');
}

sub compare
{
	my ($node, $load, $left, $right) = @_;
	my $file = path("acknowledged_$load->{name}");

	unlink $file;
	foreach my $client (@{ $load->{clients} })
	{
		append_to_file($file, slurp_file("$client->{path}.out"));
	}
	return $node->safe_psql('postgres', <<"END");
CREATE TEMP TABLE acknowledged (type text, orderid text, sku text, qty bigint, batchref text);
\\copy acknowledged FROM '$file' (DELIMITER '|', NULL '')
CREATE TEMP VIEW told AS
	SELECT type, orderid, sku, qty, batchref FROM alloc.event
	 WHERE event_id > $load->{since} AND type IN ('allocated', 'deallocated');
TABLE $left EXCEPT ALL TABLE $right LIMIT 10;
END
}

1;
