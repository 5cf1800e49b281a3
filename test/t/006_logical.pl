# Logical replication of the tables: what commands write by direct access is
# decoded as any change is, and the read models work where it arrives.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems);
use Test::More;

my $node = new_node('main', '', allows_streaming => 'logical');

# The subscriber is another database of the same server.  There CREATE
# SUBSCRIPTION would wait for itself if it were to make the slot.
$node->safe_psql('postgres', <<'END');
SELECT alloc.add_batch('before', 'LAMP', 10);
SELECT alloc.allocate('before', 'LAMP', 1);
CREATE PUBLICATION alloc FOR TABLES IN SCHEMA alloc;
SELECT pg_create_logical_replication_slot('alloc', 'pgoutput');
END
$node->safe_psql('postgres', 'CREATE DATABASE report');
$node->safe_psql('report', 'CREATE EXTENSION alloc');
my $connstr = $node->connstr . ' dbname=postgres';
$node->safe_psql('report', "CREATE SUBSCRIPTION alloc CONNECTION '$connstr'
	PUBLICATION alloc WITH (create_slot = false, slot_name = 'alloc')");
$node->wait_for_subscription_sync($node, 'alloc', 'report');

my $models = <<'END';
SELECT * FROM alloc.allocations ORDER BY orderid, sku;
SELECT * FROM alloc.batches ORDER BY ref;
SELECT * FROM alloc.stock ORDER BY sku;
SELECT * FROM alloc.events ORDER BY event_id;
SELECT * FROM alloc.allocation ORDER BY event_id;
END

# Runs a command and compares the read models of both sides.
sub replicates
{
	my ($name, $sql) = @_;

	$node->safe_psql('postgres', $sql);
	$node->wait_for_catchup('alloc');
	is($node->safe_psql('report', $models), $node->safe_psql('postgres', $models), $name);
	return;
}

replicates('what was there before', 'SELECT 1');
replicates('add_batch', q{
SELECT alloc.add_batch('shipment', 'LAMP', 10, '2030-01-01');
SELECT alloc.add_batch('Größe', '椅子', 10);
});
replicates('allocate', q{
SELECT alloc.allocate('one', 'LAMP', 4);
SELECT alloc.allocate('two', 'LAMP', 4);
SELECT alloc.allocate(E'it''s\n"late"', '椅子', 4);
SELECT alloc.allocate('three', 'LAMP', 11);
});
replicates('deallocate', q{SELECT alloc.deallocate('one', 'LAMP')});
replicates('change_batch_quantity, lines move',
	q{SELECT * FROM alloc.change_batch_quantity('before', 2)});
like($node->safe_psql('report', 'SELECT * FROM alloc.allocations'), qr/^two\|LAMP\|4\|shipment\|/m,
	'the line has moved there');
replicates('change_batch_quantity, lines fall out', q{
BEGIN;
SELECT * FROM alloc.change_batch_quantity('before', 0);
SELECT * FROM alloc.change_batch_quantity('shipment', 0);
COMMIT;
});
is($node->safe_psql('report', 'SELECT count(*) FROM alloc.allocations'), '1', 'they are gone there');
# Each finds its key taken when it inserts, and takes the row back.
replicates('the same line again', q{
SELECT alloc.add_batch('again', 'RUG', 10);
SELECT alloc.allocate('again', 'RUG', 1) FROM generate_series(1, 3);
SELECT alloc.hold('cart', 'RUG', 1, '1 hour') FROM generate_series(1, 3);
SELECT alloc.hold('again', 'RUG', 1, '1 hour');
SELECT alloc.allocate('cart', 'RUG', 1);
SELECT alloc.deallocate('cart', 'RUG');
SELECT alloc.add_batch('again', 'RUG', 10);
});
replicates('a savepoint rolled back', q{
BEGIN;
SELECT alloc.add_batch('more', 'LAMP', 5);
SAVEPOINT a;
SELECT alloc.allocate('four', 'LAMP', 2);
ROLLBACK TO a;
SELECT alloc.allocate('five', 'LAMP', 3);
COMMIT;
});
is(problems($node, 'report'), '', 'sound there');

$node->safe_psql('report', 'DROP SUBSCRIPTION alloc');
$node->stop;
done_testing();
