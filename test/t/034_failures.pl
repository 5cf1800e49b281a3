# What a command needs is not there, or it may not take as long as it needs: memory,
# room for locks, time, a lock that somebody else has.  The command fails with the
# error that PostgreSQL has for it, leaves nothing behind, and its session goes on.
#
#   FAILURES_LINES=200000 FAILURES_STEPS=20     larger commands, stopped more often

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node contents);
use IPC::Run qw(start timeout);
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $lines = $ENV{FAILURES_LINES} // 6000;
my $steps = $ENV{FAILURES_STEPS} // 3;

# Seconds within which a command that is to stop has stopped, whatever it does.
my $at_once = 2;

# Nothing is at work but what is tested.
my $node = new_node('main', <<'END');
max_connections = 10
max_worker_processes = 0
jit = off
autovacuum = off
log_statement = none
log_line_prefix = '%e: '
alloc.max_holds_per_order = 1000000
END

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# ---- commands that take long ----

sub fill
{
	sql(<<"END");
CREATE TABLE input AS
SELECT array_agg(ROW('new ' || n, 'wide ' || n, 1)::alloc.order_line) AS lines,
       array_agg(ROW(NULL, 'wide ' || n, 1)::alloc.order_line) AS of_order,
       jsonb_build_object('command', 'allocate_lines', 'lines', jsonb_agg(
           jsonb_build_object('orderid', 'new ' || n, 'sku', 'wide ' || n, 'qty', 1))) AS message
  FROM generate_series(1, $lines) n;
-- Many skus, and many lines of one.
CREATE TABLE feed AS
SELECT 'batch ' || n AS ref, 'wide ' || n AS sku, 10 + n % 3 AS qty,
       CASE WHEN n % 2 = 0 THEN date '2031-01-01' END AS eta
  FROM generate_series(1, $lines) n;
SELECT FROM alloc.sync_batches('feed');
UPDATE feed SET qty = qty + 1, eta = '2031-02-01';
SELECT alloc.add_batch('deep', 'deep', $lines), alloc.add_batch('deep 2', 'deep', $lines);
SELECT FROM alloc.allocate_lines(ARRAY(
	SELECT ROW('deep ' || n, 'deep', 1)::alloc.order_line FROM generate_series(1, $lines) n));
-- Orders with many lines.
SELECT FROM alloc.allocate_order('wide', (SELECT of_order FROM input));
SELECT FROM alloc.allocate_order('gone', (SELECT of_order FROM input));
SELECT alloc.ship('gone');
SELECT count(alloc.hold('cart', 'wide ' || n, 1, '1 day')) FROM generate_series(1, $lines) n;
-- Lines that wait, and holds that are over.
SELECT alloc.add_batch('none', 'late', 0);
DO \$\$ BEGIN
	FOR n IN 1 .. $lines LOOP
		PERFORM alloc.allocate_order('late ' || n, ARRAY[ROW(NULL, 'late', 1)::alloc.order_line], 'backorder');
		COMMIT;
	END LOOP;
END \$\$;
SELECT alloc.add_batch('over', 'over', $lines);
SELECT count(alloc.hold('over ' || n, 'over', 1, '1 microsecond')) FROM generate_series(1, $lines) n;
END
	return;
}

