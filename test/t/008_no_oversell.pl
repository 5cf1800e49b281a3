# Nothing is oversold, and all that can be sold is sold: 64 clients at once on
# one product that lies in several batches.  First they also roll back and free
# what they had, while an observer looks at the sums; then, with another
# product, they only buy, and the log tells whether each line got the best batch.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems absurd bench);
use IPC::Run qw(start);
use Test::More;

my $clients = 64;
my $seconds = 8;

# Of each product 5000 units, in order of preference: reference, quantity, eta.
# Those with one eta are preferred as they were added.
my %batches = (
	churned => [
		[ 'churned 1', 1700, 'NULL' ],
		[ 'churned 2', 1650, "'2030-01-01'" ],
		[ 'churned 3', 1650, "'2030-02-01'" ] ],
	bought => [
		map {
			my $eta = $_ == 1 ? 'NULL' : "'2030-01-0$_'";
			map { [ "bought $_->[0]", $_->[1], $eta ] }
				[ "$_.1", 500 ], [ "$_.2", 75 ], [ "$_.3", 50 ]
		} 1 .. 8 ]);

# With the durability that users have; the test library turns it off.
my $node = new_node('main',
	"fsync = on\nmax_connections = 100\nlog_statement = none\n");

# Those for which one waits longest first: it is not their age that decides.
foreach my $sku (keys %batches)
{
	my %of_eta;

	push @{ $of_eta{ $_->[2] } }, $_ foreach @{ $batches{$sku} };
	foreach my $batch (map { @{ $of_eta{$_} } } reverse sort keys %of_eta)
	{
		my ($ref, $qty, $eta) = @$batch;
		$node->safe_psql('postgres', "SELECT alloc.add_batch('$ref', '$sku', $qty, $eta)");
	}
}

# And one of its own for each client.
$node->safe_psql('postgres', "SELECT alloc.add_batch('own ' || n, 'own ' || n, 1000000)
	FROM generate_series(0, $clients - 1) n");

# ---- what clients do ----

# Each has its own orders, numbered by what it keeps in :next.  One that is
# rolled back is called "undone".  Nobody has taken or given stock that others
# want when a command may have to wait: so none may end by a deadlock.
my %churn = (
	allocate => [ 45, <<'END' ],
\set next :next + 1
\set qty random(1, 5)
SELECT alloc.allocate('order ' || :client_id || '.' || :next, 'churned', :qty);
END
	deallocate => [ 15, <<'END' ],
\set earlier random(1, greatest(:next, 1))
SELECT alloc.deallocate('order ' || :client_id || '.' || :earlier, 'churned');
END
	undo_allocate => [ 10, <<'END' ],
\set qty random(1, 5)
BEGIN;
SELECT alloc.allocate('undone by ' || :client_id, 'churned', :qty);
ROLLBACK;
END
	undo_deallocate => [ 5, <<'END' ],
\set earlier random(1, greatest(:next, 1))
BEGIN;
SELECT alloc.deallocate('order ' || :client_id || '.' || :earlier, 'churned');
ROLLBACK;
END
	undo_then_allocate => [ 15, <<'END' ],
\set next :next + 1
\set qty random(1, 5)
BEGIN;
SAVEPOINT before;
SELECT alloc.allocate('undone by ' || :client_id, 'churned', 6 - :qty);
ROLLBACK TO SAVEPOINT before;
SELECT alloc.allocate('order ' || :client_id || '.' || :next, 'churned', :qty);
COMMIT;
END
	allocate_then_undo => [ 10, <<'END' ]);
\set next :next + 1
\set earlier random(1, :next)
\set qty random(1, 10)
BEGIN;
SELECT alloc.allocate('order ' || :client_id || '.' || :next, 'own ' || :client_id, 1);
SAVEPOINT before;
\if :qty <= 5
SELECT alloc.allocate('undone by ' || :client_id, 'churned', :qty);
\else
SELECT alloc.deallocate('order ' || :client_id || '.' || :earlier, 'churned');
\endif
ROLLBACK TO SAVEPOINT before;
COMMIT;
END

# Buys 1 to so many units at once, until not even one is left.  A client could
# buy all of it alone, and then be told by a fifth of its calls.
sub buy_all
{
	my ($sku, $most) = @_;

	return bench($node, [ '-c', $clients, '-t', 6000, '-D', 'next=0', '-D', 'sold_out=false' ],
		buy_all => [ 1, <<"END" ]);
\\if not :sold_out
\\set next :next + 1
\\set qty random(1, $most)
SELECT CASE WHEN alloc.allocate('all ' || :client_id || '.' || :next, '$sku', :qty) IS NULL
            THEN :qty = 1 ELSE false END AS sold_out \\gset
\\endif
END
}

# ---- what must hold ----

# Looks as often as it can, each time in one statement, so by one snapshot.
sub start_observer
{
	my $observe = <<'END';
DO $$
BEGIN
	LOOP
		INSERT INTO look
		SELECT count(*) FILTER (WHERE b.available_qty < 0
		                           OR a.qty > b.purchased_qty
		                           OR coalesce(a.qty, 0) <> b.allocated_qty
		                           OR coalesce(a.qty, 0) + b.available_qty <> b.purchased_qty),
		       sum(a.qty)
		  FROM alloc.batches b
		  LEFT JOIN (
			SELECT batchref AS ref, sum(qty) AS qty
			  FROM alloc.allocations GROUP BY 1) a USING (ref);
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM stop);
	END LOOP;
END $$
END

	$node->safe_psql('postgres', <<'END');
CREATE TABLE look (wrong_batches bigint, allocated bigint);
CREATE TABLE stop ();
END
	return start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', $observe,
			'-d', $node->connstr('postgres') ]);
}

