# Version 0.1.0 and its update.  The library of today serves the SQL of 0.1.0 as
# it serves its own; ALTER EXTENSION UPDATE keeps all that is in the tables, and
# makes the catalog that of a fresh installation; consumers, handlers, the relay
# and sessions that are open go on; what was granted stays, and is dumped.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(contents differences foretold consumers fetched listen_to heard_all end_of);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old_version = '0.1.0';
my $node = PostgreSQL::Test::Cluster->new('main');

$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', <<'END_SETTINGS');
shared_preload_libraries = 'alloc'
max_worker_processes = 40
alloc.handler_retry_delay = 10
END_SETTINGS
$node->start;

sub sql { my ($database, $sql) = @_; return $node->safe_psql($database, $sql); }

sub wait_for
{
	my ($database, $condition) = @_;

	$node->poll_query_until($database, "SELECT $condition") or die "in vain: $condition";
	return;
}

# A database with a version of the extension; without one, the newest.
sub database_with
{
	my ($database, $version) = @_;

	sql('postgres', qq{CREATE DATABASE "$database"});
	sql($database, 'CREATE EXTENSION alloc' . ($version ? " VERSION '$version'" : ''));
	return;
}

# Something in every table that 0.1.0 has.
my $history = <<'END_SQL';
CREATE TABLE heard (event jsonb);
CREATE FUNCTION hear(jsonb) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.heard VALUES ($1) $$;
CREATE FUNCTION refuse(jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
CREATE VIEW shop AS SELECT sku, available_qty FROM alloc.stock;
SELECT alloc.subscribe('deallocated', 'hear(jsonb)');
SELECT alloc.subscribe('out_of_stock', 'refuse(jsonb)');
SELECT alloc.subscribe('shipped', 'hear(jsonb)', 'sync');
SELECT alloc.create_consumer('from the beginning', 'beginning');
SELECT alloc.add_batch('batch ' || n, 'sku ' || n % 5, 100, CASE WHEN n > 4 THEN date '2030-01-01' + n END)
  FROM generate_series(0, 9) n;
SELECT alloc.allocate('order ' || n, 'sku ' || n % 5, 1 + n) FROM generate_series(0, 29) n;
SELECT alloc.create_consumer('in the middle');
SELECT alloc.allocate('too many', 'sku 0', 5000);
SELECT alloc.hold('cart ' || n, 'sku ' || n % 5, 2, '1 day') FROM generate_series(0, 9) n;
SELECT alloc.hold('over', 'sku 1', 1, '1 microsecond');
SELECT alloc.confirm('cart 1');
SELECT alloc.release('cart 2');
SELECT alloc.deallocate('order 3', 'sku 3');
SELECT alloc.ship('order 4');
SELECT count(*) FROM alloc.change_batch_quantity('batch 9', 0);
SELECT count(*) FROM alloc.change_batch_quantity('batch 4', 60);
SELECT alloc.add_batch('short', 'SHORT', 3);
SELECT count(*) FROM alloc.allocate_order('waits', ARRAY[ROW(NULL, 'SHORT', 5), ROW(NULL, 'sku 2', 1)]::alloc.order_line[], 'backorder');
SELECT count(*) FROM alloc.change_batch_eta('batch 5', '2030-05-05');
SELECT alloc.handle('{"command": "allocate", "orderid": "message", "sku": "sku 3", "qty": 2, "message_id": "m1"}');
SELECT count(*) FROM alloc.fetch_events('in the middle', 7);
SELECT alloc.snapshot_log();
END_SQL

# What all commands and queries answer, in a database of that history.
my $commands = <<'END_SQL';
SELECT alloc.add_batch('new', 'NEW', 10), alloc.add_batch('batch 0', 'sku 0', 100);
SELECT alloc.allocate('order 0', 'sku 0', 1), alloc.allocate('more', 'sku 0', 7), alloc.allocate('none', 'NEW', 11);
SELECT * FROM alloc.allocate_lines(ARRAY[ROW('bulk', 'sku 1', 2), ROW('bulk', 'NEW', 2)]::alloc.order_line[]);
SELECT * FROM alloc.allocate_order('whole', ARRAY[ROW(NULL, 'sku 1', 2), ROW(NULL, 'NEW', 20)]::alloc.order_line[]);
SELECT * FROM alloc.allocate_order('rest waits', ARRAY[ROW(NULL, 'sku 1', 2), ROW(NULL, 'NEW', 20)]::alloc.order_line[], 'backorder');
SELECT alloc.cancel_backorder('rest waits', 'NEW');
SELECT alloc.deallocate('order 6', 'sku 1'), alloc.deallocate('order 3', 'sku 3');
SELECT alloc.hold('cart', 'NEW', 3, '1 day'), alloc.extend_hold('cart', '2 days'), alloc.confirm('cart');
SELECT alloc.extend_hold('cart 3', '3 days'), alloc.confirm('cart 3'), alloc.release('cart 4');
SELECT * FROM alloc.change_batch_quantity('short', 6);
SELECT * FROM alloc.change_batch_quantity('batch 0', 20);
SELECT * FROM alloc.change_batch_eta('batch 6', NULL);
SELECT alloc.ship('order 1'), alloc.ship('cart 1', 'sku 1'), alloc.ship('order 4');
CREATE TABLE feed AS SELECT ref, sku, purchased_qty + 1 AS qty, eta FROM alloc.batches WHERE ref <> 'batch 7';
SELECT * FROM alloc.sync_batches('feed', true);
SELECT * FROM alloc.sync_batches('feed');
SELECT alloc.handle('{"command": "allocate", "orderid": "message", "sku": "sku 3", "qty": 2, "message_id": "m1"}');
SELECT alloc.handle('{"command": "ship", "orderid": "message", "message_id": "m2"}');
SELECT alloc.create_consumer('later'), alloc.allocate('late', 'NEW', 1);
SELECT orderid, qty FROM alloc.fetch_events('later');
SELECT alloc.drop_consumer('later');
SELECT alloc.subscribe('backordered', 'refuse(jsonb)'), alloc.unsubscribe('backordered', 'refuse(jsonb)');
SELECT alloc.purge_shipped('-infinity');
SELECT * FROM alloc.promise('sku 2', 5);
SELECT alloc.available_to_promise('sku 2'), alloc.available_to_promise('sku 2', '2029-01-01');
SELECT orderid, sku, qty, batchref, eta FROM alloc.allocations ORDER BY 1, 2;
SELECT orderid, sku, qty FROM alloc.backorders;
SELECT * FROM alloc.batches ORDER BY ref;
SELECT * FROM alloc.stock ORDER BY sku;
SELECT * FROM shop ORDER BY sku;
SELECT * FROM alloc.replay() ORDER BY ref;
SELECT type, orderid, batchref, qty FROM alloc.history('sku 1');
SELECT type, sku, batchref, qty FROM alloc.history_of_order('order 0');
SELECT count(*) FROM alloc.stats WHERE name IN ('relay_pending', 'handler_pending', 'handler_retries', 'dead_letters');
SELECT * FROM alloc.check();
SELECT * FROM alloc.repair();
SELECT alloc.snapshot_log() > 0;
END_SQL

# All that a catalog says of the extension, a row for each fact, without oids.
my $catalog = <<'END_SQL';
SET search_path = pg_catalog;
CREATE TEMP VIEW member AS
SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS name
  FROM pg_depend d JOIN pg_extension e ON (d.refclassid, d.refobjid) = ('pg_extension'::regclass, e.oid)
 WHERE e.extname = 'alloc' AND d.deptype = 'e';
CREATE TEMP VIEW fact AS
SELECT name, 'member' AS kind, NULL AS fact FROM member
UNION ALL
SELECT pg_describe_object(classoid, objoid, objsubid), 'comment', description
  FROM pg_description JOIN member ON (classoid, objoid) = (classid, objid)
UNION ALL
SELECT pg_describe_object(classoid, objoid, objsubid), concat_ws(' ', 'initial privileges', privtype), initprivs::text
  FROM pg_init_privs JOIN member ON (classoid, objoid) = (classid, objid)
UNION ALL
SELECT name, 'function', pg_get_functiondef(p.oid) FROM pg_proc p JOIN member ON (classid, objid) = ('pg_proc'::regclass, p.oid)
UNION ALL
SELECT name, 'function''s owner and privileges', concat_ws(' ', proowner::regrole, coalesce(proacl::text, 'default'))
  FROM pg_proc p JOIN member ON (classid, objid) = ('pg_proc'::regclass, p.oid)
UNION ALL
SELECT name, 'relation', concat_ws(' ', relkind, relowner::regrole, relacl, reloptions, relreplident, relpersistence,
       relam, relrowsecurity, relnatts, CASE WHEN relkind = 'v' THEN pg_get_viewdef(c.oid) END)
  FROM pg_class c JOIN member ON (classid, objid) = ('pg_class'::regclass, c.oid)
UNION ALL
SELECT name, 'sequence', to_jsonb(s)::text
  FROM pg_sequence q JOIN member ON (classid, objid) = ('pg_class'::regclass, seqrelid),
       pg_sequence_parameters(seqrelid) s
UNION ALL
SELECT name, 'type', concat_ws(' ', typtype, typowner::regrole, coalesce(typacl::text, 'default'))
  FROM pg_type t JOIN member ON (classid, objid) = ('pg_type'::regclass, t.oid)
UNION ALL
SELECT c.oid::regclass::text, concat_ws(' ', 'column', attnum), concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull,
       attidentity, attgenerated, attstorage, attcompression, attstattarget, attcollation, attacl, attisdropped, pg_get_expr(adbin, adrelid))
  FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
 WHERE c.relnamespace = 'alloc'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'c', 'S') AND attnum > 0
