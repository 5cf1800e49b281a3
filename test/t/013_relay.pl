# The relay: sends what has been committed, in each database that has the
# extension, without configuration; is in nobody's way; and whatever befalls it
# befalls no command.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node answers sqlstate bench listen_to heard heard_all end_of);
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $preload = "shared_preload_libraries = 'alloc'\n";

# Who waits for ever is to fail, not to hang.
$ENV{PGOPTIONS} = '-c lock_timeout=10s';

# ---- servers and relays ----

# The databases that have a relay, in the order of their names.
sub relays
{
	my ($node) = @_;
	return $node->safe_psql('postgres', q{SELECT string_agg(datname, ' ' ORDER BY datname)
		FROM pg_stat_activity WHERE backend_type = 'alloc relay'});
}

# Waits until these, and no others, have one; returns for how long it did.
sub wait_for_relays
{
	my ($node, $databases, $seconds) = @_;
	my $began = time;

	while (relays($node) ne $databases && time - $began < $seconds) { usleep(20_000); }
	is(relays($node), $databases, "within $seconds s a relay in: $databases");
	return;
}

sub pid_of
{
	my ($node, $database) = @_;
	return $node->safe_psql('postgres', qq{SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'alloc relay' AND datname = '$database'});
}

# How many events the relay has not dealt with.
sub unsent
{
	my ($node, $database) = @_;
	return $node->safe_psql($database, <<'END');
SELECT count(*) FROM alloc.event e
 WHERE NOT coalesce((
	SELECT alloc.was_given(seen_xmax, seen_open, upto_xmax, upto_open, given_to, e.event_id, e.xact)
	  FROM alloc.position WHERE consumer_id = 0), false);
END
}

sub wait_until_sent
{
	my ($node, $database, $seconds, $name) = @_;
	my $began = time;

	while (unsent($node, $database) > 0 && time - $began < $seconds) { usleep(20_000); }
	is(unsent($node, $database), '0', $name);
	return;
}

# Runs something that must be done soon.
sub soon
{
	my ($name, $seconds, $do) = @_;
	my $began = time;

	$do->();
	cmp_ok(time - $began, '<', $seconds, "$name takes less than $seconds s");
	return;
}

sub statement
{
	my ($node, $sql) = @_;
	return sub { is(sqlstate($node, 'postgres', $sql), 'none', $sql); };
}

sub sell
{
	my ($node, $database, $order, %options) = @_;
	my $settings = $options{settings} // '';

	return $node->safe_psql($database, "$settings; SELECT alloc.allocate('$order', 'LAMP', 1)");
}

my $node = new_node('main', <<"END");
$preload
max_prepared_transactions = 5
restart_after_crash = on
max_worker_processes = 12
END

# ---- two databases, no configuration ----

wait_for_relays($node, 'postgres', 3);
is($node->safe_psql('postgres', q{SELECT backend_type, application_name FROM pg_stat_activity WHERE backend_type LIKE 'alloc%' ORDER BY 1}),
	"alloc launcher|alloc launcher\nalloc relay|alloc relay", 'both are in pg_stat_activity');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION alloc');
wait_for_relays($node, 'other postgres', 3);

