# View stats where the library is preloaded: the counters are exact, and say the
# same as the log, though sessions come and go, roll back, and are in several
# databases; reset_stats() sets those of one database to 0, a crash all.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node bench sqlstate wait_for_lock);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', <<'END');
shared_preload_libraries = 'alloc'
max_prepared_transactions = 5
max_worker_processes = 12
restart_after_crash = on
alloc.notify = off
END

# Who waits for ever is to fail, not to hang.
$ENV{PGOPTIONS} = '-c lock_timeout=30s';

sub sql { my ($sql, $database) = @_; return $node->safe_psql($database // 'postgres', $sql); }

# The counters that are not 0, "name=value" in the order of the view; how the
# stock lies in slots is no matter of the commands, see below for that.
sub counted
{
	my ($database) = @_;
	return sql(<<'END', $database);
SELECT coalesce(string_agg(name || '=' || value, ' '), '') FROM alloc.counters()
 WHERE value <> 0 AND name NOT IN ('counting_ms', 'slot_splits', 'slot_merges')
END
}

sub counter
{
	my ($name, $database) = @_;
	return sql("SELECT value FROM alloc.stats WHERE name = '$name'", $database);
}

sub reset_stats { my ($database) = @_; return sql('SELECT alloc.reset_stats()', $database); }

# Sessions after each other get each other's places.
sub counts_after
{
	my ($sql, $expected, $name) = @_;

	reset_stats();
	sql($sql);
	is(counted(), $expected, $name);
	return;
}

# ---- calls, and what they came to ----

is(counted(), '', 'at first all counters are 0');
is(sql('SELECT count(*) FROM alloc.stats WHERE value IS NULL'), '0', 'and there');
sql(q{SELECT alloc.add_batch(sku, sku, 100) FROM unnest('{LAMP,RUG,VASE}'::text[]) sku});
is(counted(), 'add_batch_calls=3', 'three calls in a statement are three');

counts_after(q{SELECT alloc.allocate('1', 'LAMP', 2), alloc.allocate('1', 'LAMP', 2), alloc.allocate('2', 'LAMP', 1000)},
	'allocate_calls=3 lines_allocated=1 out_of_stock=1', 'allocate(): a line that was there is a call and no more');
counts_after(q{SELECT count(*) FROM alloc.allocate_lines('{"(3,LAMP,1)","(1,LAMP,2)","(3,RUG,1)","(3,VASE,1000)"}')},
	'allocate_lines_calls=1 lines_allocated=2 out_of_stock=1', 'allocate_lines() with a line that was there: its first attempt is not counted');
counts_after(q{SELECT count(*) FROM alloc.allocate_order('4', '{"(,LAMP,1)","(,RUG,1000)"}')},
	'allocate_order_calls=1 out_of_stock=1', 'allocate_order(): an order that is not taken');
counts_after(q{SELECT count(*) FROM alloc.allocate_order('4', '{"(,LAMP,1)","(,RUG,1000)"}', 'backorder')},
	'allocate_order_calls=1 lines_allocated=1 out_of_stock=1 lines_backordered=1', '... and one of which a line waits');
counts_after(q{SELECT alloc.add_batch('RUG 2', 'RUG', 1000)},
	'add_batch_calls=1 lines_allocated=1 backorders_served=1', 'a batch that serves it');
counts_after(q{SELECT count(*) FROM alloc.change_batch_quantity('RUG 2', 0)},
	'change_batch_quantity_calls=1 lines_deallocated=1 out_of_stock=1 lines_backordered=1', 'change_batch_quantity(): the line waits again');
counts_after(q{SELECT alloc.cancel_backorder('4', 'RUG')}, 'cancel_backorder_calls=1 backorders_canceled=1', 'cancel_backorder()');
counts_after(q{SELECT alloc.cancel_backorder('4', 'RUG')}, 'cancel_backorder_calls=1', '... in vain');
counts_after(q{SELECT alloc.deallocate('4', 'LAMP'), alloc.deallocate('4', 'LAMP')}, 'deallocate_calls=2 lines_deallocated=1', 'deallocate()');
sql(q{SELECT alloc.add_batch('LAMP 2', 'LAMP', 100)});
counts_after(q{SELECT count(*) FROM alloc.change_batch_quantity('LAMP', 0)},
	'change_batch_quantity_calls=1 lines_allocated=2 lines_deallocated=2 lines_moved=2', 'lines that move are freed and allocated again');
counts_after(q{SELECT count(*) FROM alloc.change_batch_eta('LAMP 2', '2031-01-01')}, 'change_batch_eta_calls=1 promises_changed=2', 'change_batch_eta()');
counts_after(q{SELECT alloc.ship('1')}, 'ship_calls=1 lines_shipped=1', 'ship()');
counts_after(q{SELECT alloc.purge_shipped(now())}, 'purge_shipped_calls=1', 'purge_shipped()');
counts_after(q{SELECT alloc.hold(n::text, 'VASE', 1, '1 hour') FROM generate_series(11, 13) n}, 'hold_calls=3 lines_held=3', 'hold()');
counts_after(q{SELECT alloc.extend_hold('11', '2 hours'), alloc.confirm('11'), alloc.confirm('11'), alloc.release('12')},
	'confirm_calls=2 extend_hold_calls=1 release_calls=1 holds_confirmed=1 holds_released=1', 'extend_hold(), confirm(), release()');
counts_after(q{SELECT alloc.handle(message) FROM unnest('{"{\"command\":\"allocate\",\"orderid\":\"20\",\"sku\":\"VASE\",\"qty\":1,\"message_id\":\"m\"}"}'::jsonb[] || '{"{\"command\":\"allocate\",\"orderid\":\"20\",\"sku\":\"VASE\",\"qty\":1,\"message_id\":\"m\"}"}'::jsonb[]) message},
	'allocate_calls=1 handle_calls=2 lines_allocated=1 messages_repeated=1', 'handle() twice: the command once');
sql(q{CREATE TABLE feed AS SELECT ref, sku, purchased_qty + 1 AS qty, eta FROM alloc.batches});
counts_after(q{SELECT count(*) FROM alloc.sync_batches('feed', true); SELECT count(*) FROM alloc.sync_batches('feed')},
	'sync_batches_calls=2', 'sync_batches(), a dry run as well');

# By the relay, a process of its own.
reset_stats();
sql(q{SELECT alloc.hold('30', 'VASE', 1, '100 ms')});
$node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM alloc.hold WHERE orderid = '30' AND NOT ended)}) or die 'not ended';
is(counted(), 'hold_calls=1 lines_held=1 holds_expired=1', 'a hold that the relay has ended');

