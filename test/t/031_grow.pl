# A fleet of two partitions grows to four while clients work through two
# routers, by the commands of doc/scale.md: nothing that was answered is lost,
# nothing is sold twice, a consumer gets each event once, and only what moves is
# refused, only while it does.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocFleet qw(new_partition new_router connection fleet_contents);
use AllocTest qw(differences);
use FleetLoad qw(add_fleet_stock start_clients start_consumer wait_for_answers
	stop_clients unfinished load_answers);
use IPC::Run qw(run);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $clients = $ENV{GROW_CLIENTS} // 8;
my $answers = $ENV{GROW_ANSWERS} // 60;

# The commands of the document: those of a step of the doubling.
my $document = slurp_file("$FindBin::RealBin/../../doc/scale.md");
my ($doubling) = $document =~ /^## Doubling the partitions\n(.*?)^## /ms;
my ($restoring) = $document =~ /^## Doubling by dump and restore\n(.*?)^## /ms;

sub commands
{
	my ($text) = @_;

	return join '', $text =~ /^```sh\n(.*?)^```$/msg;
}

my %step = map { /^(\d)\. .*?\n(.*)/s ? ($1 => commands($2)) : () } split /^### /m, $doubling;
is(join(' ', sort grep { $step{$_} ne '' } keys %step), '1 2 3 4 5 6', 'the document has six steps with commands');

# Runs commands as of a user who has set in the first step what is his own.
sub paste
{
	my ($name, $set, $commands) = @_;
	my $output = '';
	my $began = time;
	my $done = run([ 'bash', '-euo', 'pipefail', '-c', $set . $commands ], '<', \undef, '>', \$output, '2>&1');

	ok($done, "$name, as the document says") or diag($output);
	note(sprintf '%s: %.2f s', $name, time - $began);
	return;
}

my $settings = "shared_preload_libraries = 'alloc'\nwal_level = logical\n";
my @parts = map { new_partition("p$_", $settings, allows_streaming => 'logical') } 0 .. 4;
my @four = @parts[ 0 .. 3 ];
# The document creates the extension.
$_->safe_psql('postgres', 'DROP EXTENSION alloc; DROP SCHEMA alloc') foreach @parts[ 2 .. 4 ];
my @routers = map { new_router($_, @parts[ 0, 1 ]) } 'router1', 'router2';
my $router = $routers[0];

add_fleet_stock($router);
$router->safe_psql('postgres', <<'END');
CREATE TABLE had (n bigserial, consumer text, event_id bigint, type text, sku text, orderid text);
SELECT alloc.create_consumer('mail', 'beginning');
SELECT alloc.create_consumer('late');
END
# Holds that end while they are copied: only one partition is to say so.
$router->safe_psql('postgres', q{
SELECT alloc.hold('short ' || n, 'sku ' || 1 + n % 40, 1, make_interval(secs => n / 10.0)) FROM generate_series(1, 200) n});

my $load = start_clients('load', $clients, @routers);
start_consumer($load, $router, 'mail');
wait_for_answers($load, $answers);

# What step 1 sets: partition $number is doubled, and then these have the numbers.
sub settings
{
	my ($number, @now) = @_;
	my ($old, $new) = map { connection($_) } @parts[ $number, $number + @now / 2 ];
	my $list = join ', ', map { "'" . connection($parts[$_]) . "'" } @now;
	my $to = join ' ', map { '"' . $_->connstr('postgres') . '"' } @routers;

	return join '', qq{old="$old"\nnew="$new"\nnumber=$number\n}, 'count=' . @now / 2 . "\n",
	  qq{fleet=fleet\npartitions="$list"\nrouters=($to)\n};
}

# What the servers wrote to their logs before.
my %logged;

sub double
{
	my ($number, @now) = @_;
	my $set = settings($number, @now);

	paste("partition $number: preparing and copying", $set, $step{2} . $step{3});
	wait_for_answers($load, $answers);
	%logged = map { $_->name => -s $_->logfile } @routers;
	my $refused = refusals();
	is(@$refused, 0, "partition $number: nothing was refused before the switch");
	paste("partition $number: the switch", $set, $step{4} . $step{5});
	wait_for_answers($load, $answers);
	note_refusals($number, refusals());
	return $set;
}

