# A dump holds all of it: after a restore into a new database the stock, the
# lines, the log and who may do what are the same, and commands go on where they
# were.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node sqlstate contents problems);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', '');

$node->safe_psql('postgres', <<'END');
SELECT alloc.add_batch('in stock', 'LAMP', 10);
SELECT alloc.add_batch('shipment', 'LAMP', 100, '2030-01-01');
SELECT alloc.add_batch('empty', 'RUG', 0);
SELECT alloc.add_batch(E'tab\tand \\ and ''quotes"', E'two\nlines', 7, '2031-12-31');
SELECT alloc.add_batch('Größe', '椅子', 9223372036854775807);
SELECT alloc.allocate('stays', 'LAMP', 2);
SELECT alloc.allocate('moved', 'LAMP', 8);
SELECT alloc.allocate('freed', 'LAMP', 3);
SELECT alloc.allocate('too late', 'RUG', 1);
SELECT alloc.allocate(E'\\.', E'two\nlines', 7);
SELECT alloc.allocate('Ünïcode', '椅子', 9223372036854775806);
SELECT alloc.deallocate('freed', 'LAMP');
SELECT * FROM alloc.change_batch_quantity('in stock', 8);
BEGIN;
SELECT alloc.add_batch('never', 'LAMP', 1);
SELECT alloc.allocate('never', 'LAMP', 1);
ROLLBACK;
CREATE ROLE seller;
CREATE ROLE reader;
CREATE ROLE mailer;
SELECT alloc.grant_access('seller', 'sell'), alloc.grant_access('seller', 'buy');
SELECT alloc.grant_access('reader', 'read'), alloc.grant_access('reader', 'admin');
GRANT USAGE ON SCHEMA alloc TO mailer;
GRANT EXECUTE ON FUNCTION alloc.fetch_events TO mailer;
END

# What roles were granted.
sub rights
{
	my ($database) = @_;

	return $node->safe_psql($database, <<'END');
SELECT o.name, array_agg(concat_ws(' ', a.grantee::regrole, a.privilege_type) ORDER BY a.grantee::regrole::text)
  FROM (SELECT oid::regprocedure::text AS name, proacl AS acl FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace
		UNION ALL SELECT oid::regclass::text, relacl FROM pg_class WHERE relnamespace = 'alloc'::regnamespace
		UNION ALL SELECT oid::regtype::text, typacl FROM pg_type WHERE typnamespace = 'alloc'::regnamespace
		UNION ALL SELECT 'schema', nspacl FROM pg_namespace WHERE nspname = 'alloc') o, aclexplode(o.acl) a
 WHERE a.grantee <> 10
 GROUP BY 1
 ORDER BY 1
END
}
my $rights = rights('postgres');
like($rights, qr/^alloc\.scope_sell\|\{"seller USAGE"\}$/m, 'scopes were granted');
my $contents = contents($node, 'postgres');
my $events = $node->safe_psql('postgres', 'SELECT * FROM alloc.events');
my $last_event = $node->safe_psql('postgres', 'SELECT last_value FROM alloc.event_id_seq');
my $last_batch = $node->safe_psql('postgres', 'SELECT last_value FROM alloc.batch_id_seq');

