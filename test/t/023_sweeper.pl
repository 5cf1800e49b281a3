# Holds that are over are ended by the relay, soon, so that who listens hears of
# it; and the relay waits for no client to do so.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node sqlstate differences bench listen_to end_of);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $preload = "shared_preload_libraries = 'alloc'\n";

# Seconds within which a hold that is over is to be ended, and in which an event
# is to be heard while the relay has holds to end.
my ($soon, $at_once) = (3, 1);

# Who waits for ever is to fail, not to hang.
$ENV{PGOPTIONS} = '-c lock_timeout=10s';

my $node = new_node('main', "$preload\nmax_worker_processes = 12\n");

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# How many holds have not been ended, of an order like this.
sub left
{
	my ($order, $server) = @_;
	return ($server // $node)->safe_psql('postgres',
		"SELECT count(*) FROM alloc.hold WHERE NOT ended AND orderid LIKE '$order'");
}

sub ended
{
	my ($order, $seconds, $name, $server) = @_;
	my $began = time;

	while (left($order, $server) > 0 && time - $began < $seconds) { usleep(20_000); }
	is(left($order, $server), '0', $name);
	return;
}

# Waits for a line; false: it has not come.
sub hears
{
	my ($client, $pattern, $seconds) = @_;
	my $began = time;

	while ($client->{output} !~ $pattern && time - $began < $seconds)
	{
		$client->{run}->pump_nb;
		usleep(5_000);
	}
	return $client->{output} =~ $pattern;
}

# An event that has nothing to do with holds is heard at once.
my $other_orders = 0;

sub relay_is_quick
{
	my ($client, $name) = @_;
	my $order = 'other ' . ++$other_orders;

	sql("SELECT alloc.allocate('$order', 'OTHER', 1)");
	ok(hears($client, qr/"$order"/, $at_once), "$name: other events are heard at once");
	return;
}

# What the server's log says of errors since a place in it.
sub errors
{
	my ($server, $logged) = @_;
	return join("\n", slurp_file($server->logfile, $logged) =~ /((?:ERROR|FATAL|PANIC):  .*)/g);
}

sql(q{SELECT alloc.add_batch(sku, sku, 1000000) FROM unnest('{LAMP,RUG,VASE,OTHER}'::text[]) sku});
my $client = listen_to($node, 'postgres');
my $logged = -s $node->logfile;

# ---- somebody listens, nobody calls ----

sql(q{SELECT alloc.hold('one', 'LAMP', 3, '200 ms'), alloc.hold('for long', 'LAMP', 3, '1 hour')});
ok(hears($client, qr/^alloc_hold_expired .*"orderid": "one", "sku": "LAMP", "qty": 3, "batchref": "LAMP"/m, $soon),
	'the end of a hold is heard, and nobody has called anything');
is(sql(q{SELECT orderid, ended FROM alloc.hold ORDER BY 1}), "for long|f\none|t", 'it is ended, the other one is not');
is(sql(q{SELECT sum(available) FROM alloc.slot WHERE ref = 'LAMP'}), 1000000 - 3, 'its units are in the slot again');
is(sql(q{SELECT extract(epoch FROM e.at - h.expires_at) BETWEEN 0 AND 2 FROM alloc.hold h JOIN alloc.event e USING (orderid)
	WHERE orderid = 'one' AND e.type = 'hold_expired'}), 't', 'within two seconds, and not before');
is(sqlstate($node, 'postgres', q{SELECT alloc.confirm('one')}), 'SK005', 'confirm() still knows of it');

# Whatever is sent, and however.
foreach my $notify (qw(commit off relay))
{
	$node->append_conf('postgresql.conf', "alloc.notify = $notify");
	$node->reload;
	sql("SELECT alloc.hold('$notify', 'LAMP', 3, '200 ms')");
	ended($notify, $soon, "alloc.notify = $notify: it is ended");
	is(hears($client, qr/hold_expired.*"$notify"/, $notify eq 'off' ? 0.5 : $soon) ? 1 : 0,
		$notify eq 'off' ? 0 : 1, "... and heard, if it is to be");
}
$node->adjust_conf('postgresql.conf', 'alloc.notify', undef);
$node->reload;

# A hold that is over when it is committed.
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe(q{BEGIN; SELECT alloc.hold('late', 'LAMP', 1, '100 ms')});
usleep(2_500_000);
$session->query_safe('COMMIT');
ended('late', $soon, 'a hold that was over before its transaction committed');

# ---- clients in the way ----

