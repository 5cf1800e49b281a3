# A router of a fleet: what it does itself.  All is in databases of one server;
# the behaviour that it shares with an ordinary database is what
# test/pgtap-fleet runs the pgTAP files for.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node sqlstate wait_for_lock);
use IPC::Run qw(run start);
use PostgreSQL::Test::Utils;
use Test::More;

# What is asked of a partition is in the log, after the database's name.
my $node = new_node('fleet', <<'END');
max_connections = 100
log_statement = all
log_line_prefix = '[%d] '
END
my @parts = map { "p$_" } 0 .. 3;

sub connection { my ($database) = @_; return sprintf("host=%s port=%s dbname=%s", $node->host, $node->port, $database); }

sub strings { return 'ARRAY[' . join(', ', map { "'" . connection($_) . "'" } @_) . ']'; }

sub create_router { return "SELECT alloc.create_router('fleet', " . strings(@_) . ')'; }

sub router { my ($sql) = @_; return $node->safe_psql('router', $sql); }

sub fails { my ($sql) = @_; return sqlstate($node, 'router', $sql); }

# Rows of a query on each partition, one after the other.
sub everywhere { my ($sql) = @_; return join("\n", grep { $_ ne '' } map { $node->safe_psql($_, $sql) } @parts); }

sub new_database
{
	my ($name, @extensions) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, "CREATE EXTENSION $_") foreach @extensions;
	return;
}

new_database('part', 'alloc');
$node->safe_psql('postgres', "CREATE DATABASE $_ TEMPLATE part") foreach @parts;
new_database('router', 'plproxy', 'alloc');

# A sku, and a reference or an order, of each partition.
my @sku = split /\n/, router(<<'END');
SELECT DISTINCT ON (alloc.partition_of('sku' || n) & 3) 'sku' || n FROM generate_series(1, 100) n
 ORDER BY alloc.partition_of('sku' || n) & 3, n
END

# Partitions that are asked while a query runs.
sub asked
{
	my ($sql) = @_;
	my $logged = -s $node->logfile;

	router($sql);
	my %seen = map { $_ => 1 } slurp_file($node->logfile, $logged) =~ /^\[(p\d)\] LOG:  execute/mg;
	return join(' ', sort keys %seen);
}

# create_router()'s arguments

my %wrong = (
	"NULL, ARRAY['x']" => '22004', "'', ARRAY['x']" => '22023',
	"repeat('k', 256), ARRAY['x']" => '22001', "'fleet', NULL" => '22004',
	"'fleet', ARRAY['x', NULL]" => '22004', "'fleet', '{}'" => '22023',
	"'fleet', ARRAY['x', 'y', 'z']" => '22023', "'fleet', ARRAY[ARRAY['x', 'y'], ARRAY['z', 'w']]" => '22023',
	"'fleet', " . strings('p0', 'p0', 'p1', 'p1') => '22023',
	"'fleet', ARRAY['host=/nowhere']" => '08006');
is(fails("SELECT alloc.create_router($_)"), $wrong{$_}, "create_router($_)") foreach sort keys %wrong;
is(router("SELECT count(*) FROM alloc.router"), 0, 'which makes no router');
foreach my $what ('alloc.drop_router()', 'alloc.rebuild_directory()', 'alloc.recover_orders()')
{
	is(fails("SELECT $what"), '55000', "$what without a router");
}

is(sqlstate($node, 'part', create_router('p0')), '55000', 'PL/Proxy is missing');
new_database('stock', 'plproxy', 'alloc');
$node->safe_psql('stock', "SELECT alloc.add_batch('b', 's', 1)");
is(sqlstate($node, 'stock', create_router('p0')), '55000', 'a database with stock');
new_database('share', 'plproxy', 'alloc');
$node->safe_psql('share', 'SELECT alloc.set_partition(1, 2)');
is(sqlstate($node, 'share', create_router('p0')), '55000', 'a partition');

# Made, dropped, and made again