UNION ALL
SELECT conrelid::regclass::text, 'constraint ' || conname, concat_ws(' ', pg_get_constraintdef(oid), convalidated)
  FROM pg_constraint WHERE connamespace = 'alloc'::regnamespace
UNION ALL
SELECT indrelid::regclass::text, 'index', concat_ws(' ', pg_get_indexdef(indexrelid), indisreplident, indisclustered, indisvalid)
  FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE c.relnamespace = 'alloc'::regnamespace
UNION ALL
SELECT tgrelid::regclass::text, 'trigger', concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled)
  FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE c.relnamespace = 'alloc'::regnamespace
UNION ALL
SELECT ev_class::regclass::text, 'rule', pg_get_ruledef(r.oid)
  FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class WHERE c.relnamespace = 'alloc'::regnamespace
UNION ALL
SELECT table_id::regclass::text, 'dumped', condition
  FROM pg_extension, unnest(extconfig, extcondition) AS c (table_id, condition) WHERE extname = 'alloc'
UNION ALL
SELECT 'extension', 'itself', concat_ws(' ', extversion, extrelocatable, extnamespace::regnamespace, extowner::regrole)
  FROM pg_extension WHERE extname = 'alloc'
UNION ALL
SELECT 'schema', 'itself', concat_ws(' ', nspowner::regrole, nspacl) FROM pg_namespace WHERE nspname = 'alloc'
UNION ALL
SELECT 'extension', 'requires', refobjid::text
  FROM pg_depend JOIN pg_extension e ON (classid, objid) = ('pg_extension'::regclass, e.oid)
 WHERE extname = 'alloc' AND refclassid = 'pg_extension'::regclass;
