# No deadlock, whatever single commands come together: 32 clients at random on
# 8 products, with orders that they share, arrays of lines in any order, orders
# that come and leave as a whole, and quantities and days that change below them.
#
#   DEADLOCK_SECONDS=600 test/run tap      the full run; 20 without

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node problems absurd bench);
use Test::More;

my $clients = 32;
my $seconds = $ENV{DEADLOCK_SECONDS} // 20;

# A deadlock is to be seen before the seconds are over.  With the durability
# that users have, so that locks are held for as long; the test library turns
# it off.
my $node = new_node('main', <<'END');
fsync = on
max_connections = 100
deadlock_timeout = 20ms
log_statement = none
END

# 300 units of each product, where orders want about 360.
$node->safe_psql('postgres', <<'SQL');
SELECT alloc.add_batch('batch ' || n || ' of ' || sku, 'sku ' || sku, 100,
                       CASE WHEN n > 1 THEN '2030-01-01'::date + n END)
  FROM generate_series(1, 3) n, generate_series(1, 8) sku;

-- To so much above what has left; more may leave before it has its locks.
CREATE FUNCTION change(ref text, qty bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM alloc.change_batch_quantity(b.ref, b.shipped_qty + qty)
	   FROM alloc.batches b WHERE b.ref = change.ref;
EXCEPTION WHEN SQLSTATE 'SK004' THEN
	NULL;
END
$$;
SQL

# The quantity of a line follows from its key, so that whoever meets a line of
# somebody else means the same one.
my %scripts = (
	allocate => [ 30, <<'END' ],
\set orderid random(1, 120)
\set sku random(1, 8)
SELECT alloc.allocate('order ' || :orderid, 'sku ' || :sku, 1 + (:orderid + :sku) % 5);
END

	# Divides by zero if the rows are not the lines in their order.
	allocate_lines => [ 15, <<'END' ],
\set lines random(5, 25)
\set again random(0, 5)
WITH line AS MATERIALIZED (
	SELECT ('order ' || orderid, 'sku ' || sku, 1 + (orderid + sku) % 5)::alloc.order_line AS line
	  FROM (SELECT 1 + floor(random() * 120)::int AS orderid, 1 + floor(random() * 8)::int AS sku
	          FROM generate_series(1, :lines)) AS key),
basket AS MATERIALIZED (
	SELECT array_agg(line ORDER BY random()) AS lines
	  FROM (TABLE line UNION ALL (TABLE line LIMIT :again)) AS all_lines)
SELECT 1 / (lines = ARRAY(
		SELECT (orderid, sku, qty)::alloc.order_line FROM alloc.allocate_lines(lines)))::int
  FROM basket;
END

	# Half of them want all or nothing.  Divides by zero if an order is half
	# there: some of it not taken, though nothing is out of stock.
	allocate_order => [ 15, <<'END' ],
\set orderid random(1, 120)
\set lines random(1, 8)
\set half random(0, 1)
WITH line AS MATERIALIZED (
	SELECT (nullif('order ' || :orderid, 'order ' || :orderid * :half), 'sku ' || sku, 1 + (:orderid + sku) % 5)::alloc.order_line AS line
	  FROM generate_series(1, 8) AS sku ORDER BY random() LIMIT :lines),
answer AS MATERIALIZED (
	SELECT status FROM alloc.allocate_order('order ' || :orderid, ARRAY(SELECT line FROM line),
		CASE :half WHEN 0 THEN 'all' ELSE 'partial' END))
SELECT 1 / (count(*) = :lines AND (count(*) FILTER (WHERE status = 'not_taken') = 0
		OR :half = 0 AND count(*) FILTER (WHERE status = 'out_of_stock') > 0))::int
  FROM answer;
END
	deallocate => [ 35, <<'END' ],
\set orderid random(1, 120)
\set sku random(1, 8)
SELECT alloc.deallocate('order ' || :orderid, 'sku ' || :sku);
END
	change_batch_quantity => [ 17, <<'END' ],
\set batch random(1, 3)
\set sku random(1, 8)
\set qty random(0, 160) * CASE WHEN random(1, 10) = 1 THEN 10 ELSE 1 END
SELECT change('batch ' || :batch || ' of ' || :sku, :qty);
END
	change_batch_eta => [ 5, <<'END' ],
\set batch random(1, 3)
\set sku random(1, 8)
\set day random(0, 3)
SELECT * FROM alloc.change_batch_eta('batch ' || :batch || ' of ' || :sku,
                                     nullif('2030-01-01'::date + :day, '2030-01-01'));
END
	ship_line => [ 5, <<'END' ],
\set orderid random(1, 120)
\set sku random(1, 8)
SELECT alloc.ship('order ' || :orderid, 'sku ' || :sku);
END
	ship_order => [ 5, <<'END' ],
\set orderid random(1, 120)
SELECT alloc.ship('order ' || :orderid);
END

	# So that the orders can come again.
	purge_shipped => [ 3, <<'END' ],
SELECT alloc.purge_shipped(now() - random() * interval '1 second');
END

	# Often again what somebody else has added, or is adding.
	add_batch => [ 3, <<'END' ]);
\set batch random(1, 80)
SELECT alloc.add_batch('extra ' || :batch, 'sku ' || (1 + :batch % 8), 3, '2031-01-01');
END

sub rows
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

my ($wrong, %times) = bench($node, [ '-c', $clients, '-T', $seconds ], %scripts);

is($wrong, '', 'no client and no command failed');
is(rows("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'"), 0,
	'no deadlock');

my %least = (
	allocate => 100,
	allocate_lines => 50,
	allocate_order => 50,
	deallocate => 100,
	change_batch_quantity => 50,
	change_batch_eta => 20,
	ship_line => 20,
	ship_order => 20,
	purge_shipped => 10,
	add_batch => 10);

foreach my $name (sort keys %scripts)
{
	cmp_ok($times{$name}, '>=', $least{$name}, "there was work to $name");
	note("$name: $times{$name}");
}

# That the work was of each kind: lines served, refused, freed, moved, shipped
# and delayed.
my %events = map { split(/\|/) }
	split(/\n/, rows('SELECT type, count(*) FROM alloc.events GROUP BY type'));

foreach my $type (qw(allocated deallocated out_of_stock batch_quantity_changed shipped promise_changed))
{
	cmp_ok($events{$type} // 0, '>=', 50, "there are events $type");
	note("$type: $events{$type}");
}
cmp_ok($events{batch_created}, '>', 24, 'batches were added');

is(rows(<<'END'), '', 'each unit is available, shipped or on one line');
SELECT b.*, a.qty FROM alloc.batches b
 CROSS JOIN LATERAL (
	SELECT coalesce(sum(qty), 0) AS qty FROM alloc.allocations WHERE batchref = b.ref) a
 WHERE b.available_qty < 0 OR b.allocated_qty < 0 OR b.shipped_qty < 0
    OR a.qty <> b.allocated_qty
    OR a.qty + b.shipped_qty + b.available_qty <> b.purchased_qty
END

is(rows(<<'END'), '', 'the log adds up to what is there');
SELECT ref, b.purchased_qty, b.allocated_qty, b.shipped_qty,
       log.purchased_qty, log.allocated_qty, log.shipped_qty
  FROM alloc.batches b
  FULL JOIN (
	SELECT batchref AS ref,
	       sum(CASE type WHEN 'batch_created' THEN qty
	                     WHEN 'batch_quantity_changed' THEN qty - (payload->>'old_qty')::bigint
	                     ELSE 0 END) AS purchased_qty,
	       sum(CASE type WHEN 'allocated' THEN qty
	                     WHEN 'deallocated' THEN -qty
	                     WHEN 'shipped' THEN -qty
	                     ELSE 0 END) AS allocated_qty,
	       sum(CASE type WHEN 'shipped' THEN qty ELSE 0 END) AS shipped_qty
	  FROM alloc.events WHERE batchref IS NOT NULL GROUP BY 1) log USING (ref)
 WHERE (b.purchased_qty, b.allocated_qty, b.shipped_qty)
       IS DISTINCT FROM (log.purchased_qty, log.allocated_qty, log.shipped_qty)
END

is(rows('SELECT count(*) FROM (SELECT FROM alloc.allocations
		  GROUP BY orderid, sku HAVING count(*) > 1) line'), 0, 'no line is there twice');
is(problems($node, 'postgres'), '', 'sound');
is(rows('SELECT * FROM alloc.check()'), '', 'check() finds nothing');
is(absurd($node, 'postgres'), '', 'the log makes sense at each event');

$node->stop;
done_testing();