# [ seconds since midnight, SQLSTATE, message ] of the routers' errors since.
sub refusals
{
	my @found;

	foreach my $node (@routers)
	{
		foreach my $line (split /\n/, slurp_file($node->logfile, $logged{ $node->name } // 0))
		{
			push @found, [ $1 * 3600 + $2 * 60 + $3, $4, $5 ]
			  if $line =~ /^\S+ (\d+):(\d+):([\d.]+) .*?<(\w{5})> (?:ERROR|FATAL):  (.*)/;
		}
	}
	return \@found;
}

# Only what is of the new number, or of an order as a whole.
sub note_refusals
{
	my ($number, $found) = @_;
	my @others;
	my %keys;

	foreach my $error (@$found)
	{
		my ($key) = $error->[2] =~ /^(?:sku|batch|order) "(.*)" is not (?:served|kept) by this partition$/;

		if ($error->[1] eq '55000' && defined $key) { $keys{$key} = 1 }
		elsif ($error->[1] ne '55000' || $error->[2] !~ /^this partition serves other skus than the router knows|^this is not partition/)
		{
			push @others, "$error->[1] $error->[2]";
		}
	}
	is(join("\n", @others), '', "partition $number: who was refused had 55000");
	my $list = join ', ', map { "(\$\$$_\$\$)" } sort keys %keys;
	is($router->safe_psql('postgres', "SELECT key FROM (VALUES $list) AS k (key) WHERE alloc.partition_of(key) & 3 <> $number + 2"),
		'', "partition $number: only for what moves") if $list ne '';
	my @at = sort { $a <=> $b } map { $_->[0] } @$found;
	note(@at ? sprintf('partition %s: %d calls were refused, of %d keys, over %.3f s', $number, scalar @at, scalar keys %keys, $at[-1] - $at[0])
		: "partition $number: no call was refused");
	cmp_ok(@at ? $at[-1] - $at[0] : 0, '<', 30, "partition $number: and not for long");
	return;
}

foreach my $node (@routers)
{
	$node->append_conf('postgresql.conf', "log_line_prefix = '%m [%p] <%e> '\nlog_error_verbosity = terse");
	$node->reload;
}
sleep 1;
my %set = (0 => double(0, 0, 1, 2, 1), 1 => double(1, 0, 1, 2, 3));

wait_for_answers($load, $answers);
stop_clients($load);
is(unfinished($load), '', 'each client was answered in the end');
is($router->safe_psql('postgres', 'SELECT * FROM alloc.recover_orders()'), '', 'no order was left in the middle');

# ---- what was answered is there ----

load_answers($load, $router);
my $lines = "${PostgreSQL::Test::Utils::tmp_check}/lines";
append_to_file($lines, join '', map { "$_\n" } split /\n/,
	join "\n", map { $_->safe_psql('postgres', <<"END") } @four);
SELECT a.orderid, a.sku, a.qty, b.ref, a.expires_at IS NOT NULL, p.number, p.count
  FROM alloc.allocation a JOIN alloc.batch b USING (batch_id), alloc.partition p
 WHERE alloc._serves(a.sku)
END
$router->safe_psql('postgres', <<"END");
CREATE TABLE line (orderid text, sku text, qty bigint, batchref text, held boolean, number int, count int);
\\copy line FROM '$lines' (DELIMITER '|')
CREATE INDEX ON line (orderid, sku);
ANALYZE line, answer;
END
sub told { my ($sql) = @_; return $router->safe_psql('postgres', $sql); }

note('answers: ' . told("SELECT string_agg(kind || ' ' || n, ', ') FROM (SELECT kind, count(*) AS n FROM answer GROUP BY 1) a"));
is(told('SELECT DISTINCT count FROM line'), '4', 'all partitions are of four');
is(told('SELECT * FROM line WHERE alloc.partition_of(sku) & 3 <> number LIMIT 5'), '', 'each line is on the partition of its sku');
is(told('SELECT orderid, sku FROM line GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 5'), '', '... and nowhere else');
is(told(<<'END'), '', 'what was allocated and not freed again is there');
SELECT a.* FROM answer a
 WHERE a.kind IN ('allocated', 'ordered') AND a.batchref IS NOT NULL
   AND NOT EXISTS (SELECT FROM answer d WHERE d.kind = 'deallocated' AND d.orderid = a.orderid AND d.sku = a.sku)
   AND NOT EXISTS (SELECT FROM line l WHERE l.orderid = a.orderid AND l.sku = a.sku AND l.qty = a.qty AND NOT l.held)
 LIMIT 5
END
is(told(<<'END'), '', 'what was held and confirmed is allocated');
SELECT a.* FROM answer a JOIN answer c ON c.kind = 'confirmed' AND c.orderid = a.orderid
 WHERE a.kind = 'held' AND a.batchref IS NOT NULL
   AND NOT EXISTS (SELECT FROM line l WHERE l.orderid = a.orderid AND l.sku = a.sku AND l.qty = a.qty AND NOT l.held)
 LIMIT 5
END
is(told(<<'END'), '', 'what was freed is not there');
SELECT d.* FROM answer d JOIN line l ON l.orderid = d.orderid AND (l.sku = d.sku OR d.kind = 'released')
 WHERE d.kind IN ('deallocated', 'released') LIMIT 5
END
is(told(<<'END'), '', 'an order is whole, or absent');
SELECT a.orderid, count(*), count(l.sku)
  FROM answer a LEFT JOIN line l USING (orderid, sku)
 WHERE a.kind = 'ordered' GROUP BY 1 HAVING count(l.sku) NOT IN (0, count(*)) LIMIT 5
END
is(told(<<'END'), '', 'what was bought is there, and found by its reference');
SELECT a.batchref FROM answer a WHERE a.kind = 'bought'
EXCEPT SELECT ref FROM alloc.batches LIMIT 5
END

# ---- the consumer ----

# The relays end the short holds: those events, too.
$_->poll_query_until('postgres', q{SELECT count(*) = 0 FROM alloc.hold WHERE orderid LIKE 'short %' AND NOT ended AND alloc._serves(sku)})
  or die 'holds do not end' foreach @four;

# Until there is nothing more, twice: what a partition gave before the last fetch
# may let another one begin.
foreach my $consumer ('mail', 'late')
{
	append_to_file("$load->{stop}_consumer", '') if $consumer eq 'mail';
	waitpid $load->{consumer}, 0 if $consumer eq 'mail';
	for (my $idle = 0; $idle < 3;)
	{
		my $given = told("WITH g AS (INSERT INTO had (consumer, event_id, type, sku, orderid)
			SELECT '$consumer', event_id, type, sku, orderid FROM alloc.fetch_events('$consumer', 20000) RETURNING 1)
			SELECT count(*) FROM g");
		$idle = $given == 0 ? $idle + 1 : 0;
	}
}
is(told('SELECT name, pending FROM alloc.consumers ORDER BY 1'), "late|0\nmail|0", 'the consumers have nothing to read any more');

# ---- at leisure ----

paste("partition $_: forgetting", $set{$_}, $step{6}) foreach 0, 1;
is(fleet_contents('SELECT sku FROM alloc.product WHERE NOT alloc._serves(sku)
	UNION ALL SELECT ref FROM alloc.directory WHERE NOT alloc._serves(ref)
	UNION ALL SELECT sku FROM alloc.event WHERE NOT alloc._serves(sku)
	UNION ALL SELECT orderid FROM alloc.fleet_order', @four), '', 'no partition has anything left of what it does not serve');
is(told('SELECT * FROM alloc.check()'), '', 'check() finds nothing in the fleet');
is(differences($parts[$_], 'postgres'), '', "nor on partition $_, and the log tells the same") foreach 0 .. 3;

# By the whole log, which each sku has on its partition.
my $events = "${PostgreSQL::Test::Utils::tmp_check}/events";
append_to_file($events, join '', map { "$_\n" } split /\n/, fleet_contents(
	"SELECT event_id, type, sku, coalesce(orderid, '') FROM alloc.event", @four));
$router->safe_psql('postgres', <<"END");
CREATE TABLE logged (event_id bigint, type text, sku text, orderid text);
\\copy logged FROM '$events' (DELIMITER '|')
END
is(told("SELECT count(*) FROM (TABLE logged EXCEPT ALL
	SELECT event_id, type, sku, coalesce(orderid, '') FROM had WHERE consumer = 'mail') AS missed"), '0', 'the consumer has missed no event');
is(told("SELECT count(*) FROM (SELECT event_id, type, sku, coalesce(orderid, '') FROM had WHERE consumer = 'mail'
	EXCEPT ALL TABLE logged) AS surplus"), '0', 'and had none twice');
is(told(<<'END'), '0', 'and those of each line in their order');
SELECT count(*) FROM (
	SELECT event_id, lag(event_id) OVER (PARTITION BY orderid, sku ORDER BY n) AS before
	  FROM had WHERE consumer = 'mail' AND orderid IS NOT NULL) AS given
 WHERE before > event_id
END
cmp_ok(told("SELECT count(*) FROM had WHERE consumer = 'mail'"), '>', 500, 'there was something to read');
is(told(<<'END'), '0', 'a consumer that read nothing meanwhile has the same, from its beginning');
SELECT count(*) FROM (
	SELECT event_id, sku FROM had WHERE consumer = 'mail' AND type NOT IN ('batch_created')
	EXCEPT ALL
	SELECT event_id, sku FROM had WHERE consumer = 'late') AS d
 JOIN (SELECT sku AS of_sku, min(event_id) AS first FROM had WHERE consumer = 'late' GROUP BY 1) AS f ON f.of_sku = d.sku AND d.event_id > f.first
END
is(told("SELECT count(*) FROM (SELECT event_id, sku FROM had WHERE consumer = 'late' GROUP BY 1, 2 HAVING count(*) > 1) AS twice"),
	'0', '... each event once');
is(told(<<'END'), '0', '... those of each line in their order');
SELECT count(*) FROM (
	SELECT event_id, lag(event_id) OVER (PARTITION BY orderid, sku ORDER BY n) AS before
	  FROM had WHERE consumer = 'late' AND orderid IS NOT NULL) AS given
 WHERE before > event_id
END
is(fleet_contents("SELECT orderid FROM alloc.event WHERE type = 'hold_expired' GROUP BY orderid HAVING count(*) > 1", @four),
	'', 'a hold that ended meanwhile has ended once');

# ---- by dump and restore ----

my $set = settings(0, 0, 1, 2, 3, 4, 1, 2, 3);
my $stock = told('SELECT count(*), md5(string_agg(s::text, $$,$$ ORDER BY sku)) FROM alloc.stock s');
my $shown = told('SELECT count(*), md5(string_agg(a::text, $$,$$ ORDER BY orderid, sku)) FROM alloc.allocations a');
paste('dump and restore', $set, commands($restoring));
is(told('SELECT count(*) FROM alloc.stock WHERE alloc.partition_of(sku) & 7 = 4'), '0', 'a router that was not told yet does not show what moved');
paste('dump and restore: telling the routers', $set, $step{5});
is(told('SELECT count(*), md5(string_agg(s::text, $$,$$ ORDER BY sku)) FROM alloc.stock s'), $stock, 'the stock is what it was');
is(told('SELECT count(*), md5(string_agg(a::text, $$,$$ ORDER BY orderid, sku)) FROM alloc.allocations a'), $shown, 'so are the order lines');
$router->safe_psql('postgres', q{
SELECT alloc.allocate('restored', sku, 1) FROM alloc.stock WHERE sku LIKE 'sku %'});
is(told(<<'END'), told("SELECT string_agg(sku, ' ' ORDER BY sku) FROM alloc.stock WHERE sku LIKE 'sku %'"), 'consumers get what is new, once, and nothing that was copied');
SELECT string_agg(sku, ' ' ORDER BY sku)
  FROM (SELECT sku FROM alloc.fetch_events('mail', 20000)
        UNION ALL SELECT sku FROM alloc.fetch_events('mail', 20000)
        UNION ALL SELECT sku FROM alloc.fetch_events('mail', 20000)) AS f
END
paste('dump and restore: forgetting', $set, $step{6});
is(told('SELECT * FROM alloc.check()'), '', 'check() finds nothing in the fleet');
is(told('SELECT count(*), md5(string_agg(a::text, $$,$$ ORDER BY orderid, sku)) FROM alloc.allocations a WHERE orderid <> $$restored$$'), $shown, 'the order lines are what they were');

$_->stop('fast') foreach @routers, @parts;
done_testing();
