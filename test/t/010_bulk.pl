# allocate_lines() with very many lines: it can be cancelled at any moment, and
# killed, and then nothing of it is left; what it keeps in memory is bounded.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $lines = 200_000;
my $node  = new_node('main',
	"shared_buffers = 64MB\nmax_wal_size = 4GB\nrestart_after_crash = on\n");

$node->safe_psql('postgres', <<"END");
LOAD 'alloc';
ALTER SYSTEM SET alloc.notify = off;
SELECT pg_reload_conf();
SELECT count(alloc.add_batch('batch ' || n, 'sku ' || n, 1000000))
  FROM generate_series(1, 1000) AS n;
CREATE TABLE delivery (lines alloc.order_line[]);
ALTER TABLE delivery ALTER lines SET STORAGE EXTERNAL;
INSERT INTO delivery
SELECT array_agg(ROW('order ' || n, 'sku ' || 1 + n % 1000, 1 + n % 3)::alloc.order_line)
  FROM generate_series(1, $lines) AS n
END
my $call = 'SELECT count(batchref) FROM delivery, alloc.allocate_lines(lines)';

sub left_over
{
	return $node->safe_psql('postgres', <<'END');
SELECT (SELECT count(*) FROM alloc.allocation)
       + (SELECT count(*) FROM alloc.event WHERE type <> 'batch_created')
       + (SELECT count(*) FROM alloc.batches WHERE available_qty <> purchased_qty)
END
}

# A session that is at work on the call since so many milliseconds, and what it
# will have said in the end.
sub start_call
{
	my ($delay) = @_;
	my $errors = '';
	my $session = IPC::Run::start(
		[
			'psql', '-XAtq', '-d',
			$node->connstr('postgres') . ' application_name=bulk',
			'-c', $call
		],
		'<', \undef, '>', \my $output, '2>', \$errors);

	$node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity
		   WHERE application_name = 'bulk' AND state = 'active'})
	  or die 'the call does not begin';
	usleep($delay * 1000);
	return ($session, \$errors);
}

foreach my $delay (10, 150, 400)
{
	my ($session, $errors) = start_call($delay);
	my $begin = time;

	$node->safe_psql('postgres', q{
		SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		 WHERE application_name = 'bulk'});
	$session->finish;
	note sprintf 'cancelled in %.0f ms, with the time to ask for it',
	  1000 * (time - $begin);
	like($$errors, qr/canceling statement due to user request/,
		"a call of $lines lines is cancelled after $delay ms");
	is(left_over(), 0, 'and nothing of it is left');
}

{
	my ($session, $errors) = start_call(400);
	my $pid = $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE application_name = 'bulk'});

	kill 'KILL', $pid;
	$session->finish;
	$node->poll_query_until('postgres', 'SELECT true')
	  or die 'the server does not come back';
	is(left_over(), 0, 'nothing of a call that was killed is left');
}

# VmHWM counts shared memory as well: 64 MB of buffers.
my ($allocated, $kilobytes) = split /\n/,
  $node->safe_psql('postgres', <<"END");
$call;
SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\\s+(\\d+)')
END
is($allocated, $lines, 'the whole call allocates each line');
note "at most $kilobytes kB of memory";
SKIP:
{
	skip 'sanitizers need memory of their own', 1 if $ENV{ASAN_OPTIONS};
	cmp_ok($kilobytes, '<', 64 * 1024 + $lines * 0.4,
		'it never had more than 400 bytes for each line');
}
is($node->safe_psql('postgres', $call), $lines,
	'the same call again says the same');
is($node->safe_psql('postgres', 'SELECT count(*) FROM alloc.event'),
	1000 + $lines, 'and does nothing');
is(problems($node, 'postgres'), '', 'stock, lines and log agree');
$node->stop;
done_testing();
