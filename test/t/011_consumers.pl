# Consumers: after a dump and a restore into a cluster with other transaction
# ids each goes on at exactly the next event; under load, and when the server
# crashes, each has every committed event once and in causal order.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems bench fetch fetched consumers foretold);
use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = $PostgreSQL::Test::Utils::tmp_check;

# Clusters whose transaction ids can be set: the first of a page of pg_xact, so
# that the page need not be there.
my $xids_of_a_page = 32768;

# A node as that of new_node(), with its next transaction id and epoch set.
sub node_at
{
	my ($name, $xid, $epoch, $settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', $settings);
	system_or_bail('pg_resetwal', '-x', $xid, '-e', $epoch, $node->data_dir) if $xid;
	$node->start;
	return $node;
}

sub next_xid { my ($node) = @_; return $node->safe_psql('postgres', 'SELECT pg_current_xact_id()'); }

# A session in a transaction.
sub begin
{
	my ($node, $database, $sql) = @_;
	my $session = $node->background_psql($database);

	$session->query_safe("BEGIN; $sql");
	return $session;
}

sub commit { my ($session) = @_; $session->query_safe('COMMIT'); $session->quit; return; }

# Takes lines of a sku: orders PREFIX1, PREFIX2, ...
sub take
{
	my ($prefix, $sku, $n) = @_;
	return "SELECT alloc.allocate('$prefix' || i, '$sku', 1) FROM generate_series(1, $n) i;";
}

# All that there is, so many at a time.
sub fetched_all
{
	my ($node, $database, $consumer, $max) = @_;
	my @all;

	while (my $some = $node->safe_psql($database, fetch($consumer, $max) x 30))
	{
		push @all, split(/\n/, $some);
		die "$consumer is given too much" if @all > 100000;
	}
	return @all;
}

# ---- restore into another cluster ----

# Makes consumers that have had this and that, and a transaction that is still
# open, which it returns.  Names and orders begin with an era.
sub make_history
{
	my ($node, $database, $era) = @_;
	my $run = sub { return $node->safe_psql($database, $_[0]); };
	my $new = sub { $run->("SELECT alloc.create_consumer('$era $_')") foreach @_; };

	$run->("SELECT alloc.add_batch('$era ' || sku, '$era ' || sku, 1000)
		FROM unnest(ARRAY['LAMP', 'DESK', 'RUG', 'SOFA', 'BED']) AS sku");
	$new->('never fetched', 'cut', 'cut before late', 'behind', 'done', 'one by one');
	$run->("SELECT alloc.create_consumer('$era beginning', 'beginning')");

	# Open while others commit and are fetched; one of them until the end.
	my $open = begin($node, $database, take("$era open", "$era LAMP", 3));
	my $late = begin($node, $database, take("$era late", "$era DESK", 3));
	$run->(take("$era early", "$era RUG", 10));
	fetched($node, $database, "$era $_", 1000, 'COMMIT') foreach ('behind', 'done');
	fetched($node, $database, "$era cut before late", 4, 'COMMIT');
	$open->query_safe(take("$era open again", "$era SOFA", 1));
	$run->(take("$era next", "$era RUG", 10));
	commit($late);
	fetched($node, $database, "$era cut", 5, 'COMMIT');
	fetched($node, $database, "$era one by one", 1, 'COMMIT') foreach 1 .. 3;
	$run->(take("$era then", "$era BED", 4));
	fetched($node, $database, "$era done", 1000, 'COMMIT');
	return $open;
}

sub dump_to { my ($node, $database, $file) = @_; $node->command_ok([ 'pg_dump', '-Fc', '-f', $file, $database ], "dump of $database"); return; }

# Restores a dump and looks whether each consumer goes on as was foretold, then
# whether it has what is new.
sub check_restore
{
	my ($name, $node, $database, $file, $era, %foretold) = @_;
	my $max = 1;

	$node->safe_psql('postgres', qq{CREATE DATABASE "$database" TEMPLATE template0});
	$node->command_ok([ 'pg_restore', '-e', '-d', $database, $file ], "$name: restore");
	is($node->safe_psql($database, "SELECT count(*) FROM alloc.events WHERE orderid LIKE '$era open%'"),
		'0', "$name: what was not committed is not there");
	is_deeply([ consumers($node, $database) ], [ sort keys %foretold ], "$name: the consumers");

	my %pending = map { split(/\|/) }
		split(/\n/, $node->safe_psql($database, 'SELECT name, pending FROM alloc.consumers'));
	is_deeply(\%pending, { map { $_ => scalar @{ $foretold{$_} } } keys %foretold }, "$name: as many are pending");

	# Some have had what is old when the first new event comes, some have not.
	my %given;
	my @late_consumers = grep { /never fetched|one by one|beginning/ } keys %foretold;
	foreach my $consumer (sort keys %foretold)
	{
		next if grep { $_ eq $consumer } @late_consumers;
		$given{$consumer} = [ fetched_all($node, $database, $consumer, $max) ];
		is_deeply($given{$consumer}, $foretold{$consumer}, "$name: $consumer goes on at the next event");
		$max = $max % 5 + 1;
	}

	my $last = $node->safe_psql($database, 'SELECT max(event_id) FROM alloc.event');
	my $open = make_history($node, $database, $name);
	push @{ $given{$_} }, fetched_all($node, $database, $_, 3) foreach keys %foretold;
	commit($open);
	push @{ $given{$_} }, fetched_all($node, $database, $_, 100) foreach keys %foretold;

	my @new = split(/\n/, $node->safe_psql($database,
			"SELECT event_id || ':' || coalesce(orderid, batchref) FROM alloc.events WHERE event_id > $last"));
	foreach my $consumer (sort keys %foretold)
	{
		my @got = @{ $given{$consumer} };
		my $old = @{ $foretold{$consumer} };

		is_deeply([ @got[ 0 .. $old - 1 ] ], $foretold{$consumer}, "$name: $consumer: first what is old");
		is_deeply([ sort @got[ $old .. $#got ] ], [ sort @new ], "$name: $consumer: then what is new, once");
	}
	is(problems($node, $database), '', "$name: sound");
	return;
}

my $preloaded = "shared_preload_libraries = 'alloc'\n";
my $source = node_at('source', 10 * $xids_of_a_page, 0, $preloaded);
$source->safe_psql('postgres', 'CREATE EXTENSION alloc');
my $open = make_history($source, 'postgres', 'old');
my %foretold = foretold($source, 'postgres');
cmp_ok(scalar @{ $foretold{'old cut'} }, '>', 20, 'a consumer is in the middle of a batch');
is(scalar(grep { /:old late/ } @{ $foretold{'old behind'} }), 3, 'one waits for events that come late');
is_deeply($foretold{'old done'}, [], 'one has had all');
dump_to($source, 'postgres', "$dir/old.dump");
is_deeply({ foretold($source, 'postgres') }, \%foretold, 'what was foretold has not changed at the end of the dump');
commit($open);
is(scalar fetched_all($source, 'postgres', 'old done', 10), 4, 'the open transaction commits after the dump');

my %targets = (
	low => node_at('low', 0, 0, ''),
	low_relay => node_at('low_relay', 0, 0, $preloaded),
	high => node_at('high', 2**30, 0, ''),
	epoch_relay => node_at('epoch_relay', 40 * $xids_of_a_page, 7, $preloaded));
cmp_ok(next_xid($targets{low}), '<', next_xid($source), 'a cluster with lower transaction ids');
cmp_ok(next_xid($targets{high}), '>=', 2**30, 'one with higher ones');
cmp_ok(next_xid($targets{epoch_relay}), '>', 7 * 2**32, 'one with an epoch');

foreach my $name (sort keys %targets)
{
	my $node = $targets{$name};

	check_restore($name, $node, 'restored', "$dir/old.dump", 'old', %foretold);

	# From there to another one, and back: each restore is an era.
	if ($name =~ /relay/)
	{
		$open = make_history($node, 'restored', "last $name");
		my %again = foretold($node, 'restored');
		dump_to($node, 'restored', "$dir/$name.dump");
		commit($open);
		check_restore("$name again", $targets{high}, "from $name", "$dir/$name.dump", "last $name", %again);

		my %back = foretold($targets{high}, "from $name");
		dump_to($targets{high}, "from $name", "$dir/$name.again");
		check_restore("$name back", $source, "from $name", "$dir/$name.again", 'none', %back);
		is($source->safe_psql("from $name", 'SELECT count(DISTINCT xact >> 48) FROM alloc.event'),
			'4', "$name: events of four eras");
	}
}
$_->stop foreach values %targets;

# The same dump in the cluster from which it is.
check_restore('beside', $source, 'beside', "$dir/old.dump", 'old', %foretold);

# ---- a copy of a database ----

$open = make_history($source, 'beside', 'copied');
commit($open);
%foretold = foretold($source, 'beside');
$source->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE beside');
foreach my $database ('copy', 'beside')
{
	my %given = map { $_ => [ fetched_all($source, $database, $_, 7) ] } consumers($source, $database);
	is_deeply(\%given, \%foretold, "$database: each consumer goes on at the next event");
}
$source->safe_psql($_, take("$_ ", 'copied LAMP', 2)) foreach ('copy', 'beside');
foreach my $database ('copy', 'beside')
{
	is_deeply([ map { s/.*://r } fetched_all($source, $database, 'old done', 7) ],
		[ "$database 1", "$database 2" ], "$database: and has what is new there, only");
}
$source->stop;

# ---- under load ----

my $clients = 8;
my @consumers = ('mail', 'search');
my $node = new_node('load', <<'END');
shared_preload_libraries = 'alloc'
max_prepared_transactions = 50
max_connections = 50
restart_after_crash = on
# So that who takes from a sku waits for who did before: event ids tell causes.
alloc.max_slots = 1
END

$node->safe_psql('postgres', <<"END");
SELECT alloc.create_consumer(name) FROM unnest(ARRAY['$consumers[0]', '$consumers[1]']) AS name;
CREATE TABLE given (
	n bigint GENERATED ALWAYS AS IDENTITY, consumer text, event_id bigint);
END
$node->safe_psql('postgres', "SELECT alloc.add_batch('batch ' || n, 'sku ' || n, 1000000) FROM generate_series(0, $clients) n");

# A client has two skus in one order at most, so that nobody waits in a circle.
my %sell = (
	sell => [ 8, <<'END' ],
\set n random(0, 7)
SELECT alloc.allocate(gen_random_uuid()::text, 'sku ' || :n, 1);
END
	again => [ 4, <<'END' ],
\set n random(0, 7)
SELECT alloc.allocate('again ' || :client_id, 'sku ' || :n, 1);
SELECT alloc.deallocate('again ' || :client_id, 'sku ' || :n);
END
	undo => [ 2, <<'END' ],
\set n random(0, 7)
BEGIN;
SELECT alloc.allocate('undone ' || gen_random_uuid()::text, 'sku ' || :n, 1);
ROLLBACK;
END
	savepoints => [ 3, <<'END' ],
\set n random(0, 7)
BEGIN;
SELECT alloc.allocate(gen_random_uuid()::text, 'sku ' || :n, 1);
SAVEPOINT a;
SELECT alloc.allocate('undone ' || gen_random_uuid()::text, 'sku ' || :n, 1);
ROLLBACK TO a;
SELECT alloc.allocate(gen_random_uuid()::text, 'sku ' || :n, 1);
SAVEPOINT b;
SELECT alloc.allocate(gen_random_uuid()::text, 'sku ' || :n, 1);
COMMIT;
END
	sleep => [ 1, <<'END' ],
\set n random(0, 7)
BEGIN;
SELECT alloc.allocate(gen_random_uuid()::text, 'sku ' || :n, 1);
\sleep 30 ms
COMMIT;
END
	prepare => [ 2, <<'END' ],
\set n random(0, 7)
\set undo random(1, 4)
BEGIN;
SELECT alloc.allocate(gen_random_uuid()::text, 'sku ' || :n, 1);
PREPARE TRANSACTION 'of :client_id';
\sleep 5 ms
\if :undo = 1
ROLLBACK PREPARED 'of :client_id';
\else
COMMIT PREPARED 'of :client_id';
\endif
END
	lines => [ 1, <<'END' ]);
\set n random(0, 7)
SELECT count(*) FROM alloc.allocate_lines(ARRAY(
	SELECT (gen_random_uuid()::text, 'sku ' || :n, 1)::alloc.order_line FROM generate_series(1, 50)));
END

# Two for each consumer; one in five fetches is rolled back.
my %fetch = (fetch => [ 1, <<"END" ]);
\\set max random(1, 200)
\\set undo random(1, 5)
BEGIN;
INSERT INTO given (consumer, event_id)
SELECT consumer, f.event_id
  FROM (SELECT (ARRAY['$consumers[0]', '$consumers[1]'])[1 + :client_id % 2] AS consumer) c,
       LATERAL alloc.fetch_events(consumer, :max) WITH ORDINALITY AS f
 ORDER BY f.ordinality;
\\if :undo = 1
ROLLBACK;
\\else
COMMIT;
\\endif
\\sleep 1 ms
END

# Starts pgbench in the background for so many seconds.
sub start_bench
{
	my ($name, $clients_of_it, $seconds, %scripts) = @_;
	my @files;

	foreach my $script (sort keys %scripts)
	{
		my ($weight, $text) = @{ $scripts{$script} };
		my $path = "$dir/$script.sql";

		unlink $path;
		append_to_file($path, $text);
		push @files, '-f', "$path\@$weight";
	}
	return start([ 'pgbench', '-n', '-c', $clients_of_it, '-T', $seconds, @files, $node->connstr('postgres') ],
		'>', "$dir/$name.out", '2>', "$dir/$name.err");
}

# Gives each consumer what is left.
sub fetch_rest
{
	foreach my $consumer (@consumers)
	{
		$node->safe_psql('postgres', <<"END");
INSERT INTO given (consumer, event_id)
SELECT '$consumer', event_id FROM alloc.fetch_events('$consumer', 10000000) WITH ORDINALITY ORDER BY ordinality;
END
	}
	return;
}

# What is wrong with what was given.
sub check_given
{
	my ($name) = @_;

	is($node->safe_psql('postgres', <<'END'), '', "$name: each consumer had each event once");
SELECT c.name, e.event_id, count(g.event_id)
  FROM alloc.consumers c
 CROSS JOIN alloc.event e
  LEFT JOIN given g ON g.consumer = c.name AND g.event_id = e.event_id
 GROUP BY 1, 2 HAVING count(g.event_id) <> 1 LIMIT 5;
END
	is($node->safe_psql('postgres', 'SELECT count(*) FROM given WHERE event_id NOT IN (SELECT event_id FROM alloc.event)'),
		'0', "$name: and nothing else");
	is($node->safe_psql('postgres', <<'END'), '', "$name: the events of a sku in the order of causes");
SELECT * FROM (
	SELECT g.consumer, e.sku, e.event_id, g.n,
	       lag(e.event_id) OVER (PARTITION BY g.consumer, e.sku ORDER BY g.n) AS before
	  FROM given g JOIN alloc.event e USING (event_id)) s
 WHERE before > event_id LIMIT 5;
END
	is($node->safe_psql('postgres', 'SELECT sum(pending) FROM alloc.consumers'), '0', "$name: nothing is pending");
	is(problems($node, 'postgres'), '', "$name: sound");
	return;
}

# From the rows that created the batches on.
$node->safe_psql('postgres', 'SELECT alloc.drop_consumer(name), alloc.create_consumer(name, \'beginning\') FROM alloc.consumers');

sub load
{
	my ($name, $seconds, $meanwhile) = @_;
	my $fetchers = start_bench("$name fetchers", 4, $seconds, %fetch);
	my $sellers = start_bench("$name sellers", $clients, $seconds, %sell);

	$meanwhile->() if $meanwhile;
	my $ok = $sellers->finish;
	$ok = $fetchers->finish && $ok;
	return $ok;
}

$open = begin($node, 'postgres', take('open ', "sku $clients", 3));
ok(load('load', 8), 'clients sell and fetch') or diag(map { slurp_file($_) } glob("'$dir/load'*.err"));
cmp_ok($node->safe_psql('postgres', 'SELECT min(n) FROM (SELECT count(*) AS n FROM given GROUP BY consumer) s'),
	'>', 1000, 'events were given while the transaction was open');
is($node->safe_psql('postgres', q{SELECT count(*) FROM given JOIN alloc.event USING (event_id) WHERE orderid LIKE 'open%'}),
	'0', 'none of its own');
commit($open);
fetch_rest();
check_given('load');
is($node->safe_psql('postgres', "SELECT count(*) FROM alloc.event WHERE orderid LIKE 'undone%'"), '0', 'nothing undone is in the log');

# ---- a backend is killed ----

foreach my $round (1 .. 3)
{
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM given');

	$open = begin($node, 'postgres', take("crash $round ", "sku $clients", 3));
	ok(!load("crash", 20, sub {
		$node->poll_query_until('postgres', "SELECT count(*) > $before + 500 FROM given") or die 'nobody fetches';
		my $pid = $node->safe_psql('postgres',
			q{SELECT pid FROM pg_stat_activity
			   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1});
		kill 'KILL', $pid;
	}), "round $round: the clients lost the server");
	$node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no recovery';
	eval { $open->quit };

	# What was prepared is decided now: half of it is committed.
	my @prepared = split(/\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts'));
	while (my ($n, $gid) = each @prepared)
	{
		$node->safe_psql('postgres', ($n % 2 ? 'ROLLBACK' : 'COMMIT') . " PREPARED '$gid'");
	}
	fetch_rest();
	check_given("round $round");
}

# ---- prepared fetches ----

$node->safe_psql('postgres', take('prepared ', 'sku 1', 4));
my @next = fetched($node, 'postgres', 'mail', 2, q{PREPARE TRANSACTION 'fetch'});
is(scalar @next, 2, 'a fetch is prepared');
my ($status) = $node->psql('postgres', q{SET lock_timeout = '100ms'; SELECT * FROM alloc.fetch_events('mail')}, on_error_stop => 1);
isnt($status, 0, 'the next fetch waits for it');
$node->restart;
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'fetch'});
is_deeply([ fetched($node, 'postgres', 'mail', 2, q{PREPARE TRANSACTION 'fetch'}) ], \@next, 'rolled back: the same events again');
$node->safe_psql('postgres', q{COMMIT PREPARED 'fetch'});
is_deeply([ map { s/.*://r } fetched($node, 'postgres', 'mail', 10, 'COMMIT') ], [ 'prepared 3', 'prepared 4' ],
	'committed: the next ones');

$node->stop;
done_testing();