# ---- transactions ----

counts_after(q{BEGIN; SELECT alloc.allocate('40', 'VASE', 1); ROLLBACK}, '', 'what is rolled back is not counted');
is(sqlstate($node, 'postgres', q{SELECT alloc.allocate('40', 'VASE', 1), alloc.allocate('40', 'VASE', 2)}), 'SK003', 'an error ...');
is(counted(), '', '... is not counted, nor what its transaction did before');
counts_after(<<'END', 'allocate_calls=3 lines_allocated=3', 'savepoints: what was rolled back to one is not counted, the rest is');
BEGIN;
SAVEPOINT a;
SELECT alloc.allocate('41', 'VASE', 1);
RELEASE a;
SELECT alloc.allocate('42', 'VASE', 1);
SAVEPOINT a;
SELECT alloc.allocate('43', 'VASE', 1);
SAVEPOINT b;
SELECT alloc.allocate('44', 'VASE', 1);
RELEASE b;
ROLLBACK TO a;
SAVEPOINT b;
SAVEPOINT c;
SELECT alloc.allocate('45', 'VASE', 1);
RELEASE b;
COMMIT;
END
counts_after(<<'END', 'allocate_calls=20 lines_allocated=20', 'so in 40 exception blocks, of which every other fails');
DO $$ BEGIN
	FOR n IN 1..40 LOOP
		BEGIN
			PERFORM alloc.allocate('block ' || n, 'RUG', 1);
			IF n % 2 = 0 THEN RAISE division_by_zero; END IF;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
	END LOOP;
