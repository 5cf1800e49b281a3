# Asynchronous handlers: each committed event once and in order, as the role
# that subscribed and with no other right; who fails, sleeps or is dropped hurts
# nobody else; crashes lose and repeat nothing.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems bench);
use IPC::Run qw(start finish);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $settings = <<'END';
shared_preload_libraries = 'alloc'
max_worker_processes = 16
alloc.handler_workers = 6
alloc.handler_retries = 2
alloc.handler_retry_delay = 200
alloc.handler_timeout = 1s
log_line_prefix = '%m [%p] %b '
restart_after_crash = on
END
my $node = new_node('main', $settings);

sub sql { my ($sql, @more) = @_; return $node->safe_psql('postgres', $sql, @more); }
sub becomes { my ($query, $what) = @_; return ok($node->poll_query_until('postgres', $query), $what); }

# All is handled, or dead.
my $idle = q{SELECT sum(value) = 0 FROM alloc.stats WHERE name IN ('handler_pending', 'handler_retries')};
sub settled { my ($what) = @_; return becomes($idle, "$what: all is handled"); }

# A role's handler, subscribed as that role; its body has "event".
sub handler
{
	my ($role, $name, $type, $body, $mode) = @_;
	$mode //= 'async';
	sql(<<"END");
SET ROLE $role;
CREATE OR REPLACE FUNCTION $role.$name(event jsonb) RETURNS void LANGUAGE plpgsql AS \$h\$ BEGIN $body END \$h\$;
END
	sql("SET ROLE $role; SELECT alloc.subscribe('$type', '$role.$name(jsonb)', '$mode')") if $type;
	return;
}
sub no_handlers
{
	my ($out, $number) = (sql('SELECT event_type, handler FROM alloc.subscription'), 0);

	foreach my $row (split /\n/, $out)
	{
		my ($type, $handler) = split /\|/, $row;
		sql("SELECT alloc.unsubscribe('$type', '$handler')");
	}
	sql('TRUNCATE shop.heard; DELETE FROM alloc.delivery');
	return;
}
sub dead { return sql("SELECT handler, attempts, last_error FROM alloc.dead_letters ORDER BY event_id, handler"); }
sub reload { my ($line) = @_; sql("ALTER SYSTEM SET $line"); $node->reload; return; }

# The process of a handler, found by what it says that it does.
sub worker_of
{
	my ($name) = @_;
	my $query = "FROM pg_stat_activity WHERE backend_type = 'alloc handler' AND state = 'active' AND query LIKE '%$name(%'";

	$node->poll_query_until('postgres', "SELECT count(*) = 1 $query") or die "no worker of $name";
	return sql("SELECT pid $query");
}

sql(<<'END');
CREATE ROLE shop NOLOGIN; CREATE ROLE other LOGIN; CREATE ROLE admin SUPERUSER LOGIN;
CREATE SCHEMA shop AUTHORIZATION shop; CREATE SCHEMA other AUTHORIZATION other;
GRANT USAGE ON SCHEMA alloc, shop TO shop, other;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA alloc TO shop, other;
SET ROLE shop;
CREATE TABLE shop.heard (id bigserial, by text, event_id bigint, event jsonb, who text DEFAULT current_user || ' ' || session_user);
END
my $hear = "INSERT INTO shop.heard (by, event_id, event) VALUES ('%s', (event->>'event_id')::bigint, event);";
sub hears { my ($name, $type) = @_; return handler('shop', $name, $type, sprintf($hear, $name)); }

# Each committed event once, in causal order, and none that was rolled back

sql("SELECT alloc.add_batch('b', 's', 1000000), alloc.allocate('before', 's', 1)");
hears('first', 'allocated');
hears('second', 'allocated');
my ($complaints) = bench($node, [ '-c', '4', '-t', '100' ], mixed => [ 1, <<'END' ]);
\set kept random(0, 3)
BEGIN;
SELECT alloc.allocate(gen_random_uuid()::text, 's', 1), alloc.allocate(gen_random_uuid()::text, 's', 2);
SAVEPOINT here;
SELECT alloc.allocate('undone' || gen_random_uuid(), 's', 1);
ROLLBACK TO here;
\if :kept
COMMIT;
\else
ROLLBACK;
\endif
END
is($complaints, '', 'clients cause events');
settled('many events');
is(sql(<<'END'), '', 'each handler was called with the payload of each committed event, once');
SELECT * FROM (VALUES ('first'), ('second')) AS h (name)
 CROSS JOIN (SELECT * FROM alloc.events WHERE type = 'allocated' AND orderid <> 'before') e
  FULL JOIN shop.heard ON heard.by = name AND heard.event = e.payload
 WHERE e.event_id IS NULL OR heard.id IS NULL;
