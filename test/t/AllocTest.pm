# What the TAP tests of alloc share: nodes, sessions, and what must hold in a
# database whatever happened to its server.

package AllocTest;

use strict;
use warnings;

use Exporter 'import';
use File::Basename;
use IPC::Run qw(run start timeout);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT_OK = qw(new_node answers sqlstate contents problems absurd differences
	bench wait_for_lock listening_client listen_to heard heard_all end_of
	fetch fetched consumers foretold);

# Two tests run at a time, with files of the same names.  After the INIT of Utils,
# which says where.
INIT
{
	$PostgreSQL::Test::Utils::tmp_check .= '/' . basename($0, '.pl');
	mkdir $PostgreSQL::Test::Utils::tmp_check;
	# A test that hangs fails, and lets the others be.
	my $seconds = $ENV{TEST_SECONDS} // 900;
	$SIG{ALRM} = sub { die "this takes longer than TEST_SECONDS=$seconds\n" };
	alarm $seconds;
}

my @channels = map { "alloc_$_" }
	qw(events batch_created batch_quantity_changed allocated deallocated out_of_stock hold_expired);
my $listener;

# A running server with the extension in database postgres.  Settings are
# lines for postgresql.conf; options are those of init(), and data_on and
# wal_on: directories for the data, and for its log in small files, in place of
# the usual ones.
sub new_node
{
	my ($name, $settings, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my ($data, $wal) = delete @options{qw(data_on wal_on)};
	# Keys in any language, whatever the locale of whoever runs the test.
	my @extra = ('--encoding=UTF8', '--locale=C');

	push @extra, "--waldir=$wal", '--wal-segsize=1' if defined $wal;
	!defined $data or symlink $data, $node->data_dir or die "symlink: $!";
	$node->init(extra => \@extra, %options);
	$node->append_conf('postgresql.conf', $settings);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION alloc');
	return $node;
}

# Does the server answer?  The query is no input: a psql that cannot connect
# would not read it, and who writes to it would die.
sub answers
{
	my ($node) = @_;
	my ($output, $errors) = ('', '');

	return run([ 'psql', '-XAtq', '-c', 'SELECT 1', '-d', $node->connstr('postgres') ],
		'<', \undef, '>', \$output, '2>', \$errors);
}

# The SQLSTATE with which a command fails, or "none".
sub sqlstate
{
	my ($node, $database, $command) = @_;
	my ($status, $output, $errors) = $node->psql($database,
		"\\set VERBOSITY sqlstate\n$command", on_error_stop => 1);

	return $errors =~ /ERROR:  (\w{5})$/m ? $1 : 'none';
}

# All rows of all tables of the extension, and its sequences, as text; but not
# those of era, which has one more after a restore.
sub contents
{
	my ($node, $database) = @_;
	my $union = $node->safe_psql($database, <<'END');
SELECT string_agg(format('SELECT %L, t::text FROM %s t', c.oid::regclass, c.oid::regclass),
                  ' UNION ALL ')
  FROM pg_class c
 WHERE c.relnamespace = 'alloc'::regnamespace AND c.relkind = 'r' AND c.relname <> 'era';
END

	# The part of a sequence that matters to its users.
	return $node->safe_psql($database, <<"END");
SELECT sequencename, last_value FROM pg_sequences
 WHERE schemaname = 'alloc' ORDER BY 1;
SELECT * FROM ($union) AS rows ORDER BY 1, 2;
END
}

# What is wrong in a database, a row for each; nothing if it is sound:
# every unit of a batch is available, shipped or on a line; the log and the
# lines say the same.
sub problems
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, <<'END');
SELECT 'batch ' || b.ref
  FROM alloc.batch b
 WHERE b.purchased <>
       (SELECT coalesce(sum(s.available + s.shipped), 0) FROM alloc.slot s
         WHERE s.batch_id = b.batch_id) +
       (SELECT coalesce(sum(a.qty), 0) FROM alloc.allocation a
         WHERE a.batch_id = b.batch_id AND a.shipped_at IS NULL);

SELECT 'slot of batch ' || batch_id
  FROM alloc.slot WHERE batch_id NOT IN (SELECT batch_id FROM alloc.batch);

