# Random sequences over all commands, on few skus and orders so that they meet:
# what must hold after each command, whatever came before it.  First one session
# at a time, at each isolation level, a transaction for each command.  Then eight
# at once, about a third at each level, while somebody looks by one snapshot again
# and again; and what the log tells of the queues afterwards.
#
# That the checks can fail is tested first: each has to see a damage.  They were also
# tried on faulty code: with the queue walked from its end, with mode all that takes
# what there is, with confirm() that does not look at the clock, each was found by
# one session within one sequence, and by eight within 5 seconds.
#
#   PROPERTIES_SEEDS=50 PROPERTIES_SECONDS=120      more of it

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node differences);
use IPC::Run qw(run start);
use PostgreSQL::Test::Utils;
use Test::More;

my $seeds = $ENV{PROPERTIES_SEEDS} // 3;
my $seconds = $ENV{PROPERTIES_SECONDS} // 12;
my $commands = 400;
my @levels = ('read committed', 'repeatable read', 'serializable');

# What a command may answer but by a result: there with another quantity or with
# other values, not there, below what has left, over, only held.
my $refused = qr/23505|SK00[1-5]|55000/;

my $node = new_node('main', <<'END');
log_statement = none
log_line_prefix = '%e %a: '
deadlock_timeout = 50ms
client_min_messages = warning
jit = off
max_connections = 30
END

# Each sequence has a database like this one.
my $template = 'postgres';
$node->safe_psql($template, slurp_file("$FindBin::RealBin/properties.sql"));

sub rows
{
	my ($database, $query) = @_;
	return $node->safe_psql($database, $query);
}

sub new_database
{
	my ($name) = @_;
	$name =~ tr/ /_/;
	# The template has to be nobody's at that moment.
	rows('template1', "CREATE DATABASE $name TEMPLATE $template");
	return $name;
}

sub options
{
	my ($level, @others) = @_;
	$level =~ s/ /\\ /;
	push @others, "statement_timeout=${PostgreSQL::Test::Utils::timeout_default}s";
	return join ' ', map { "-c $_" } "default_transaction_isolation=$level", @others;
}

# ---- the checks can fail ----

my $damaged = new_database('damaged');
rows($damaged, <<'END');
SELECT alloc.add_batch('a', 'sku 1', 10), alloc.add_batch('b', 'sku 2', 10),
       alloc.add_batch('c', 'sku 3', 10, '2030-01-02'), alloc.add_batch('d', 'sku 3', 12);
SELECT alloc.allocate_order('all 2', lines_of(2), 'all');
SELECT alloc.allocate('order 1', 'sku 1', 3);
SELECT alloc.hold('cart 1', 'sku 3', 3, '1 hour');
SELECT alloc.hold('cart 2', 'sku 3', 3, '1 microsecond');
SELECT alloc.allocate_order('order 2', ARRAY[('order 2', 'sku 2', 20)]::alloc.order_line[], 'backorder');
SELECT alloc.allocate_order('order 3', ARRAY[('order 3', 'sku 2', 15)]::alloc.order_line[], 'backorder');
END
is(rows($damaged, 'SELECT wrong(), wrong_log()'), '', 'nothing is wrong before a damage');

sub sees
{
	my ($what, $damage) = @_;
	my $seen = rows($damaged, "BEGIN; $damage; SELECT wrong(); SELECT wrong_log(); ROLLBACK");

	like($seen, qr/^\Q$what\E: /m, "a damage is seen: $what");
	return;
}

# As if events were recorded after all others.
sub recorded
{
	my (@events) = @_;
	return "INSERT INTO alloc.event (event_id, at, xact, relay, type, sku, orderid, qty) VALUES "
		. join(', ', map { "(nextval('alloc.event_id_seq'), clock_timestamp(), 1, false, $_)" } @events);
}

sees('not conserved', "UPDATE alloc.slot SET available = available + 1 WHERE ref = 'a'");
sees('not conserved', "UPDATE alloc.slot SET shipped = shipped + 1 WHERE ref = 'a'");
sees('not conserved', "DELETE FROM alloc.allocation WHERE orderid = 'order 1'");
sees('outlives its hold', <<'END');
CREATE OR REPLACE VIEW alloc.allocations AS
SELECT a.orderid, a.sku, a.qty, b.ref AS batchref, b.eta, a.expires_at
  FROM alloc.allocation a JOIN alloc.batch b USING (batch_id)
