# What a libpq client receives: each event on the channel of its type, with
# the JSON of the contract, and one ring of the doorbell for a transaction.

use strict;
use warnings;
use utf8;

use FindBin;
use lib $FindBin::RealBin;
use AllocTest qw(new_node listening_client);
use IPC::Run qw(start pump finish timer);
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my @types = qw(batch_created batch_quantity_changed allocated deallocated out_of_stock);
my @line_keys = qw(at batchref event_id orderid qty sku type);

# The client is written in C, so that it is libpq's interface that is tested.
my $listen = listening_client();

my $node = new_node('main', '');

# Runs SQL while the client listens.  Returns what it has received: channel
# and payload, in pairs.
sub heard
{
	my ($sql, %options) = @_;
	my ($output, $errors) = ('', '');
	my $client = start(
		[ $listen, $node->connstr('postgres') . ' client_encoding=UTF8',
			'alloc_events', map { "alloc_$_" } @types ],
		'>', \$output, '2>', \$errors,
		timer($PostgreSQL::Test::Utils::timeout_default));

	$client->pump until $output =~ /^listening$/m;
	utf8::encode($sql);
	$node->psql('postgres', $sql, on_error_stop => 0);
	# Notifications come in the order of commits: this one is the last.
	$node->safe_psql('postgres', 'NOTIFY stop');
	$client->finish or die "the client failed: $errors";
	$output =~ s/^listening\n//;
	return map { [ split(/ /, $_, 2) ] } split(/\n/, $output);
}

sub on_channel { my ($channel, @heard) = @_; return map { $_->[1] } grep { $_->[0] eq $channel } @heard; }
sub channels { return join(' ', map { $_->[0] } @_); }
sub last_event { return $node->safe_psql('postgres', 'SELECT max(event_id) FROM alloc.event'); }

# Each payload is JSON in UTF-8, and what view events has.
sub check_payloads
{
	my ($name, @heard) = @_;

	foreach my $pair (grep { $_->[0] ne 'alloc_events' } @heard)
	{
		my ($channel, $payload) = @$pair;
		my $event = decode_json($payload);
		my $view = $node->safe_psql('postgres',
			"SELECT payload FROM alloc.events WHERE event_id = $event->{event_id}");

		is_deeply($event, decode_json($view), "$name: $channel is in view events");
		is($channel, "alloc_$event->{type}", "$name: $channel is the channel of its type");
		cmp_ok(length $payload, '<', 8000, "$name: $channel is short enough for NOTIFY");
	}
	return;
}