-- The last that happened to each line, and the lines.  One that was shipped may
-- have been forgotten.
WITH last AS (
	SELECT DISTINCT ON (orderid, sku) *
	  FROM alloc.event
	 WHERE type IN ('allocated', 'deallocated', 'shipped') AND batchref IS NOT NULL
	 ORDER BY orderid, sku, event_id DESC),
line AS (
	SELECT a.*, b.ref FROM alloc.allocation a LEFT JOIN alloc.batch b USING (batch_id))
SELECT 'line ' || coalesce(last.orderid, line.orderid)
  FROM (SELECT * FROM last WHERE type <> 'deallocated') last
  FULL JOIN line USING (orderid, sku)
 WHERE (last.event_id, last.qty, last.batchref, last.type = 'shipped')
       IS DISTINCT FROM (line.event_id, line.qty, line.ref, line.shipped_at IS NOT NULL)
   AND (line.orderid IS NOT NULL OR last.type <> 'shipped');

-- A batch as its events tell it.
SELECT 'log of batch ' || coalesce(b.ref, e.batchref)
  FROM alloc.batch b
  FULL JOIN (
	SELECT DISTINCT ON (batchref) *
	  FROM alloc.event
	 WHERE type IN ('batch_created', 'batch_quantity_changed')
	 ORDER BY batchref, event_id DESC) e ON e.batchref = b.ref
 WHERE (b.sku, b.purchased) IS DISTINCT FROM (e.sku, e.qty);
END
}

# What check() finds, and the batches that replay() shows otherwise than the
# view; nothing if the state is what the log and its snapshots tell.
sub differences
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, <<'END');
SELECT * FROM alloc.check();
(TABLE alloc.batches EXCEPT ALL SELECT * FROM alloc.replay())
UNION ALL
(SELECT * FROM alloc.replay() EXCEPT ALL TABLE alloc.batches);
END
}

# The events after which a batch would have had less than nothing, or that
# tell of a line what cannot be: the order of event ids is causal.
sub absurd
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, <<'END');
SELECT * FROM (
	SELECT event_id, type, batchref,
	       sum(CASE type WHEN 'batch_created' THEN qty
	                     WHEN 'batch_quantity_changed' THEN qty - old_qty
	                     WHEN 'allocated' THEN -qty
	                     WHEN 'deallocated' THEN qty END)
	       OVER (PARTITION BY batchref ORDER BY event_id) AS available
	  FROM alloc.event WHERE batchref IS NOT NULL) AS log
 WHERE available < 0 LIMIT 5;

SELECT * FROM (
	SELECT event_id, orderid, sku, type, batchref,
	       lag(type) OVER line AS type_before, lag(batchref) OVER line AS batchref_before
	  FROM alloc.event
	 WHERE type IN ('allocated', 'deallocated', 'shipped') AND batchref IS NOT NULL
	WINDOW line AS (PARTITION BY orderid, sku ORDER BY event_id)) AS log
 WHERE (type = 'allocated') = (coalesce(type_before, 'none') = 'allocated')
    OR type <> 'allocated' AND batchref <> batchref_before
 LIMIT 5;

-- Deallocated from no batch: it was waiting.
SELECT * FROM (
	SELECT event_id, orderid, sku, type, batchref, lag(type) OVER line AS type_before
	  FROM alloc.event WHERE type IN ('allocated', 'deallocated', 'backordered')
	WINDOW line AS (PARTITION BY orderid, sku ORDER BY event_id)) AS log
 WHERE type = 'backordered' AND coalesce(type_before, 'none') <> 'deallocated'
    OR type = 'deallocated' AND (batchref IS NULL) <> (type_before = 'backordered')
 LIMIT 5;
END
}