END
is(sql('SELECT count(*) - count(DISTINCT (by, event_id)) FROM shop.heard'), '0', 'none twice');
is(sql(q{SELECT DISTINCT who FROM shop.heard}), 'shop shop', 'current_user and session_user are the role that subscribed, which need not be able to log in');
is(sql(<<'END'), '0', 'events of one transaction come in their order');
SELECT count(*) FROM (
	SELECT h.event_id, lag(h.event_id) OVER (PARTITION BY by, e.xact ORDER BY h.id) AS before
	  FROM shop.heard h JOIN alloc.event e ON e.event_id = h.event_id) o WHERE before > event_id;
END
sql("SELECT alloc.deallocate('before', 's')");
for my $n (1 .. 20) { sql("SELECT alloc.allocate('chain $n', 's', 1)"); }
settled('a chain');
is(sql(q{SELECT by, string_agg(event->>'orderid', ',' ORDER BY id) = (SELECT string_agg('chain ' || n, ',' ORDER BY n) FROM generate_series(1, 20) n)
	FROM shop.heard WHERE event->>'orderid' LIKE 'chain%' GROUP BY by ORDER BY by}), "first|t\nsecond|t", 'what one transaction after the other did comes in that order');
is(sql('SELECT count(DISTINCT xmin::text) = count(*) FROM shop.heard'), 't', 'each in a transaction of its own');
no_handlers();

# Privileges: what it may not do is a dead letter

sql('CREATE TABLE secret (x int)');
hears('witness', 'allocated');
my %forbidden = (
	'INSERT INTO public.secret VALUES (1)' => 'permission denied for table secret',
	'SET ROLE postgres' => 'cannot set parameter "role" within security-definer function',
	'RESET ROLE' => 'cannot set parameter "role" within security-definer function',
	'SET SESSION AUTHORIZATION DEFAULT' => 'cannot set parameter "session_authorization" within security-definer function',
	'RESET SESSION AUTHORIZATION' => 'cannot set parameter "session_authorization" within security-definer function',
	'LISTEN x' => 'cannot execute LISTEN within a background process',
	'SELECT * FROM alloc.event' => 'permission denied for table event',
	'CREATE ROLE evil' => 'permission denied to create role',
	'COMMIT' => 'EXECUTE of transaction commands is not implemented',
	'ALTER SYSTEM SET work_mem = 1' => 'ALTER SYSTEM cannot be executed from a function',
	'INSERT INTO other.late VALUES (1)' => 'permission denied for table secret',
	'DECLARE held CURSOR WITH HOLD FOR SELECT other.steal()' => 'permission denied for table secret');
