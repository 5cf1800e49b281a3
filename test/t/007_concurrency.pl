# Single calls from many sessions on few products, at random: at READ COMMITTED
# none fails, not even by a deadlock; at the stricter levels each succeeds when
# it is tried again.  Stock, lines and log agree at the end and at each event.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems absurd);
use PostgreSQL::Test::Utils;
use Test::More;

# A deadlock is to be seen before the seconds are over.
my $node = new_node('main', "deadlock_timeout = 20ms\nlog_statement = none\n");
my $script = "${PostgreSQL::Test::Utils::tmp_check}/calls.sql";

append_to_file($script, <<'END');
\set orderid random(1, 20)
\set sku random(1, 2)
\set batch random(1, 3)
\set qty random(0, 30)
\set what random(1, 100)
\if :what <= 40
SELECT alloc.allocate('order ' || :orderid, 'sku ' || :sku, 1 + :orderid % 5);
\elif :what <= 70
SELECT alloc.deallocate('order ' || :orderid, 'sku ' || :sku);
\elif :what <= 99
SELECT * FROM alloc.change_batch_quantity('batch ' || :batch || ' of ' || :sku, :qty);
\else
SELECT alloc.add_batch(gen_random_uuid()::text, 'sku ' || :sku, 1);
\endif
END

$node->safe_psql('postgres', <<'END');
SELECT alloc.add_batch('batch ' || n || ' of ' || sku, 'sku ' || sku, 20,
                       CASE WHEN n > 1 THEN '2030-01-01'::date END)
  FROM generate_series(1, 3) n, generate_series(1, 2) sku
END

sub count_events
{
	return $node->safe_psql('postgres', 'SELECT count(*) FROM alloc.event');
}

sub check_level
{
	my ($level, $tries) = @_;
	my $before = count_events();
	my $logged = -s $node->logfile;

	$level =~ s/ /\\ /;
	local $ENV{PGOPTIONS} = "-c default_transaction_isolation=$level";
	my ($output, $errors) = run_command([
		'pgbench', '-n', '-c', '12', '-j', '2', '-T', '3', "--max-tries=$tries",
		'-f', $script, $node->connstr('postgres') ]);
	$level =~ s/\\//;

	like($output, qr/^number of failed transactions: 0 /m, "$level: none failed");
	is(join("\n", grep { /^pgbench: error/ } split(/\n/, $errors)), '', "$level: no error");
	cmp_ok(count_events() - $before, '>', 1000, "$level: there was work");

	my $log = slurp_file($node->logfile, $logged);
	my %seen = map { $_ => 1 } $log =~ /ERROR:  (.*)/g;
	if ($tries == 1)
	{
		is(join("\n", sort keys %seen), '', "$level: the server saw no error");
	}
	else
	{
		is(join("\n", grep { !/^could not serialize access / } sort keys %seen),
			'', "$level: the server saw no error but 40001");
	}
	is(problems($node, 'postgres'), '', "$level: sound");
	is(absurd($node, 'postgres'), '', "$level: the log makes sense at each event");
	return;
}

check_level('read committed', 1);
check_level('repeatable read', 1000);
check_level('serializable', 1000);

$node->stop;
done_testing();
