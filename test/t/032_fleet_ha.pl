# A partition with a synchronous standby is killed while clients work through
# two routers, and the standby is promoted.  One router is told by
# create_router(); the other one's connection string has both servers, and it is
# told nothing.  What was answered is there, orders are whole, a consumer goes
# on.  Then a router is lost, and a new one made.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocFleet qw(new_partition new_router connection fleet_contents);
use AllocTest qw(new_node differences);
use FleetLoad qw(add_fleet_stock start_clients start_consumer wait_for_answers
	stop_clients unfinished load_answers);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $clients = $ENV{HA_CLIENTS} // 8;
my $answers = $ENV{HA_ANSWERS} // 60;

my @parts = map { new_partition("p$_", "shared_preload_libraries = 'alloc'\n", allows_streaming => 1) } 0, 1;
$parts[0]->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($parts[0], 'backup', has_streaming => 1);
$standby->start;
$parts[0]->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'");
$parts[0]->reload;
$parts[0]->poll_query_until('postgres', q{SELECT sync_state = 'sync' FROM pg_stat_replication})
  or die 'the standby is not synchronous';

my $told = new_router('told', @parts);
my $knows = new_node('knows', "max_connections = 100\n");
my $either = sprintf "host=%s,%s port=%s,%s dbname=postgres target_session_attrs=read-write",
	map { my $f = $_; map { $_->$f } $parts[0], $standby } 'host', 'port';
$knows->safe_psql('postgres', 'CREATE EXTENSION plproxy');
$knows->safe_psql('postgres', sprintf q{SELECT alloc.create_router('fleet', ARRAY['%s', '%s'])}, $either, connection($parts[1]));

add_fleet_stock($told);
$told->safe_psql('postgres', <<'END');
CREATE TABLE had (n bigserial, consumer text, event_id bigint, type text, sku text, orderid text);
SELECT alloc.create_consumer('mail', 'beginning');
END

my $load = start_clients('load', $clients, $told, $knows);
start_consumer($load, $told, 'mail');
wait_for_answers($load, $answers);

my $killed = time;
$parts[0]->stop('immediate');
sleep 1;
$standby->promote;
$told->safe_psql('postgres', sprintf q{SELECT alloc.create_router('fleet', ARRAY['%s', '%s'])}, connection($standby), connection($parts[1]));
note(sprintf 'promoted and told after %.1f s', time - $killed);
wait_for_answers($load, $answers);
stop_clients($load);
is(unfinished($load), '', 'each client was answered in the end');
my @now = ($standby, $parts[1]);

# What a client began and a server ended.  All clients are gone.
note('recovered: ' . $told->safe_psql('postgres', 'SELECT count(*) FROM alloc.recover_orders()'));
is(fleet_contents('SELECT orderid, state FROM alloc.fleet_order', @now), '', 'no order is left in the middle');

# ---- what was answered is there ----

load_answers($load, $told);
sub rows { my ($sql) = @_; return $told->safe_psql('postgres', $sql); }
rows('CREATE TABLE line AS SELECT * FROM alloc.allocations; CREATE INDEX ON line (orderid, sku); ANALYZE line, answer');
note('answers: ' . rows("SELECT string_agg(kind || ' ' || n, ', ') FROM (SELECT kind, count(*) AS n FROM answer GROUP BY 1) a"));
is(rows(<<'END'), '', 'what was allocated and not freed again is there');
SELECT a.* FROM answer a
 WHERE a.kind IN ('allocated', 'ordered') AND a.batchref IS NOT NULL
   AND NOT EXISTS (SELECT FROM answer d WHERE d.kind = 'deallocated' AND d.orderid = a.orderid AND d.sku = a.sku)
   AND NOT EXISTS (SELECT FROM line l WHERE l.orderid = a.orderid AND l.sku = a.sku AND l.qty = a.qty AND l.expires_at IS NULL)
 LIMIT 5