# What a client needs, and nothing that is not public.
sub grant_to_clerk
{
	router('GRANT USAGE ON SCHEMA alloc TO clerk; GRANT USAGE ON TYPE alloc.order_line TO clerk;
		GRANT SELECT ON alloc.stock, alloc.batches, alloc.allocations TO clerk;
		GRANT EXECUTE ON FUNCTION alloc.allocate(text, text, bigint), alloc.allocate_lines(alloc.order_line[]),
			alloc.sync_batches(regclass, boolean) TO clerk');
	return;
}

my $definitions = <<'END';
SELECT p.oid::regprocedure, pg_get_functiondef(p.oid), p.proacl, p.proowner, obj_description(p.oid, 'pg_proc')
  FROM pg_proc p WHERE pronamespace = 'alloc'::regnamespace ORDER BY 1;
SELECT c.oid::regclass, c.reloptions, c.relacl, c.relowner, obj_description(c.oid, 'pg_class'),
       CASE relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END
  FROM pg_class c WHERE relnamespace = 'alloc'::regnamespace ORDER BY 1;
SELECT nspname, nspacl FROM pg_namespace ORDER BY 1;
SELECT srvname FROM pg_foreign_server ORDER BY 1;
SELECT objid, deptype FROM pg_depend d JOIN pg_extension e ON e.oid = refobjid WHERE extname = 'alloc' ORDER BY 1;
END

$node->safe_psql('postgres', 'CREATE ROLE clerk LOGIN');
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');
grant_to_clerk();
my $before = router($definitions);
router(create_router('p0', 'p1'));
is(everywhere('SELECT number, count FROM alloc.partition'), "0|2\n1|2", 'partitions learn their shares');
isnt(router($definitions), $before, 'functions are others');
is(fails('DROP EXTENSION alloc'), '2BP01', 'the extension cannot be dropped below a router');
router('SELECT alloc.drop_router()');
is(router($definitions), $before, 'drop_router() brings all back as it was');
is(router("SELECT alloc.add_batch('own', 's', 1)"), 'own', 'which works');
$node->safe_psql('postgres', 'DROP DATABASE router');
new_database('router', 'plproxy', 'alloc');
grant_to_clerk();

# A command that began before the router was there.
my $maker = $node->background_psql('router');
$maker->query_safe('BEGIN; LOCK TABLE alloc.slot IN SHARE ROW EXCLUSIVE MODE');
my $late = start([ 'psql', '-Xqv', 'VERBOSITY=verbose', '-d', connection('router'), '-c', "SELECT alloc.add_batch('late', 's', 1)" ], '2>', \my $errors);
wait_for_lock($node, 1);
$maker->query_safe(create_router('p0', 'p1') . '; COMMIT');
$maker->quit;
$late->finish;
like($errors, qr/ERROR:  55000: .*\nDETAIL:  This database is a router/, 'who waits while it becomes a router is refused');
is(router('SELECT (SELECT count(*) FROM alloc.product) + (SELECT count(*) FROM alloc.event)'), 0, '... and leaves no stock in it');
is(fails('SELECT alloc.set_partition(0, 2)'), '55000', 'a router is no partition');
is(fails('SELECT alloc.prepare_partition(1)'), '55000', 'and will be none');
is(fails('SELECT alloc.drop_moved()'), '55000', '... nor has anything moved from it');
is(sqlstate($node, 'stock', create_router('p0')), '55000', 'nor a partition of another one');
is(sqlstate($node, 'part', 'CREATE EXTENSION plproxy; ' . create_router('router')), '55000', 'which it would be');

# A dump of a router
my $dump = "${PostgreSQL::Test::Utils::tmp_check}/router.dump";
run([ 'pg_dump', '-d', connection('router'), '-f', $dump ]) or die 'pg_dump';
$node->safe_psql('postgres', 'CREATE DATABASE again');
run([ 'psql', '-Xqv', 'ON_ERROR_STOP=1', '-d', connection('again'), '-f', $dump ], '>', \my $said) or die 'restore';
is(sqlstate($node, 'again', "SELECT alloc.add_batch('b', 's', 1)"), '55000', 'a router that was restored takes no stock');
is(sqlstate($node, 'again', create_router('p0', 'p1')), '42P06', 'it has the schema of the old one');
$node->safe_psql('again', 'DROP SCHEMA alloc_router CASCADE; DROP SERVER fleet CASCADE; DROP SERVER alloc_gather CASCADE');
$node->safe_psql('again', create_router('p0', 'p1'));
is($node->safe_psql('again', "SELECT alloc.add_batch('b', 's', 1)"), 'b', 'without that it is made again');
$node->safe_psql('again', 'SELECT alloc.drop_router()');
is($node->safe_psql('again', "SELECT alloc.add_batch('b', 's', 1); SELECT count(*) FROM alloc.partition"), "b\n0", 'and dropped');
$node->safe_psql('postgres', 'DROP DATABASE again');
router('SELECT alloc.drop_router()');

is(fails(create_router('p1', 'p0')), '55000', 'partitions in another order than they are');
$node->safe_psql('postgres', 'ALTER DATABASE p1 SET datestyle = German');
is(fails(create_router('p0', 'p1')), '55000', 'one with dates in another style');
router(sprintf q{SELECT alloc.create_router('fleet', ARRAY['%s', '%s options=''-c datestyle=ISO'''])}, connection('p0'), connection('p1'));
router("SELECT alloc.add_batch('German', '$sku[1]', 1, '2031-12-11')");
is(router("SELECT eta FROM alloc.batches WHERE ref = 'German'"), '2031-12-11', 'a connection string may say which');
router('SELECT alloc.drop_router()');
$node->safe_psql('postgres', 'ALTER DATABASE p1 RESET datestyle');
is(fails(create_router(@parts)), '55000', 'more of them than they are');
router(create_router('p0', 'p1', 'p0', 'p1'));
is(router('SELECT homes FROM alloc.router'), '{0,1,0,1}', 'a partition with several numbers');
router(create_router('p0', 'p1'));
router(create_router('p0', 'p1'));
is(router('SELECT homes FROM alloc.router'), '{0,1}', 'fewer numbers, and the same again');
is(fails("SELECT alloc.create_router('other', " . strings('p0', 'p1') . ')'), '55000', 'one router has one cluster');
is(fails(create_router('p1', 'p0')), '55000', 'nor in another order');
is(router("SELECT alloc.add_batch('twice', '$sku[1]', 1)"), 'twice', 'which has changed nothing');
router('SELECT alloc.drop_router()');
is(fails('SELECT alloc.drop_router()'), '55000', 'drop_router() twice');
$node->safe_psql($_, 'DROP EXTENSION alloc; CREATE EXTENSION alloc') foreach 'p0', 'p1';
router(create_router(@parts));
is(everywhere('SELECT number, count FROM alloc.partition'), "0|4\n1|4\n2|4\n3|4", 'four partitions');

is(sqlstate($node, 'router', q{SELECT * FROM alloc.archive_events('infinity')}), '0A000',
	'events are archived on the partitions, not by a router');

# What is routed, and what is not: a new function or view has to be decided on

is(router(<<'END'), <<'END' =~ s/\n$//r, 'functions that are not routed');
SELECT p.oid::regprocedure FROM pg_proc p
 WHERE pronamespace = 'alloc'::regnamespace AND proname NOT LIKE '\_%'
   AND p.oid NOT IN (SELECT ('alloc.' || r.signature)::regprocedure FROM alloc._routes() r)
   AND p.oid <> 'alloc.sync_batches(regclass,boolean)'::regprocedure
   AND p.prorettype <> 'trigger'::regtype
 ORDER BY p.proname
END
alloc.counters()
alloc.create_router(text,text[])
alloc.drop_moved(integer)
alloc.drop_router()
alloc.event_payload(alloc.event)
alloc.grant_access(regrole,text)
alloc.handle(jsonb)
alloc.partition_of(text)
alloc.prepare_partition(bigint)
alloc.revoke_access(regrole,text)
alloc.set_partition(integer,integer)
alloc.settle_partition(integer,integer)
alloc.was_given(bigint,bigint[],bigint,bigint[],bigint,bigint,bigint)
END
is(router(<<'END'), '', 'views that are not routed');
SELECT c.relname FROM pg_class c
 WHERE relnamespace = 'alloc'::regnamespace AND relkind = 'v'
   AND relname NOT IN (SELECT name FROM alloc._remote_views()) ORDER BY 1
END
my $signatures = <<'END';
SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid), provolatile
  FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace ORDER BY 1, 2;
SELECT attrelid::regclass, attname, atttypid::regtype FROM pg_attribute
 WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'alloc'::regnamespace AND relkind = 'v') ORDER BY 1, attnum