sql(<<'END');
SET ROLE other;
CREATE FUNCTION other.steal() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO public.secret VALUES (1) RETURNING 1';
CREATE TABLE other.late (x int);
CREATE FUNCTION other.late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM other.steal(); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON other.late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION other.late();
CREATE TABLE other.attempt (command text);
END
reload('alloc.handler_retries = 0');
my @commands = sort keys %forbidden;
for my $i (0 .. $#commands)
{
	handler('other', "tries_$i", 'allocated', "EXECUTE \$c\$$commands[$i]\$c\$;");
}
sql("SELECT alloc.allocate('p1', 's', 1)");
settled('forbidden things');
for my $i (0 .. $#commands)
{
	like(sql("SELECT last_error FROM alloc.dead_letters WHERE handler LIKE 'other.tries_$i(%'"), qr/\Q$forbidden{$commands[$i]}\E/, "refused: $commands[$i]");
}
is(sql('SELECT count(*) FROM public.secret'), '0', 'nothing of it was done');
is(sql('SELECT count(*) FROM shop.heard'), '1', 'another handler was called');
no_handlers();
handler('other', 'temporary', 'allocated', <<'END');
CREATE TEMPORARY TABLE IF NOT EXISTS mine AS SELECT current_user AS who;
IF (SELECT who FROM mine) <> 'other' THEN RAISE 'whose is this'; END IF;
SET work_mem = '77MB';
END
handler('shop', 'setting', 'allocated', "INSERT INTO shop.heard (by, event) VALUES (current_setting('work_mem'), to_jsonb(to_regclass('pg_temp.mine') IS NULL));");
for my $n (1 .. 5) { sql("SELECT alloc.allocate('t$n', 's', 1)"); }
settled('temporary tables and settings');
is(sql('SELECT DISTINCT by, event FROM shop.heard'), '4MB|true', 'a handler meets no setting or temporary table of another one');
is(dead(), '', 'and none failed');
no_handlers();
sql('CREATE ROLE leaver; GRANT USAGE ON SCHEMA alloc TO leaver; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA alloc TO leaver; CREATE SCHEMA leaver AUTHORIZATION leaver');
handler('leaver', 'gone', 'allocated', 'NULL;');
hears('witness', 'allocated');
sql('ALTER FUNCTION leaver.gone(jsonb) OWNER TO admin; ALTER SCHEMA leaver OWNER TO admin; DROP OWNED BY leaver; DROP ROLE leaver');
sql("SELECT alloc.allocate('d1', 's', 1)");
settled('a dropped role');
like(dead(), qr/^leaver\.gone\(pg_catalog\.jsonb\)\|1\|42704: role \d+, which subscribed, does not exist$/, 'a role that was dropped: a dead letter');
is(sql('SELECT count(*) FROM shop.heard'), '1', 'a role that was dropped: hurts nobody else');
no_handlers();
sql(<<'END');
CREATE FUNCTION other.swapped(jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.secret VALUES (2)';
SELECT alloc.subscribe('allocated', 'other.swapped(jsonb)');
ALTER FUNCTION other.swapped(jsonb) OWNER TO other;
SELECT alloc.allocate('d2', 's', 1);
END
settled('a function that was given away');
like(dead(), qr/^other\.swapped\(pg_catalog\.jsonb\)\|1\|42501: other\.swapped\(pg_catalog\.jsonb\) would run with rights that its owner does not have$/,
	'a function that was given to another role: a dead letter');
is(sql('SELECT count(*) FROM public.secret'), '0', 'a function that was given to another role: not called');
no_handlers();
reload('alloc.handler_retries = 2');

# Failing: retried later and later, then dead; mended

sql('CREATE SEQUENCE shop.attempts OWNED BY NONE; ALTER SEQUENCE shop.attempts OWNER TO shop');
my $logged = -s $node->logfile;
handler('shop', 'fails', 'allocated', "RAISE 'attempt %', nextval('shop.attempts') USING ERRCODE = 'P0042';");
hears('witness', 'allocated');
sql("SELECT alloc.allocate('f1', 's', 1)");
sql("SELECT alloc.allocate('f2', 's', 1)");
becomes('SELECT count(*) = 2 FROM alloc.dead_letters', 'a failing handler: dead letters');
is(sql("SELECT event->>'orderid' FROM shop.heard ORDER BY id"), "f1\nf2", 'a failing handler: another one was called');
is(sql("SELECT string_agg(attempts::text, ',') FROM alloc.dead_letters"), '3,3', 'a failing handler: called once and as often again as alloc.handler_retries says');
like(dead(), qr/^shop\.fails\(pg_catalog\.jsonb\)\|3\|P0042: attempt \d$/m, 'a failing handler: the last error');
is(sql('SELECT last_value FROM shop.attempts'), '6', 'a failing handler: not once more');
my %at;
foreach my $line (split /\n/, slurp_file($node->logfile, $logged))
{
	$at{$4} = $1 * 3600 + $2 * 60 + $3 if $line =~ /(\d+):(\d+):([\d.]+) \S+ \[\d+\] alloc handler ERROR: +attempt (\d)/;
}
my @times = map { $at{$_} } sort { $a <=> $b } keys %at;
cmp_ok(scalar @times, '==', 6, 'a failing handler: each error is in the log');
cmp_ok($times[5] - $times[0], '>=', 0.6, 'a failing handler: 200 ms, then 400 ms between its attempts');
is(sql(q{SELECT value FROM alloc.stats WHERE name = 'dead_letters'}), '2', 'a failing handler: in stats');
is(sql('SELECT alloc.retry_dead_letters()'), '2', 'retry_dead_letters() returns how many');
becomes("SELECT last_value = 12 FROM shop.attempts", 'retry_dead_letters(): as often as new ones');
becomes('SELECT count(*) = 2 FROM alloc.dead_letters', 'retry_dead_letters(): dead again');
handler('shop', 'fails', undef, sprintf($hear, 'mended'));
sql('SELECT alloc.retry_dead_letters()');
settled('retry_dead_letters()');
is(sql("SELECT event->>'orderid' FROM shop.heard WHERE by = 'mended' ORDER BY id"), "f1\nf2", 'retry_dead_letters() after the function is mended');
is(dead(), '', 'retry_dead_letters(): none is left');
sql('DROP FUNCTION shop.fails(jsonb)');
sql("SELECT alloc.allocate('f3', 's', 1)");
becomes('SELECT count(*) = 1 FROM alloc.dead_letters', 'a function that was dropped: a dead letter');
like(dead(), qr/\|3\|42883: function "shop\.fails\(pg_catalog\.jsonb\)" does not exist/, 'a function that was dropped: its error');
handler('shop', 'fails', undef, sprintf($hear, 'mended'));
sql("SELECT alloc.unsubscribe('allocated', 'shop.fails(jsonb)')");
is(sql('SELECT alloc.retry_dead_letters()'), '0', 'a dead letter of which nobody is subscribed any more stays');
is(sql("SELECT alloc.discard_dead_letters('shop.fails(jsonb)')"), '0', 'discard_dead_letters() of a handler that has none');
sql("BEGIN; SELECT alloc.discard_dead_letters(); ROLLBACK");
is(sql('SELECT alloc.discard_dead_letters(handler) FROM alloc.dead_letters'), '1', 'discard_dead_letters()');
is(dead(), '', 'discard_dead_letters(): it is gone');
no_handlers();

# Sleeping: canceled, and terminated if it does not obey; others go on

handler('shop', 'sleeps', 'allocated', 'PERFORM pg_sleep(1000);');
handler('shop', 'stubborn', 'allocated', "LOOP BEGIN PERFORM pg_sleep(1000); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;");
hears('witness', 'allocated');
reload('alloc.handler_retries = 1');
sql("SELECT alloc.allocate('s0', 's', 1)");
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN alloc_allocated');
my $slowest = 0;
for my $n (1 .. 5)
{
	my $began = time;
	sql("SELECT alloc.allocate('s$n', 's', 1)");
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM shop.heard WHERE event->>'orderid' = 's$n'") or die 'not handled';
	$node->poll_query_until('postgres', "SELECT value = 0 FROM alloc.stats WHERE name = 'relay_pending'") or die 'not relayed';
	$slowest = time - $began if time - $began > $slowest;
}
cmp_ok($slowest, '<', 3, 'while handlers sleep others are served, and the relay works');
$listener->quit;
sql("SELECT alloc.unsubscribe('allocated', 'shop.sleeps(jsonb)')");
becomes(q{SELECT count(*) >= 1 FROM alloc.dead_letters WHERE handler LIKE 'shop.stubborn%'}, 'a handler that does not obey the cancellation: a dead letter');
is(sql(q{SELECT DISTINCT last_error FROM alloc.dead_letters WHERE handler LIKE 'shop.stubborn%'}), 'the worker that ran the handler was terminated', 'its last error');
my $began = time;
sql("SELECT alloc.unsubscribe('allocated', 'shop.stubborn(jsonb)')");
cmp_ok(time - $began, '<', 10, 'unsubscribe() waits no longer than the handler may take');
no_handlers();
handler('shop', 'sleeps', 'allocated', 'PERFORM pg_sleep(1000);');
sql("SELECT alloc.allocate('s9', 's', 1)");
becomes('SELECT count(*) = 1 FROM alloc.dead_letters', 'a handler that sleeps: a dead letter');
like(dead(), qr/\|2\|57014: canceling statement due to statement timeout$/, 'a handler that sleeps: canceled, and tried again');
no_handlers();

# One worker for three

reload('alloc.handler_workers = 1');
handler('shop', 'sleeps', 'allocated', 'PERFORM pg_sleep(0.5);');
hears('first', 'allocated');
hears('second', 'allocated');
sql("SELECT alloc.allocate('w' || n, 's', 1) FROM generate_series(1, 10) n");
becomes('SELECT count(*) = 20 FROM shop.heard', 'one worker for three handlers, of which one sleeps: the others are served');
settled('one worker for three handlers');
reload('alloc.handler_workers = 6');
no_handlers();

# A handler that gives orders

handler('shop', 'reorder', 'out_of_stock', "PERFORM alloc.add_batch('for ' || (event->>'orderid'), event->>'sku', (event->>'qty')::bigint);");
hears('arrived', 'batch_created');
sql("SELECT alloc.allocate('huge', 's', 5000000)");
becomes('SELECT count(*) = 1 FROM shop.heard', 'a handler that calls a command: its event is handled');
is(sql("SELECT event->>'batchref' FROM shop.heard"), 'for huge', 'a reorder');
is(sql("SELECT alloc.allocate('huge', 's', 5000000)"), 'for huge', 'the reordered stock serves');
becomes(q{SELECT value = 0 FROM alloc.stats WHERE name = 'relay_pending'}, 'its events are relayed');
no_handlers();

# Ends while it is at work

reload("alloc.handler_timeout = '60s'");
handler('shop', 'slow', 'allocated', sprintf($hear, 'slow') . 'PERFORM pg_sleep(2);');
sql("SELECT alloc.allocate('u1', 's', 1)");
worker_of('slow');
sql("SELECT alloc.unsubscribe('allocated', 'shop.slow(jsonb)')");
is(sql("SELECT event->>'orderid' FROM shop.heard"), 'u1', 'unsubscribe() waits for the handler that is at work');
sql("SELECT alloc.allocate('u2', 's', 1)");
handler('shop', 'leaves', 'allocated', sprintf($hear, 'leaves') . q{PERFORM alloc.unsubscribe('allocated', 'shop.leaves(jsonb)');});
sql("SELECT alloc.allocate('u3', 's', 1), alloc.allocate('u4', 's', 1)");
becomes('SELECT count(*) = 0 FROM alloc.subscription', 'a handler that ends its own subscription');
is(sql("SELECT event->>'orderid' FROM shop.heard ORDER BY id"), "u1\nu3", 'is not called again');
no_handlers();

# Crashes

handler('shop', 'slow', 'allocated', sprintf($hear, 'slow') . 'PERFORM pg_sleep(0.2);');
foreach my $crash (qw(worker backend restart immediate))
{
	sql('TRUNCATE shop.heard');
	sql("SELECT alloc.allocate('$crash ' || n, 's', 1) FROM generate_series(1, 10) n");
	my $pid = worker_of('slow');
	if ($crash eq 'restart') { $node->restart; }
	elsif ($crash eq 'immediate') { $node->stop('immediate'); $node->start; }
	else
	{
		my $victim = $pid;
		my $session;
		if ($crash eq 'backend')
		{
			$session = start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', 'SELECT pg_sleep(1000)' ], '2>', \my $errors);
			becomes("SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'", 'a backend to be killed');
			$victim = sql("SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'");
		}
		my $size = -s $node->logfile;
		kill 'KILL', $victim;
		poll_start($size);
		finish($session) if $session;
	}
	settled("crash of $crash");
	is(sql("SELECT count(*), count(DISTINCT event->>'orderid') FROM shop.heard WHERE event->>'orderid' LIKE '$crash %'"), '10|10',
		"crash of $crash: the effects of each event are there once");
}
sub poll_start
{
	my ($size) = @_;

	for (1 .. 1800)
	{
		return if slurp_file($node->logfile, $size) =~ /database system is ready to accept connections/;
		Time::HiRes::usleep(100_000);
	}
	die 'the server did not come back';
}
is(dead(), '', 'crashes: none is dead');

# A dump into another cluster: roles and functions are found by their names

sql("SELECT alloc.unsubscribe('allocated', 'shop.slow(jsonb)')");
hears('goes_on', 'allocated');
sql("SELECT alloc.allocate('dumped', 's', 1)");
settled('before the dump');
reload('alloc.handler_workers = 0');
becomes(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'alloc handler'}, 'without work a worker ends');
sql("SELECT alloc.allocate('not yet', 's', 1)");
my $dump = "${PostgreSQL::Test::Utils::tmp_check}/handlers.sql";
command_ok([ 'pg_dumpall', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dumpall');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$copy->append_conf('postgresql.conf', "$settings\nalloc.handler_workers = 0");
$copy->start;
# Oids are other ones here.
$copy->safe_psql('postgres', 'CREATE ROLE spacer');
$copy->psql('postgres', "\\i $dump", on_error_stop => 0);
$copy->safe_psql('postgres', "SELECT alloc.allocate('new', 's', 1)");
is($copy->safe_psql('postgres', "SELECT event->>'orderid' FROM shop.heard WHERE by = 'goes_on'"), 'dumped', 'without workers a restore is left alone');
$copy->append_conf('postgresql.conf', 'alloc.handler_workers = 4');
$copy->reload;
ok($copy->poll_query_until('postgres', q{SELECT count(*) >= 2 FROM shop.heard WHERE by = 'goes_on' AND event->>'orderid' IN ('not yet', 'new')}),
	'restored: the handler is called with what was pending and what is new');
is($copy->safe_psql('postgres', "SELECT event->>'orderid', who FROM shop.heard WHERE by = 'goes_on' ORDER BY id"),
	"dumped|shop shop\nnot yet|shop shop\nnew|shop shop", 'restored: each event once, as the role of that name');
$copy->stop;
reload('alloc.handler_workers = 6');
no_handlers();

# DROP EXTENSION and DROP DATABASE while a handler is at work

handler('shop', 'slow', 'allocated', 'PERFORM pg_sleep(1);');
sql("SELECT alloc.allocate('x' || n, 's', 1) FROM generate_series(1, 5) n");
worker_of('slow');
$began = time;
sql('DROP EXTENSION alloc');
cmp_ok(time - $began, '<', 5, 'DROP EXTENSION does not wait for all that is to be handled');
becomes(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'alloc handler'}, 'DROP EXTENSION: handlers end');
sql('CREATE EXTENSION alloc; GRANT USAGE ON SCHEMA alloc TO shop; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA alloc TO shop; TRUNCATE shop.heard');
hears('anew', 'batch_created');
sql("SELECT alloc.add_batch('b', 's', 1000)");
becomes('SELECT count(*) = 1 FROM shop.heard', 'CREATE EXTENSION: handlers again');
is(problems($node, 'postgres'), '', 'all is sound');

# More often than there is room for databases in shared memory.
my $served = 0;
foreach my $n (1 .. 40)
{
	$node->safe_psql('postgres', 'CREATE DATABASE passing');
	$node->safe_psql('passing', <<'END');
CREATE EXTENSION alloc;
CREATE FUNCTION sleeps(jsonb) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(1000)';
SELECT alloc.subscribe('batch_created', 'sleeps(jsonb)');
SELECT alloc.add_batch('b', 's', 1);
END
	$served = $n if $node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'passing' AND backend_type = 'alloc handler' AND state = 'active'});
	$node->safe_psql('postgres', 'DROP DATABASE passing');
	last if $served < $n;
}
is($served, 40, 'each database has its handler, however many were dropped before');
is(sql(q{SELECT count(*) FROM pg_database WHERE datname = 'passing'}), '0', 'DROP DATABASE while a handler is at work, again and again');
unlike(slurp_file($node->logfile), qr/ERROR: +.*(?:cache lookup failed|is not the next one|could not open relation)|PANIC/, 'no internal error in the log');

$node->stop;
done_testing();