SELECT to_jsonb(f) FROM fact f;
END_SQL

sub facts { my ($database) = @_; return split(/\n/, sql($database, $catalog)); }

# Lines that only one of two lists has, as many times as it has them more often.
sub apart
{
	my ($before, $after) = @_;
	my %count;

	$count{$_}-- foreach @$before;
	$count{$_}++ foreach @$after;
	return join("\n", map { ($count{$_} < 0 ? '- ' : '+ ') . $_ } grep { $count{$_} } sort keys %count);
}

# Lines of the first that the second does not have.
sub missing
{
	my ($before, $after) = @_;
	my %there = map { $_ => 1 } split(/\n/, $after);

	return join("\n", grep { !$there{$_} } split(/\n/, $before));
}

# An error would end psql, and its output with it.
sub answers_of
{
	my ($database) = @_;
	my ($status, $output, $errors) = $node->psql($database, $commands);

	return $output . ($errors =~ s/^psql:<stdin>:\d+: (?:NOTICE|DEBUG):.*\n//mgr);
}

database_with('fresh', '');
database_with('stays', $old_version);
database_with('updated', $old_version);
is(sql('stays', q{SELECT extversion FROM pg_extension WHERE extname = 'alloc'}), $old_version, 'the old version can be installed');
foreach my $database ('fresh', 'stays', 'updated')
{
	sql($database, $history);
	wait_for($database, q{count(*) = 1 FROM heard WHERE event ->> 'type' = 'shipped'});
	wait_for($database, q{count(*) >= 1 FROM alloc.dead_letters});
	wait_for($database, q{value = 0 FROM alloc.stats WHERE name = 'relay_pending'});
	wait_for($database, q{value = 0 FROM alloc.stats WHERE name = 'handler_pending'});
	wait_for($database, q{count(*) = 1 FROM alloc.events WHERE type = 'hold_expired'});
	is(differences($node, $database), '', "$database: sound");
}

# ---- the update ----

sql('postgres', 'CREATE ROLE shop');
sql('updated', <<'END_SQL');
CREATE SCHEMA kept;
CREATE TABLE kept.privileges AS SELECT * FROM pg_init_privs;
GRANT USAGE ON SCHEMA alloc TO shop;
GRANT SELECT ON alloc.stock TO shop;
GRANT EXECUTE ON FUNCTION alloc.allocate(text, text, bigint) TO shop;
END_SQL
$node->command_ok([ 'pg_dump', '-Fc', '-f', "${PostgreSQL::Test::Utils::tmp_check}/old.dump", $node->connstr('stays') ],
	'the old version is dumped');
my $client = listen_to($node, 'updated');
my $session = $node->background_psql('updated', on_error_stop => 0);
$session->query_safe(q{PREPARE one AS SELECT alloc.allocate($1, 'sku 2', 1)});
$session->query_safe("EXECUTE one('prepared $_')") foreach 1 .. 7;
$session->query_safe("SELECT alloc.deallocate('prepared $_', 'sku 2')") foreach 1 .. 7;
my $before = contents($node, 'updated');
my %foretold = foretold($node, 'updated');

sql('updated', 'ALTER EXTENSION alloc UPDATE');
my $after = contents($node, 'updated');
# The relay and the handlers may just have moved on.
is(missing($before =~ s{^alloc\."position"\|.*\n}{}gmr, $after), '', 'all that was in tables and sequences is there');
is($session->query_safe(q{EXECUTE one('prepared 8')}), 'batch 2', 'a session that was open goes on');
$session->query_safe(q{SELECT alloc.deallocate('prepared 8', 'sku 2')});
sql('updated', q{SELECT alloc.set_partition(1 - alloc.partition_of('sku 2') % 2, 2)});
$session->query(q{EXECUTE one('prepared 9')});
is(sql('updated', q{SELECT count(*) FROM alloc.allocation WHERE orderid = 'prepared 9'}), '0',
	'and knows of tables that are new: the sku is not served here any more');
sql('updated', 'SELECT alloc.set_partition(NULL, NULL)');
$session->quit;

is(sql('updated', q{SELECT count(*) FROM kept.privileges k LEFT JOIN pg_init_privs i USING (objoid, classoid, objsubid)
	WHERE k.initprivs::text IS DISTINCT FROM i.initprivs::text}), '0', 'what was granted has not become initial');
# The views ask it.
sql('updated', 'GRANT EXECUTE ON FUNCTION alloc._serves(text) TO shop');
is(sql('updated', q{SET ROLE shop; SELECT sku FROM alloc.stock WHERE sku = 'SHORT'; SELECT alloc.allocate('granted', 'sku 1', 1)}),
	"SHORT\nbatch 1", 'and is still granted');
my ($dump, $errors) = run_command([ 'pg_dump', $node->connstr('updated') ]);
like($dump, qr/^GRANT ALL ON FUNCTION alloc\.allocate\(.*\) TO shop;$/m, 'and dumped');
sql('updated', <<'END_SQL');
SELECT alloc.deallocate('granted', 'sku 1');
REVOKE USAGE ON SCHEMA alloc FROM shop;
REVOKE SELECT ON alloc.stock FROM shop;
REVOKE EXECUTE ON FUNCTION alloc._serves(text) FROM shop;
REVOKE EXECUTE ON FUNCTION alloc.allocate(text, text, bigint) FROM shop;
END_SQL

is(apart([ facts('fresh') ], [ facts('updated') ]), '', 'the catalog is that of a fresh installation');
isnt(apart([ facts('fresh') ], [ facts('stays') ]), '', 'which the old one is not');

# ---- and after it ----

my $late = sql('updated', q{SELECT min(event_id) FROM alloc.event WHERE orderid = 'prepared 8'});
foreach my $consumer (consumers($node, 'updated'))
{
	my @given = fetched($node, 'updated', $consumer, 1000, 'COMMIT');

	is_deeply([ grep { /^(\d+):/ && $1 < $late } @given ], $foretold{$consumer},
		"consumer $consumer goes on at exactly the next event");
}
my @heard = heard_all($client);
is($heard[-1], sql('updated', 'SELECT max(event_id) FROM alloc.event'), 'who listens hears what is new');
end_of($client);
wait_for('updated', q{count(*) = (SELECT count(*) FROM alloc.event WHERE type = 'deallocated') FROM heard
	WHERE event ->> 'type' = 'deallocated'});
pass('handlers are called with what is new');
my $dead = sql('updated', 'SELECT count(*) FROM alloc.dead_letters');
is(sql('updated', 'SELECT alloc.retry_dead_letters()'), $dead, 'dead letters can be sent again');

# The same commands have the same answers, whichever SQL is installed.
my $answers = answers_of('fresh');
unlike($answers, qr/ERROR/, 'fresh: commands and queries answer');
is(answers_of('stays'), $answers, 'old SQL: they have the same answers');
is(missing($answers, answers_of('updated')), '', 'updated: they have the same answers');
foreach my $database ('fresh', 'stays', 'updated')
{
	is(differences($node, $database), '', "$database: sound");
}

# ---- by dump and restore ----

sql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), "${PostgreSQL::Test::Utils::tmp_check}/old.dump" ],
	'a dump of the old version is restored');
is(apart([ facts('fresh') ], [ facts('restored') ]), '', 'its catalog is that of a fresh installation');
is(differences($node, 'restored'), '', 'restored: sound');
is(missing($answers, answers_of('restored')), '', 'restored: commands have the same answers');

$node->stop;
done_testing();
