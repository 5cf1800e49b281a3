# Two-phase commit.  Without NOTIFY a transaction can be prepared, and what it
# has taken is waited for, by the same rules, even over a restart.  With NOTIFY
# PostgreSQL refuses, and the session is none the worse for it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node contents problems wait_for_lock);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', "max_prepared_transactions = 5\nalloc.notify = off\n");

$node->safe_psql('postgres', <<'END');
SELECT alloc.add_batch('in stock', 'LAMP', 1);
SELECT alloc.add_batch('shipment', 'LAMP', 10, '2030-01-01');
END

sub prepare
{
	my ($name, $sql) = @_;
	return $node->safe_psql('postgres', "BEGIN; $sql; PREPARE TRANSACTION '$name'");
}

# A session in the background with a command that waits for a lock.
sub begin_waiting
{
	my ($sessions, $sql) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_until(qr/^asked$/m, "\\echo asked\n$sql;\n\\echo answered\n");
	wait_for_lock($node, $sessions);
	return $session;
}

sub answer
{
	my ($session) = @_;
	my $output = $session->query_until(qr/^answered$/m, '');

	$session->quit;
	$output =~ s/^(asked|answered)\n//mg;
	return $output =~ s/\n\z//r;
}

my $empty = contents($node, 'postgres');

# rolled back
is(prepare('a', q{SELECT alloc.allocate('one', 'LAMP', 1)}), 'in stock', 'allocate is prepared');
is($node->safe_psql('postgres', 'SELECT count(*) FROM alloc.allocations'), '0',
	'nobody sees it yet');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'a'});
is($node->safe_psql('postgres', 'SELECT available_qty FROM alloc.stock'), '11',
	'ROLLBACK PREPARED gives the stock back');
is($node->safe_psql('postgres', 'SELECT count(*) FROM alloc.events'), '2', 'and leaves no event');
is(problems($node, 'postgres'), '', 'sound after ROLLBACK PREPARED');

# committed, and waited for
prepare('b', q{SELECT alloc.allocate('one', 'LAMP', 1)});
my $same_line = begin_waiting(1, q{SELECT alloc.allocate('one', 'LAMP', 1)});
my $last_unit = begin_waiting(2, q{SELECT alloc.allocate('two', 'LAMP', 1)});
my $shrink = begin_waiting(3, q{SELECT * FROM alloc.change_batch_quantity('in stock', 0)});
$node->safe_psql('postgres', q{COMMIT PREPARED 'b'});
# The shrink, if it is the first to go on, has moved the line by then.
like(answer($same_line), qr/^(in stock|shipment)$/, 'the same line waits and has the batch of the other');
is(answer($last_unit), 'shipment', 'who wants the last unit waits and gets the next batch');
is(answer($shrink), 'one|LAMP|1|in stock|shipment', 'a shrink waits and sees the line');
is($node->safe_psql('postgres', 'SELECT orderid, batchref FROM alloc.allocations ORDER BY 1'),
	"one|shipment\ntwo|shipment", 'the lines');
is(problems($node, 'postgres'), '', 'sound after COMMIT PREPARED');

# over a restart
$node->safe_psql('postgres', <<'END');
SELECT alloc.add_batch('rug', 'RUG', 1);
SELECT alloc.add_batch('desk', 'DESK', 1);
SELECT alloc.allocate('desk', 'DESK', 1);
END
prepare('c', q{SELECT alloc.allocate('one', 'RUG', 1)});
prepare('d', q{SELECT alloc.deallocate('desk', 'DESK')});
prepare('e', q{SELECT alloc.add_batch('sofa', 'SOFA', 1)});
$node->restart;
$same_line = begin_waiting(1, q{SELECT alloc.allocate('one', 'RUG', 1)});
$last_unit = begin_waiting(2, q{SELECT alloc.allocate('two', 'RUG', 1)});
my $freed = begin_waiting(3, q{SELECT alloc.deallocate('desk', 'DESK')});
my $same_batch = begin_waiting(4, q{SELECT alloc.add_batch('sofa', 'SOFA', 1)});
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'c'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'd'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'e'});
my @answers = (answer($same_line), answer($last_unit));
is_deeply([ sort @answers ], [ '', 'rug' ],
	'rolled back after a restart: one of those who waited gets the unit');
is(answer($freed), '', 'committed after a restart: the line has been freed');
is(answer($same_batch), 'sofa', 'committed after a restart: the batch is there');
is($node->safe_psql('postgres', q{SELECT count(*) FROM alloc.events WHERE type = 'batch_created' AND sku = 'SOFA'}),
	'1', 'and was added once');
is(problems($node, 'postgres'), '', 'sound after a restart');

# with NOTIFY
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $before = contents($node, 'postgres');
$session->query_safe(q{SET alloc.notify = commit});
$session->query_safe(q{LISTEN alloc_events});
$session->query(q{BEGIN});
is($session->query(q{SELECT alloc.allocate('three', 'LAMP', 1)}), 'shipment', 'allocate with NOTIFY');
$session->query("\\set VERBOSITY sqlstate");
$session->{stderr} = '';
$session->query(q{PREPARE TRANSACTION 'f'});
like($session->{stderr}, qr/ERROR:  0A000/, 'cannot be prepared');
$session->query('ROLLBACK');
is($node->safe_psql('postgres', q{SELECT count(*) FROM alloc.allocations WHERE orderid = 'three'}),
	'0', 'and is undone');
is(problems($node, 'postgres'), '', 'sound after that');

# psql prints what it has received after each command.
sub rung
{
	my ($sql) = @_;
	my $output = join("\n", map { $session->query($_) } split(/; /, $sql), 'SELECT', 'SELECT');
	my @rung;

	push @rung, $1 while $output =~ /notification "alloc_events" with payload "(\d+)"/g;
	return join(' ', @rung);
}

my $last_event = 'SELECT max(event_id) FROM alloc.event';
is(rung(q{SELECT alloc.allocate('four', 'LAMP', 1)}),
	$node->safe_psql('postgres', $last_event), 'the next transaction rings with its own event id');

# All that was to be notified has been rolled back: PostgreSQL lets it pass.
is(rung(q{BEGIN; SAVEPOINT a; SELECT alloc.allocate('five', 'LAMP', 1); ROLLBACK TO a; }
		. q{SELECT count(*) FROM alloc.stock; PREPARE TRANSACTION 'g'; COMMIT PREPARED 'g'}),
	'', 'prepared after a savepoint was rolled back: no ring');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_prepared_xacts}), '0', 'and done');
is(rung(q{SELECT alloc.allocate('six', 'LAMP', 1)}),
	$node->safe_psql('postgres', $last_event), 'the next transaction rings with its own event id');
$session->quit;

# Without NOTIFY, in a session that has notified before.
$session = $node->background_psql('postgres', on_error_stop => 0);
$session->query(q{LISTEN alloc_events});
is(rung(q{SET alloc.notify = commit; SELECT alloc.deallocate('six', 'LAMP')}),
	$node->safe_psql('postgres', $last_event), 'notify = commit rings');
is(rung(q{SET alloc.notify = off; BEGIN; SELECT alloc.allocate('six', 'LAMP', 1); }
		. q{PREPARE TRANSACTION 'h'; COMMIT PREPARED 'h'}), '', 'notify = off is prepared and committed');
$session->quit;
is($node->safe_psql('postgres', q{SELECT batchref FROM alloc.allocations WHERE orderid = 'six'}),
	'shipment', 'the line is there');
is(problems($node, 'postgres'), '', 'sound at the end');

$node->stop;
done_testing();