my %client = map { $_ => listen_to($node, $_) } ('postgres', 'other');
foreach my $database ('postgres', 'other')
{
	my $began = time;

	$node->safe_psql($database, "SELECT alloc.add_batch('batch in $database', 'LAMP', 1000)");
	is(join(' ', heard_all($client{$database})), '1', "$database: an event is heard");
	cmp_ok(time - $began, '<', 5, '... at once');
}
foreach my $database ('postgres', 'other')
{
	$node->safe_psql($database, <<'END');
BEGIN;
SELECT alloc.allocate('one', 'LAMP', 1);
SAVEPOINT a;
SELECT alloc.allocate('undone', 'LAMP', 1);
ROLLBACK TO a;
SELECT alloc.allocate('too many', 'LAMP', 5000);
COMMIT;
SELECT alloc.change_batch_quantity(ref, 900), alloc.deallocate('one', 'LAMP') FROM alloc.batches;
END
	heard_all($client{$database});
	my @lines = end_of($client{$database});
	my %bell = map { $_ => 1 } grep { /^alloc_events/ } @lines;
	is_deeply([ map { s/^(\w+) .*"type": "(\w+)".*/$1 $2/r } grep { !/^alloc_events/ } @lines ],
		[ map { "alloc_$_ $_" } qw(batch_created allocated out_of_stock batch_quantity_changed deallocated) ],
		"$database: each event is heard once, on its channel");
	is_deeply([ map { decode_json(s/^\w+ //r) } grep { !/^alloc_events/ } @lines ],
		[ map { decode_json($_) } split(/\n/, $node->safe_psql($database, 'SELECT payload FROM alloc.events ORDER BY event_id')) ],
		"$database: what is heard is what is in view events");
}

# ---- CREATE EXTENSION, DROP EXTENSION ----

soon('DROP EXTENSION', 3, sub { $node->safe_psql('other', 'DROP EXTENSION alloc'); });
wait_for_relays($node, 'postgres', 3);
$node->safe_psql('other', 'CREATE SCHEMA IF NOT EXISTS alloc; CREATE EXTENSION alloc');
wait_for_relays($node, 'other postgres', 3);
$node->safe_psql('other', 'BEGIN; DROP EXTENSION alloc; CREATE EXTENSION alloc; ROLLBACK');
$node->safe_psql('other', 'DROP EXTENSION alloc; CREATE EXTENSION alloc');
wait_for_relays($node, 'other postgres', 3);
$client{other} = listen_to($node, 'other');
$node->safe_psql('other', q{SELECT alloc.add_batch('batch', 'LAMP', 1000)});
heard_all($client{other});
is(scalar(grep { !/^alloc_events/ } end_of($client{other})), 1, 'after DROP and CREATE EXTENSION events are heard, once');
$node->safe_psql('other', 'BEGIN; DROP SCHEMA alloc CASCADE; CREATE EXTENSION alloc; ROLLBACK; DROP SCHEMA alloc CASCADE');
wait_for_relays($node, 'postgres', 8);
$node->safe_psql('other', q{BEGIN; CREATE EXTENSION alloc; SELECT alloc.add_batch('batch', 'LAMP', 1000); ROLLBACK});
$node->safe_psql('other', q{BEGIN; CREATE EXTENSION alloc; SELECT alloc.add_batch('batch', 'LAMP', 1000); COMMIT});
wait_until_sent($node, 'other', 3, 'events of the transaction that creates the extension are sent');
wait_for_relays($node, 'other postgres', 3);

# ---- databases that are dropped, renamed, moved, copied ----

my $place = "${PostgreSQL::Test::Utils::tmp_check}/place";
mkdir $place;
$node->safe_psql('postgres', "CREATE TABLESPACE place LOCATION '$place'");
soon('a copy', 3, statement($node, 'CREATE DATABASE copy TEMPLATE other'));
soon('another name', 3, statement($node, 'ALTER DATABASE other RENAME TO renamed'));
soon('another place', 3, statement($node, 'ALTER DATABASE renamed SET TABLESPACE place'));
foreach my $database ('copy', 'renamed')
{
	$client{$database} = listen_to($node, $database);
	sell($node, $database, "in $database");
	heard_all($client{$database});
	is(scalar(grep { !/^alloc_events/ } end_of($client{$database})), 1, "$database: events are heard, none that was sent before");
}
wait_for_relays($node, 'copy postgres renamed', 3);
is(sqlstate($node, 'postgres', 'ALTER DATABASE copy RENAME TO renamed'), '42P04', 'a name that is taken');
is(sqlstate($node, 'postgres', 'CREATE DATABASE renamed TEMPLATE copy'), '42P04', 'a copy whose name is taken');
is(sqlstate($node, 'postgres', 'BEGIN; DROP DATABASE copy; COMMIT'), '25001', 'not in a transaction');
wait_for_relays($node, 'copy postgres renamed', 3);

# Who may not do that does not disturb the relay.
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');
my $pid = pid_of($node, 'copy');
foreach my $command ('DROP DATABASE copy', 'ALTER DATABASE copy RENAME TO mine', 'CREATE DATABASE mine TEMPLATE copy')
{
	is(sqlstate($node, 'postgres', "SET ROLE stranger; $command"), '42501', "a stranger: $command");
}
is(pid_of($node, 'copy'), $pid, 'the relay is the same');

# A relay that does not go at once, because it is stopped.
kill 'STOP', $pid;
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query(q{SET statement_timeout = '200ms'; ALTER DATABASE copy RENAME TO slow; RESET statement_timeout});
kill 'CONT', $pid;
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_database WHERE datname = 'copy'}), '1', 'a rename that is cancelled while it waits for the relay');
sell($node, 'copy', 'after a cancelled rename');
wait_until_sent($node, 'copy', 5, '... is forgotten: the relay goes on');
$session->quit;

