# Recovery to a point in time, from a base backup and archived WAL: the cluster
# has exactly the state that was recorded then, and goes on from there.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node contents problems absurd differences bench fetched consumers foretold);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Not preloaded, because the relay would move on by itself: what is recorded is
# to stay as it is.
my $node = new_node('main', <<'END', has_archiving => 1, allows_streaming => 1);
max_prepared_transactions = 5
alloc.notify = off
END

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }

# Clients that sell, and consumers that are given some events, for a while.
# Who comes later has orders of another name.
sub work
{
	my ($of, $name) = @_;
	my ($wrong) = bench($of, [ '-c', 8, '-t', 60 ],
		sell => [ 4, <<"END" ],
\\set n random(0, 9)
SELECT alloc.allocate('$name ' || gen_random_uuid(), 'sku ' || :n, 1 + :n);
SELECT alloc.allocate('$name again ' || :client_id, 'sku ' || :n, 1);
SELECT alloc.deallocate('$name again ' || :client_id, 'sku ' || :n);
END
		shrink => [ 1, <<'END' ],
\set n random(0, 9)
\set qty random(400, 600)
SELECT count(*) FROM alloc.change_batch_quantity('batch ' || :n, :qty);
END
		fetch => [ 1, <<'END' ]);
\set max random(1, 20)
SELECT count(*) FROM alloc.fetch_events((ARRAY['mail', 'search'])[1 + :client_id % 2], :max);
END
	is($wrong, '', "$name: clients have no errors");
	return;
}

# All that must come back: tables, what is computed from them, and the next
# events of each consumer.
sub state_of
{
	my ($of) = @_;
	my %foretold = foretold($of, 'postgres');

	# Each sequence may have given some numbers in advance when it was logged.
	return {
		tables => contents($of, 'postgres') =~ s/^\w+_seq\|.*\n//mgr,
		views => $of->safe_psql('postgres', <<'END'),
SELECT * FROM alloc.replay() ORDER BY ref COLLATE "C";
SELECT * FROM alloc.batches ORDER BY ref COLLATE "C";
SELECT * FROM alloc.consumers ORDER BY name;
SELECT * FROM alloc.check();
END
		next => \%foretold };
}

sql(<<'END');
SELECT alloc.add_batch('batch ' || n, 'sku ' || n, 500) FROM generate_series(0, 9) n;
SELECT alloc.create_consumer(name, 'beginning') FROM unnest(ARRAY['mail', 'search', 'never fetched', 'cut']) AS name;
END
work($node, 'before the backup');
sql(q{SELECT alloc.snapshot_log()});
$node->backup('backup');

# Some of what is to come back is in the backup, some only in the WAL.
work($node, 'before the target');
sql(<<'END');
SELECT count(*) FROM alloc.fetch_events('cut', 7);
BEGIN;
SELECT alloc.allocate('prepared ' || n, 'sku 0', 1) FROM generate_series(1, 3) n;
PREPARE TRANSACTION 'orders';
END
my $open = $node->background_psql('postgres');
$open->query_safe(q{BEGIN; SELECT alloc.allocate('open ' || n, 'sku 1', 1) FROM generate_series(1, 3) n});
sql(q{SELECT alloc.allocate('last', 'sku 2', 1)});
my $then = state_of($node);
my $time = sql(q{SELECT pg_create_restore_point('target'); SELECT clock_timestamp()}) =~ s/.*\n//r;

# What must not come back: a transaction that was open, work, a repair, and the
# log being cut.
$open->query_safe('COMMIT');
$open->quit;
sql(q{ROLLBACK PREPARED 'orders'});
work($node, 'after the target');
fetched($node, 'postgres', $_, 100000, 'COMMIT') foreach consumers($node, 'postgres');
sql(<<'END');
SELECT alloc.drop_consumer('cut'), alloc.create_consumer('late');
SELECT alloc.snapshot_log();
SELECT count(*) FROM alloc.archive_events('infinity');
SELECT pg_switch_wal();
END
isnt(state_of($node)->{tables}, $then->{tables}, 'the cluster has moved on');
is(differences($node, 'postgres'), '', 'and is sound');
$node->stop;

# Recovers the backup up to a target, and looks at it.
sub check_recovery
{
	my ($name, $target) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);

	$copy->init_from_backup($node, 'backup', has_restoring => 1, standby => 0);
	$copy->append_conf('postgresql.conf', <<"END");
$target
recovery_target_action = promote
archive_mode = off
END
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'no end of recovery';
	is($copy->safe_psql('postgres', 'SELECT timeline_id > 1 FROM pg_control_checkpoint()'), 't', "$name: a new timeline");

	my $now = state_of($copy);
	is($now->{tables}, $then->{tables}, "$name: the tables are as they were");
	is($now->{views}, $then->{views}, "$name: so are views, replay() and the consumers");
	is_deeply($now->{next}, $then->{next}, "$name: each consumer goes on at exactly the next event");
	is(differences($copy, 'postgres'), '', "$name: sound");

	# It goes on: with transaction ids and event ids that the other cluster
	# has given to something else.
	$copy->safe_psql('postgres', 'CREATE TABLE old AS SELECT event_id FROM alloc.event');
	my %given = map { $_ => [ fetched($copy, 'postgres', $_, 5, 'COMMIT') ] } ('cut', 'never fetched');
	$copy->safe_psql('postgres', q{COMMIT PREPARED 'orders'});
	work($copy, $name);
	my @new = split(/\n/, $copy->safe_psql('postgres', <<'END'));
SELECT event_id || ':' || coalesce(orderid, batchref) FROM alloc.event
 WHERE event_id NOT IN (SELECT event_id FROM old)
END
	foreach my $consumer (sort keys %given)
	{
		my @got = (@{ $given{$consumer} }, fetched($copy, 'postgres', $consumer, 100000, 'COMMIT'));
		my %is_new = map { $_ => 1 } @new;

		# The prepared transaction's come between old ones.
		is_deeply([ grep { !$is_new{$_} } @got ], $then->{next}{$consumer}, "$name: $consumer has what is old");
		is_deeply([ sort grep { $is_new{$_} } @got ], [ sort @new ], "$name: $consumer has what is new, once");
	}
	is(scalar(grep { /:prepared/ } @new), 3, "$name: the prepared transaction among it");
	is($copy->safe_psql('postgres', q{SELECT alloc.snapshot_log() > 0}), 't', "$name: it takes a snapshot of the log");
	is(differences($copy, 'postgres') . problems($copy, 'postgres') . absurd($copy, 'postgres'), '', "$name: sound after that");
	$copy->stop;
	return;
}

check_recovery('point', q{recovery_target_name = 'target'});
check_recovery('time', "recovery_target_time = '$time'");

done_testing();
