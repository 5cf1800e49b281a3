# Commands are cancelled and sessions ended by the thousand, at any moment, while
# many run all commands, small ones and large ones; now and then one of the
# background workers as well.  Nobody crashes, nothing is half done, and readers and
# handlers of the log have each event once.
#
#   KILLS_SECONDS=600       longer

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node differences);
use IPC::Run qw(start);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $seconds = $ENV{KILLS_SECONDS} // 15;
my $clients = 6;
my $tmp = ${PostgreSQL::Test::Utils::tmp_check};

# What may befall a command: it is cancelled, its session is ended or was; it met
# others; what 024_properties.pl knows as refused; and, of a transaction that one of
# these has failed, the commands after it.
my $expected = qr/57014|57P01|08006|40001|40P01|23505|SK00[1-5]|55000|25P0[12]|3B001/;

my $node = new_node('main', <<'END');
shared_preload_libraries = 'alloc'
max_connections = 40
max_worker_processes = 16
alloc.handler_retry_delay = 100
deadlock_timeout = 50ms
jit = off
log_statement = none
log_line_prefix = '%e %b %a: '
END

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# ---- what clients do ----

sql(slurp_file("$FindBin::RealBin/properties.sql"));
sql(<<'SQL');
CREATE TABLE had (event_id bigint NOT NULL);
CREATE TABLE told (event_id bigint NOT NULL);
CREATE TABLE heard (event_id bigint NOT NULL);
CREATE FUNCTION be_told(event jsonb) RETURNS void
LANGUAGE sql AS $$ INSERT INTO told VALUES ((event->>'event_id')::bigint) $$;
CREATE FUNCTION hear(event jsonb) RETURNS void
LANGUAGE sql AS $$ INSERT INTO heard VALUES ((event->>'event_id')::bigint) $$;
SELECT alloc.subscribe('shipped', 'be_told(jsonb)', 'sync');
SELECT alloc.subscribe('shipped', 'hear(jsonb)', 'async');
SELECT alloc.create_consumer('reader', 'beginning');

SELECT alloc.add_batch(format('wide %s.%s', n, m), 'wide ' || n, 40, CASE m WHEN 2 THEN date '2030-01-01' END)
  FROM generate_series(1, 100) n, generate_series(1, 2) m;
SELECT alloc.add_batch('deep ' || n, 'deep', 1500) FROM generate_series(1, 3) n;

CREATE FUNCTION wide_lines(n int) RETURNS alloc.order_line[]
LANGUAGE sql AS $$
	SELECT array_agg(ROW('big ' || n, 'wide ' || m, 1 + (n + m) % 3)::alloc.order_line)
	  FROM generate_series(1, 100) m
$$;

CREATE FUNCTION deep_lines() RETURNS alloc.order_line[]
LANGUAGE sql VOLATILE AS $$
	SELECT array_agg(ROW('deep ' || first + m, 'deep', 1 + m % 3)::alloc.order_line)
	  FROM (SELECT dice(2000) AS first) f, generate_series(1, 300) m
$$;

-- An order by the hundred, a batch with a thousand lines.
CREATE FUNCTION big() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	n int := dice(12);
	name text := 'big ' || n;
BEGIN
	CASE dice(12)
	WHEN 1, 2 THEN PERFORM alloc.allocate_lines(deep_lines());
	WHEN 3 THEN PERFORM alloc.change_batch_quantity('deep ' || dice(3), 2000 + coalesce(
		(SELECT max(shipped_qty) FROM alloc.batches WHERE sku = 'deep'), 0) - dice(2000));
	WHEN 4 THEN PERFORM alloc.change_batch_eta('deep ' || dice(3), some_day());
	WHEN 5 THEN PERFORM alloc.allocate_order(name, wide_lines(n), 'backorder');
	WHEN 6 THEN PERFORM alloc.handle(jsonb_build_object(
		'command', 'allocate_lines', 'lines', to_jsonb(deep_lines()), 'message_id', gen_random_uuid()));
	WHEN 7 THEN PERFORM alloc.hold('held ' || n, 'wide ' || m, 1, '1 second') FROM generate_series(1, 60) m;
	WHEN 8 THEN
		CASE dice(3)
		WHEN 1 THEN PERFORM alloc.confirm('held ' || n);
		WHEN 2 THEN PERFORM alloc.release('held ' || n);
		ELSE PERFORM alloc.extend_hold('held ' || n, '2 seconds');
		END CASE;
	WHEN 9 THEN PERFORM alloc.ship(CASE dice(2) WHEN 1 THEN name ELSE 'held ' || n END);
	WHEN 10 THEN PERFORM alloc.deallocate(orderid, sku)
		FROM (SELECT * FROM alloc.allocations WHERE orderid ~ '^(big|deep)' ORDER BY random() LIMIT 200) a;
	WHEN 11 THEN PERFORM alloc.cancel_backorder(orderid, sku) FROM alloc.backorders WHERE orderid = name;
	ELSE PERFORM alloc.purge_shipped(statement_timestamp() - interval '1 second');
	END CASE;
END
$$;
SQL