soon('DROP DATABASE', 3, statement($node, 'DROP DATABASE copy'));
soon('DROP DATABASE with force', 3, statement($node, 'DROP DATABASE renamed WITH (FORCE)'));
wait_for_relays($node, 'postgres', 3);

# ---- alloc.notify ----

$client{postgres} = listen_to($node, 'postgres');
sell($node, 'postgres', $_, settings => "SET alloc.notify = $_") foreach qw(off commit relay auto);
heard_all($client{postgres});
is_deeply([ map { /"orderid": "(\w+)"/ } end_of($client{postgres}) ], [qw(commit relay auto)],
	'alloc.notify = off: nothing is heard; commit, relay, auto: each event once');

# ---- prepared transactions ----

$client{postgres} = listen_to($node, 'postgres');
foreach my $name (qw(committed undone))
{
	$node->safe_psql('postgres', "BEGIN; SELECT alloc.add_batch('$name', '$name', 1); PREPARE TRANSACTION '$name'");
}
sell($node, 'postgres', 'meanwhile');
$client{postgres}{run}->pump until $client{postgres}{output} =~ /"meanwhile"/;
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'undone'});
soon('COMMIT PREPARED until it is heard', 1, sub {
	$node->safe_psql('postgres', q{COMMIT PREPARED 'committed'});
	$client{postgres}{run}->pump until $client{postgres}{output} =~ /"committed"/;
});
is_deeply([ map { /"(?:orderid|batchref)": "(meanwhile|committed|undone)"/ } end_of($client{postgres}) ], [qw(meanwhile committed)],
	'a prepared transaction is heard after COMMIT PREPARED, not after ROLLBACK PREPARED');

# ---- errors of the relay ----

$client{postgres} = listen_to($node, 'postgres');
$node->safe_psql('postgres', <<'END');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'refused';
END;
$$;
CREATE TRIGGER refuse AFTER UPDATE ON alloc.position FOR EACH ROW EXECUTE FUNCTION refuse();
END
my $logged = -s $node->logfile;
soon('a command while the relay has errors', 1, sub { sell($node, 'postgres', "while refused $_") foreach 1 .. 3; });
$node->wait_for_log(qr/ERROR:  refused/, $logged);
is(join(' ', heard($client{postgres})), '', 'the relay that fails sends nothing');
$node->safe_psql('postgres', 'DROP TRIGGER refuse ON alloc.position; DROP FUNCTION refuse()');
soon('the relay after errors', 11, sub { heard_all($client{postgres}); });
is_deeply([ map { /"orderid": "(.+?)"/ } end_of($client{postgres}) ], [ map { "while refused $_" } 1 .. 3 ],
	'after it all is heard, once');

# A client that listens, and sits in its transaction.
my $sitting = $node->background_psql('postgres');
$sitting->query_safe('LISTEN alloc_allocated');
$sitting->query_safe('BEGIN; SELECT 1');
$client{postgres} = listen_to($node, 'postgres');
sell($node, 'postgres', 'while it sits');
heard_all($client{postgres});
is(scalar(grep { /while it sits/ } end_of($client{postgres})), 1, 'one who sits in a transaction is in nobody\'s way');
$sitting->quit;

