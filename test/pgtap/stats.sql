-- View stats and reset_stats() where the library is not preloaded: nothing is
-- counted, and that can be seen.  For the counters see test/t/026_stats.pl.

\ir common.psql
BEGIN;
SELECT plan(13);

SELECT view_owner_is('alloc', 'stats', current_user, 'view stats is there');
SELECT columns_are('alloc', 'stats', ARRAY['name', 'value'], 'its columns are name and value');
SELECT col_type_is('alloc', 'stats', 'value', 'bigint', 'value is a number');
SELECT function_returns('alloc', 'reset_stats', '{}'::name[], 'void');
SELECT volatility_is('alloc', 'reset_stats', 'volatile', 'reset_stats() is VOLATILE');
SELECT volatility_is('alloc', 'counters', 'volatile', 'counters() is VOLATILE: two looks in one statement may differ');
SELECT is(count(*), count(DISTINCT name), 'each name comes once') FROM alloc.stats;

SELECT alloc.add_batch('b', 's', 10), alloc.allocate('o', 's', 1);
SELECT results_eq($$SELECT name FROM alloc.stats WHERE name NOT LIKE '%\_calls'$$, $$VALUES
	('counting_ms'), ('lines_allocated'), ('lines_deallocated'), ('lines_moved'), ('lines_shipped'), ('out_of_stock'),
	('lines_backordered'), ('backorders_served'), ('backorders_canceled'),
	('lines_held'), ('holds_confirmed'), ('holds_released'), ('holds_expired'), ('promises_changed'), ('messages_repeated'),
	('slot_waits'), ('slot_splits'), ('slot_merges'),
	('relay_pending'), ('relay_lag_ms'), ('handler_pending'), ('handler_lag_ms'), ('handler_retries'), ('dead_letters')$$,
	'the counters, then the relay''s and handlers'' figures, in this order');
SELECT is_empty($$SELECT name FROM alloc.stats WHERE name LIKE '%\_calls'
	EXCEPT SELECT proname || '_calls' FROM pg_proc WHERE pronamespace = 'alloc'::regnamespace AND provolatile = 'v'$$,
	'what is counted as calls is a function');
SELECT is(count(*), 16::bigint, 'sixteen commands are counted') FROM alloc.stats WHERE name LIKE '%\_calls';
SELECT is_empty('SELECT name FROM alloc.counters() WHERE value IS NOT NULL', 'not preloaded: counters are NULL, not 0');
SELECT is_empty($$SELECT name FROM alloc.stats WHERE value IS NULL AND name ~ '^(relay|handler|dead)'$$, 'the other figures are there');
SELECT throws_like('SELECT alloc.reset_stats()', 'there are no counters', 'reset_stats() says that there is nothing to reset');

ROLLBACK;