END $$
END
counts_after(q{BEGIN; SELECT alloc.allocate('46', 'VASE', 1); PREPARE TRANSACTION 'p'}, 'allocate_calls=1 lines_allocated=1', 'a prepared transaction is counted when it is prepared');
sql(q{COMMIT PREPARED 'p'});
is(counted(), 'allocate_calls=1 lines_allocated=1', 'and then not again');

my $open = $node->background_psql('postgres', on_error_stop => 0);
reset_stats();
$open->query_safe(q{BEGIN; SELECT alloc.allocate('47', 'VASE', 1)});
is(counted(), '', 'a transaction that is open is not counted yet');
$open->query_safe('COMMIT');
is(counted(), 'allocate_calls=1 lines_allocated=1', 'when it is committed it is');

# ---- reset_stats() ----

reset_stats();
is(counted(), '', 'reset_stats(): all are 0, though a session goes on that has counted');
cmp_ok(counter('counting_ms'), '<', 60000, 'and so is the time');
$open->query_safe(q{SELECT alloc.allocate('48', 'VASE', 1)});
is(counted(), 'allocate_calls=1 lines_allocated=1', 'it counts from there');
$open->query_safe('BEGIN; SELECT alloc.reset_stats(); ROLLBACK');
is(counted(), '', 'reset_stats() is not undone by a rollback');
$open->quit;
is(counted(), '', 'nor by the end of the session');

# ---- waits ----

sql(q{SELECT alloc.add_batch('ONE', 'ONE', 100)});
reset_stats();
my ($first, $second) = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
$first->query_safe(q{BEGIN; SELECT alloc.allocate('50', 'ONE', 1)});
$second->{stdin} .= "SELECT alloc.allocate('51', 'ONE', 1);\n";
$second->{run}->pump_nb;
wait_for_lock($node, 1);
is(counted(), 'slot_waits=1', 'who waits for a slot is counted meanwhile');
$first->query_safe('COMMIT');
$second->query_safe('SELECT 1');
is(counted(), 'allocate_calls=2 lines_allocated=2 slot_waits=1', 'once');
# Slot numbers are drawn: one that is in use makes no slot.
my $splits = counter('slot_splits');
like($splits, qr/^[123]$/, 'and splits it afterwards: up to three slots more');
is(sql(q{SELECT count(*) FROM alloc.slot WHERE ref = 'ONE'}), $splits + 1, 'which are there');
sql(q{SELECT alloc.change_batch_quantity('ONE', 99)});
is(counter('slot_merges'), $splits, 'change_batch_quantity() merges them');
$first->query_safe(q{BEGIN; SELECT alloc.allocate('52', 'ONE', 1)});
is(sqlstate($node, 'postgres', q{SET lock_timeout = 100; SELECT alloc.allocate('53', 'ONE', 1)}), '55P03', 'who waits in vain ...');
is(counter('slot_waits'), '2', '... has waited');
$_->quit foreach $first, $second;

# ---- two databases, and sessions that come and go ----

sql('CREATE DATABASE other');
sql(q{CREATE EXTENSION alloc; SELECT alloc.add_batch('LAMP', 'LAMP', 1000000)}, 'other');
is(counted('other'), 'add_batch_calls=1', 'another database has counters of its own');
reset_stats();
reset_stats('other');
foreach my $n (1 .. 5)
{
	sql("SELECT alloc.allocate('60 $n', 'VASE', 1)");
	sql("SELECT alloc.allocate('60 $n', 'LAMP', 1), alloc.allocate('61 $n', 'LAMP', 1)", 'other');
}
is(counted(), 'allocate_calls=5 lines_allocated=5', 'sessions in two databases by turns: those of one');
is(counted('other'), 'allocate_calls=10 lines_allocated=10', 'and those of the other');
reset_stats('other');
is(counted(), 'allocate_calls=5 lines_allocated=5', 'reset_stats() in one leaves those of the other');
is(counted('other'), '', 'and sets its own to 0');

