# Backends are killed under load, again and again, while three consumers fetch,
# a client listens and a transaction stays open.  Each consumer has every
# committed event exactly once, and none that was rolled back; the listener,
# while connected, every event, in causal order.
#
# READERS_CRASH_SECONDS (15) is how long that goes on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems);
use IPC::Run qw(start finish);
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $seconds = $ENV{READERS_CRASH_SECONDS} // 15;
my $dir = $PostgreSQL::Test::Utils::tmp_check;
my @consumers = qw(one two three);
my @types = qw(batch_created batch_quantity_changed allocated deallocated out_of_stock);

my $listen = "$dir/listen_crash";
my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
sub configured { my ($what) = @_; chomp(my $path = `$pg_config --$what`); return $path; }
system('cc', '-std=gnu99', '-Wall', '-Wextra', '-Werror', '-o', $listen,
	"$FindBin::RealBin/listen.c", '-I' . configured('includedir'),
	'-L' . configured('libdir'), '-lpq') == 0
  or die 'cannot compile listen.c';

my $node = new_node('main', <<'END');
shared_preload_libraries = 'alloc'
restart_after_crash = on
fsync = on
END

$node->safe_psql('postgres', <<"END");
SELECT alloc.add_batch(format('batch %s', n), format('sku %s', n % 50), 1000000) FROM generate_series(1, 100) n;
SELECT alloc.create_consumer(name, 'beginning') FROM unnest('{@{[ join ',', @consumers ]}}'::text[]) name;
CREATE TABLE had (n bigserial, consumer text, event_id bigint, type text, sku text);
END

# One transaction in four is rolled back, one in four keeps its events back for
# a while, some by way of savepoints.
my %scripts = (
	commit => q{
\set n random(1, 1000000000000)
\set sku random(0, 49)
SELECT alloc.allocate(format('order %s', :n), format('sku %s', :sku), 1);
},
	rollback => q{
\set n random(1, 1000000000000)
\set sku random(0, 49)
BEGIN;
SELECT alloc.allocate(format('undone %s', :n), format('sku %s', :sku), 1);
ROLLBACK;
},
	late => q{
\set n random(1, 1000000000000)
\set sku random(0, 49)
BEGIN;
SELECT alloc.allocate(format('late %s', :n), format('sku %s', :sku), 1);
SAVEPOINT s;
SELECT alloc.allocate(format('undone late %s', :n), format('sku %s', :sku), 1);
ROLLBACK TO s;
\sleep 30 ms
SELECT alloc.deallocate(format('late %s', :n), format('sku %s', :sku));
COMMIT;
});
foreach my $name (keys %scripts)
{
	append_to_file("$dir/readers_$name.sql", $scripts{$name});
}

# What it keeps on doing until it is told to stop, in a process of its own,
# whether the server is there or not.
sub forever
{
	my ($what) = @_;
	my $pid = fork // die "fork: $!";

	return $pid if $pid;
	my $stop = 0;
	local $SIG{TERM} = sub { $stop = 1 };
	open STDERR, '>>', "$dir/readers.err";
	open STDOUT, '>', '/dev/null';
	until ($stop)
	{
		$what->();
		sleep 0.05;
	}
	exec 'true';
}

sub load
{
	system('pgbench', '-n', '-c', '16', '-j', '2', '-T', '2',
		(map { ('-f', "$dir/readers_$_->[0].sql\@$_->[1]") } [ commit => 2 ], [ rollback => 1 ], [ late => 1 ]),
		$node->connstr('postgres'));
	return;
}