END
sees('waits for what is there', "UPDATE alloc.slot SET available = 15 WHERE ref = 'b'");
sees('waits and is served',
	"UPDATE alloc.backorder SET orderid = 'order 1', sku = 'sku 1' WHERE orderid = 'order 2'");
sees('out of turn', <<'END');
CREATE OR REPLACE VIEW alloc.backorders AS
SELECT orderid, sku, qty, since FROM alloc.backorder ORDER BY event_id DESC
END
sees('half there',
	"UPDATE alloc.allocation SET orderid = 'order 9' WHERE orderid = 'all 2' AND sku = 'sku 1'");
my $other_view = <<'END';
CREATE OR REPLACE VIEW alloc.batches AS
SELECT ref, sku, eta, purchased AS purchased_qty, 0::bigint AS shipped_qty, 0::bigint AS allocated_qty,
       purchased + 1 AS available_qty
  FROM alloc.batch
END
sees('promised', $other_view);
sees('to promise', $other_view);
sees('served before its turn',
	recorded("'backordered', 'sku 2', 'order 4', 16", "'allocated', 'sku 2', 'order 4', 16"));
sees('held and confirmed too late', recorded("'confirmed', 'sku 3', 'cart 2', 3"));
sees('held and ended too early', recorded("'hold_expired', 'sku 3', 'cart 1', 3"));

# ---- one session ----

sub play
{
	my ($database, $level, $seed) = @_;
	my $file = "${PostgreSQL::Test::Utils::tmp_check}/$database.sql";
	my ($output, $errors) = ('', '');

	append_to_file($file, "\\set VERBOSITY verbose\nSELECT setseed(1.0 / $seed) \\g /dev/null\n");
	foreach my $n (1 .. $commands)
	{
		my $command = $n % 15 ? 'command(12)' : 'give_up_all(dice(12))';
		append_to_file($file, "SELECT $command \\g /dev/null\nSELECT 'command $n: ' || wrong();\n");
	}
	local $ENV{PGOPTIONS} = options($level, 'properties.alone=on');
	run([ 'psql', '-XAtq', '-f', $file, '-d', $node->connstr($database) ], '>', \$output, '2>', \$errors);

	$output =~ s/\n(?:.*\n){5}\K.*//s;
	is($output, '', "$database: all holds after each command");
	is(join("\n", grep { !/ERROR:  $refused: / } grep { /(?:ERROR|FATAL): / } split(/\n/, $errors)),
		'', "$database: commands are refused for good reasons only");
	return;
}

# The log and the state agree, also when all that is over has been ended: an order
# that finds too little everywhere looks at all holds.
sub check_end
{
	my ($database) = @_;

	is(rows($database, 'SELECT wrong_log() LIMIT 5'), '',
		"$database: by the log queues were served in order, and holds by their time");
	is(rows($database, 'SELECT * FROM alloc.check()'), '', "$database: check() finds nothing");
	rows($database, "SELECT alloc.allocate('last', sku, 1000000) FROM alloc.stock");
	is(differences($node, $database), '',
		"$database: check() and replay() find nothing when what is over has been ended");
	is(rows($database, 'SELECT wrong() LIMIT 5'), '', "$database: all holds in the end");
	return;
}

sub count_events
{
	my ($database, $counts) = @_;

	foreach (split /\n/, rows($database, <<'END'))
SELECT type, count(*) FROM alloc.event GROUP BY 1
 UNION ALL
SELECT 'served after it waited', count(*)
  FROM (SELECT type, lag(type) OVER (PARTITION BY orderid, sku ORDER BY event_id) AS before
          FROM alloc.event WHERE type IN ('backordered', 'allocated')) e
 WHERE type = 'allocated' AND before = 'backordered'
 UNION ALL
SELECT 'whole orders', count(*)
  FROM (SELECT FROM alloc.event WHERE type = 'allocated' AND orderid LIKE 'all %'
         GROUP BY xact, orderid HAVING count(*) > 1) o
END
	{
		my ($type, $count) = split /\|/;
		$counts->{$type} += $count;
	}
	return;
}