SKIP:
{
	if ($node->pg_version < 17)
	{
		diag('before PostgreSQL 17 the queue of notifications takes 8 GB to fill: not tested');
		skip 'the queue is too large', 4;
	}
	my $full = new_node('full', "$preload\nmax_notify_queue_pages = 64\n");

	$full->safe_psql('postgres', q{SELECT alloc.add_batch('batch', 'LAMP', 1000)});
	$sitting = $full->background_psql('postgres');
	$sitting->query_safe('LISTEN x');
	$sitting->query_safe('BEGIN; SELECT 1');
	my $state = 'none';
	for (my $n = 0; $n < 100 && $state eq 'none'; $n++)
	{
		$state = sqlstate($full, 'postgres', q{SELECT count(pg_notify('x', i || repeat('x', 7000))) FROM generate_series(1, 20) i});
	}
	is($state, '54000', 'the queue is full');
	$logged = -s $full->logfile;
	soon('a command', 1, sub { is(sell($full, 'postgres', "full $_"), 'batch', 'it commits') foreach 1 .. 2; });
	$full->wait_for_log(qr/ERROR:  too many notifications/, $logged);
	$client{full} = listen_to($full, 'postgres');
	$sitting->query_safe('COMMIT');
	$sitting->quit;
	soon('the relay when there is room again', 12, sub { heard_all($client{full}); });
	is_deeply([ map { /"orderid": "(.+?)"/ } end_of($client{full}) ], [ 'full 1', 'full 2' ], 'all is heard, once');
	$full->stop;
}

# ---- the processes end, or are ended ----

$pid = pid_of($node, 'postgres');
is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"), 't', 'the relay is terminated');
sell($node, 'postgres', 'after that');
wait_until_sent($node, 'postgres', 3, '... and comes back');
isnt(pid_of($node, 'postgres'), $pid, '... as another process');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'alloc%'});
sell($node, 'postgres', 'after a cancel');
wait_until_sent($node, 'postgres', 3, 'the relay is cancelled, and goes on');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'alloc launcher'});
my $came_back = 0;
for (my $n = 0; $n < 50 && !$came_back; $n++)
{
	usleep(100_000);
	$came_back = $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'alloc launcher'});
}
is($came_back, '1', 'the launcher is terminated, and comes back');

soon('a fast stop', 3, sub { $node->stop('fast'); });
$logged = -s $node->logfile;
$node->start;
wait_for_relays($node, 'postgres', 3);
$node->append_conf('postgresql.conf', 'alloc.notify = off');
$node->reload;
sell($node, 'postgres', 'silent');
$node->adjust_conf('postgresql.conf', 'alloc.notify', undef);
$node->reload;
$client{postgres} = listen_to($node, 'postgres');
sell($node, 'postgres', 'after a reload');
heard_all($client{postgres});
is(scalar(grep { !/^alloc_events/ } end_of($client{postgres})), 1, 'the configuration is reloaded: off, and on again');

# ---- a crash ----

# What is committed while the relay stands still is sent after the recovery.
kill 'STOP', pid_of($node, 'postgres');
sell($node, 'postgres', "before the crash $_") foreach 1 .. 5;
cmp_ok(unsent($node, 'postgres'), '>=', 5, 'the relay has not sent it');
$session = $node->background_psql('postgres', on_error_stop => 0);
$logged = -s $node->logfile;
kill 'KILL', $session->query_safe('SELECT pg_backend_pid()');
$node->wait_for_log(qr/all server processes terminated/, $logged);
usleep(20_000) until answers($node);
wait_until_sent($node, 'postgres', 2, 'after a crash, what was committed before is sent within 2 s');
eval { $session->quit };

