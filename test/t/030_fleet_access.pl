# Scopes at a router: granted before it became one or after, they open the same,
# and nothing of the partitions.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use AllocFleet qw(new_partition connection);
use AllocTest qw(new_node sqlstate);
use Test::More;

my @partitions = map { new_partition("part$_") } 0, 1;
# The router is an ordinary role there, of scope admin.
$_->safe_psql('postgres', q{CREATE ROLE shop_router LOGIN; SELECT alloc.grant_access('shop_router', 'admin')}) foreach @partitions;
my $router = new_node('router', '');
my $list = join(', ', map { "'" . connection($_) . " user=shop_router'" } @partitions);
my @roles = qw(reader seller buyer boss);

sub sql { my ($role, $command) = @_; return $router->safe_psql('postgres', "SET ROLE $role; $command"); }
sub refused
{
	my ($role, $command) = @_;

	is(sqlstate($router, 'postgres', "SET ROLE $role; $command"), '42501', "refused to $role: $command");
	return;
}

$router->safe_psql('postgres', 'CREATE EXTENSION plproxy; ' . join('; ', map { "CREATE ROLE $_" } @roles));
$router->safe_psql('postgres', q{SELECT alloc.grant_access('reader', 'read'), alloc.grant_access('buyer', 'buy')});
$router->safe_psql('postgres', "SELECT alloc.create_router('fleet', ARRAY[$list])");
$router->safe_psql('postgres', q{SELECT alloc.grant_access('seller', 'sell'), alloc.grant_access('boss', 'admin')});

is(sql('buyer', q{SELECT string_agg(alloc.add_batch('b' || n, 's' || n, 10), ' ') FROM generate_series(1, 4) n}), 'b1 b2 b3 b4', 'buy: add_batch()');
is(sql('buyer', q{SELECT count(*) FROM alloc.change_batch_quantity('b1', 8)}), '0', 'buy: change_batch_quantity()');
is(sql('buyer', q{SELECT count(*) FROM alloc.change_batch_eta('b2', '2031-01-01')}), '0', 'buy: change_batch_eta()');
is(sql('buyer', <<'END'), '5', 'buy: sync_batches()');
CREATE TEMPORARY TABLE feed AS SELECT 'b' || n AS ref, 's' || n AS sku, 12::bigint AS qty, NULL::date AS eta FROM generate_series(1, 5) n;
SELECT count(DISTINCT ref) FROM alloc.sync_batches('pg_temp.feed');
END
is(sql('seller', q{SELECT alloc.allocate('o1', 's1', 2)}), 'b1', 'sell: allocate()');
is(sql('seller', q{SELECT string_agg(batchref, ' ') FROM alloc.allocate_lines('{"(o2,s1,1)","(o2,s2,1)"}')}), 'b1 b2', 'sell: allocate_lines()');
is(sql('seller', q{SELECT string_agg(status, ' ') FROM alloc.allocate_order('o3', '{"(,s1,1)","(,s2,1)","(,s3,1)"}')}), 'allocated allocated allocated', 'sell: allocate_order()');
is(sql('seller', q{SELECT alloc.hold('o4', 's3', 1, '1 hour'), alloc.confirm('o4')}), 'b3|1', 'sell: hold(), confirm()');
is(sql('seller', q{SELECT alloc.ship('o1'), alloc.deallocate('o2', 's1')}), '1|b1', 'sell: ship(), deallocate()');
is(sql('seller', q{SELECT batchref FROM alloc.promise('s4', 1)}), 'b4', 'sell: promise()');
my %rows = (allocations => 5, batches => 5, stock => 5, backorders => 0, consumers => 0, dead_letters => 0);
is(sql('reader', "SELECT count(*) FROM alloc.$_"), $rows{$_}, "read: view $_") for sort keys %rows;
is(sql('reader', "SELECT count(*) > 5 FROM alloc.$_"), 't', "read: view $_") for qw(events stats);
is(sql('reader', q{SELECT count(*) FROM alloc.check()}), '0', 'read: check()');
is(sql('reader', q{SELECT count(*) FROM alloc.replay()}), '5', 'read: replay()');
is(sql('reader', q{SELECT count(*) > 0 FROM alloc.history('s1')}), 't', 'read: history()');
is(sql('reader', q{SELECT count(*) > 0 FROM alloc.history_of_order('o3')}), 't', 'read: history_of_order()');
is(sql('boss', q{SELECT alloc.handle('{"command": "allocate", "orderid": "o9", "sku": "s4", "qty": 1}')}), '{"result": "b4"}', 'admin: handle()');
is(sql('boss', q{SELECT alloc.create_consumer('mail'), count(*) FROM alloc.recover_orders()}), '|0', 'admin: create_consumer(), recover_orders()');
is(sql('boss', q{SELECT alloc.rebuild_directory()}), '5', 'admin: rebuild_directory()');

