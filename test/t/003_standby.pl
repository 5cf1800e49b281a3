# A standby shows the read models and computes from the log what the primary
# does, refuses commands, and serves after its promotion: commands, consumers
# and the relay go on where they were.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node sqlstate problems differences listen_to heard_all end_of
	fetched consumers foretold);
use PostgreSQL::Test::Cluster;
use Test::More;

my $primary = new_node('primary', <<'END', allows_streaming => 1);
shared_preload_libraries = 'alloc'
max_prepared_transactions = 5
END

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

sub on_primary { my ($sql) = @_; return $primary->safe_psql('postgres', $sql); }
sub on_standby { my ($sql) = @_; return $standby->safe_psql('postgres', $sql); }

on_primary(<<'END');
SELECT alloc.add_batch('in stock', 'LAMP', 10);
SELECT alloc.add_batch('shipment', 'LAMP', 10, '2030-01-01');
SELECT alloc.allocate('one', 'LAMP', 7);
SELECT alloc.allocate('two', 'LAMP', 7);
SELECT alloc.allocate('three', 'LAMP', 7);
END
$primary->wait_for_catchup($standby);

my $models = <<'END';
SELECT * FROM alloc.allocations ORDER BY orderid;
SELECT * FROM alloc.batches ORDER BY ref;
SELECT * FROM alloc.stock ORDER BY sku;
SELECT * FROM alloc.events ORDER BY event_id;
SELECT * FROM alloc.consumers ORDER BY name;
SELECT * FROM alloc.dead_letters ORDER BY id;
END
my $shown = on_standby($models);
like($shown, qr/^one\|LAMP\|7\|in stock\|\|$/m, 'the standby shows lines');
is($shown, on_primary($models), 'and all else that the primary does');

# Also those that would have nothing to do.
foreach my $command (
	q{alloc.add_batch('new', 'LAMP', 1)},
	q{alloc.add_batch('in stock', 'LAMP', 10)},
	q{alloc.allocate('new', 'LAMP', 1)},
	q{alloc.allocate('one', 'LAMP', 7)},
	q{alloc.allocate_lines(ARRAY[('new', 'LAMP', 1)]::alloc.order_line[])},
	q{alloc.deallocate('one', 'LAMP')},
	q{alloc.deallocate('nobody', 'LAMP')},
	q{alloc.change_batch_quantity('in stock', 1)},
	q{alloc.change_batch_quantity('in stock', 10)},
	q{alloc.handle('{"command": "deallocate", "orderid": "nobody", "sku": "LAMP", "message_id": "m1"}')},
	q{alloc.create_consumer('late')},
	q{alloc.drop_consumer('nobody')},
	q{alloc.fetch_events('nobody')},
	q{alloc.retry_dead_letters()},
	q{alloc.repair(false)},
	q{alloc.rebuild()},
	q{alloc.snapshot_log()},
	q{alloc.archive_events(now())})
{
	my ($name) = $command =~ /^alloc\.(\w+)/;
	my ($status, undef, $errors) = $standby->psql('postgres',
		"\\set VERBOSITY verbose\nSELECT $command", on_error_stop => 1);

	like($errors, qr/ERROR:  25006: cannot execute $name\(\) /, "on the standby: $command");
}
is(on_standby($models), $shown, 'nothing has changed by that');

# ---- the log as a whole ----

# A snapshot in the middle, and events before it that are not there any more.
on_primary(<<'END');
SELECT alloc.snapshot_log();
CREATE TABLE archived AS SELECT * FROM alloc.archive_events('infinity');
SELECT alloc.deallocate('three', 'LAMP');
SELECT * FROM alloc.change_batch_quantity('in stock', 3);
SELECT alloc.snapshot_log();
SELECT alloc.add_batch('new', 'RUG', 5, '2031-12-31');
SELECT alloc.allocate('one', 'RUG', 5);
SELECT alloc.allocate('two', 'RUG', 1);
END
my $log = <<'END';
SELECT * FROM alloc.replay() ORDER BY ref;
SELECT * FROM alloc.replay('LAMP') ORDER BY ref;
SELECT u, r.* FROM generate_series(alloc._archived_to(), alloc._last_event_id()) u, alloc.replay(NULL, u) r
 ORDER BY u, ref;
SELECT * FROM alloc.history('LAMP');
SELECT * FROM alloc.history_of_order('one');
SELECT * FROM alloc.check();
SELECT * FROM alloc.repair();
END
$primary->wait_for_catchup($standby);
my $told = on_standby($log);
like($told, qr/^new\|RUG\|2031-12-31\|5\|0\|5\|0$/m, 'the standby replays the log');
is($told, on_primary($log), 'replay(), history() and history_of_order() tell what they do on the primary');
is(sqlstate($standby, 'postgres', 'SELECT * FROM alloc.replay(NULL, 1)'), '55000',
	'on the standby: what was archived cannot be replayed');
is(differences($standby, 'postgres'), '', 'on the standby: sound');

# What somebody has changed by hand.
on_primary(<<'END');
UPDATE alloc.slot SET available = available + 1 WHERE ref = 'shipment';
DELETE FROM alloc.allocation WHERE orderid = 'one' AND sku = 'RUG';
END
$primary->wait_for_catchup($standby);
my $wrong = on_standby('SELECT * FROM alloc.check()');
like($wrong, qr/^line_missing\|RUG\|new\|one\|/m, 'on the standby: check() finds a missing line');
like($wrong, qr/^stock_differs\|LAMP\|shipment\|/m, '... and stock that is not as the log tells');
is($wrong, on_primary('SELECT * FROM alloc.check()'), '... and what it finds on the primary');
is(on_standby('SELECT * FROM alloc.repair()'), on_primary('SELECT * FROM alloc.repair()'),
	'on the standby: repair() says what the primary\'s would do');