my %long = (
	allocate => "SELECT alloc.allocate('new', 'over', $lines)",
	allocate_lines => 'SELECT count(*) FROM input, alloc.allocate_lines(input.lines)',
	allocate_order => q{SELECT count(*) FROM input, alloc.allocate_order('new', of_order)},
	add_batch => "SELECT alloc.add_batch('new', 'late', $lines)",
	change_batch_quantity => q{SELECT count(*) FROM alloc.change_batch_quantity('deep', 0)},
	change_batch_eta => q{SELECT count(*) FROM alloc.change_batch_eta('deep', '2031-01-01')},
	sync_batches => q{SELECT count(*) FROM alloc.sync_batches('feed')},
	ship => q{SELECT alloc.ship('wide')},
	purge_shipped => q{SELECT alloc.purge_shipped('infinity')},
	confirm => q{SELECT alloc.confirm('cart')},
	release => q{SELECT alloc.release('cart')},
	extend_hold => q{SELECT alloc.extend_hold('cart', '2 days')},
	handle => 'SELECT length(alloc.handle(message)::text) FROM input',
	fetch_events => q{SELECT count(*) FROM alloc.fetch_events('reader', 100000000)},
	replay => 'SELECT count(*) FROM alloc.replay()',
	check => 'SELECT count(*) FROM alloc.check()',
	rebuild => 'SELECT * FROM alloc.rebuild()',
	repair => 'SELECT count(*) FROM alloc.repair()',
	snapshot_log => 'SELECT alloc.snapshot_log()',
	promise => "SELECT * FROM alloc.promise('over', $lines)",
	views => 'SELECT (SELECT count(*) FROM alloc.stock), (SELECT count(*) FROM alloc.allocations)');

# What has to be so, for some.
my %before = (
	rebuild => 'TRUNCATE alloc.product, alloc.batch, alloc.slot, alloc.allocation, alloc.hold, alloc.backorder;');

# All of a script by one session.
sub run_script
{
	my ($script) = @_;
	my ($status, $output, $errors) = $node->psql('postgres',
		"\\set VERBOSITY sqlstate\n\\set ON_ERROR_STOP off\n$script", on_error_stop => 0);
	return ($output, $errors);
}

# A session that has been stopped goes on: its next command finds all as it was.
# The times are psql's, so that a connection counts for nothing.
sub test_time
{
	foreach my $name (sort keys %long)
	{
		my $command = $long{$name};
		my $before = $before{$name} // '';
		my ($output) = run_script("BEGIN;\n$before\n\\timing on\n$command;\n\\timing off\nROLLBACK;");
		my ($full) = $output =~ /^Time: ([\d.]+)/m;
		my $script = '';
		my ($stopped, $slowest) = (0, 0);

		foreach my $step (1 .. $steps)
		{
			my $limit = max(1, int($full * $step / ($steps + 1)));
			$script .= "BEGIN;\nSAVEPOINT s;\n$before\nSET LOCAL statement_timeout = $limit;\n"
			  . "\\timing on\n$command;\n\\timing off\n\\echo limit $limit\n"
			  . "ROLLBACK TO s;\nSELECT alloc.allocate('next', 'deep', 1);\nROLLBACK;\n";
		}
		my ($seen, $errors) = run_script($script);
		my @took = $seen =~ /^Time: ([\d.]+).*\nlimit (\d+)$/mg;
		while (my ($took, $limit) = splice @took, 0, 2)
		{
			$slowest = max($slowest, $took - $limit);
		}
		is(join(' ', grep { $_ ne '57014' } $errors =~ /(?:ERROR|FATAL):  (\w{5})/g), '',
			"$name: stopped by the timeout, and by nothing else");
		$stopped = () = $errors =~ /57014/g;
		cmp_ok($stopped, '>', 0, "$name: it was stopped") if $full > 200;
		is(scalar(() = $seen =~ /^deep 2$/mg), $steps, "$name: the session goes on each time");
		cmp_ok($slowest, '<', 1000 * $at_once, "$name: it stops at once");
		note("$name: $full ms, stopped $stopped times, the latest after $slowest ms");
	}
	return;
}

# ---- memory ----

# Sessions from now on may have so many MB more than the postmaster has; without
# a number, all they want.
sub limit_memory
{
	my ($megabytes) = @_;
	my ($pid) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my ($kilobytes) = slurp_file("/proc/$pid/status") =~ /^VmSize:\s+(\d+)/m;
	my $limit = defined $megabytes ? 1024 * ($kilobytes + 1024 * $megabytes) : 'unlimited';

	return system('prlimit', '--pid', $pid, "--as=$limit:") == 0;
}