# Restores, by what is told, into a new database and looks at it.
sub check_restore
{
	my ($format, @restore) = @_;
	my $database = "restored from $format";

	$node->safe_psql('postgres', qq{CREATE DATABASE "$database" TEMPLATE template0});
	$node->safe_psql($database, 'CREATE EXTENSION alloc') if $format eq 'data only';
	$node->command_ok([ @restore, '-d', $database ], "$format: restore");

	is(contents($node, $database), $contents, "$format: tables and sequences");
	is($node->safe_psql($database, 'SELECT * FROM alloc.events'),
		$events, "$format: view events");
	is(problems($node, $database), '', "$format: sound");

	is($node->safe_psql($database, q{SELECT alloc.allocate('stays', 'LAMP', 2)}),
		'in stock', "$format: the same line has its batch");
	is($node->safe_psql($database,
			q{SELECT alloc.add_batch('shipment', 'LAMP', 100, '2030-01-01')}),
		'shipment', "$format: the same batch is there");
	is(sqlstate($node, $database, q{SELECT alloc.allocate('stays', 'LAMP', 1)}),
		'SK003', "$format: with another quantity it is refused");
	# A line that is there already costs an event id, which nobody sees.
	is(contents($node, $database) =~ s/^event_id_seq.*\n//mr,
		$contents =~ s/^event_id_seq.*\n//mr, "$format: nothing has changed by that");

	is($node->safe_psql($database, <<'END'),
SELECT alloc.add_batch('new', 'LAMP', 7);
SELECT alloc.allocate('new', 'LAMP', 7);
SELECT alloc.allocate('new, large', 'LAMP', 93);
SELECT alloc.deallocate('moved', 'LAMP');
SELECT alloc.allocate('new, large', 'LAMP', 93);
END
		"new\nnew\n\nshipment\nshipment", "$format: goes on allocating");
	is($node->safe_psql($database,
			"SELECT string_agg(type, ' ' ORDER BY event_id)
			   FROM alloc.events WHERE event_id > $last_event"),
		'batch_created allocated out_of_stock deallocated allocated',
		"$format: event ids go on");
	is($node->safe_psql($database,
			"SELECT batch_id - $last_batch FROM alloc.batch WHERE ref = 'new'"),
		'1', "$format: batch ids go on");
	is($node->safe_psql($database, <<'END'),
SELECT * FROM alloc.stock WHERE sku = 'LAMP';
SELECT orderid, batchref FROM alloc.allocations WHERE sku = 'LAMP' ORDER BY 1;
END
		"LAMP|115|0|102|13|6|7\nnew|new\nnew, large|shipment\nstays|in stock",
		"$format: stock and lines");
	is(problems($node, $database), '', "$format: sound after that");
	check_rights($format, $database) if $format ne 'data only';
	return;
}

# A scope can be taken back as well.
sub check_rights
{
	my ($format, $database) = @_;

	is(rights($database), $rights, "$format: who may do what");
	$node->safe_psql($database, <<'END');
SELECT alloc.revoke_access('reader', 'admin'), alloc.revoke_access('seller', 'sell');
SELECT alloc.revoke_access('mailer', 'admin'), alloc.revoke_access('seller', 'buy');
END
	unlike(rights($database), qr/seller|mailer|^(?!.*\{"reader (EXECUTE|SELECT|USAGE)"\})/m,
		"$format: what was granted by two scopes is left of one");
}

my $file = "${PostgreSQL::Test::Utils::tmp_check}/dump";

$node->command_ok([ 'pg_dump', '-f', "$file.sql", 'postgres' ], 'plain: dump');
check_restore('plain', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$file.sql");

$node->command_ok([ 'pg_dump', '-Fc', '-f', "$file.custom", 'postgres' ], 'custom: dump');
check_restore('custom', 'pg_restore', '-e', "$file.custom");

$node->command_ok([ 'pg_dump', '-Fc', '--data-only', '-f', "$file.data", 'postgres' ],
	'data only: dump');
check_restore('data only', 'pg_restore', '-e', "$file.data");

$node->command_ok([ 'pg_dump', '--inserts', '-f', "$file.inserts", 'postgres' ],
	'inserts: dump');
check_restore('inserts', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$file.inserts");

# A dump of a restored database is the same dump.
$node->safe_psql('postgres', 'CREATE DATABASE again TEMPLATE template0');
$node->command_ok([ 'pg_restore', '-e', '-d', 'again', "$file.custom" ], 'again: restore');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$file.again", 'again' ], 'again: dump');
$node->safe_psql('postgres', 'CREATE DATABASE third TEMPLATE template0');
$node->command_ok([ 'pg_restore', '-e', '-d', 'third', "$file.again" ], 'third: restore');
is(contents($node, 'third'), $contents, 'a dump of a restored database holds all of it');

$node->stop;
done_testing();