# What the log says of a counter's doings.
my %facts = (
	lines_allocated => q{type = 'allocated'},
	lines_deallocated => q{type = 'deallocated' AND batchref IS NOT NULL},
	lines_held => q{type = 'held' AND old_qty IS NULL},
	holds_released => q{type = 'hold_released'},
	holds_confirmed => q{type = 'confirmed'},
	out_of_stock => q{type = 'out_of_stock'});

sql(q{SELECT alloc.add_batch('MANY ' || n, 'MANY ' || n, CASE n WHEN 5 THEN 100 ELSE 1000000 END) FROM generate_series(1, 5) n});
my $since = sql('SELECT max(event_id) FROM alloc.event');
reset_stats();
my ($errors, %times) = bench($node, [ '-C', '-c', '8', '-t', '60' ],
	allocate => [ 4, <<'END' ],
\set n random(1, 1000000000)
\set sku random(1, 5)
SELECT alloc.allocate('load ' || :n, 'MANY ' || :sku, 1);
END
	rollback => [ 1, <<'END' ],
\set n random(1, 1000000000)
BEGIN;
SELECT alloc.allocate('load ' || :n, 'MANY 1', 1);
ROLLBACK;
END
	savepoint => [ 2, <<'END' ],
\set n random(1, 1000000000)
BEGIN;
SELECT alloc.allocate('load ' || :n, 'MANY 1', 1);
SAVEPOINT a;
SELECT alloc.deallocate('load ' || :n, 'MANY 1');
ROLLBACK TO a;
SELECT count(*) FROM alloc.allocate_lines(ARRAY[ROW('lines ' || :n, 'MANY 2', 1), ROW('load ' || :n, 'MANY 1', 1)]::alloc.order_line[]);
SELECT alloc.deallocate('lines ' || :n, 'MANY 2');
COMMIT;
END
	hold => [ 2, <<'END' ]);
\set n random(1, 1000000000)
SELECT alloc.hold('cart ' || :n, 'MANY 3', 1, '1 hour'), alloc.hold('left ' || :n, 'MANY 4', 1, '1 hour'),
	alloc.confirm('cart ' || :n), alloc.release('left ' || :n);
END
is($errors, '', '480 sessions come and go, eight at a time');
is(counter('allocate_calls'), $times{allocate} + $times{savepoint}, 'calls are those that were committed');
is(counter('hold_calls'), 2 * $times{hold}, 'of another command as well');
foreach my $name (sort keys %facts)
{
	is(counter($name), sql("SELECT count(*) FROM alloc.event WHERE event_id > $since AND $facts{$name}"), "the log says the same as $name");
}
is(counted('other'), '', 'the other database has not noticed');

# A database that is gone leaves nothing behind.
sql(q{SELECT alloc.allocate('70', 'LAMP', 1)}, 'other');
my $before = counted();
sql('DROP DATABASE other');
is(counted(), $before, 'a dropped database changes nothing here');

# ---- the end of all counting ----

my $victim = $node->background_psql('postgres', on_error_stop => 0);
kill 'KILL', $victim->query_safe('SELECT pg_backend_pid()') =~ /(\d+)/;
ok($node->poll_query_until('postgres', q{SELECT sum(value) = 0 FROM alloc.counters() WHERE name <> 'counting_ms'}),
	'after a crash all counters are 0');
sql(q{SELECT alloc.allocate('71', 'VASE', 1)});
is(counted(), 'allocate_calls=1 lines_allocated=1', 'and count again');
$node->restart;
is(counted(), '', 'after a restart they are 0 as well');
$victim->{run}->kill_kill;

$node->stop;
done_testing();