sub test_memory
{
	my %failed;

	foreach my $name (sort keys %long)
	{
		my $before = $before{$name} // '';

		foreach my $step (1 .. $steps)
		{
			my $room = 7 + int(1.5 * $step * $lines / 6000);

			limit_memory($room);
			my ($seen, $errors) = run_script(<<"END");
BEGIN;
SELECT alloc.allocate('before', 'deep', 1);
SAVEPOINT s;
$before
$long{$name};
ROLLBACK TO s;
SELECT alloc.allocate('next', 'deep', 1);
ROLLBACK;
END
			next if $errors =~ /^psql: error/;
			my @errors = $errors =~ /(?:ERROR|FATAL|PANIC):  (\w{5})/g;
			is(join(' ', grep { $_ ne '53200' } @errors), '', "$name with $room MB: no error but memory")
			  or diag($errors);
			is(scalar(() = $seen =~ /^deep 2$/mg), 2, "$name with $room MB: the session goes on");
			$failed{$name}++ if @errors;
		}
	}
	limit_memory(undef);
	my $names = join ' ', sort keys %failed;
	note("memory was too little for $names");
	foreach (qw(allocate_lines allocate_order change_batch_quantity sync_batches handle))
	{
		like($names, qr/\b$_\b/, "memory was too little for $_");
	}
	return;
}

# ---- sessions ----

