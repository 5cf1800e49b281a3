# DROP EXTENSION and CREATE EXTENSION, again and again, under clients that
# allocate and handlers that work: clients get clean errors, and afterwards the
# relay and the handlers are there again.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems absurd);
use IPC::Run qw(start finish);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', <<'END');
shared_preload_libraries = 'alloc'
max_worker_processes = 20
max_connections = 60
alloc.handler_retry_delay = 100
log_error_verbosity = verbose
log_line_prefix = '%m [%p] %b '
END

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

my $set_up = <<'END';
CREATE EXTENSION alloc;
SELECT alloc.subscribe('allocated', 'hear(jsonb)');
SELECT alloc.subscribe('allocated', 'pg_catalog.jsonb_typeof(jsonb)', 'sync');
SELECT alloc.add_batch('b' || n, 's' || n, 1000000) FROM generate_series(1, 10) n;
END
sql('CREATE TABLE heard (event jsonb); CREATE FUNCTION hear(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO heard VALUES ($1) $$');

# pgbench gives a client up with its first error; psql does not.
my $dir = ${PostgreSQL::Test::Utils::tmp_check};
my @clients;
my $stop = "$dir/stop";
foreach my $client (1 .. 8)
{
	my $script = "$dir/client_$client.sql";
	my $commands = join('', map {
			my $sku = 's' . (1 + ($client * 7 + $_ * 3) % 10);
			$_ % 10 == 9 ? "SELECT count(*) FROM alloc.allocate_lines('{\"(l$client.$_,$sku,1)\",\"(m$client.$_,s1,2)\"}');\n"
			  : $_ % 10 == 8 ? "SELECT alloc.deallocate('o$client.' || $_ - 8, '$sku');\n"
			  : $_ % 10 == 7 ? "BEGIN; SELECT alloc.allocate('x$client.$_', '$sku', 1); SELECT alloc.allocate('y$client.$_', '$sku', 1); COMMIT;\n"
			  : $_ % 10 == 6 ? "SELECT count(*) FROM alloc.stats;\n"
			  : $_ % 10 == 5 ? "SELECT count(*) FROM alloc.batches;\n"
			  : "SELECT alloc.allocate('o$client.$_', '$sku', 1);\n" } 0 .. 199);

	unlink $script;
	append_to_file($script, $commands);
	push @clients, start(
		[ 'sh', '-c', "until [ -e $stop ]; do psql -Xq -d \"\$1\" -f $script; done", 'sh',
			$node->connstr('postgres') . ' options=\'-c statement_timeout=60s\'' ],
		'>', '/dev/null', '2>', "$dir/client_$client.err");
}

# It may be chosen to end a deadlock: it needs all locks, and clients hold some.
sub drop_extension
{
	my ($commands) = @_;
	my ($status, $errors);

	for (1 .. 20)
	{
		($status, undef, $errors) = $node->psql('postgres', "SET statement_timeout = '60s'; $commands", on_error_stop => 1);
		return if $status == 0;
		last if $errors !~ /deadlock detected/;
	}
	die "cannot drop: $errors";
}

my $hung = 0;
foreach my $round (1 .. 15)
{
	drop_extension($round % 5 == 0 ? "BEGIN; DROP EXTENSION alloc; $set_up COMMIT" : 'DROP EXTENSION alloc');
	sql("BEGIN; $set_up COMMIT") if $round % 5;
	$node->poll_query_until('postgres', 'SELECT count(*) > 50 FROM alloc.event') or $hung++;
}
append_to_file($stop, '');
finish($_) foreach @clients;
is($hung, 0, 'after each CREATE EXTENSION clients allocate');
is(join("\n", map { slurp_file("$dir/client_$_.err") =~ /(connection to server was lost.*|server closed.*)/ } 1 .. 8), '', 'no client lost its connection');

# What the clients were told, by SQLSTATE
my %seen;
my $log = slurp_file($node->logfile);
# PostgreSQL's own parser may meet a type or view that is just being dropped.
# (One regular expression for all lines would look through all the rest for each.)
$log = join "\n", grep { !/could not open relation with OID \d+ at character \d+$/ } split /\n/, $log;
$seen{"$1 $2"}++ while $log =~ /(?:ERROR|FATAL|PANIC): +(\w{5}): ([^\n]*)/g;
my %states;
foreach my $error (keys %seen)
{
	my ($state, $message) = split / /, $error, 2;
	$states{$state} += $seen{$error};
	diag("$seen{$error} x $error") if $state =~ /^XX/;
}
note(join(', ', map { "$_: $states{$_}" } sort keys %states));
# No such function, table, schema; unknown sku; in a failed transaction;
# deadlock; and the relay gives up waiting for a lock after a second
my %clean = map { $_ => 1 } qw(42883 42P01 3F000 SK001 25P02 40P01 55000 55P03);
is(join(', ', grep { !$clean{$_} } sort keys %states), '', 'clients get clean errors');
unlike($log, qr/cache lookup failed|could not open relation|terminated by signal|PANIC/, 'no internal error');

# Afterwards

my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN alloc_batch_created');
sql("SELECT alloc.add_batch('last', 'last', 7), alloc.allocate('last', 'last', 1)");
ok($node->poll_query_until('postgres', q{SELECT value = 0 FROM alloc.stats WHERE name = 'relay_pending'}), 'the relay is there again');
like($listener->query_safe('SELECT 1'), qr/"alloc_batch_created" with payload .*"batchref": "last"/, 'and sends');
$listener->quit;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM heard WHERE event->>'orderid' = 'last'}), 'the handler is there again');
ok($node->poll_query_until('postgres', q{SELECT value = 0 FROM alloc.stats WHERE name = 'handler_pending'}), 'and handles all');
is(sql(q{SELECT count(*) FROM alloc.dead_letters}), '0', 'no dead letter');
# An anti-join would take hours if autovacuum saw the log when it was new.
is(sql(q{SELECT count(*) FROM (SELECT payload FROM alloc.events WHERE type = 'allocated' EXCEPT SELECT event FROM heard) e}), '0', 'each event of the last extension was handled');
is(problems($node, 'postgres') . absurd($node, 'postgres'), '', 'all is sound');

$node->stop;
done_testing();
