# A standby shows the read models, refuses commands, and serves after its
# promotion.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node sqlstate problems);
use PostgreSQL::Test::Cluster;
use Test::More;

my $primary = new_node('primary', '', allows_streaming => 1);

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

$primary->safe_psql('postgres', <<'END');
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
END
my $shown = $standby->safe_psql('postgres', $models);
like($shown, qr/^one\|LAMP\|7\|in stock\|\|$/m, 'the standby shows lines');
is($shown, $primary->safe_psql('postgres', $models), 'and all else that the primary does');

# Also those that would have nothing to do.
foreach my $command (
	q{alloc.add_batch('new', 'LAMP', 1)},
	q{alloc.add_batch('in stock', 'LAMP', 10)},
	q{alloc.allocate('new', 'LAMP', 1)},
	q{alloc.allocate('one', 'LAMP', 7)},
	q{alloc.deallocate('one', 'LAMP')},
	q{alloc.deallocate('nobody', 'LAMP')},
	q{alloc.change_batch_quantity('in stock', 1)},
	q{alloc.change_batch_quantity('in stock', 10)})
{
	is(sqlstate($standby, 'postgres', "SELECT $command"), '25006',
		"on the standby: $command");
}
is($standby->safe_psql('postgres', $models), $shown, 'nothing has changed by that');

my $last_event = $primary->safe_psql('postgres', 'SELECT max(event_id) FROM alloc.events');
my $last_batch = $primary->safe_psql('postgres', 'SELECT max(batch_id) FROM alloc.batch');
$primary->stop;
$standby->promote;

is($standby->safe_psql('postgres', <<'END'),
SELECT alloc.allocate('one', 'LAMP', 7);
SELECT alloc.allocate('four', 'LAMP', 3);
SELECT alloc.deallocate('two', 'LAMP');
SELECT alloc.add_batch('new', 'LAMP', 1);
SELECT alloc.allocate('five', 'LAMP', 1);
END
	"in stock\nin stock\nshipment\nnew\nnew", 'promoted, it allocates');
is($standby->safe_psql('postgres',
		"SELECT type FROM alloc.events WHERE event_id > $last_event ORDER BY event_id"),
	"allocated\ndeallocated\nbatch_created\nallocated", 'new events come after the old ones');
is($standby->safe_psql('postgres',
		"SELECT batch_id > $last_batch FROM alloc.batch WHERE ref = 'new'"),
	't', 'and new batches');
is(problems($standby, 'postgres'), '', 'sound');

$standby->stop;
done_testing();