sub session
{
	my %session = (input => '', output => '');

	$session{run} = start([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres') ],
		'<', \$session{input}, '>', \$session{output}, '2>&1',
		timeout($PostgreSQL::Test::Utils::timeout_default));
	return \%session;
}

sub ask { my ($session, $sql) = @_; send_to($session, $sql); return answer($session); }
sub send_to { my ($session, $sql) = @_; $session->{input} .= "$sql;\n\\echo done\n"; $session->{run}->pump_nb; return; }

sub answer
{
	my ($session) = @_;

	$session->{run}->pump until $session->{output} =~ s/\A((?:.*\n)*?)done\n//;
	return $1 =~ s/\n\z//r;
}

sub leave { my ($session) = @_; $session->{input} .= "\\q\n"; return $session->{run}->finish; }

# ---- locks ----

my %small = (
	allocate => q{SELECT alloc.allocate('new', 'few', 1)},
	add_batch => q{SELECT alloc.add_batch('new', 'few', 3)},
	hold => q{SELECT alloc.hold('new', 'few', 1, '1 hour')},
	allocate_lines => q{SELECT FROM alloc.allocate_lines(ARRAY[('new', 'few', 1), ('new', 'held', 1)]::alloc.order_line[])},
	allocate_order => q{SELECT FROM alloc.allocate_order('new', ARRAY[(NULL, 'few', 1), (NULL, 'held', 1)]::alloc.order_line[])},
	change_batch_quantity => q{SELECT FROM alloc.change_batch_quantity('few', 0)},
	ship => q{SELECT alloc.ship('sold')},
	confirm => q{SELECT alloc.confirm('held')},
	handle => q{SELECT alloc.handle('{"command": "allocate", "orderid": "new", "sku": "few", "qty": 1, "message_id": "m"}')},
	fetch_events => q{SELECT FROM alloc.fetch_events('reader', 1)},
	sync_batches => q{SELECT FROM alloc.sync_batches('short_feed')});

# Takes all there is, and says how many it has.
my $take_locks = <<'END';
DO $$ DECLARE n int := 0; BEGIN
	LOOP
		BEGIN
			PERFORM pg_advisory_lock(n);
			n := n + 1;
		EXCEPTION WHEN out_of_memory THEN EXIT; END;
	END LOOP;
	PERFORM set_config('my.locks', n::text, false);
END $$;
SELECT current_setting('my.locks')
END

# One session takes all the room there is for locks, then gives back one after the
# other.  Where another gets as many as its command needs, that succeeds; with fewer
# it fails, and nothing is half done.
sub test_room_for_locks
{
	my ($holder, $session) = (session(), session());
	my $before = contents($node, 'postgres');
	my (%failed, %done);

	my $locks = ask($holder, $take_locks);
	foreach my $room (0 .. 40)
	{
		foreach my $name (sort keys %small)
		{
			my $answer = ask($session, "BEGIN;\n$small{$name}");
			$answer =~ /ERROR:  53200/ ? $failed{$name}++ : $done{$name}++;
			is(join(' ', grep { $_ ne '53200' } $answer =~ /(?:ERROR|FATAL):  (\w{5})/g), '',
				"$name with room for $room locks: no other error");
			ask($session, 'ROLLBACK');
		}
		ask($holder, "SELECT pg_advisory_unlock($locks - 1 - $room)");
	}
	leave($_) foreach $holder, $session;
	foreach my $name (sort keys %small)
	{
		cmp_ok($failed{$name} // 0, '>', 0, "$name without room for locks: fails");
		cmp_ok($done{$name} // 0, '>', 0, "$name with room for some locks: succeeds");
	}
	note('failed: ' . join(', ', map { "$_ $failed{$_}" } sort keys %failed));

	# What sequences have given is gone.
	is(without_sequences(contents($node, 'postgres')), without_sequences($before), 'nothing is half done');
	return;
}

sub without_sequences { my ($contents) = @_; return $contents =~ s/^\w+_seq\|.*\n//mgr; }

# Rows are locked by their headers: many skus take no more locks than one.
sub test_many_skus
{
	my $locks = sql(<<"END");
BEGIN;
SELECT count(batchref) FROM input, alloc.allocate_lines(input.lines);
SELECT count(*) FROM input, alloc.allocate_order('new', of_order);
SELECT count(alloc.allocate('one ' || n, 'wide ' || n, 1)) FROM generate_series(1, $lines) n;
SELECT count(*) < 100 FROM pg_locks WHERE pid = pg_backend_pid();
ROLLBACK;
END
	return is($locks, "$lines\n$lines\n$lines\nt", "$lines skus in one transaction: a few locks");
}

# ---- a lock that somebody else has ----

# What one session does and keeps to itself, and what another then has to wait for.
my $take = q{SELECT alloc.allocate('taken', 'few', 2)};
my @waits = (
	[ $take, q{SELECT alloc.allocate('more', 'few', 2)} ],
	[ $take, q{SELECT alloc.allocate('taken', 'few', 2)} ],
	[ $take, q{SELECT alloc.hold('more', 'few', 2, '1 hour')} ],
	[ $take, q{SELECT FROM alloc.allocate_lines(ARRAY[('more', 'few', 2)]::alloc.order_line[])} ],
	[ $take, q{SELECT FROM alloc.allocate_order('more', ARRAY[('more', 'few', 2)]::alloc.order_line[])} ],
	[ $take, q{SELECT FROM alloc.change_batch_quantity('few', 1)} ],
	[ $take, q{SELECT FROM alloc.sync_batches('short_feed')} ],
	[ q{SELECT alloc.add_batch('same', 'few', 1)}, q{SELECT alloc.add_batch('same', 'few', 1)} ],
	[ q{SELECT alloc.add_batch('same', 'first', 1)}, q{SELECT alloc.add_batch('other', 'first', 1)} ],
	[ q{SELECT alloc.ship('sold')}, q{SELECT alloc.ship('sold')} ],
	[ q{SELECT alloc.ship('sold')}, q{SELECT alloc.deallocate('sold', 'sold')} ],
	[ q{SELECT alloc.deallocate('sold', 'sold')}, q{SELECT FROM alloc.change_batch_quantity('sold', 0)} ],
	[ q{SELECT alloc.confirm('held')}, q{SELECT alloc.confirm('held')} ],
	[ q{SELECT alloc.confirm('held')}, q{SELECT alloc.release('held')} ],
	[ q{SELECT alloc.release('held')}, q{SELECT alloc.extend_hold('held', '1 week')} ],
	[ q{SELECT alloc.cancel_backorder('queued', 'few')}, q{SELECT alloc.cancel_backorder('queued', 'few')} ],
	[ q{SELECT FROM alloc.change_batch_eta('few', '2031-01-01')}, q{SELECT FROM alloc.change_batch_eta('few', NULL)} ],
	[ q{SELECT FROM alloc.fetch_events('reader', 1)}, q{SELECT FROM alloc.fetch_events('reader', 1)} ],
	[ q{SELECT alloc.handle('{"command": "ship", "orderid": "sold", "message_id": "m"}')},
		q{SELECT alloc.handle('{"command": "ship", "orderid": "sold", "message_id": "m"}')} ]);

sub test_lock_timeout
{
	my ($one, $other) = (session(), session());

	ask($other, q{SET lock_timeout = '50ms'});
	foreach my $pair (@waits)
	{
		my ($held, $waiting) = @$pair;
		my ($name) = $waiting =~ /alloc\.(\w+)/;

		ask($one, "BEGIN; $held");
		ask($other, 'BEGIN');
		my $began = time;
		is(ask($other, $waiting), 'ERROR:  55P03', "lock_timeout: $name gives up");
		cmp_ok(time - $began, '<', $at_once, "lock_timeout: $name gives up at once");
		ask($one, 'ROLLBACK');
		unlike(ask($other, "ROLLBACK; BEGIN; $waiting"), qr/ERROR/, "lock_timeout: $name then succeeds");
		ask($other, 'ROLLBACK');
	}
	leave($_) foreach $one, $other;
	return;
}

# Who keeps stock and says nothing is sent away; who waited for it gets it.
sub test_idle
{
	my ($idle, $waiting) = (session(), session());

	ask($idle, q{SET idle_in_transaction_session_timeout = '500ms'});
	is(ask($idle, q{BEGIN; SELECT alloc.allocate('idle', 'few', 3)}), 'few', 'idle: it has all units');
	is(ask($waiting, q{SELECT alloc.allocate('waiting', 'few', 3)}), 'few', 'idle: who waited gets them');
	like(slurp_file($node->logfile), qr/^25P03: FATAL:/m, 'idle: the session was ended');
	$idle->{run}->kill_kill;
	leave($waiting);
	is(sql(q{SELECT alloc.deallocate('waiting', 'few')}), 'few', 'idle: nothing else was done');
	return;
}

# ---- the run ----

# A little stock, for what is no matter of size.
sql(<<'END');
SELECT alloc.add_batch('few', 'few', 3), alloc.add_batch('sold', 'sold', 3), alloc.add_batch('held', 'held', 3);
SELECT alloc.allocate('sold', 'sold', 3), alloc.hold('held', 'held', 3, '1 day');
SELECT FROM alloc.allocate_order('queued', ARRAY[(NULL, 'few', 100)]::alloc.order_line[], 'backorder');
SELECT alloc.create_consumer('reader', 'beginning');
CREATE TABLE short_feed AS TABLE alloc.batches;
ALTER TABLE short_feed RENAME purchased_qty TO qty;
UPDATE short_feed SET qty = 1 WHERE ref = 'few';
END
# CREATE EXTENSION needs more.
$node->append_conf('postgresql.conf', 'max_locks_per_transaction = 10');
$node->restart;
test_room_for_locks();
test_lock_timeout();
test_idle();

fill();
test_many_skus();
test_time();
SKIP: {
	skip 'the sanitizer takes more memory than a limit could allow', 1 if $ENV{ASAN_OPTIONS};
	skip 'no prlimit', 1 if system('prlimit --version >/dev/null 2>&1') != 0;
	test_memory();
}
is(sql('SELECT * FROM alloc.check()'), '', 'check() finds nothing');
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|terminated by signal|exited with exit code/, 'nobody has crashed');
unlike(slurp_file($node->logfile), qr/WARNING:/, 'nobody was warned');
$node->stop;
done_testing();
