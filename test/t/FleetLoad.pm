# Clients of a fleet's router at work while a test does something to its
# partitions.  A call that fails is repeated until it is answered; what was
# answered is written down.

package FleetLoad;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep);

our @EXPORT_OK = qw(add_fleet_stock start_clients start_consumer wait_for_answers
	stop_clients unfinished load_answers);

my $skus = 40;

# Half of the skus have more than anybody wants, in two batches, of which one
# will shrink; the others are soon out of stock.
sub add_fleet_stock
{
	my ($router) = @_;

	$router->safe_psql('postgres', <<"END");
SELECT alloc.add_batch(format('batch %s of %s', n, sku), format('sku %s', sku), 1000000)
  FROM generate_series(1, 2) n, generate_series(1, $skus) sku;
SELECT alloc.add_batch(format('rare %s', sku), format('rare %s', sku), 100)
  FROM generate_series(1, $skus) sku;
END
	return;
}

sub path
{
	my ($name) = @_;

	return "${PostgreSQL::Test::Utils::tmp_check}/$name";
}

# Runs :stmt, and again until it is answered.
sub retry_script
{
	my $path = path('retry.sql');

	append_to_file($path, <<"END") if !-e $path;
:stmt;
\\if :ERROR
\\if `test -e '@{[ path('give_up') ]}' && echo on || echo off`
\\echo given up
\\q
\\endif
SELECT pg_sleep(0.05) \\g /dev/null
\\i $path
\\endif
END
	return $path;
}

# What a client does, as SQL that begins each row of its answer with its kind.
sub calls
{
	my ($load, $client, $n) = @_;
	my $order = "$load->{name}.$client.$n";
	my ($sku, $other, $third) = map { 'sku ' . (1 + ($n * 7 + $client * 11 + $_ * 13) % $skus) } 0 .. 2;
	my $rare = 'rare ' . (1 + ($n * 3 + $client) % $skus);
	my $qty = 1 + $n % 5;
	my @lines = map { "(NULL, '$_', $qty)" } $sku, $other, $third;
	my @hold = map { "SELECT 'held', '$order', '$_', $qty, alloc.hold('$order', '$_', $qty, '1 hour')" } $sku, $other;

	return (
		[ "SELECT 'allocated', '$order', '$sku', $qty, alloc.allocate('$order', '$sku', $qty)" ],
		[ "SELECT 'ordered', '$order', sku, qty, batchref FROM alloc.allocate_order('$order', ARRAY[@{[ join ', ', @lines ]}]::alloc.order_line[])" ],
		[ "SELECT 'ordered', '$order', sku, qty, batchref FROM alloc.allocate_order('$order', ARRAY[$lines[0], (NULL, '$rare', 3)]::alloc.order_line[])" ],
		[ @hold, "SELECT 'confirmed', '$order', '', alloc.confirm('$order'), ''" ],
		[ @hold, "SELECT 'released', '$order', '', alloc.release('$order'), ''" ],
		[
			"SELECT 'allocated', '$order', '$sku', $qty, alloc.allocate('$order', '$sku', $qty)",
			"SELECT 'deallocated', '$order', '$sku', $qty, alloc.deallocate('$order', '$sku')"
		],
		[ "SELECT 'bought', '', 'sku ' || $n % $skus + 1, 10, alloc.add_batch('new $order', 'sku ' || $n % $skus + 1, 10)" ],
		[ "SELECT 'allocated', orderid, sku, qty, batchref FROM alloc.allocate_lines(ARRAY(
			SELECT ROW('$order', 'sku ' || n, 1)::alloc.order_line FROM generate_series(1, $skus) n))" ],
		[ "SELECT 'shrunk', '', '', count(*), '' FROM alloc.change_batch_quantity(format('batch 1 of %s', 1 + $n % $skus), "
			. ($n % 16 ? 1000000 : 5) . ')' ])[ $n % 9 ];
}

