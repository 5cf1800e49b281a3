# The disk is full.  Where it is that of the tables, commands fail and leave
# nothing behind; where it is that of PostgreSQL's own log, the server stops.
# When there is room again, all that was acknowledged is there, stock, lines
# and log agree, and commands go on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocLoad qw(add_stock start_load wait_for_work wait_for_errors stop_load
	finish_load errors lost unread);
use AllocTest qw(new_node sqlstate contents problems);
use File::Temp qw(tempdir);
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'no disk to fill: with-server makes one if run by root where mount is allowed;'
  . ' else set SMALL_DISK to an empty directory of a file system of 100 MB'
  unless -d ($ENV{SMALL_DISK} // '');

my $disk = tempdir(CLEANUP => 1, DIR => $ENV{SMALL_DISK});
my $ballast = "$disk/ballast";

# A checkpoint on a full disk would be PostgreSQL's own trouble, and would
# remove what is to fill it.
my $settings = <<'END';
shared_preload_libraries = 'alloc'
checkpoint_timeout = 1h
max_wal_size = 10GB
min_wal_size = 2MB
autovacuum = off
log_statement = none
END

# Leaves so many kB of the disk free.
sub fill_disk
{
	my ($leave) = @_;
	my ($free) = `df -k --output=avail '$disk'` =~ /(\d+)\s*\z/;
	my $page = "\0" x 4096;

	open my $file, '>>', $ballast or die "open: $!";
	for (my $left = $free - $leave; $left > 0; $left -= 4)
	{
		last if !syswrite $file, $page;
	}
	return close $file;
}

sub make_room
{
	return unlink $ballast;
}

sub is_sound
{
	my ($node, $when) = @_;

	is(problems($node, 'postgres'), '', "$when: sound");
	return is($node->safe_psql('postgres', 'SELECT * FROM alloc.check()'), '',
		"$when: sound, check() says as well");
}

# What commands write, that is: not what a sequence has given, and not how far
# the relay has come.
sub written
{
	my ($node) = @_;

	return join "\n", grep { !/^(?:event_id_seq|alloc\."position")\|/ }
	  split /\n/, contents($node, 'postgres');
}

# The first lines that are in one text only.
sub differences
{
	my ($before, $after) = @_;
	my %count;

	$count{$_}-- foreach split /\n/, $before;
	$count{$_}++ foreach split /\n/, $after;
	my @differing = map { ($count{$_} < 0 ? 'before: ' : 'after: ') . $_ }
	  grep { $count{$_} != 0 } sort keys %count;

	return join "\n", splice @differing, 0, 5;
}

# The command needs more room than there is, wherever that ends: in a table, in
# an index, in the first one written or in the last.
sub leaves_nothing
{
	my ($node, $name, $command) = @_;

	foreach my $free (0, 100, 300, 700, 1500)
	{
		# The failed one before has written at the end of each file.
		$node->safe_psql('postgres', 'VACUUM');
		# And here a session writes its catalog cache, without which there are none.
		my $before = written($node);

		fill_disk($free);
		is(sqlstate($node, 'postgres', $command), '53100', "$name with $free kB: disk full");
		make_room();
		is(differences($before, written($node)), '', "$name with $free kB: nothing was done");
	}
	return;
}

sub test_tables
{
	mkdir "$disk/data" or die "mkdir: $!";
	my $node = new_node('tables', $settings, data_on => "$disk/data", wal_on => tempdir(CLEANUP => 1));

	add_stock($node);
	test_load($node);
	test_bulk($node);
	unlike(slurp_file($node->logfile), qr/PANIC:|terminated by signal|exited with exit code/,
		'tables: nobody has crashed');
	return $node->stop;
}

# The clients have room, none, and room again.
sub test_load
{
	my ($node) = @_;
	my $load = start_load($node, 'tables', 6);

	wait_for_work($load);
	fill_disk(0);
	wait_for_errors($load);
	make_room();
	wait_for_work($load);
	is(stop_load($load), 0, 'tables: no client has lost the server');
	is(errors($load), '53100', 'tables: disk full was their only error');
	is(lost($node, $load), '', 'tables: nothing acknowledged is lost');
	is(unread($node, $load), '', 'tables: nothing was done but what was acknowledged');
	is_sound($node, 'tables');
	return ok($node->poll_query_until('postgres',
			q{SELECT value = 0 FROM alloc.stats WHERE name = 'relay_pending'}),
		'tables: the relay has sent all events');
}

sub test_bulk
{
	my ($node) = @_;
	my $lines = 30000;
	my $bulk = "SELECT count(batchref) FROM alloc.allocate_lines(ARRAY(
		SELECT ROW('bulk ' || n, 'sku ' || 2 + n % 2, 1)::alloc.order_line
		  FROM generate_series(1, $lines) n))";
	my $shrink = q{SELECT count(new_batchref) FROM alloc.change_batch_quantity('batch 1 of 2', 0)};

	leaves_nothing($node, 'allocate_lines()', $bulk);
	fill_disk(1000);
	my ($status, $output) = $node->psql('postgres', <<"END", on_error_stop => 0);
BEGIN;
SELECT alloc.allocate('before', 'sku 2', 1);
SAVEPOINT bulk;
$bulk;
ROLLBACK TO bulk;
COMMIT;
SELECT count(*) FROM alloc.allocations WHERE orderid ~ 'bulk|before';
END
	is($output, "batch 1 of 2\n1", 'allocate_lines() in a savepoint: only that is undone');
	make_room();
	is_sound($node, 'allocate_lines()');
	is($node->safe_psql('postgres', $bulk), $lines, 'allocate_lines() with room: every line');

	leaves_nothing($node, 'change_batch_quantity()', $shrink);
	cmp_ok($node->safe_psql('postgres', $shrink), '>', $lines / 2,
		'change_batch_quantity() with room: every line has moved');
	leaves_nothing($node, 'snapshot_log()', 'SELECT alloc.snapshot_log()');
	cmp_ok($node->safe_psql('postgres', 'SELECT alloc.snapshot_log()'), '>', $lines,
		'snapshot_log() with room: it is taken');
	return is_sound($node, 'with room again');
}

# PostgreSQL cannot go on without its log, and stops; it may be unable to
# start until there is room.
sub test_log
{
	my $node = new_node('log', $settings, wal_on => "$disk/wal");

	add_stock($node);
	foreach my $round (1 .. 3)
	{
		my $load = start_load($node, "log$round", 3 + $round);

		wait_for_work($load);
		fill_disk(0);
		is(finish_load($load), 3 + $round, "log, round $round: the server has stopped");
		$node->stop('fast', fail_ok => 1);
		like(slurp_file($node->logfile), qr/PANIC:  .*No space left on device/,
			"log, round $round: because the disk is full");
		$node->stop('immediate') if $node->start(fail_ok => 1);
		make_room();
		$node->start;
		is(lost($node, $load), '', "log, round $round: nothing acknowledged is lost");
		is_sound($node, "log, round $round");
		is($node->safe_psql('postgres', "SELECT alloc.allocate('after $round', 'sku 2', 1)"),
			'batch 1 of 2', "log, round $round: goes on allocating");
		truncate $node->logfile, 0;
	}
	return $node->stop;
}

test_tables();
test_log();
done_testing();