END
is(rows(<<'END'), '', 'what was held and confirmed is allocated');
SELECT a.* FROM answer a JOIN answer c ON c.kind = 'confirmed' AND c.orderid = a.orderid
 WHERE a.kind = 'held' AND a.batchref IS NOT NULL
   AND NOT EXISTS (SELECT FROM line l WHERE l.orderid = a.orderid AND l.sku = a.sku AND l.qty = a.qty AND l.expires_at IS NULL)
 LIMIT 5
END
is(rows(<<'END'), '', 'an order is whole, or absent');
SELECT a.orderid, count(*), count(l.sku)
  FROM answer a LEFT JOIN line l ON l.orderid = a.orderid AND l.sku = a.sku AND l.expires_at IS NULL
 WHERE a.kind = 'ordered' GROUP BY 1 HAVING count(l.sku) NOT IN (0, count(*)) LIMIT 5
END
is(rows(<<'END'), '', 'what was bought is there, and found by its reference');
SELECT a.batchref FROM answer a WHERE a.kind = 'bought'
EXCEPT SELECT ref FROM alloc.batches LIMIT 5
END
is(rows('SELECT * FROM alloc.check()'), '', 'check() finds nothing in the fleet');
is(differences($_, 'postgres'), '', 'nor on ' . $_->name . ', and the log tells the same') foreach @now;

# ---- the consumer ----

append_to_file("$load->{stop}_consumer", '');
waitpid $load->{consumer}, 0;
sub drain
{
	my ($node, $consumer) = @_;

	for (my $idle = 0; $idle < 3;)
	{
		my $given = $node->safe_psql('postgres', "WITH g AS (INSERT INTO had (consumer, event_id, type, sku, orderid)
			SELECT '$consumer', event_id, type, sku, orderid FROM alloc.fetch_events('$consumer', 20000) RETURNING 1)
			SELECT count(*) FROM g");
		$idle = $given == 0 ? $idle + 1 : 0;
	}
	return;
}
drain($told, 'mail');
my $counts = q{SELECT count(*), count(DISTINCT (event_id, sku)) FROM };
is(rows("$counts alloc.events"), rows("$counts had WHERE consumer = 'mail'"),
	'the consumer has each event once');
is(rows('SELECT count(*) FROM (SELECT event_id, sku, type FROM alloc.events EXCEPT SELECT event_id, sku, type FROM had) AS missed'),
	'0', '... and has missed none');
is(rows(<<'END'), '0', '... and those of each line in their order');
SELECT count(*) FROM (
	SELECT event_id, lag(event_id) OVER (PARTITION BY orderid, sku ORDER BY n) AS before
	  FROM had WHERE orderid IS NOT NULL) AS given
 WHERE before > event_id
END

# ---- a router is lost ----

$knows->safe_psql('postgres', q{SELECT alloc.allocate('before', 'sku 1', 1)});
my $stock = $knows->safe_psql('postgres', 'SELECT * FROM alloc.stock ORDER BY sku');
$told->stop('immediate');
my $new = new_router('new', @now);
is($new->safe_psql('postgres', 'SELECT * FROM alloc.stock ORDER BY sku'), $stock, 'a new router has all the stock');
is($new->safe_psql('postgres', q{SELECT alloc.allocate('before', 'sku 1', 1) IS NOT NULL, alloc.allocate('after', 'sku 2', 1) IS NOT NULL}),
	't|t', '... and serves');
is($new->safe_psql('postgres', q{SELECT count(*) FROM alloc.consumers}), '0', '... but knows no consumer');
my ($status, undef, $error) = $new->psql('postgres', q{SELECT * FROM alloc.fetch_events('mail')});
isnt($status, 0, '... and says so');
$new->safe_psql('postgres', <<'END');
CREATE TABLE had (n bigserial, consumer text, event_id bigint, type text, sku text, orderid text);
SELECT alloc.create_consumer('mail', 'beginning');
END
drain($new, 'mail');
is($new->safe_psql('postgres', "$counts had"), $new->safe_psql('postgres', "$counts alloc.events"),
	'a consumer that is created again has all from the beginning');

$_->stop('fast') foreach $new, $knows, @now;
done_testing();