sub script
{
	my ($load, $client) = @_;
	my @commands;
	my $retry = retry_script();

	foreach my $n (1 .. 4000)
	{
		foreach my $call (@{ calls($load, $client, $n) })
		{
			push @commands, "\\set stmt '" . ($call =~ s/\n\s*/ /gr =~ s/'/''/gr) . "'", "\\i $retry";
		}
		push @commands, "\\if `test -e '$load->{stop}' && echo on || echo off`", '\q', '\endif'
		  if $n % 10 == 0;
	}
	return join("\n", @commands) . "\n";
}

# Clients of routers, in turn; a name is used once.
sub start_clients
{
	my ($name, $clients, @routers) = @_;
	my $load = { name => $name, stop => path("stop_$name"), clients => [] };

	foreach my $client (1 .. $clients)
	{
		my $path = path("client_$name.$client");

		append_to_file("$path.sql", script($load, $client));
		push @{ $load->{clients} }, {
			path => $path,
			handle => start(
				[ 'psql', '-XAtq', '-f', "$path.sql", '-d', $routers[ $client % @routers ]->connstr('postgres') ],
				'>', "$path.out", '2>', "$path.err") };
	}
	return $load;
}

# A process that fetches for a consumer, over and over; a fetch in five is
# rolled back.  What it was given is in table had of the router.
sub start_consumer
{
	my ($load, $router, $consumer) = @_;
	my $pid = fork // die "fork: $!";
	my $n = 0;

	if ($pid)
	{
		$load->{consumer} = $pid;
		return;
	}
	open STDERR, '>>', path("consumer_$load->{name}.err");
	open STDOUT, '>', '/dev/null';
	my $parent = getppid;
	until (-e "$load->{stop}_consumer" || getppid != $parent)
	{
		my $end = ++$n % 5 ? 'COMMIT' : 'ROLLBACK';

		system('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $router->connstr('postgres'), '-c', 'BEGIN', '-c',
			"INSERT INTO had (consumer, event_id, type, sku, orderid)
			 SELECT '$consumer', event_id, type, sku, orderid FROM alloc.fetch_events('$consumer', 300)", '-c', $end);
		sleep 0.02;
	}
	exec 'true';
}

# Lets the clients work until each has had so many more answers, or nearly.
sub wait_for_answers
{
	my ($load, $answers) = @_;
	my @files = map { "$_->{path}.out" } @{ $load->{clients} };
	my %size = map { $_ => -s $_ // 0 } @files;
	my $tries = 20 * $PostgreSQL::Test::Utils::timeout_default;

	while (grep { (-s $_ // 0) < $size{$_} + 30 * $answers } @files)
	{
		die "the clients do not work, see @files" if $tries-- == 0;
		sleep 0.05;
	}
	return;
}

# The clients end when they have the answer to their last call.
sub stop_clients
{
	my ($load) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	append_to_file($load->{stop}, '');
	foreach my $client (@{ $load->{clients} })
	{
		# One that has ended is not to be asked again.
		while (time < $end && eval { $client->{handle}->pumpable && ($client->{handle}->pump_nb, 1) })
		{
			sleep 0.02;
		}
	}
	append_to_file(path('give_up'), '') if time >= $end;
	$_->{handle}->finish foreach @{ $load->{clients} };
	return;
}

# Clients that were not answered to the end.
sub unfinished
{
	my ($load) = @_;

	return join ' ', grep { slurp_file("$_.out") =~ /^given up$/m || slurp_file("$_.err") =~ /connection to server was lost/ }
	  map { $_->{path} } @{ $load->{clients} };
}

# Puts what the clients were told into table answer of a database, which is
# made.
sub load_answers
{
	my ($load, $node) = @_;
	my $file = path("answers_$load->{name}");

	append_to_file($file, slurp_file("$_->{path}.out")) foreach @{ $load->{clients} };
	$node->safe_psql('postgres', <<"END");
CREATE TABLE IF NOT EXISTS answer (n bigserial, kind text, orderid text, sku text, qty bigint, batchref text);
\\copy answer (kind, orderid, sku, qty, batchref) FROM '$file' (DELIMITER '|', NULL '')
END
	return;
}

1;