END
is(router($signatures), $node->safe_psql('part', $signatures), 'signatures, results and columns are as anywhere');

# Where a view looks

router("SELECT alloc.add_batch('b$_', '$sku[$_]', 100) FROM generate_series(1, 1)") foreach 0 .. 3;
my %looks = (
	"SELECT * FROM alloc.stock" => 'p0 p1 p2 p3',
	"SELECT * FROM alloc.stock WHERE sku = '$sku[2]'" => 'p2',
	"SELECT * FROM alloc.stock WHERE '$sku[2]' = sku AND available_qty > 0" => 'p2',
	"SELECT * FROM alloc.stock WHERE sku = '$sku[2]'::varchar" => 'p2',
	"SELECT * FROM alloc.stock s WHERE sku = (SELECT '$sku[2]'::text)" => 'p2',
	"SELECT * FROM alloc.stock WHERE sku = NULL" => '',
	"SELECT * FROM alloc.stock WHERE sku = lower(NULL)" => '',
	"SELECT * FROM alloc.stock WHERE sku IS NULL" => 'p0 p1 p2 p3',
	"SELECT * FROM alloc.batches WHERE ref = 'b1'" => 'p0 p1 p2 p3',
	"SELECT * FROM alloc.batches WHERE ref = 'b1' AND sku = '$sku[1]'" => 'p1',
	"SELECT * FROM alloc.allocations WHERE sku = '$sku[3]'" => 'p3',
	"SELECT * FROM alloc.events WHERE sku = '$sku[3]'" => 'p3',
	"SELECT * FROM alloc.backorders WHERE sku = '$sku[3]'" => 'p3',
	"SELECT s.* FROM (VALUES ('$sku[1]'), ('$sku[3]')) AS v (sku), LATERAL (SELECT * FROM alloc.stock s WHERE s.sku = v.sku OFFSET 0) s" => 'p1 p3',
	"PREPARE q(text) AS SELECT * FROM alloc.stock WHERE sku = \$1; EXECUTE q('$sku[0]')" => 'p0',
	"SET plan_cache_mode = force_generic_plan; PREPARE q(text) AS SELECT * FROM alloc.stock WHERE sku = \$1; EXECUTE q('$sku[0]')" => 'p0',
	"EXPLAIN SELECT * FROM alloc.stock" => '',
	"SELECT alloc.available_to_promise('$sku[1]')" => 'p1');