# A handler of the router's role may do on any call what it may do on one of its
# own: also leave something for the commit, here the check of a foreign key.
$_->safe_psql('postgres', <<'END') foreach @partitions;
CREATE TABLE event_type (type text PRIMARY KEY);
INSERT INTO event_type SELECT unnest('{batch_created,batch_quantity_changed,allocated,held,confirmed,deallocated,shipped,hold_released}'::text[]);
CREATE TABLE heard (as_role text, type text REFERENCES event_type DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION hears(event jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO heard VALUES (current_user, event->>''type'')';
ALTER FUNCTION hears(jsonb) OWNER TO shop_router;
GRANT INSERT ON heard TO shop_router;
END
$router->safe_psql('postgres', q{CREATE FUNCTION hears(event jsonb) RETURNS void LANGUAGE sql AS ''});
sql('boss', join('; ', map { "SELECT alloc.subscribe('$_', 'hears(jsonb)', 'sync')" } qw(batch_created batch_quantity_changed allocated held confirmed deallocated shipped hold_released)));
is(sql('seller', q{SELECT string_agg(status, ' ') FROM alloc.allocate_order('o5', '{"(,s1,1)","(,s2,1)","(,s3,1)"}')}), 'allocated allocated allocated', 'an order that a handler hears of');
is(sql('seller', q{SELECT string_agg(status, ' ') FROM alloc.allocate_order('o6', '{"(,s1,1)","(,s2,1)","(,s3,100)"}')}), 'not_taken not_taken out_of_stock', 'one that is refused');
is(sql('seller', q{SELECT string_agg(batchref, ' ') FROM alloc.allocate_lines('{"(o7,s1,1)","(o7,s2,1)"}')}), 'b1 b2', 'lines');
is(sql('seller', q{SELECT alloc.hold('o8', 's1', 1, '1 hour'), alloc.hold('o8', 's2', 1, '1 hour'), alloc.confirm('o8'), alloc.ship('o8')}), 'b1|b2|2|2', 'holds');
is(sql('buyer', q{CREATE TEMPORARY TABLE feed AS SELECT 'b' || n AS ref, 's' || n AS sku, 20::bigint AS qty, NULL::date AS eta FROM generate_series(1, 6) n;
	SELECT count(*) FROM alloc.sync_batches('pg_temp.feed')}), '6', 'a feed');
is(join(' ', map { $_->safe_psql('postgres', "SELECT DISTINCT as_role FROM heard") } @partitions), 'shop_router shop_router', 'the router\'s role has heard of all');
sql('boss', join('; ', map { "SELECT alloc.unsubscribe('$_', 'hears(jsonb)')" } qw(batch_created batch_quantity_changed allocated held confirmed deallocated shipped hold_released)));

refused('reader', q{SELECT alloc.allocate('o', 's1', 1)});
refused('seller', q{SELECT alloc.add_batch('b', 's', 1)});
refused('seller', 'SELECT * FROM alloc.stock');
refused('buyer', q{SELECT alloc.allocate('o', 's1', 1)});
for my $role (@roles)
{
	refused($role, 'SELECT * FROM alloc_router.stock');
	refused($role, q{SELECT alloc_router.allocate('o', 's1', 1, '')});
	refused($role, q{SELECT * FROM alloc.router});
	refused($role, q{SELECT alloc.create_router('fleet', ARRAY['dbname=postgres user=postgres'])});
	refused($role, 'SELECT alloc.drop_router()');
}

# An ordinary database again

$router->safe_psql('postgres', 'SELECT alloc.drop_router()');
is(sql('reader', 'SELECT count(*) FROM alloc.stock'), '0', 'drop_router(): the scopes are there');
is(sql('buyer', q{SELECT alloc.add_batch('own', 's', 1)}), 'own', 'drop_router(): and open the same');
refused('reader', q{SELECT alloc.allocate('o', 's', 1)});
$router->safe_psql('postgres', q{SELECT alloc.revoke_access('reader', 'read')});
refused('reader', 'SELECT * FROM alloc.stock');

$_->stop for $router, @partitions;
done_testing();