sub start_client
{
	my ($number) = @_;
	my $script = "$tmp/client_$number.sql";

	unlink $script;
	append_to_file($script, join '', map {
			$_ % 8 == 0 ? "SELECT big() \\g /dev/null\n"
			  : $_ % 9 == 0 ? "BEGIN; SELECT command(25); SAVEPOINT s; SELECT command(25); ROLLBACK TO s; SELECT command(25); COMMIT; \\g /dev/null\n"
			  : $_ % 25 == 0 ? "INSERT INTO had SELECT event_id FROM alloc.fetch_events('reader', 5000);\n"
			  : $_ % 97 == 0 ? "SELECT count(*) FROM alloc.check(), alloc.replay() \\g /dev/null\n"
			  : "SELECT command(25) \\g /dev/null\n" } 1 .. 300);

	# A client that has lost its session begins anew.
	return start([ 'sh', '-c', "until [ -e $tmp/stop ]; do PGAPPNAME=victim psql -Xq -d \"\$1\" -f $script; done", 'sh',
			$node->connstr('postgres') . ' options=\'-c statement_timeout=60s\'' ],
		'<', \undef, '>', '/dev/null', '2>', '/dev/null');
}

# ---- what is done to them ----

my %scripts = (
	cancel => <<'END',
SELECT count(pg_cancel_backend(pid)) FROM (
	SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' AND state <> 'idle'
	 ORDER BY random() LIMIT 1) v;
\set pause random(1, 12)
\sleep :pause ms
END
	terminate => <<'END',
SELECT count(pg_terminate_backend(pid)) FROM (
	SELECT pid FROM pg_stat_activity WHERE application_name = 'victim' ORDER BY random() LIMIT 1) v;
\set pause random(1, 60)
\sleep :pause ms
END
	worker => <<'END');
SELECT count(pg_terminate_backend(pid)) FROM (
	SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'alloc%' ORDER BY random() LIMIT 1) v;
\sleep 700 ms
END

sub start_killer
{
	my ($name) = @_;
	my %killer = (output => '', errors => '');

	append_to_file("$tmp/$name.sql", $scripts{$name});
	$killer{run} = start([ 'pgbench', '-n', '-T', $seconds, '-f', "$tmp/$name.sql", $node->connstr('postgres') ],
		'>', \$killer{output}, '2>', \$killer{errors});
	return \%killer;
}

# ---- the run ----

my @clients = map { start_client($_) } 1 .. $clients;
my @killers = map { start_killer($_) } sort keys %scripts;
foreach my $killer (@killers)
{
	ok($killer->{run}->finish, 'who kills goes on until the end') or diag($killer->{errors});
}
append_to_file("$tmp/stop", '');
$_->finish foreach @clients;

my $log = slurp_file($node->logfile);
my %seen;
$seen{$_}++ foreach $log =~ /^(\w{5}) client backend victim: (?:ERROR|FATAL|PANIC):/mg;
is(join(' ', grep { !/^$expected$/ } sort keys %seen), '', 'commands failed for good reasons only');
cmp_ok($seen{57014}, '>=', $seconds, 'many commands were cancelled');
cmp_ok($seen{'57P01'}, '>=', $seconds, 'many sessions were ended');
note(join ', ', map { "$_ $seen{$_} times" } sort keys %seen);
unlike($log, qr/PANIC:|TRAP:|terminated by signal/, 'nobody has crashed');
# But of what a session has come too late for.
my $late = qr/there is no transaction in progress|is not a PostgreSQL (?:backend|server) process/;
is(join("\n", grep { !/$late/ } $log =~ /WARNING:  (.*)/g), '', 'nobody was warned');

# ---- afterwards ----

ok($node->poll_query_until('postgres', q{SELECT value = 0 FROM alloc.stats WHERE name = 'relay_pending'}),
	'the relay has sent all events');
is(sql('SELECT * FROM alloc.check()'), '', 'check() finds nothing');
is(sql('SELECT wrong() LIMIT 5'), '', 'stock adds up, orders are whole, queues in order');
is(sql('SELECT wrong_log() LIMIT 5'), '', 'by the log queues were served in order, and holds by their time');
sql("SELECT alloc.allocate('last', sku, 1000000) FROM alloc.stock");
is(differences($node, 'postgres'), '', 'check() and replay() find nothing when what is over has been ended');

sql("INSERT INTO had SELECT event_id FROM alloc.fetch_events('reader', 100000000)");
is(sql('(SELECT event_id FROM alloc.event EXCEPT ALL TABLE had) UNION ALL (TABLE had EXCEPT ALL SELECT event_id FROM alloc.event) LIMIT 5'),
	'', 'a consumer was given each event once');
my $shipped = "SELECT event_id FROM alloc.event WHERE type = 'shipped'";
is(sql("($shipped EXCEPT ALL TABLE told) UNION ALL (TABLE told EXCEPT ALL $shipped) LIMIT 5"),
	'', 'a handler within the command was told of each event once');
my $handled = 'SELECT event_id FROM heard UNION ALL SELECT event_id FROM alloc.dead_letters';
ok($node->poll_query_until('postgres', "SELECT NOT EXISTS ($shipped EXCEPT ALL ($handled))"),
	'a handler after the commit hears of each event, whoever was killed meanwhile');
is(sql("($handled) EXCEPT ALL $shipped LIMIT 5"), '', 'and of none twice');
note(sql('SELECT count(*) FROM alloc.dead_letters') . ' dead letters');
note('events: ' . sql("SELECT string_agg(type || ' ' || n, ', ' ORDER BY type)
	FROM (SELECT type, count(*) AS n FROM alloc.event GROUP BY 1) t"));
$node->stop;
done_testing();
