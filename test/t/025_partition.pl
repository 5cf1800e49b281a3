# A partition and what is around it: the relay leaves alone what it does not
# serve, parallel workers and a standby know the share, and a dump carries it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node sqlstate);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# LAMP is of partition 1 of 2, CHAIR of partition 0.
my $node = new_node('partition', "shared_preload_libraries = 'alloc'\n", allows_streaming => 1);
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

sub shown
{
	my ($on) = @_;
	return $on->safe_psql('postgres', "SELECT string_agg(sku, ' ' ORDER BY sku) FROM alloc.stock");
}

sql(<<'END');
SELECT alloc.add_batch(lower(sku), sku, 100000) FROM unnest(ARRAY['CHAIR', 'LAMP']) sku;
SELECT alloc.hold('cart', sku, 1, '2 seconds') FROM unnest(ARRAY['CHAIR', 'LAMP']) sku;
SELECT count(*) FROM alloc.allocate_lines(ARRAY(
	SELECT (n::text, sku, 1)::alloc.order_line
	  FROM generate_series(1, 5000) n, unnest(ARRAY['CHAIR', 'LAMP']) sku));
END
$node->wait_for_catchup($standby);
is(shown($standby), 'CHAIR LAMP', 'the standby shows all that is served');

# A session of the standby that has known another share.
my $reader = $standby->background_psql('postgres');
is($reader->query_safe('SELECT count(*) FROM alloc.stock'), '2', 'and so does a session there');
sql('SELECT alloc.set_partition(1, 2)');
$node->wait_for_catchup($standby);
is(shown($node), 'LAMP', 'a partition shows its own');
is(shown($standby), 'LAMP', 'its standby does');
is($reader->query_safe('SELECT count(*) FROM alloc.stock'), '1', 'and the session there');
$reader->quit;
is($standby->safe_psql('postgres', q{SELECT alloc.available_to_promise('LAMP') > 0}), 't', 'the standby promises its own');
is(sqlstate($standby, 'postgres', q{SELECT alloc.available_to_promise('CHAIR')}), '55000', 'and nothing else');
is(sqlstate($standby, 'postgres', 'SELECT alloc.set_partition(0, 2)'), '25006', 'it is not set there');

# Parallel workers

my $parallel = <<'END';
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
END
my $count = 'SELECT count(*) FROM alloc.events';
like(sql("$parallel EXPLAIN (COSTS OFF) $count"), qr/Parallel Seq Scan on event/, 'workers read view events');
is(sql("$parallel $count"), sql($count), 'and find what one process does');
is(sql("$parallel BEGIN; SELECT alloc.set_partition(0, 2); SELECT DISTINCT sku FROM alloc.events; ROLLBACK;"),
	"\nCHAIR", 'also what their leader has just changed');

# The relay ends holds of what is served

$node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM alloc.event WHERE type = 'hold_expired' AND sku = 'LAMP'})
  or die 'the hold was not ended';
# The relay looks each second.
sql('SELECT pg_sleep(2.5)');
is(sql(q{SELECT sku, ended, expires_at <= now() FROM alloc.hold ORDER BY sku}), "CHAIR|f|t\nLAMP|t|t",
	'what is not served is left as it was');

# A dump is of this partition

my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dump');
sql('CREATE DATABASE copy');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'copy', '-f', $dump ], 'restore');
is($node->safe_psql('copy', 'SELECT number, count FROM alloc.partition'), '1|2', 'the copy is the same partition');
is(sqlstate($node, 'copy', q{SELECT alloc.allocate('new', 'CHAIR', 1)}), '55000', 'and refuses the same skus');

# A session that knew the share of an extension that is gone

my $client = $node->background_psql('copy');
is($client->query_safe(q{SELECT alloc.allocate('new', 'LAMP', 1)}), 'lamp', 'a session knows the share');
$node->safe_psql('copy', q{DROP EXTENSION alloc; CREATE EXTENSION alloc; SELECT alloc.add_batch('b', 'CHAIR', 1)});
is($client->query_safe(q{SELECT alloc.allocate('new', 'CHAIR', 1)}), 'b', 'and that of the next extension');
$client->quit;

# What the relay has sent goes

$node->poll_query_until('postgres', 'SELECT alloc.drop_moved() = 1') or die 'the sku was not forgotten';
is(sql('SELECT DISTINCT sku FROM alloc.event'), 'LAMP', 'what the relay has sent is forgotten');
is(sql('SELECT count(*) FROM alloc.check()'), '0', 'and all is sound');
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', 'SELECT count(*) FROM alloc.check()'), '0', 'on the standby, too');

$standby->stop;
$node->stop;
done_testing();