sub stop_observer
{
	my ($observer) = @_;

	$node->safe_psql('postgres', 'INSERT INTO stop DEFAULT VALUES');
	ok($observer->finish, 'the observer was there until the end');
	return;
}

sub rows
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# Lines that are not what the log adds up to, or are there twice.
sub not_in_log
{
	my ($sku) = @_;

	return rows(<<"END");
WITH line AS (
	SELECT orderid, batchref, qty::numeric FROM alloc.allocations WHERE sku = '$sku'),
log AS (
	SELECT orderid, batchref, sum(CASE type WHEN 'allocated' THEN qty ELSE -qty END) AS qty
	  FROM alloc.events
	 WHERE sku = '$sku' AND type IN ('allocated', 'deallocated')
	 GROUP BY 1, 2),
kept AS (SELECT * FROM log WHERE qty <> 0)
SELECT * FROM (
	(TABLE line EXCEPT ALL TABLE kept)
	UNION ALL (TABLE kept EXCEPT ALL TABLE line)
	UNION ALL (SELECT orderid, 'twice', count(*) FROM line GROUP BY 1 HAVING count(*) > 1)) wrong
 LIMIT 5
END
}

sub is_sold
{
	my ($sku) = @_;
	my @batches = sort { $a->[0] cmp $b->[0] } @{ $batches{$sku} };

	is(rows("SELECT ref, purchased_qty, available_qty FROM alloc.batches
			  WHERE sku = '$sku' ORDER BY ref"),
		join("\n", map { "$_->[0]|$_->[1]|0" } @batches),
		"$sku: nothing is left in any batch");
	is(rows("SELECT batchref, sum(qty) FROM alloc.allocations
			  WHERE sku = '$sku' GROUP BY batchref ORDER BY batchref"),
		join("\n", map { "$_->[0]|$_->[1]" } @batches),
		"$sku: each batch serves lines of all its units");
	is(rows("SELECT sum(qty) FROM alloc.allocations WHERE sku = '$sku'"),
		5000, "$sku: 5000 units are sold");
	is(rows("SELECT count(DISTINCT substring(orderid FROM '^all (\\d+)')) FROM alloc.events
			  WHERE sku = '$sku' AND type = 'out_of_stock' AND qty = 1 AND orderid LIKE 'all %'"),
		$clients, "$sku: each client has seen that");
	is(not_in_log($sku), '', "$sku: the lines are what the log adds up to, none is there twice");
	return;
}

# Events of a product of which nothing was freed or rolled back that are not
# as the rules want them: a line whose batch is not the first that had enough;
# an out of stock though a batch had.
#
# The order of event ids can tell, though clients came all at once: an id is
# drawn after the look that decided.  What that look saw taken has a smaller
# id, so by all smaller ids a batch has no more left than it saw; and with
# that it has to say why it was not good enough.
sub out_of_order
{
	my ($sku) = @_;
	my %left = map { ($_->[0] => $_->[1]) } @{ $batches{$sku} };
	my $passed = 0;
	my @wrong;

	foreach my $event (split(/\n/, rows(<<"END")))
SELECT event_id, type, coalesce(batchref, ''), qty FROM alloc.events
 WHERE sku = '$sku' AND type <> 'batch_created' ORDER BY event_id
END
	{
		my ($id, $type, $batchref, $qty) = split(/\|/, $event);

		foreach my $preferred (map { $_->[0] } @{ $batches{$sku} })
		{
			last if $preferred eq $batchref;
			push @wrong, "$event, but $preferred has $left{$preferred}"
				if $left{$preferred} >= $qty;
			$passed++ if $left{$preferred} > 0;
		}
		$left{$batchref} -= $qty if $type eq 'allocated';
	}
	note("batches passed by that had something, but too little: $passed");
	return @wrong;
}

# ---- with rollbacks and deallocations ----

my $observer = start_observer();
my ($wrong, %times) = bench($node,
	[ '-c', $clients, '-T', $seconds, '-D', 'next=0' ], %churn);

is($wrong, '', 'churned: no client and no command failed');
foreach my $name (sort keys %churn)
{
	cmp_ok($times{$name}, '>=', 10, "churned: there was work to $name");
	note("$name: $times{$name}");
}

($wrong) = buy_all('churned', 1);
is($wrong, '', 'churned, the rest: no client and no command failed');
stop_observer($observer);

is(rows('SELECT sum(wrong_batches) FROM look'), 0,
	'at each look each unit was available or on one line');
cmp_ok(rows('SELECT count(*) FROM look'), '>=', 20, 'there were many looks');
cmp_ok(rows('SELECT count(DISTINCT allocated) FROM look'), '>=', 10, 'while there was work');
note('looks: ' . rows('SELECT count(*), count(DISTINCT allocated) FROM look'));

is_sold('churned');
is(rows("SELECT count(*) FROM alloc.events WHERE orderid LIKE 'undone%'"), 0,
	'churned: the log knows nothing of what was rolled back');
is(rows("SELECT count(*) >= 10 FROM alloc.events WHERE type = 'deallocated'"), 't',
	'churned: lines were freed');
is(rows("SELECT count(*) FROM alloc.allocations WHERE sku LIKE 'own %'"),
	$times{allocate_then_undo}, 'churned: what came before a savepoint was kept');

# ---- without ----

($wrong) = buy_all('bought', 5);
is($wrong, '', 'bought: no client and no command failed');
is_sold('bought');
my @wrong = out_of_order('bought');
is(scalar(@wrong), 0, 'bought: each line got the first batch that had enough')
	or diag(join("\n", grep { defined } @wrong[ 0 .. 9 ]));

is(problems($node, 'postgres'), '', 'sound');
is(absurd($node, 'postgres'), '', 'the log makes sense at each event');

$node->stop;
done_testing();