# Under load: who is connected hears each event once, causes first.
$node->safe_psql('postgres', q{SELECT alloc.add_batch('load ' || n, 'load ' || n, 1000000) FROM generate_series(0, 9) n});
wait_until_sent($node, 'postgres', 3, 'nothing is left');
my $from = $node->safe_psql('postgres', 'SELECT max(event_id) FROM alloc.event');
$client{postgres} = listen_to($node, 'postgres');
my ($wrong) = bench($node, [ '-c', 8, '-T', 4 ], load => [ 1, <<'END' ]);
\set n random(0, 9)
SELECT alloc.allocate('line ' || :client_id, 'load ' || :n, 1);
SELECT alloc.deallocate('line ' || :client_id, 'load ' || :n);
END
is($wrong, '', 'load: clients have no errors');
heard_all($client{postgres});
# An older one may still be on its way.
wait_until_sent($node, 'postgres', 3, 'load: all is sent');
my @ids;
my %before;
my $disorder = 0;
foreach my $line (grep { !/^alloc_events/ } end_of($client{postgres}))
{
	my ($id, $key) = $line =~ /"event_id": (\d+).*?("orderid": .*?, "sku": "\S+ \d")/;

	push @ids, $id;
	$disorder++ if ($before{$key} // 0) > $id;
	$before{$key} = $id;
}
is($disorder, 0, 'load: the events of a line are heard in their order');
ok(join(' ', sort { $a <=> $b } @ids) eq $node->safe_psql('postgres',
		"SELECT string_agg(event_id::text, ' ' ORDER BY event_id) FROM alloc.event WHERE event_id > $from"),
	'load: each event is heard once') or diag(scalar @ids);
cmp_ok(scalar @ids, '>', 2000, 'load: many events');

# ---- a restore is not news ----

my $file = "${PostgreSQL::Test::Utils::tmp_check}/dump";
$node->command_ok([ 'pg_dump', '-Fd', '-f', $file, 'postgres' ], 'dump');
foreach my $jobs (1, 2)
{
	my $database = "restored_$jobs";

	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0");
	$client{$database} = listen_to($node, $database);
	soon('a restore', 10, sub { $node->command_ok([ 'pg_restore', '-e', '-j', $jobs, '-d', $database, $file ], "restore, jobs: $jobs"); });
	wait_until_sent($node, $database, 7, "the relay has looked at what was restored");
	sell($node, $database, 'new');
	heard_all($client{$database});
	is(scalar(grep { !/^alloc_events/ } end_of($client{$database})), 1, 'only what is new is heard');
}
$node->stop;

# ---- a standby ----

my $primary = new_node('primary', $preload, allows_streaming => 1);
$primary->safe_psql('postgres', q{SELECT alloc.add_batch('batch', 'LAMP', 1000)});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
sell($primary, 'postgres', 'on the primary');
wait_until_sent($primary, 'postgres', 3, 'the primary sends');
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'alloc%'}), '0', 'a standby has no relay');
$primary->stop;
$standby->promote;
wait_for_relays($standby, 'postgres', 3);
$client{standby} = listen_to($standby, 'postgres');
sell($standby, 'postgres', 'after the promotion');
heard_all($client{standby});
is_deeply([ map { /"orderid": "(.+?)"/ } end_of($client{standby}) ], ['after the promotion'], 'after its promotion it has one that sends');
$standby->stop;

# ---- few worker processes ----

# One is the launcher's, one that of logical replication.
my $few = new_node('few', "$preload\nmax_worker_processes = 2\n");
$few->wait_for_log(qr/LOG:  no worker process is free for the relay of database \d+\n.*HINT:  Increase max_worker_processes/);
$few->safe_psql('postgres', q{SELECT alloc.add_batch('batch', 'LAMP', 1000)});
is(sell($few, 'postgres', 'without relay'), 'batch', 'without a free worker process there is a LOG line, and commands work');
$few->stop;

# More databases than worker processes, two of which have the extension.
$few->append_conf('postgresql.conf', 'max_worker_processes = 6');
$few->start;
$few->safe_psql('postgres', "CREATE DATABASE d$_") foreach 1 .. 7;
$few->safe_psql('d7', 'CREATE EXTENSION alloc');
wait_for_relays($few, 'd7 postgres', 3);
$few->restart;
wait_for_relays($few, 'd7 postgres', 8);

# A database that is left of a DROP DATABASE that was interrupted.
SKIP:
{
	skip 'this version has no invalid databases', 1
		if $few->safe_psql('postgres', 'SHOW server_version_num') < 150004;
	$few->safe_psql('postgres', "DROP DATABASE d$_") foreach 1 .. 6;
	$few->safe_psql('postgres', q{UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'd7'});
	$logged = -s $few->logfile;
	$few->restart;
	wait_for_relays($few, 'postgres', 3);
	usleep(4_000_000);
	my @fatal = slurp_file($few->logfile, $logged) =~ /(FATAL:  cannot connect.*)/g;
	cmp_ok(scalar @fatal, '<=', 1, 'an invalid database has no relay, and the log is quiet');
}
$few->stop;

done_testing();