sub check_work
{
	my ($name, $counts, $least) = @_;
	my @types = (qw(batch_quantity_changed batch_eta_changed allocated deallocated out_of_stock
		held hold_released hold_expired confirmed backordered shipped promise_changed),
		'served after it waited', 'whole orders');

	# It is no test of the commands unless they do what they are for.
	cmp_ok($counts->{$_} // 0, '>=', $least, "$name: $_") foreach @types;
	note("$name: " . join(', ', map { "$_ $counts->{$_}" } sort keys %$counts));
	return;
}

my %counts;
foreach my $level (@levels)
{
	foreach my $seed (1 .. $seeds)
	{
		my $database = new_database("$level $seed");

		play($database, $level, $seed);
		check_end($database);
		count_events($database, \%counts);
		rows('template1', "DROP DATABASE $database");
	}
}
check_work('one session', \%counts, 2 * $seeds);

# ---- many sessions ----

# One command is one transaction, or some are.
my %scripts = (
	one => 'SELECT try(25) AS one;',
	some => <<'END',
BEGIN;
SELECT try(25) AS some;
SELECT try(25) AS some;
SELECT give_up_all(dice(25)) AS some;
COMMIT;
END
	look => <<'END');
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO look SELECT NULL UNION ALL SELECT wrong();
COMMIT;
\sleep 20 ms
END

foreach my $script (keys %scripts)
{
	append_to_file("${PostgreSQL::Test::Utils::tmp_check}/$script.sql", $scripts{$script});
}

sub start_pgbench
{
	my ($database, $level, $script, $clients) = @_;
	my $name = "$script, $level";
	my $file = "${PostgreSQL::Test::Utils::tmp_check}/$script.sql";
	my %client = (name => $name, output => '', errors => '');

	local $ENV{PGOPTIONS} = options($level);
	local $ENV{PGAPPNAME} = $name;
	$client{run} = start([ 'pgbench', '-n', '-c', $clients, '-T', $seconds, '--max-tries=10000', '-f', $file,
			$node->connstr($database) ], '>', \$client{output}, '2>', \$client{errors});
	return \%client;
}

# What errors the server has seen, by SQLSTATE and by who has met them.  Only what
# is to be tried again may be there: at READ COMMITTED that is a deadlock, and in
# each there is somebody who locks several things one after the other.
sub check_errors
{
	my ($log) = @_;
	my %seen;

	$seen{$_}++ foreach $log =~ /^(\w{5} .*?: (?:ERROR|FATAL|PANIC)):  /mg;
	is(join("\n", grep { !/^40001 (?:one|some), (?:repeatable read|serializable): |^40P01 / } sort keys %seen),
		'', 'many sessions: no error but those that are retried');
	is(join("\n", grep { !/: SELECT.* AS some/ } $log =~ /^40P01 .*?: DETAIL:  (.*(?:\n\t.*)*)/mg),
		'', 'many sessions: no deadlock between single commands');
	note("many sessions: $seen{$_} times $_") foreach sort keys %seen;
	return;
}

my $logged = -s $node->logfile;
my $together = new_database('together');
my @clients = map { start_pgbench($together, @$_) } (
	[ $levels[0], 'one', 2 ], [ $levels[0], 'some', 1 ],
	[ $levels[1], 'one', 2 ], [ $levels[1], 'some', 1 ],
	[ $levels[2], 'one', 1 ], [ $levels[2], 'some', 1 ],
	[ $levels[1], 'look', 1 ]);

foreach my $client (@clients)
{
	$client->{run}->finish;
	my ($name, $output) = @{$client}{qw(name output)};
	like($output, qr/^number of failed transactions: 0 /m, "many sessions: none failed of $name");
	is(join("\n", grep { /^pgbench: error/ } split(/\n/, $client->{errors})), '',
		"many sessions: no error of $name");
	note("$name: $_") foreach $output =~ /^(number of transactions (?:actually|retried).*)/mg;
}
check_errors(slurp_file($node->logfile, $logged));
is(rows($together, 'SELECT DISTINCT seen FROM look WHERE seen IS NOT NULL LIMIT 10'), '',
	'many sessions: all holds at each look');
cmp_ok(rows($together, 'SELECT count(*) FROM look WHERE seen IS NULL'), '>=', 3 * $seconds,
	'many sessions: there were many looks');
check_end($together);

my %together;
count_events($together, \%together);
check_work('many sessions', \%together, $seconds);

$node->stop;
done_testing();