# What a consumer does with its events is in the transaction that takes them.
sub fetch
{
	my ($consumer, $max) = @_;

	system('psql', '-Xq', '-d', $node->connstr('postgres'), '-c',
		"INSERT INTO had (consumer, event_id, type, sku)
		 SELECT '$consumer', event_id, type, sku FROM alloc.fetch_events('$consumer', $max)");
	return;
}

my $connection = 0;

sub listening
{
	my $file = "$dir/heard." . ++$connection;

	system("'$listen' '" . $node->connstr('postgres') . "' " . join(' ', map { "alloc_$_" } @types) . " >'$file'");
	return;
}

sub keep_open
{
	system('psql', '-Xq', '-d', $node->connstr('postgres'), '-c',
		"BEGIN; SELECT alloc.allocate('open ' || pg_backend_pid() || clock_timestamp(), 'sku 1', 1); SELECT pg_sleep(3600)");
	return;
}

my @workers = (
	forever(\&load), forever(\&listening), forever(\&keep_open),
	(map { my $n = $_; forever(sub { fetch($consumers[$n], (100, 777, 100000)[$n]) }) } 0 .. 2),
	forever(sub { fetch('one', 50) }));

# Some backend, or a worker.
my $end = time + $seconds;
my $kills = 0;
while (time < $end)
{
	sleep 2 + rand 2;
	my ($status, $pid) = $node->psql('postgres', q{
		SELECT pid FROM pg_stat_activity
		 WHERE backend_type IN ('client backend', 'alloc relay') AND pid <> pg_backend_pid()
		 ORDER BY random() LIMIT 1}, timeout => 10);
	next if $status != 0 || !$pid;
	$kills += kill 'KILL', $pid;
}
kill 'TERM', @workers;
# What they run ends with its connection.
$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
$node->poll_query_until('postgres', q{
	SELECT count(pg_terminate_backend(pid)) = 0 FROM pg_stat_activity
	 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()}) or die 'clients do not end';
waitpid $_, 0 foreach @workers;
cmp_ok($kills, '>=', 2, "backends were killed, $kills of them");
is(problems($node, 'postgres'), '', 'stock, lines and log agree');

foreach my $consumer (@consumers)
{
	fetch($consumer, 10000000);
	fetch($consumer, 10000000);
	is($node->safe_psql('postgres', "SELECT count(*) FROM (
			SELECT event_id FROM alloc.event EXCEPT ALL SELECT event_id FROM had WHERE consumer = '$consumer') missed"),
		'0', "$consumer: no event was missed");
	is($node->safe_psql('postgres', "SELECT count(*) FROM (
			SELECT event_id FROM had WHERE consumer = '$consumer' EXCEPT ALL SELECT event_id FROM alloc.event) surplus"),
		'0', "$consumer: none was given twice, and none that was rolled back");
	# Events of one sku's slots depend on each other only where they met; those
	# of one line always do.
	is($node->safe_psql('postgres', "SELECT count(*) FROM (
			SELECT e.event_id, lag(e.event_id) OVER (PARTITION BY e.orderid, e.sku ORDER BY h.n) AS before
			  FROM had h JOIN alloc.event e USING (event_id)
			 WHERE h.consumer = '$consumer' AND e.orderid IS NOT NULL) given
			 WHERE before > event_id"),
		'0', "$consumer: causes came before effects");
}
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM alloc.event'), '>', 1000, 'there was something to read');

# What each connection of the listener has heard, between the first event and
# the last, but for the edges: a transaction that was open when it began or
# ended has its events on both sides.
my %committed = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT event_id FROM alloc.event');
my ($heard, $missed, $twice, $false, $disorder) = (0, 0, 0, 0, 0);
foreach my $file (glob "$dir/heard.*")
{
	my (%seen, %last, @ids);

	foreach my $line (grep { /^alloc_/ } split /\n/, slurp_file($file))
	{
		my $event = decode_json((split / /, $line, 2)[1]);
		my $of_line = join '|', $event->{orderid} // '', $event->{sku};

		$twice++ if $seen{ $event->{event_id} }++;
		$false++ unless $committed{ $event->{event_id} };
		$disorder++ if defined $event->{orderid} && ($last{$of_line} // 0) > $event->{event_id};
		$last{$of_line} = $event->{event_id};
		push @ids, $event->{event_id};
	}
	next if @ids < 1000;
	$heard += @ids;
	@ids = sort { $a <=> $b } @ids;
	my ($from, $to) = @ids[ 400, -400 ];
	$missed += grep { $_ > $from && $_ < $to && !$seen{$_} } keys %committed;
}
cmp_ok($heard, '>', 1000, 'the listener has heard something');
is($missed, 0, 'the listener has missed nothing while it was connected');
is($twice, 0, 'it has heard nothing twice');
is($false, 0, 'nor anything that was rolled back');
is($disorder, 0, 'and causes before effects');

$node->stop('fast');
done_testing();
