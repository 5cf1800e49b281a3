# A dump that is taken while clients work is sound when it is restored: stock,
# lines and log are of one moment; commands go on; and each consumer gets what
# it had not been given at that moment, once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems differences absurd);
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $node = new_node('main', <<'END');
shared_preload_libraries = 'alloc'
max_connections = 60
END

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# What consumers are given is written down in the transaction in which they
# are, and so is in the same dump; what is moved out of the log as well.
sql(<<'END');
SELECT alloc.add_batch('batch ' || n, 'sku ' || n, 100000) FROM generate_series(0, 9) n;
SELECT alloc.create_consumer(name, 'beginning') FROM unnest(ARRAY['mail', 'search', 'slow']) AS name;
CREATE TABLE given (consumer text, event_id bigint);
CREATE TABLE archived AS SELECT * FROM alloc.events WITH NO DATA;
END

# Consumers fetch less than there is, so that a dump finds them on their way.
my %work = (
	sell => [ 8, <<'END' ],
\set n random(0, 9)
SELECT alloc.allocate(gen_random_uuid()::text, 'sku ' || :n, 1 + :n);
SELECT alloc.allocate('again ' || :client_id, 'sku ' || :n, 1);
SELECT alloc.deallocate('again ' || :client_id, 'sku ' || :n);
END
	order => [ 2, <<'END' ],
\set n random(0, 8)
\set undo random(1, 3)
BEGIN;
SELECT alloc.allocate('order ' || gen_random_uuid(), 'sku ' || :n, 1);
\sleep 5 ms
SELECT alloc.allocate('order ' || gen_random_uuid(), 'sku ' || :n + 1, 1);
\if :undo = 1
ROLLBACK;
\else
COMMIT;
\endif
END
	change => [ 1, <<'END' ],
\set n random(0, 9)
\set qty random(1000, 100000)
SELECT count(*) FROM alloc.change_batch_quantity('batch ' || :n, :qty);
END
	add => [ 1, <<'END' ],
\set n random(0, 9)
SELECT alloc.add_batch(gen_random_uuid()::text, 'sku ' || :n, 100, '2030-01-01');
END
	fetch => [ 1, <<'END' ]);
\set max random(1, 60)
INSERT INTO given
SELECT consumer, f.event_id
  FROM (SELECT (ARRAY['mail', 'search', 'search', 'slow'])[1 + :client_id % 4] AS consumer) c,
       LATERAL alloc.fetch_events(consumer, :max) AS f;
END

# Each consumer has had, or now gets, each event that is in the log or was
# moved out of it, once.
sub check_given
{
	my ($name) = @_;

	$node->safe_psql($name, <<'END');
INSERT INTO given
SELECT c.name, f.event_id FROM alloc.consumers c, LATERAL alloc.fetch_events(c.name, 10000000) f;
END
	is($node->safe_psql($name, <<'END'), '', "$name: each consumer has each event once");
SELECT c.name, e.event_id, count(g.event_id)
  FROM alloc.consumers c
 CROSS JOIN (SELECT event_id FROM alloc.event UNION ALL SELECT event_id FROM archived) e
  LEFT JOIN given g ON g.consumer = c.name AND g.event_id = e.event_id
 GROUP BY 1, 2 HAVING count(g.event_id) <> 1 LIMIT 5;
END
	is($node->safe_psql($name, <<'END'), '0', "$name: and no other");
SELECT count(*) FROM given
 WHERE event_id NOT IN (SELECT event_id FROM alloc.event UNION ALL SELECT event_id FROM archived);
END
	return;
}

# Restores a dump, looks at it, and goes on with it.
sub check_restore
{
	my ($name) = @_;
	my $run = sub { return $node->safe_psql($name, $_[0]); };

	$node->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0");
	$node->command_ok([ 'pg_restore', '-e', '-j', 2, '-d', $name, "$dir/$name.dump" ], "$name: restore");
	is(differences($node, $name), '', "$name: sound, and the log tells the same");
	is(problems($node, $name) . absurd($node, $name), '', "$name: the log alone tells all") if $name !~ /archived/;
	cmp_ok($run->('SELECT sum(pending) FROM alloc.consumers'), '>', 0, "$name: events are pending");
	cmp_ok($run->('SELECT count(*) FROM given'), '>', 0, "$name: and some were given");
	if ($name =~ /archived/)
	{
		cmp_ok($run->('SELECT alloc._newest_snapshot() - alloc._archived_to()'), '>=', 0, "$name: there is a snapshot");
		cmp_ok($run->('SELECT count(*) FROM alloc.snapshot_line'), '>', 0, "$name: with lines");
		is($run->('SELECT alloc._archived_to()'), $run->('SELECT max(event_id) FROM archived'),
			"$name: events were moved out of the log");
	}

	my $last = $run->('SELECT alloc._last_event_id()');
	$run->(<<'END');
SELECT alloc.add_batch('new ' || n, 'sku ' || n, 1000) FROM generate_series(0, 9) n;
SELECT alloc.allocate('new ' || n, 'sku ' || n % 10, 1) FROM generate_series(0, 99) n;
SELECT alloc.deallocate('new ' || n, 'sku ' || n % 10) FROM generate_series(0, 49) n;
SELECT count(*) FROM generate_series(0, 9) n, LATERAL alloc.change_batch_quantity('batch ' || n, 500);
END
	is($run->("SELECT min(event_id) > $last FROM alloc.event WHERE batchref LIKE 'new %'"), 't', "$name: event ids go on");
	check_given($name);
	is(differences($node, $name), '', "$name: sound after that");
	is($run->('SELECT alloc.snapshot_log() = alloc._last_event_id()'), 't', "$name: it takes a snapshot of the log");
	is(differences($node, $name), '', "$name: sound with it");
	return;
}

# ---- dumps, while clients work ----

# They work until they are ended.

my ($output, $errors) = ('', '');
my @files;
foreach my $script (sort keys %work)
{
	my ($weight, $text) = @{ $work{$script} };

	unlink "$dir/$script.sql";
	append_to_file("$dir/$script.sql", $text);
	push @files, '-f', "$dir/$script.sql\@$weight";
}
my $clients = start([ 'pgbench', '-n', '-c', 8, '-T', 600, @files, $node->connstr('postgres') ],
	'>', \$output, '2>', \$errors);

sub dump_to
{
	my ($name, @options) = @_;
	my $given = sql('SELECT count(*) FROM given');

	$node->poll_query_until('postgres', "SELECT count(*) > $given + 200 FROM given") or die 'nobody fetches';
	$node->command_ok([ 'pg_dump', @options, '-f', "$dir/$name.dump", 'postgres' ], "$name: dump");
	ok($clients->pumpable, "$name: while clients work");
	return;
}

sub archive
{
	sql('SELECT alloc.snapshot_log()');
	return sql(<<'END');
WITH moved AS (INSERT INTO archived SELECT * FROM alloc.archive_events('infinity') RETURNING 1)
SELECT count(*) FROM moved;
END
}

dump_to('custom', '-Fc');
dump_to('directory', '-Fd', '-j', 2);
cmp_ok(archive(), '>', 100, 'events are moved out of the log');
dump_to('archived_custom', '-Fc');
cmp_ok(archive(), '>', 100, 'and more of them');
dump_to('archived_directory', '-Fd', '-j', 2);

$clients->signal('TERM');
$clients->finish;
unlike($errors, qr/ERROR|abort/, 'clients have no errors');
is(differences($node, 'postgres'), '', 'what was dumped is sound');

check_restore($_) foreach qw(custom directory archived_custom archived_directory);

$node->stop;
done_testing();