is(sqlstate($standby, 'postgres', 'SELECT * FROM alloc.repair(false)'), '25006', '... and does not do it');
on_primary('SELECT * FROM alloc.repair(false)');
$primary->wait_for_catchup($standby);
is(differences($standby, 'postgres'), '', 'what is repaired on the primary is so on the standby');

# ---- promotion ----

# Consumers that have had this and that; transactions that are open or prepared
# meanwhile; a relay that stands still, because its position is locked.
$primary->poll_query_until('postgres', 'SELECT count(*) = 1 FROM alloc.position WHERE consumer_id = 0')
  or die 'the relay has no position';
on_primary(<<'END');
SELECT alloc.create_consumer(name) FROM unnest(ARRAY['none', 'some', 'all']) AS name;
SELECT alloc.create_consumer('from the beginning', 'beginning');
SELECT alloc.add_batch('many', 'DESK', 1000);
BEGIN;
SELECT alloc.allocate('prepared ' || n, 'DESK', 1) FROM generate_series(1, 3) n;
PREPARE TRANSACTION 'orders';
SELECT alloc.allocate('early ' || n, 'DESK', 1) FROM generate_series(1, 5) n;
END
my $before = listen_to($primary, 'postgres');
on_primary(q{SELECT alloc.allocate('sent', 'DESK', 1)});
heard_all($before);
on_primary(<<'END');
BEGIN;
SELECT * FROM alloc.position WHERE consumer_id = 0 FOR UPDATE;
PREPARE TRANSACTION 'the relay stands still';
SELECT alloc.allocate('not sent ' || n, 'DESK', 1) FROM generate_series(1, 3) n;
END
is(scalar(grep { /not sent/ } end_of($before)), 0, 'the relay has not sent all');
fetched($primary, 'postgres', 'all', 1000, 'COMMIT');
is(scalar fetched($primary, 'postgres', 'some', 4, 'COMMIT'), 4, 'a consumer is in the middle of a batch');
my $open = $primary->background_psql('postgres');
$open->query_safe(q{BEGIN; SELECT alloc.allocate('open', 'DESK', 1)});
on_primary(q{SELECT alloc.allocate('last ' || n, 'DESK', 1) FROM generate_series(1, 2) n});
my %foretold = foretold($primary, 'postgres');
is(scalar @{ $foretold{all} }, 2, 'another one lacks the last events');

my $last_event = on_primary('SELECT max(event_id) FROM alloc.events');
my $last_batch = on_primary('SELECT max(batch_id) FROM alloc.batch');
$primary->wait_for_catchup($standby);
is(on_standby($models . $log), on_primary($models . $log), 'the standby has it all');
$primary->stop('immediate');
eval { $open->quit };
$standby->promote;

is(differences($standby, 'postgres'), '', 'promoted, it is sound');
is_deeply({ map { $_ => [ fetched($standby, 'postgres', $_, 3, 'COMMIT'), fetched($standby, 'postgres', $_, 1000, 'COMMIT') ] }
		consumers($standby, 'postgres') }, \%foretold, 'each consumer goes on at exactly the next event');

# The relay has nothing to say until it has its position.
my $client = listen_to($standby, 'postgres');
is(on_standby(<<'END'),
SELECT alloc.allocate('one', 'LAMP', 7);
SELECT alloc.allocate('four', 'LAMP', 3);
SELECT alloc.deallocate('two', 'RUG');
SELECT alloc.add_batch('newest', 'LAMP', 1);
SELECT alloc.allocate('five', 'LAMP', 1);
END
	"\nin stock\n\nnewest\nnewest", 'it allocates');
is(on_standby("SELECT type FROM alloc.events WHERE event_id > $last_event ORDER BY event_id"),
	"out_of_stock\nallocated\nbatch_created\nallocated", 'new events come after the old ones');
is(on_standby("SELECT batch_id > $last_batch FROM alloc.batch WHERE ref = 'newest'"),
	't', 'and new batches');
on_standby(q{ROLLBACK PREPARED 'the relay stands still'});
heard_all($client);
on_standby(q{COMMIT PREPARED 'orders'; SELECT alloc.deallocate('four', 'LAMP')});
heard_all($client);
is_deeply([ map { /"(?:orderid|batchref)": "(.+?)"/ } grep { !/^alloc_events/ } end_of($client) ],
	[ 'not sent 1', 'not sent 2', 'not sent 3', 'last 1', 'last 2', 'one', 'four', 'newest', 'five',
		'prepared 1', 'prepared 2', 'prepared 3', 'four' ],
	'a client hears what was committed before the promotion and not sent, and what is new, once');

my @new = split(/\n/, on_standby(<<"END"));
SELECT event_id || ':' || coalesce(orderid, batchref) FROM alloc.events
 WHERE event_id > $last_event OR orderid LIKE 'prepared%'
 ORDER BY orderid LIKE 'prepared%' OR event_id = alloc._last_event_id(), event_id
END
foreach my $consumer (consumers($standby, 'postgres'))
{
	is_deeply([ sort(fetched($standby, 'postgres', $consumer, 1000, 'COMMIT')) ], [ sort @new ],
		"consumer $consumer has what is new, and the prepared transaction's");
}

is(on_standby('SELECT alloc.snapshot_log() = alloc._last_event_id()'), 't', 'it takes a snapshot of the log');
cmp_ok(on_standby(q{SELECT count(*) FROM alloc.archive_events('infinity')}), '>', 10, '... and archives events');
is(on_standby(q{SELECT count(*) FROM alloc.change_batch_quantity('many', 5)}), '9', 'a batch shrinks over what was archived');
is(differences($standby, 'postgres'), '', 'sound after that');

$standby->stop;
done_testing();
