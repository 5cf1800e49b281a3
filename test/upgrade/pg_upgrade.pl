# pg_upgrade, by copies and by links, of a cluster in which much has happened:
# all of it is there, and commands, consumers, handlers and the relay go on
# where they were.
#
# OLD_INSTALL and NEW_INSTALL name the installations of PostgreSQL, each with
# alloc.  See test/pg-upgrade.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t";
use AllocTest qw(contents differences sqlstate listen_to heard_all end_of fetched consumers foretold);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# With two worker processes there is none for a relay: what it is to send, and
# handlers are to be called with, stays.
my $no_relay = 'max_worker_processes = 2';
my $relay = 'max_worker_processes = 8';

# A cluster that is not started.
sub cluster
{
	my ($name, $install) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $install);

	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', <<"END");
shared_preload_libraries = 'alloc'
max_prepared_transactions = 5
alloc.handler_retry_delay = 10
$relay
END
	return $node;
}

# Restarts it with or without a relay.
sub restart_with
{
	my ($node, $setting) = @_;

	$node->append_conf('postgresql.conf', $setting);
	$node->restart;
	return;
}

my $old = cluster('old', $ENV{OLD_INSTALL});
$old->start;

sub sql { my ($sql) = @_; return $old->safe_psql('postgres', $sql); }

sub wait_for
{
	my ($node, $condition) = @_;

	$node->poll_query_until('postgres', "SELECT $condition") or die "in vain: $condition";
	return;
}

# ---- the old cluster ----