# Each has something that a sweep of LAMP needs.
my %in_the_way = (
	'a slot' => q{SELECT alloc.allocate('sitting', 'LAMP', 1)},
	'all slots' => q{SELECT alloc.change_batch_quantity('LAMP', 1000) },
	'the product' => q{SELECT alloc.add_batch('LAMP2', 'LAMP', 1)},
	'a hold' => q{SELECT alloc.extend_hold('busy', '2 seconds')},
	'a line' => q{SELECT FROM alloc.allocation WHERE orderid = 'busy' FOR UPDATE},
	'the table of holds' => q{LOCK TABLE alloc.hold IN ACCESS EXCLUSIVE MODE},
	'the table of lines' => q{LOCK TABLE alloc.batch IN SHARE MODE});

foreach my $thing (sort keys %in_the_way)
{
	my $of_table = $thing =~ /^the table/;

	sql(q{SELECT alloc.hold('busy', 'LAMP', 1, '700 ms'), alloc.hold('free', 'RUG', 1, '700 ms')});
	$session->query_safe("BEGIN; $in_the_way{$thing}");
	if (!$of_table)
	{
		ended('free', $soon, "a client has $thing: holds of others are ended");
		is(left('busy'), '1', '... the one in question is not');
	}
	else
	{
		usleep(1_500_000);
	}
	relay_is_quick($client, "a client has $thing") foreach 1 .. 5;
	$session->query_safe('ROLLBACK');
	ended('busy', $soon, "... when it is gone the hold is ended");
	ended('free', $soon, "... and the other one") if $of_table;
	$client->{output} = '';
	sql(q{SELECT alloc.release('busy'), alloc.release('free')});
}

# One that was confirmed in time.
sql(q{SELECT alloc.hold('confirmed', 'LAMP', 1, '500 ms')});
$session->query_safe(q{BEGIN; SELECT alloc.confirm('confirmed')});
usleep(2_000_000);
$session->query_safe('COMMIT');
usleep(1_500_000);
is(sql(q{SELECT string_agg(type, ' ' ORDER BY event_id) FROM alloc.events WHERE orderid = 'confirmed'}), 'held confirmed',
	'one that was confirmed in time, and committed later, stays');
is(errors($node, $logged), "ERROR:  the hold of order line (\"confirmed\", \"LAMP\") has expired"
	=~ s/"confirmed"/"one"/r, 'the log tells of nothing but the call that failed');

# ---- many ----

sub begin_many
{
	my ($server, $order, $holds) = @_;
	return $server->safe_psql('postgres', <<"END");
SET alloc.max_holds_per_order = -1;
SELECT count(alloc.add_batch(sku, sku, 1000)) FROM (SELECT 'many ' || n AS sku FROM generate_series(1, 300) n) s;
SELECT count(alloc.hold('$order ' || n, 'many ' || 1 + n % 300, 1, '300 ms')) FROM generate_series(1, $holds) n;
END
}

$logged = -s $node->logfile;
begin_many($node, 'many', 1000);
relay_is_quick($client, 'many holds are over') foreach 1 .. 10;
ended('many %', 5, '1,000 holds of 300 skus');
is(sql(q{SELECT count(*), count(DISTINCT orderid) FROM alloc.event WHERE type = 'hold_expired' AND sku LIKE 'many%'}), '1000|1000',
	'an event for each');
sql(q{SET alloc.max_holds_per_order = -1; SELECT count(alloc.hold('same ' || n, 'RUG', 1, '300 ms')) FROM generate_series(1, 1000) n});
ended('same %', 5, '1,000 holds of one batch');
is(sql(q{SELECT count(DISTINCT at) BETWEEN 5 AND 10 FROM alloc.event WHERE type = 'hold_expired' AND orderid LIKE 'same%'}), 't',
	'... by some transactions');

# Clients at the same time, who end holds as well.
my ($wrong) = bench($node, [ '-c', 8, '-T', 4 ],
	load => [ 1, <<'END' ]);
\set ms random(1, 1500)
SELECT alloc.hold('load ' || :client_id || ' ' || :ms, 'VASE', 100000, make_interval(secs => :ms / 1000.0));
SELECT alloc.allocate('load ' || :client_id, 'VASE', 100000);
SELECT alloc.deallocate('load ' || :client_id, 'VASE');
END
is($wrong, '', 'load: no errors');
ended('load %', $soon, 'load: all are ended');
is(sql(q{SELECT sum(available) FROM alloc.slot WHERE ref = 'VASE'}) + sql(q{SELECT coalesce(sum(qty), 0) FROM alloc.allocation WHERE sku = 'VASE'}),
	1000000, 'load: no unit is lost');
is(differences($node, 'postgres'), '', 'sound');
sql(q{SELECT alloc.allocate('after load', 'OTHER', 1)});
ok(hears($client, qr/"after load"/, 60), 'load: all of it is heard');
$client->{output} = '';

# ---- errors ----