# Runs pgbench on database postgres with options and scripts, a hash of
# name => [ weight, text ].  Returns what went wrong for clients or server, a
# line each, nothing if all was well; and, where there are several scripts, how
# often each was run.
sub bench
{
	my ($node, $options, %scripts) = @_;
	my ($output, $errors) = ('', '');
	my $logged = -s $node->logfile;
	my @files;

	# Who waits for ever is to fail, not to hang.
	local $ENV{PGOPTIONS} =
		"-c statement_timeout=${PostgreSQL::Test::Utils::timeout_default}s";

	foreach my $name (sort keys %scripts)
	{
		my ($weight, $text) = @{ $scripts{$name} };
		my $path = "${PostgreSQL::Test::Utils::tmp_check}/$name.sql";

		unlink $path;
		append_to_file($path, $text);
		push @files, '-f', "$path\@$weight";
	}
	# No -d before the database: before PostgreSQL 17 it is --debug.
	my $done = run([ 'pgbench', '-n', '-j', '2', @$options, @files,
			$node->connstr('postgres') ],
		'>', \$output, '2>', \$errors);

	my %seen = map { $_ => 1 }
		(grep { /^pgbench: / } split(/\n/, $errors)),
		slurp_file($node->logfile, $logged) =~ /((?:ERROR|FATAL|PANIC):  .*)/g;
	$seen{'pgbench failed'} = 1 if !$done;
	$seen{'transactions failed'} = 1
		if $output !~ /^number of failed transactions: 0 /m;

	my %times = $output =~ /^SQL script \d+: .*?(\w+)\.sql\n(?: - .*\n)*? - (\d+) transactions/mg;
	return (join("\n", sort keys %seen), %times);
}

# Compiles the client that listens, see listen.c; returns its path.
sub listening_client
{
	my $client = "${PostgreSQL::Test::Utils::tmp_check}/listen";
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
	my ($include, $library) = map { `$pg_config --$_` =~ s/\n//r } ('includedir', 'libdir');
	my @compile = (
		'cc', '-std=gnu99', '-Wall', '-Wextra', '-Werror', '-o', $client,
		dirname(__FILE__) . '/listen.c', "-I$include", "-L$library", '-lpq');

	system(@compile) == 0 or die "cannot compile: @compile";
	return $client;
}

# Begins to listen to all channels, then waits until the server knows.
sub listen_to
{
	my ($node, $database) = @_;
	my %client = (node => $node, database => $database, output => '', errors => '');

	$listener //= listening_client();
	$client{run} = start(
		[ $listener, $node->connstr($database) . ' client_encoding=UTF8', @channels ],
		'>', \$client{output}, '2>', \$client{errors},
		timeout($PostgreSQL::Test::Utils::timeout_default));
	$client{run}->pump until $client{output} =~ /^listening\n/;
	$client{output} =~ s/^listening\n//;
	return \%client;
}

# Waits for the doorbell of the last event that was committed; returns the ids
# of the events that have been heard until then.
sub heard_all
{
	my ($client) = @_;
	my $last = $client->{node}->safe_psql($client->{database}, 'SELECT max(event_id) FROM alloc.event');

	$client->{run}->pump until $client->{output} =~ /^alloc_events $last$/m;
	return heard($client);
}

sub heard { my ($client) = @_; return $client->{output} =~ /"event_id": (\d+)/g; }

# Ends it; returns the lines that it has heard: notifications come in the order
# of commits.
sub end_of
{
	my ($client) = @_;

	$client->{node}->safe_psql($client->{database}, 'NOTIFY stop');
	$client->{run}->finish or die "the client failed: $client->{errors}";
	return split(/\n/, $client->{output});
}

# A fetch: rows "event_id:orderid".
sub fetch
{
	my ($consumer, $max) = @_;
	return <<"END";
SELECT event_id || ':' || coalesce(orderid, batchref)
  FROM alloc.fetch_events('$consumer', $max) WITH ORDINALITY ORDER BY ordinality;
END
}

# The next events for a consumer, had or not, as the end says.
sub fetched
{
	my ($node, $database, $consumer, $max, $end) = @_;
	return split(/\n/, $node->safe_psql($database, 'BEGIN; ' . fetch($consumer, $max) . "$end;"));
}

sub consumers
{
	my ($node, $database) = @_;
	return split(/\n/, $node->safe_psql($database, 'SELECT name FROM alloc.consumers ORDER BY 1'));
}

# What each consumer would be given now.
sub foretold
{
	my ($node, $database) = @_;
	return map { $_ => [ fetched($node, $database, $_, 100000, 'ROLLBACK') ] }
		consumers($node, $database);
}

# Waits until as many sessions as told wait for a lock.
sub wait_for_lock
{
	my ($node, $sessions) = @_;

	$node->poll_query_until('postgres', <<"END") or die 'nobody waits';
SELECT count(DISTINCT pid) = $sessions FROM pg_locks WHERE NOT granted
END
	return;
}

1;