# allocate: exactly these keys
my $before = time;
$node->safe_psql('postgres', q{SELECT alloc.add_batch('in stock', 'LAMP', 10)});
my @heard = heard(q{SELECT alloc.allocate('order', 'LAMP', 7)});
is(channels(@heard), 'alloc_allocated alloc_events', 'allocate: an event and the doorbell');
my $event = decode_json($heard[0][1]);
is_deeply([ sort keys %$event ], \@line_keys, 'allocate: the keys');
like(delete $event->{at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$/, 'allocate: at is ISO 8601 in UTC');
is_deeply($event,
	{ event_id => last_event() + 0, type => 'allocated', orderid => 'order', sku => 'LAMP',
		qty => 7, batchref => 'in stock' },
	'allocate: the values');
like($heard[0][1], qr/"event_id": \d+,.*"qty": 7\b/, 'allocate: numbers are numbers');
is($heard[1][1], last_event(), 'allocate: the doorbell has the event id');
check_payloads('allocate', @heard);

# The moment is in UTC whatever the session thinks.
($event) = heard(q{SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'; SET lc_messages = 'C';
SELECT alloc.add_batch('shipment', 'LAMP', 5, '31.12.2030');});
$event = decode_json($event->[1]);
like($event->{at}, qr/\+00:00$/, 'at is in UTC with another time zone');
is($event->{eta}, '2030-12-31', 'eta is ISO 8601 with another date style');
is_deeply([ sort keys %$event ], [qw(at batchref eta event_id qty sku type)],
	'add_batch: the keys, with an eta');

# the other types
@heard = heard(q{SELECT alloc.add_batch('rug', 'RUG', 5)});
is(channels(@heard), 'alloc_batch_created alloc_events', 'add_batch: channels');
is_deeply([ sort keys %{ decode_json($heard[0][1]) } ], [qw(at batchref event_id qty sku type)],
	'add_batch: the keys');
check_payloads('add_batch', @heard);

@heard = heard(q{SELECT alloc.allocate('order', 'RUG', 6)});
is(channels(@heard), 'alloc_out_of_stock alloc_events', 'out of stock: channels');
is_deeply([ sort keys %{ decode_json($heard[0][1]) } ], [qw(at event_id orderid qty sku type)],
	'out of stock: the keys');
check_payloads('out of stock', @heard);

$node->safe_psql('postgres', q{SELECT alloc.allocate('free', 'RUG', 5)});
@heard = heard(q{SELECT alloc.deallocate('free', 'RUG')});
is(channels(@heard), 'alloc_deallocated alloc_events', 'deallocate: channels');
is_deeply([ sort keys %{ decode_json($heard[0][1]) } ], \@line_keys, 'deallocate: the keys');
check_payloads('deallocate', @heard);

$node->safe_psql('postgres', q{SELECT alloc.allocate('small', 'LAMP', 3)});
@heard = heard(q{SELECT * FROM alloc.change_batch_quantity('in stock', 7)});
is(channels(@heard),
	'alloc_deallocated alloc_batch_quantity_changed alloc_allocated alloc_events',
	'change_batch_quantity: channels, the line goes and comes');
$event = decode_json($heard[1][1]);
is_deeply([ sort keys %$event ], [qw(at batchref event_id old_qty qty sku type)],
	'change_batch_quantity: the keys');
is("$event->{old_qty} $event->{qty}", '10 7', 'change_batch_quantity: the quantities');
is($heard[3][1], last_event(), 'change_batch_quantity: the doorbell has the last event id');
check_payloads('change_batch_quantity', @heard);

# What changes nothing says nothing.
is(channels(heard(q{
SELECT alloc.add_batch('rug', 'RUG', 5);
SELECT alloc.allocate('small', 'LAMP', 3);
SELECT alloc.deallocate('nobody', 'LAMP');
SELECT * FROM alloc.change_batch_quantity('in stock', 7);
SELECT alloc.allocate('small', 'LAMP', 4);
SELECT alloc.allocate('small', 'UNKNOWN', 4);
})), '', 'calls that change nothing, and errors');

# the doorbell: once for a transaction, nothing of what was rolled back
@heard = heard(q{
BEGIN;
SELECT alloc.allocate('t1', 'RUG', 1);
SELECT alloc.deallocate('t1', 'RUG');
SELECT alloc.allocate('t1', 'RUG', 2);
COMMIT;
});
is(channels(@heard), 'alloc_allocated alloc_deallocated alloc_allocated alloc_events',
	'a transaction of three events: one ring');
is($heard[3][1], last_event(), '... with the last event id');

is(channels(heard(q{BEGIN; SELECT alloc.allocate('t2', 'RUG', 1); ROLLBACK;})), '',
	'nothing after ROLLBACK');

# A name for each event id: the ids of what was rolled back are in no table.
sub ids { return map { decode_json($_->[1])->{event_id} } grep { $_->[0] ne 'alloc_events' } @_; }

@heard = heard(q{
BEGIN;
SELECT alloc.allocate('t3', 'RUG', 1);
SAVEPOINT a;
SELECT alloc.deallocate('t3', 'RUG');
ROLLBACK TO a;
COMMIT;
});
is(channels(@heard), 'alloc_allocated alloc_events', 'a savepoint rolled back: not its event');
is_deeply([ on_channel('alloc_events', @heard) ], [ ids(@heard) ],
	'... and the doorbell has the highest id that is left');

@heard = heard(q{
BEGIN;
SAVEPOINT a;
SELECT alloc.deallocate('t3', 'RUG');
RELEASE a;
SAVEPOINT b;
SAVEPOINT c;
SELECT alloc.allocate('t3', 'RUG', 1);
RELEASE c;
ROLLBACK TO b;
COMMIT;
});
is(channels(@heard), 'alloc_deallocated alloc_events',
	'a savepoint released, and one released within one rolled back');
is_deeply([ on_channel('alloc_events', @heard) ], [ ids(@heard) ], '... the highest id');

@heard = heard(q{
BEGIN;
SELECT alloc.allocate('t4', 'RUG', 1);
SAVEPOINT a;
SELECT alloc.deallocate('t4', 'RUG');
SAVEPOINT b;
SELECT alloc.allocate('t4', 'RUG', 2);
ROLLBACK TO b;
RELEASE a;
COMMIT;
});
is(channels(@heard), 'alloc_allocated alloc_deallocated alloc_events',
	'a savepoint rolled back within one released');
is_deeply([ on_channel('alloc_events', @heard) ], [ (ids(@heard))[1] ], '... the highest id');

is(channels(heard(q{BEGIN; SAVEPOINT a; SELECT alloc.allocate('t5', 'RUG', 1); ROLLBACK TO a; COMMIT;})),
	'', 'all rolled back to a savepoint: nothing');

@heard = heard(q{
BEGIN;
SAVEPOINT a;
SELECT alloc.allocate('t5', 'RUG', 1);
ROLLBACK TO a;
SELECT alloc.allocate('t6', 'RUG', 1);
COMMIT;
});
is(channels(@heard), 'alloc_allocated alloc_events', 'after a savepoint that was rolled back');
is_deeply([ on_channel('alloc_events', @heard) ], [ ids(@heard) ], '... the highest id');

# A PL/pgSQL exception block is a savepoint.
@heard = heard(q{
DO $$
BEGIN
	PERFORM alloc.deallocate('t6', 'RUG');
	BEGIN
		PERFORM alloc.allocate('t6', 'RUG', 1);
		RAISE EXCEPTION 'never mind';
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
END
$$;
});
is(channels(@heard), 'alloc_deallocated alloc_events', 'an exception block');
is_deeply([ on_channel('alloc_events', @heard) ], [ ids(@heard) ], '... the highest id');

# A transaction that failed leaves nothing for the next one.
@heard = heard(q{
BEGIN;
SELECT alloc.allocate('t7', 'RUG', 1);
SELECT 1 / 0;
COMMIT;
SELECT 1;
SELECT alloc.allocate('t8', 'RUG', 1);
});
is(channels(@heard), 'alloc_allocated alloc_events', 'after a transaction that failed');
is_deeply([ on_channel('alloc_events', @heard) ], [ ids(@heard) ], '... the highest id');

# off
is(channels(heard(q{SET alloc.notify = off; SELECT alloc.deallocate('t8', 'RUG');})), '',
	'nothing with alloc.notify = off');
@heard = heard(q{
BEGIN;
SELECT alloc.allocate('t8', 'RUG', 1);
SET LOCAL alloc.notify = off;
SELECT alloc.deallocate('t8', 'RUG');
COMMIT;
SELECT alloc.allocate('t8', 'RUG', 1);
});
is(channels(@heard), 'alloc_allocated alloc_events alloc_allocated alloc_events',
	'alloc.notify = off within a transaction is for what follows');
is_deeply([ on_channel('alloc_events', @heard) ], [ ids(@heard) ],
	'... and the doorbell has the id of what was sent');

# keys of all kinds
my %keys = (
	'quotes' => [ q{E'a"b''c'}, q{a"b'c} ],
	'backslash and slash' => [ q{E'a\\\\b/c'}, 'a\\b/c' ],
	'newline and tab' => [ q{E'a\n\r\tb'}, "a\n\r\tb" ],
	'control characters' => [ q{E'\x01\x1f\x7f'}, "\x01\x1f\x7f" ],
	'JSON' => [ q{'{"a": [null]}'}, '{"a": [null]}' ],
	'Unicode' => [ q{'Größe 椅子 🛋 ' || chr(8232)}, "Größe 椅子 🛋 \x{2028}" ],
	'blanks' => [ q{'  '}, '  ' ]);

foreach my $name (sort keys %keys)
{
	my ($sql, $key) = @{ $keys{$name} };

	@heard = heard(qq{
BEGIN;
SELECT alloc.add_batch($sql, $sql, 1);
SELECT alloc.allocate($sql, $sql, 1);
COMMIT;
});
	$event = decode_json(@heard > 1 ? $heard[1][1] : '{}');
	is_deeply([ @$event{qw(orderid sku batchref)} ], [ ($key) x 3 ], "$name: the keys are as they were");
	check_payloads($name, @heard);
}

# The longest: each byte is six in JSON.
my $control = "repeat(chr(1), 255)";
@heard = heard(qq{
BEGIN;
SELECT alloc.add_batch($control, $control, 9223372036854775807, '5874897-12-31');
SELECT alloc.allocate($control, $control, 9223372036854775807);
SELECT * FROM alloc.change_batch_quantity($control, 9223372036854775806);
COMMIT;
});
is(channels(@heard),
	'alloc_batch_created alloc_allocated alloc_deallocated alloc_batch_quantity_changed'
	. ' alloc_out_of_stock alloc_events', 'the longest keys');
is(decode_json($heard[1][1])->{orderid}, "\x01" x 255, 'the longest keys: are as they were');
check_payloads('the longest keys', @heard);

$node->stop;
done_testing();