is(asked($_), $looks{$_}, "asked: $_") foreach sort keys %looks;
like(router("EXPLAIN SELECT * FROM alloc.stock WHERE sku = 'x'"), qr/Keys Sent: sku$/m, 'EXPLAIN tells');
is(router("SELECT ref FROM alloc.batches WHERE sku IN ('$sku[0]', '$sku[3]') ORDER BY 1"), "b0\nb3", 'two skus');
is(router("SELECT b.ref FROM alloc.batches b JOIN alloc.stock s USING (sku) ORDER BY 1"), "b0\nb1\nb2\nb3", 'views joined');
is(router("SELECT (SELECT available_qty FROM alloc.stock s WHERE s.sku = v.sku) FROM unnest(ARRAY['$sku[0]', 'none', NULL]) AS v (sku)"), "100\n\n", 'one row after the other');
is(router("BEGIN; DECLARE c SCROLL CURSOR FOR SELECT ref FROM alloc.batches ORDER BY ref; FETCH 2 FROM c; FETCH BACKWARD 1 FROM c; COMMIT"), "b0\nb1\nb0", 'a cursor');
is(fails('DELETE FROM alloc.stock'), '55000', 'a view cannot be deleted from');
router("SELECT count(*) FROM alloc.allocate_lines(ARRAY(SELECT ('l' || n, '$sku[0]', 1000)::alloc.order_line FROM generate_series(1, 3000) n))");
is(router("SET work_mem = '64kB'; SELECT count(DISTINCT orderid) FROM alloc.events"), 3000, 'more rows than fit into work_mem');
is(router("SET work_mem = '64kB'; SELECT count(*), count(DISTINCT e.sku) FROM (VALUES (1), (2)) AS v, LATERAL (SELECT * FROM alloc.events WHERE v.column1 > 0 OFFSET 0) e"), '6008|4', 'read again');

# The directory

is(fails("SELECT alloc.add_batch('b0', '$sku[1]', 100)"), '23505', 'the same reference on another partition');
is(router("SELECT alloc.add_batch('b0', '$sku[0]', 100)"), 'b0', 'the same batch again');
is(fails("SELECT alloc.add_batch('b0', '$sku[0]', 99)"), '23505', 'with another quantity');
is(router("SELECT count(*) FROM alloc.batches"), 4, 'there are four batches');
# A claim whose add_batch() failed: the reference can be had by another sku.
everywhere("INSERT INTO alloc.directory SELECT 'stale', '$sku[3]' WHERE alloc._serves('stale')");
is(router("SELECT alloc.add_batch('stale', '$sku[1]', 1)"), 'stale', 'a stale claim is in nobody\'s way');
is(everywhere("SELECT sku FROM alloc.directory WHERE ref = 'stale'"), $sku[1], 'and is put right');
# One that may still come is waited for.
everywhere("INSERT INTO alloc.directory SELECT 'claimed', '$sku[3]', now() WHERE alloc._serves('claimed')");
is(fails("SELECT alloc.add_batch('claimed', '$sku[1]', 1)"), '55000', 'a claim whose batch may still come');
is(router("SELECT alloc.add_batch('claimed', '$sku[3]', 0)"), 'claimed', 'which it does');
is(fails("SELECT alloc.add_batch('claimed', '$sku[1]', 1)"), '23505', 'and then it is there');
# Whose reference somebody else might have by now is refused.
my $overdue = start([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', connection('p0'),
		'-c', "SELECT alloc._add_fleet_batch('late', '$sku[0]', 1, NULL) FROM pg_sleep(30.1)" ],
	'>', \my $overdue_answer, '2>', \my $overdue_error);
