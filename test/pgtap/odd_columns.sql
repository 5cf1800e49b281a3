-- A column that a DBA adds to a table of the extension is kept by the
-- commands, or they refuse to work.  (A crash ends this file: that is a
-- failure as well.)

\ir common.psql
SELECT plan(7);

SELECT alloc.add_batch('b', 's', 100), alloc.add_batch('c', 's', 100, '2011-01-01'), alloc.allocate('o', 's', 60);
ALTER TABLE alloc.product ADD COLUMN note text;
ALTER TABLE alloc.batch ADD COLUMN note text;
ALTER TABLE alloc.slot ADD COLUMN note text;
ALTER TABLE alloc.allocation ADD COLUMN note text;
ALTER TABLE alloc.event ADD COLUMN note text;
UPDATE alloc.batch SET note = 'my batch ' || ref;
UPDATE alloc.slot SET note = 'my slot';
UPDATE alloc.allocation SET note = 'my line';

-- try: what a command answers, or that it refuses.
CREATE FUNCTION try(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE command INTO answer;
	RETURN answer;
EXCEPTION WHEN object_not_in_prerequisite_state OR feature_not_supported OR invalid_object_definition
			OR undefined_column OR datatype_mismatch OR invalid_table_definition OR data_corrupted THEN
	RETURN 'refused';
END
$$;
SELECT ok(try(command) IN (wanted, 'refused'), command || ' works or refuses')
  FROM (VALUES
	($$SELECT alloc.allocate('o2', 's', 10)$$, 'b'),
	($$SELECT alloc.add_batch('d', 'new', 1)$$, 'd'),
	($$SELECT alloc.deallocate('o2', 's')$$, 'b'),
	($$SELECT new_batchref FROM alloc.change_batch_quantity('b', 50)$$, 'c')) AS t (command, wanted);
SELECT bag_eq('SELECT note FROM alloc.batch WHERE note IS NOT NULL', ARRAY['my batch b', 'my batch c'],
	'a column added to batch keeps its values');
SELECT is((SELECT count(*) FROM alloc.slot WHERE note = 'my slot'), 2::bigint, 'a column added to slot keeps its values');
SELECT results_eq('SELECT note FROM alloc.allocation WHERE orderid = $$o$$', ARRAY['my line'],
	'a column added to allocation keeps its values');
SELECT * FROM finish();