sql(<<'END');
CREATE EXTENSION alloc;
CREATE TABLE heard (event jsonb);
CREATE FUNCTION hear(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.heard VALUES ($1) $$;
CREATE FUNCTION refuse(jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
CREATE VIEW shop AS SELECT sku, available_qty FROM alloc.stock;
SELECT alloc.subscribe('out_of_stock', 'refuse(jsonb)');
SELECT alloc.subscribe('deallocated', 'hear(jsonb)');
SELECT alloc.add_batch('batch ' || n, 'sku ' || n % 10, 100, CASE WHEN n > 9 THEN date '2030-01-01' END)
  FROM generate_series(0, 19) n;
SELECT alloc.add_batch('hot', 'HOT', 100000);
SELECT alloc.add_batch('open', 'OPEN', 10);
SELECT alloc.add_batch(E'tab\tand ''quotes"', 'Größe', 7, '2031-12-31');
SELECT alloc.allocate('Ünïcode', 'Größe', 7);
SELECT alloc.handle('{"command": "allocate", "orderid": "message", "sku": "sku 3", "qty": 2, "message_id": "m1"}');
END

# A batch that is wanted by many has many slots.
my $script = "${PostgreSQL::Test::Utils::tmp_check}/hot.sql";
unlink $script;
append_to_file($script, <<'END');
BEGIN;
SELECT alloc.allocate(gen_random_uuid()::text, 'HOT', 1);
SELECT alloc.allocate(gen_random_uuid()::text, 'HOT', 1);
\sleep 2 ms
COMMIT;
END
$old->command_ok([ 'pgbench', '-n', '-c', 16, '-t', 40, '-f', $script, $old->connstr('postgres') ], 'old: many want one batch');
cmp_ok(sql(q{SELECT count(*) FROM alloc.slot WHERE ref = 'hot'}), '>', 1, 'old: it has many slots');
sql('SELECT alloc.snapshot_log()');
wait_for($old, q{alloc._archivable_to('infinity') = alloc._last_event_id()});
sql(<<'END');
CREATE TABLE archived AS SELECT * FROM alloc.archive_events('infinity');
END
cmp_ok(sql('SELECT count(*) FROM archived'), '>', 1000, 'old: events were archived');

# Transaction ids with something to remember: a consumer began while another
# transaction was open.
my $open = $old->background_psql('postgres');
$open->query_safe(q{BEGIN; SELECT alloc.allocate('open ' || n, 'OPEN', 1) FROM generate_series(1, 3) n});
sql(<<'END');
SELECT alloc.create_consumer(name) FROM unnest(ARRAY['none', 'some', 'all']) AS name;
SELECT alloc.create_consumer('from the beginning', 'beginning');
SELECT alloc.allocate('too many', 'sku 0', 5000);
SELECT alloc.allocate('order ' || n, 'sku ' || n % 10, 1) FROM generate_series(0, 99) n;
SELECT alloc.deallocate('order ' || n, 'sku ' || n % 10) FROM generate_series(0, 9) n;
END
wait_for($old, 'count(*) = 10 FROM heard');
wait_for($old, 'count(*) = 1 FROM alloc.dead_letters');
fetched($old, 'postgres', 'some', 7, 'COMMIT');
fetched($old, 'postgres', 'all', 1000, 'COMMIT');
$open->query_safe('COMMIT');
$open->quit;
sql('SELECT alloc.snapshot_log()');

restart_with($old, $no_relay);
sql(<<'END');
SELECT alloc.allocate('late ' || n, 'sku ' || n % 10, 1) FROM generate_series(0, 4) n;
SELECT alloc.deallocate('order ' || n, 'sku ' || n % 10) FROM generate_series(10, 12) n;
END
my %foretold = foretold($old, 'postgres');
is(scalar @{ $foretold{all} }, 11, 'old: a consumer waits for what came late, and for what is new');
cmp_ok(scalar @{ $foretold{some} }, '>', 100, 'old: one is in the middle of a batch');
is(differences($old, 'postgres'), '', 'old: sound');

my $models = <<'END';
SELECT * FROM alloc.allocations ORDER BY orderid, sku;
SELECT * FROM alloc.batches ORDER BY ref;
SELECT * FROM alloc.stock ORDER BY sku;
SELECT * FROM alloc.events ORDER BY event_id;
SELECT * FROM alloc.consumers ORDER BY name;
SELECT * FROM alloc.dead_letters ORDER BY id;
SELECT * FROM alloc.replay() ORDER BY ref;
SELECT * FROM alloc.history('sku 1');
SELECT * FROM shop ORDER BY sku;
SELECT began_at FROM alloc.era;
END
my $shown = sql($models);
my $contents = contents($old, 'postgres');
my $last_event = sql('SELECT alloc._last_event_id()');
my $next_xid = sql('SELECT pg_current_xact_id()');
my $version = sql('SHOW server_version');
$old->stop;

# ---- the new one ----

# The first of the lines that only one of two texts has.
sub changed
{
	my ($before, $after) = map { { map { $_ => 1 } split(/\n/, $_) } } @_;
	my @changes = ((map { "- $_" } grep { !$after->{$_} } sort keys %$before),
		(map { "+ $_" } grep { !$before->{$_} } sort keys %$after));

	return join("\n", splice(@changes, 0, 20));
}

# Upgrades the old cluster into a new one, and goes on there.
sub check_upgrade
{
	my ($name, @options) = @_;
	my $new = cluster($name, $ENV{NEW_INSTALL});
	my $run = sub { return $new->safe_psql('postgres', $_[0]); };
	my ($old_bin, $new_bin) = map { "$_/bin" } @ENV{qw(OLD_INSTALL NEW_INSTALL)};

	# It writes its log to the current directory.
	chdir $PostgreSQL::Test::Utils::tmp_check;
	$new->command_ok(
		[ "$new_bin/pg_upgrade", @options, '-b', $old_bin, '-B', $new_bin,
			'-d', $old->data_dir, '-D', $new->data_dir, '-s', $new->host,
			'-p', $old->port, '-P', $new->port ],
		"$name: pg_upgrade @options");
	$new->append_conf('postgresql.conf', $no_relay);
	$new->start;
	diag("$name: from $version to " . $run->('SHOW server_version'));
	is(changed($contents, contents($new, 'postgres')), '', "$name: tables and sequences are the same");
	is($run->($models), $shown, "$name: views and replay() show the same");
	is(differences($new, 'postgres'), '', "$name: sound");
	cmp_ok($run->('SELECT pg_current_xact_id()'), '>', $next_xid, "$name: transaction ids go on");

	check_consumers($name, $new);
	check_commands($name, $new);
	check_relay($name, $new);
	is(differences($new, 'postgres'), '', "$name: sound after that");
	$new->stop;
	return;
}

sub check_consumers
{
	my ($name, $new) = @_;

	foreach my $consumer (consumers($new, 'postgres'))
	{
		my @given = fetched($new, 'postgres', $consumer, 4, 'COMMIT');

		push @given, fetched($new, 'postgres', $consumer, 1000, 'COMMIT');
		is_deeply(\@given, $foretold{$consumer}, "$name: consumer $consumer goes on at exactly the next event");
	}
	is(scalar(consumers($new, 'postgres')), 4, "$name: that were all");
	return;
}

sub check_commands
{
	my ($name, $new) = @_;

	is($new->safe_psql('postgres', 'SELECT alloc.retry_dead_letters()'), '1', "$name: the dead letter can be sent again");
	is($new->safe_psql('postgres', <<'END'), <<'END' =~ s/\n$//r, "$name: commands go on");
SELECT alloc.allocate('late 0', 'sku 0', 1);
SELECT alloc.allocate('new', 'sku 0', 1);
SELECT alloc.allocate('new, large', 'sku 0', 95);
SELECT alloc.deallocate('late 0', 'sku 0');
SELECT alloc.add_batch('new', 'sku 0', 1000);
SELECT alloc.allocate('all', 'HOT', available_qty) FROM alloc.stock WHERE sku = 'HOT';
SELECT count(*) FROM alloc.change_batch_quantity('hot', 100);
SELECT alloc.handle('{"command": "allocate", "orderid": "message", "sku": "sku 3", "qty": 2, "message_id": "m1"}') ->> 'result';
END
batch 0
batch 0
batch 10
batch 0
new
hot
1181
batch 3
END
	is(sqlstate($new, 'postgres', q{SELECT alloc.handle('{"command": "allocate", "orderid": "other", "sku": "sku 3", "qty": 2, "message_id": "m1"}')}),
		'SK006', "$name: messages are known");
	is($new->safe_psql('postgres', "SELECT min(event_id) > $last_event FROM alloc.event WHERE orderid LIKE 'new%'"), 't',
		"$name: event ids go on");
	my @new = split(/\n/, $new->safe_psql('postgres', <<"END"));
SELECT event_id || ':' || coalesce(orderid, batchref) FROM alloc.event WHERE event_id > $last_event ORDER BY event_id
END
	foreach my $consumer (consumers($new, 'postgres'))
	{
		is_deeply([ fetched($new, 'postgres', $consumer, 100000, 'COMMIT') ], \@new, "$name: consumer $consumer has what is new");
	}
	return;
}

# The relay's position is locked until somebody listens.
sub check_relay
{
	my ($name, $new) = @_;

	is($new->safe_psql('postgres', 'SELECT count(*) FROM heard'), '10', "$name: the handler has not been called");
	$new->safe_psql('postgres', <<'END');
BEGIN;
SELECT * FROM alloc.position WHERE consumer_id = 0 FOR UPDATE;
PREPARE TRANSACTION 'the relay stands still';
END
	restart_with($new, $relay);
	my $client = listen_to($new, 'postgres');
	$new->safe_psql('postgres', q{ROLLBACK PREPARED 'the relay stands still'});
	heard_all($client);
	$new->safe_psql('postgres', q{SELECT alloc.allocate('newest', 'sku 2', 1)});
	heard_all($client);
	my @heard = map { /"event_id": (\d+)/ } end_of($client);
	my @unsent = split(/\n/, $new->safe_psql('postgres', <<'END'));
SELECT event_id FROM alloc.event
 WHERE event_id >= (SELECT min(event_id) FROM alloc.event WHERE orderid LIKE 'late%') ORDER BY 1
END
	is_deeply(\@heard, \@unsent, "$name: a client hears what was not sent, and what is new, once");
	wait_for($new, <<'END');
count(*) >= (SELECT count(*) FROM (SELECT type FROM alloc.event UNION ALL SELECT type FROM archived) e
              WHERE type = 'deallocated') FROM heard
END
	is($new->safe_psql('postgres', <<'END'), '', "$name: the handler was called with each event once");
SELECT e.event_id, count(h.event)
  FROM (SELECT event_id, type FROM alloc.event UNION ALL SELECT event_id, type FROM archived) e
  FULL JOIN heard h ON (h.event ->> 'event_id')::bigint = e.event_id
 WHERE e.type = 'deallocated'
 GROUP BY 1 HAVING count(h.event) <> 1;
END
	return;
}

check_upgrade('copied');
# The old cluster cannot be used after this one.
check_upgrade('linked', '--link');

done_testing();