is(fails("SELECT * FROM alloc.change_batch_quantity('none', 1)"), 'SK002', 'an unknown reference');
is(fails("SELECT * FROM alloc.change_batch_eta('none', NULL)"), 'SK002', 'likewise');
is(fails("SELECT * FROM alloc.change_batch_quantity(NULL, 1)"), '22004', 'a NULL reference');
is(fails("SELECT * FROM alloc.change_batch_quantity(repeat('k', 256), 1)"), '22001', 'a long reference');
everywhere("DELETE FROM alloc.directory WHERE ref = 'b2'");
like(router('SELECT problem, batchref, detail FROM alloc.check()'), qr/^directory\|b2\|.*none/, 'check() sees a lost entry');
router("SELECT * FROM alloc.change_batch_quantity('b2', 90)");
is(router("SELECT purchased_qty FROM alloc.batches WHERE ref = 'b2'"), 90, 'a lost entry is found');
is(everywhere("SELECT sku FROM alloc.directory WHERE ref = 'b2'"), $sku[2], 'and is there again');
everywhere("UPDATE alloc.directory SET sku = '$sku[0]' WHERE ref = 'b3'");
router("SELECT * FROM alloc.change_batch_eta('b3', '2030-01-01')");
is(router("SELECT eta FROM alloc.batches WHERE ref = 'b3'"), '2030-01-01', 'a wrong entry does no harm');
everywhere('DELETE FROM alloc.directory');
is(router('SELECT alloc.rebuild_directory()'), 6, 'rebuild_directory()');
is(router('SELECT count(*) FROM alloc.check()'), 0, 'all is sound');

# Several routers

new_database('router2', 'plproxy', 'alloc');
$node->safe_psql('router2', create_router(@parts));
is($node->safe_psql('router2', "SELECT alloc.allocate('from2', '$sku[0]', 1)"), 'b0', 'another router');
is(sqlstate($node, 'router2', "SELECT alloc.add_batch('b0', '$sku[1]', 100)"), '23505', 'which has the same directory');
is(router("SELECT batchref FROM alloc.allocations WHERE orderid = 'from2'"), 'b0', 'and the same stock');

# Days and times are those that were sent, whatever the session's style