# A hold that lost its line.
sql(q{SELECT alloc.hold('broken', 'LAMP', 1, '1 s'), alloc.hold('whole', 'RUG', 1, '1 s')});
sql(q{DELETE FROM alloc.allocation WHERE orderid = 'broken'});
ended('whole', 4, 'a hold that cannot be ended is not in the way of others');
$node->wait_for_log(qr/ERROR:  the line of the hold \("broken", "LAMP"\) does not exist/, $logged);
relay_is_quick($client, 'a hold that cannot be ended') foreach 1 .. 5;
usleep(3_000_000);
is(scalar(() = slurp_file($node->logfile, $logged) =~ /the line of the hold \("broken"/g), 1, '... and the log tells it once in a while');
# The relay tries it again in a minute.
sql(q{SELECT * FROM alloc.repair(false); SELECT alloc.release('broken')});

# ---- handlers ----

sql(<<'END');
CREATE ROLE somebody;
CREATE TABLE seen (n serial, orderid text, by text, pid int);
GRANT ALL ON seen, seen_n_seq TO somebody;
GRANT USAGE ON SCHEMA alloc TO somebody;
GRANT EXECUTE ON FUNCTION alloc.subscribe, alloc.unsubscribe TO somebody;
CREATE FUNCTION saw(event jsonb) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.seen (orderid, by, pid) VALUES (event->>'orderid', current_user, pg_backend_pid()) $$;
SET ROLE somebody;
SELECT alloc.subscribe('hold_expired', 'saw(jsonb)');
END
sql(q{SELECT alloc.hold('async', 'RUG', 1, '100 ms')});
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM seen WHERE orderid = 'async' AND by = 'somebody'})
	or die 'the handler is not called';
pass('an asynchronous handler is called with the end of a hold');
sql(q{SET ROLE somebody; SELECT alloc.unsubscribe('hold_expired', 'saw(jsonb)'); SELECT alloc.subscribe('hold_expired', 'saw(jsonb)', 'sync')});
sql(q{SELECT alloc.hold('sync', 'RUG', 1000000, '100 ms')});
usleep(2_500_000);
is(left('sync'), '1', 'with a synchronous handler the relay leaves holds to the commands');
relay_is_quick($client, 'a synchronous handler');
is(sql(q{SELECT count(*) FROM seen WHERE orderid = 'sync'}), '0', '... nobody has called it');
is(sql(q{SELECT alloc.allocate('needs it', 'RUG', 1); SELECT orderid, by, pid = pg_backend_pid() FROM seen WHERE orderid = 'sync'}),
	"RUG\nsync|somebody|t", '... the command that needs the units does, in its own session');
sql(q{SELECT alloc.hold('after sync', 'RUG', 1, '100 ms')});
sql(q{SET ROLE somebody; SELECT alloc.unsubscribe('hold_expired', 'saw(jsonb)')});
ended('after sync', $soon, 'when it is unsubscribed the relay ends holds again');
is(differences($node, 'postgres'), '', 'sound');

# ---- DROP EXTENSION ----

$logged = -s $node->logfile;
$session->query_safe(q{BEGIN; SELECT alloc.allocate('sitting', 'LAMP', 1)});
sql(q{SELECT alloc.hold('dropped', 'LAMP', 1, '100 ms')});
begin_many($node, 'dropped', 3000);
usleep(300_000);
$session->query_safe('ROLLBACK');
my $began = time;
sql('DROP EXTENSION alloc');
cmp_ok(time - $began, '<', 3, 'DROP EXTENSION while holds are over');
sql('CREATE EXTENSION alloc');
begin_many($node, 'recreated', 300);
ended('recreated %', $soon + 2, 'after CREATE EXTENSION they are ended');
is(errors($node, $logged), '', 'no errors');

# A restart.
sql(q{SELECT alloc.hold('restart', 'many 1', 1, '500 ms')});
$node->restart;
ended('restart', $soon + 1, 'a hold that ended while the server was stopped');
$session->quit;
$node->stop;

# ---- a standby ----

my $primary = new_node('primary', $preload, allows_streaming => 1);
$primary->safe_psql('postgres', q{SELECT alloc.add_batch('batch', 'LAMP', 1000)});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', q{SELECT alloc.hold('primary', 'LAMP', 1, '100 ms')});
ended('primary', $soon, 'the primary ends a hold', $primary);
$primary->safe_psql('postgres', q{SELECT alloc.hold('standby', 'LAMP', 1, '1 s')});
$primary->wait_for_catchup($standby);
$primary->stop;
usleep(2_500_000);
is(left('standby', $standby), '1', 'a standby ends none');
is($standby->safe_psql('postgres', q{SELECT available_qty FROM alloc.batches}), '1000', '... but it is over there as well');
$standby->promote;
ended('standby', $soon + 1, 'after its promotion it does', $standby);
is(differences($standby, 'postgres'), '', 'sound');
$standby->stop;

done_testing();