router("SET datestyle = 'SQL, DMY'; SET intervalstyle = sql_standard; SELECT alloc.add_batch('style', 'style', 5, '2031-03-01');
	SELECT alloc.hold('style', 'style', 1, '1 day 01:00:00')");
is(router("SELECT eta FROM alloc.batches WHERE ref = 'style'"), '2031-03-01', 'a day in another datestyle');
is(router("SELECT round(extract(epoch FROM expires_at - now()) / 3600) FROM alloc.allocations WHERE orderid = 'style'"), 25, 'a time to live');
is(router("SET datestyle = 'German'; SELECT alloc.available_to_promise('style', '2031-02-28')"), 0, 'a day in a query');

# allocate_lines()

my $lines = "ARRAY[('o1', '$sku[3]', 1), ('o2', '$sku[0]', 2), ('o1', '$sku[1]', 3), ('o2', '$sku[3]', 1000), ('o3', '$sku[0]', 4), ('o1', '$sku[3]', 1)]::alloc.order_line[]";
is(router("SELECT * FROM alloc.allocate_lines($lines)"),
	"o1|$sku[3]|1|b3\no2|$sku[0]|2|b0\no1|$sku[1]|3|b1\no2|$sku[3]|1000|\no3|$sku[0]|4|b0\no1|$sku[3]|1|b3",
	'lines come back in their order');
is(router("SELECT count(*) FROM alloc.allocate_lines('{}')"), 0, 'no lines');
is(fails("SELECT * FROM alloc.allocate_lines(NULL)"), '22004', 'NULL');
my $digest = router('SELECT count(*), sum(event_id) FROM alloc.events');
my %bad = ('NULL::alloc.order_line' => '22004', "('o', NULL, 1)" => '22004', "(NULL, 's', 1)" => '22004',
	"('o', 's', NULL)" => '22004', "('o', 's', 0)" => '22023', "('', 's', 1)" => '22023', "('o', repeat('k', 256), 1)" => '22001');
foreach my $line (sort keys %bad)
{
	is(fails("SELECT * FROM alloc.allocate_lines(ARRAY[('o9', '$sku[0]', 1), $line, ('o9', '$sku[1]', 1)]::alloc.order_line[])"), $bad{$line}, "a line $line");
}
is(router('SELECT count(*), sum(event_id) FROM alloc.events'), $digest, 'of bad lines nothing is done');

# Where nothing is written

is(fails("BEGIN READ ONLY; SELECT alloc.$_"), '25006', "a read-only transaction: $_")
	foreach "allocate('o', '$sku[0]', 1)", "add_batch('b', '$sku[0]', 1)", "change_batch_quantity('b0', 1)",
	"allocate_order('o', ARRAY[(NULL, '$sku[0]', 1)]::alloc.order_line[])", 'rebuild_directory()', 'recover_orders()',
	"ship('o1')", "confirm('o1')", "create_consumer('c')", "fetch_events('c')", 'drop_router()';
is(router("BEGIN READ ONLY; SELECT alloc.available_to_promise('$sku[1]')"), 98, 'a query is answered');

# Traces and keys

my $trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
router("SET alloc.traceparent = '$trace'; SELECT alloc.allocate('traced', '$sku[1]', 1); SELECT * FROM alloc.allocate_lines(ARRAY[('traced', '$sku[2]', 1), ('traced', '$sku[3]', 1)]::alloc.order_line[])");
is(router("SELECT count(*) FROM alloc.events WHERE orderid = 'traced' AND payload->>'traceparent' = '$trace'"), 3, 'the trace arrives');
router("SELECT alloc.allocate('untraced', '$sku[1]', 1)");
is(router("SELECT payload ? 'traceparent' FROM alloc.events WHERE orderid = 'untraced'"), 'f', 'and goes with its session');
foreach my $key ("O''Reilly", '"large" lamp', 'C:\lamp', '{a,b}', '(a,b)', 'Größe 椅子 🪑', '$1', "repeat", '%s', "a''); DROP TABLE alloc.slot; --")
{
	is(router("SELECT alloc.add_batch('ref $key', '$key', 5), alloc.allocate('$key', '$key', 1);
		SELECT qty FROM alloc.allocations WHERE sku = '$key' AND orderid = '$key';
		SELECT status FROM alloc.allocate_order('order $key', ARRAY[(NULL, '$key', 1), (NULL, '$sku[0]', 1), (NULL, '$sku[1]', 1)]::alloc.order_line[]) WHERE sku = '$key'"),
		("ref $key|ref $key\n1\nallocated" =~ s/''/'/gr), "a key $key");
}
is(fails("SELECT alloc.allocate($_)"), { "NULL, 's', 1" => '22004', "'o', NULL, 1" => '22004', "'o', '', 1" => '22023', "repeat('k', 256), 's', 1" => '22001', "'o', 'none', 1" => 'SK001' }->{$_}, "allocate($_)")
	foreach "NULL, 's', 1", "'o', NULL, 1", "'o', '', 1", "repeat('k', 256), 's', 1", "'o', 'none', 1";

# Roles

sub as { my ($role, $sql) = @_; return "SET SESSION AUTHORIZATION $role; $sql"; }
is(router(as('clerk', "SELECT alloc.allocate('c1', '$sku[0]', 1); SELECT ref FROM alloc.batches WHERE sku = '$sku[0]'; SELECT count(*) FROM alloc.allocate_lines($lines)")), "b0\nb0\n6", 'who has EXECUTE and SELECT needs no more');
is(fails(as('stranger', "SELECT alloc.allocate('c1', '$sku[0]', 1)")), '42501', 'who has nothing gets nothing');
is(fails(as('clerk', $_)), '42501', "closed: $_")
	foreach "SELECT alloc_router.allocate('o', 's', 1, NULL)", 'SELECT * FROM alloc_router.stock', "SELECT * FROM alloc_router.read_stock(NULL)", 'SELECT * FROM alloc.router', 'SELECT * FROM alloc.events';
# Who may read a feed is the caller; the extension's owner need not.
router(as('clerk', 'CREATE TEMPORARY TABLE feed AS SELECT ref, sku, purchased_qty AS qty, eta FROM alloc.batches')
	. "; UPDATE feed SET qty = qty + 1 WHERE ref = 'b0'; SELECT * FROM alloc.sync_batches('feed')");
is(router("SELECT purchased_qty FROM alloc.batches WHERE ref = 'b0'"), 101, 'sync_batches() of the caller\'s own table');
router('CREATE TABLE secret AS SELECT ref, sku, purchased_qty AS qty, eta FROM alloc.batches');
is(fails(as('clerk', "SELECT * FROM alloc.sync_batches('secret')")), '42501', 'but not of another\'s');

# A search_path with functions and operators of our names before all others
router(q{
CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.lies(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.lies);
CREATE FUNCTION evil.partition_of(text) RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE FUNCTION evil.octet_length(text) RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE FUNCTION evil.format(text, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$});
is(router("SET search_path = evil, pg_catalog; SELECT alloc.allocate('e1', '$sku[0]', 1); SELECT alloc.add_batch('evil', 'evil', 1); SELECT count(*) FROM alloc.stock;
	SELECT count(*) FROM alloc.allocate_lines($lines); SELECT count(*) FROM alloc.change_batch_quantity('evil', 0); SELECT count(*) FROM alloc.check();
	SELECT status FROM alloc.allocate_order('e2', ARRAY[(NULL, '$sku[0]', 1), (NULL, '$sku[1]', 1)]::alloc.order_line[])"),
	"b0\nevil\n" . router('SELECT count(*) FROM alloc.stock') . "\n6\n0\n0\nallocated\nallocated", 'a hostile search_path');

# Messages

my $message = qq({"command": "allocate", "orderid": "m", "sku": "$sku[2]", "qty": 2, "message_id": "m1"});
is(router("SELECT alloc.handle('$message'); SELECT alloc.handle('$message')"), qq({"result": "b2"}\n{"result": "b2"}), 'a message, and again');
is(router("SELECT count(*) FROM alloc.events WHERE orderid = 'm'"), 1, 'is one command');
is(fails("SELECT alloc.handle('" . ($message =~ s/"qty": 2/"qty": 3/r) . "')"), 'SK006', 'with another body');

# Consumers

sub fetched { my ($max) = @_; return "SELECT batchref FROM alloc.fetch_events('c', $max)"; }
router("SELECT alloc.create_consumer('c')");
is(fails("SELECT alloc.create_consumer('c')"), '42710', 'a consumer is there once');
is(fails('SELECT * FROM alloc.fetch_events(' . $_->[0] . ')'), $_->[1], "fetch_events($_->[0])")
	foreach [ "'none'", '42704' ], [ 'NULL', '22004' ], [ "'c', NULL", '22004' ], [ "'c', 0", '22023' ];
router("SELECT alloc.add_batch('c$_', '$sku[$_]', 1)") foreach 0 .. 3;
is(router("SELECT pending FROM alloc.consumers WHERE name = 'c'"), 4, 'four events are pending');
is(router('BEGIN; ' . fetched(100) . ' ORDER BY 1; ROLLBACK; ' . fetched(100) . ' ORDER BY 1'), "c0\nc1\nc2\nc3\nc0\nc1\nc2\nc3", 'rolled back: the same again');
is(router(fetched(100)), '', 'committed: none');
# Several fetches in a transaction, which ends as a whole or goes back a step.
router("SELECT alloc.add_batch('f$_', '$sku[$_]', 1)") foreach 0 .. 3;
sub in_order { my ($rows) = @_; return join(' ', sort split(/\n/, $rows)); }
is(in_order(router('BEGIN; ' . (fetched(1) . '; ') x 3 . 'ROLLBACK')) =~ tr/f//, 3, 'three fetches, rolled back');
is(in_order(router(fetched(100))), 'f0 f1 f2 f3', 'give all of it again, and once');
router("SELECT alloc.add_batch('g$_' || n, '$sku[$_]', 1) FROM generate_series(1, 2) AS n") foreach 0 .. 3;
is(in_order(router('BEGIN; ' . fetched(4) . '; SAVEPOINT s; ' . fetched(4) . '; ' . fetched(4) . '; ROLLBACK TO s; ' . fetched(100) . '; COMMIT')),
	'g01 g02 g02 g11 g12 g12 g21 g22 g22 g31 g32 g32', 'back to a savepoint: what came after it again, and nothing from before');
is(router(fetched(100)), '', 'and then there is no more');
is($node->safe_psql('p0', 'SELECT count(*) FROM alloc.fleet_place'), 2, 'two places are kept: the last that counted, and the one after it');
router("SELECT alloc.add_batch('d$_', '$sku[$_]', 1)") foreach 0 .. 3;
my @one_by_one = map { router(fetched(1)) } 1 .. 4;
is(join(' ', sort @one_by_one), 'd0 d1 d2 d3', 'fewer than there are partitions: they take turns');
router("SELECT alloc.add_batch('e$_', '$sku[$_]', 1)") foreach 0 .. 3;
my $fetcher = $node->background_psql('router');
$fetcher->query_safe('BEGIN');
my $first = $fetcher->query_safe(fetched(2));
my $other = $node->background_psql('router');
$other->query_until(qr/asks/, "\\echo asks\n" . fetched(100) . ";\n");
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted") or die 'nobody waits';
$fetcher->query_safe('COMMIT');
is(join(' ', sort split(/\n/, $first . "\n" . $other->query_safe('SELECT'))), 'e0 e1 e2 e3', 'two fetchers take turns');
$_->quit foreach $fetcher, $other;
# With one snapshot, while another one fetches: it fails before it has asked.
router("SELECT alloc.add_batch('h$_' || n, '$sku[$_]', 1) FROM generate_series(1, 2) AS n") foreach 0 .. 3;
$fetcher = $node->background_psql('router', on_error_stop => 0);
$fetcher->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
my $four = router(fetched(4));
is($fetcher->query(fetched(100)), '', 'REPEATABLE READ, when another one has fetched: an error');
$fetcher->query('COMMIT');
$fetcher->quit;
is(in_order($four . "\n" . router(fetched(100))), 'h01 h02 h11 h12 h21 h22 h31 h32', 'and nothing is lost by it');
is(fails("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; " . fetched(1) . '; ' . fetched(1)), 'none', 'REPEATABLE READ, alone');
router("SELECT alloc.drop_consumer('c')");
is(everywhere("SELECT count(*) FROM alloc.consumer WHERE kind IN ('consumer', 'counted')"), "0\n0\n0\n0", 'dropped on all partitions');
is(fails("SELECT alloc.drop_consumer('c')"), '42704', 'a consumer that is not there');
router("SELECT alloc.create_consumer('c', 'beginning')");
is(router("SELECT count(*) = (SELECT count(*) FROM alloc.events) FROM alloc.fetch_events('c', 100000)"), 't', 'from the beginning');

# Handlers run with the search_path of the router's role

everywhere(q{CREATE TABLE outbox (event jsonb); CREATE FUNCTION public.notes(jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO outbox VALUES ($1)'});
router(q{CREATE FUNCTION public.notes(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT alloc.subscribe('out_of_stock', 'notes(jsonb)', 'sync')});
router("SELECT alloc.allocate('noted', '$_', 1000000)") foreach @sku;
is(everywhere('SELECT count(*) FROM outbox'), "1\n1\n1\n1", 'a handler finds the tables of its search_path');
router(q{SELECT alloc.unsubscribe('out_of_stock', 'notes(jsonb)')});

# Keys that are equal by a collation, and one that looks like PL/Proxy's words

router("CREATE COLLATION either_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)");
is(router("SELECT count(DISTINCT sku) FROM alloc.batches WHERE sku = upper('$sku[$_]') COLLATE either_case"), 1, "in another case: $sku[$_]") foreach 0 .. 3;
is(fails("SELECT alloc.allocate('o', 'x): [p0] REMOTE FATAL: ', 1)"), 'SK001', 'a key with words of PL/Proxy');

# A partition that cannot be reached

sub down
{
	$node->safe_psql('postgres', "ALTER DATABASE p1 ALLOW_CONNECTIONS false; SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = 'p1'");
	return;
}

my $client = $node->background_psql('router', on_error_stop => 0);
is($client->query("SELECT alloc.allocate('before', '$sku[1]', 1)"), 'b1', 'a session with connections');
down();
is($client->query("\\set VERBOSITY sqlstate\nSELECT alloc.allocate('lost', '$sku[1]', 1)") . $client->{stderr}, "psql:<stdin>:9: ERROR:  08006", 'who had a connection');
is(fails("SELECT alloc.allocate('lost', '$sku[1]', 1)"), '08006', 'a partition is down');
is(fails('SELECT * FROM alloc.stock'), '08006', 'all of a view');
is(fails("SELECT alloc.allocate_order('lost', ARRAY[(NULL, '$sku[0]', 1), (NULL, '$sku[1]', 1)]::alloc.order_line[])"), '08006', 'an order on it');
is(router("SELECT alloc.allocate('served', '$sku[0]', 1)"), 'b0', 'others serve');
is(router("SELECT batchref FROM alloc.allocations WHERE sku = '$sku[0]' AND orderid = 'served'"), 'b0', 'and are read');
$node->safe_psql('postgres', 'ALTER DATABASE p1 ALLOW_CONNECTIONS true');
$client->query("SELECT 1");
is($client->query("SELECT alloc.allocate('found', '$sku[1]', 1)"), 'b1', 'it is back');
$client->quit;
router('SELECT * FROM alloc.recover_orders()');
is(router("SELECT orderid FROM alloc.allocations WHERE orderid IN ('lost', 'found') AND expires_at IS NULL"), 'found', 'nothing is half done');
is(router('SELECT count(*) FROM alloc.check()'), 0, 'all is sound');

$overdue->finish;
like($overdue_error, qr/40001/, 'a batch whose reference was taken too long ago');

done_testing();
