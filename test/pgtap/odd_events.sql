-- event_payload() of rows that cannot be in the log: whatever it is given, it
-- answers or refuses.  (A crash ends this file: that is a failure as well.)

\ir common.psql
BEGIN;
SELECT plan(14);

-- answer: the payload, or 'refused'.
CREATE FUNCTION answer(event alloc.event) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN alloc.event_payload(event);
EXCEPTION WHEN null_value_not_allowed OR not_null_violation OR data_corrupted OR invalid_parameter_value THEN
	RETURN 'refused';
END
$$;

SELECT ok(answer(event) = 'refused' OR (answer(event)::jsonb->key) IS NULL,
		  format('%s that is NULL is absent, or refused', key))
  FROM (VALUES
	('event_id', ROW(NULL, 'epoch', 5, 1, 2, NULL, 'epoch', 'epoch', 'epoch', false, 't', 's', 'o', 'b', NULL, NULL)::alloc.event),
	('at', ROW(1, NULL, 5, 1, 2, NULL, 'epoch', 'epoch', 'epoch', false, 't', 's', 'o', 'b', NULL, NULL)::alloc.event),
	('qty', ROW(1, 'epoch', 5, NULL, 2, NULL, 'epoch', 'epoch', 'epoch', false, 't', 's', 'o', 'b', NULL, NULL)::alloc.event),
	('old_qty', ROW(1, 'epoch', 5, 1, NULL, NULL, 'epoch', 'epoch', 'epoch', false, 't', 's', 'o', 'b', NULL, NULL)::alloc.event),
	('expires_at', ROW(1, 'epoch', 5, 1, 2, NULL, NULL, 'epoch', 'epoch', false, 't', 's', 'o', 'b', NULL, NULL)::alloc.event),
	('eta', ROW(1, 'epoch', 5, 1, 2, NULL, 'epoch', NULL, 'epoch', false, 't', 's', 'o', 'b', NULL, NULL)::alloc.event),
	('old_eta', ROW(1, 'epoch', 5, 1, 2, NULL, 'epoch', 'epoch', NULL, false, 't', 's', 'o', 'b', NULL, NULL)::alloc.event),
	('sku', ROW(1, 'epoch', 5, 1, 2, NULL, 'epoch', 'epoch', 'epoch', false, 't', NULL, 'o', 'b', NULL, NULL)::alloc.event),
	('orderid', ROW(1, 'epoch', 5, 1, 2, NULL, 'epoch', 'epoch', 'epoch', false, 't', 's', NULL, 'b', NULL, NULL)::alloc.event),
	('batchref', ROW(1, 'epoch', 5, 1, 2, NULL, 'epoch', 'epoch', 'epoch', false, 't', 's', 'o', NULL, NULL, NULL)::alloc.event),
	('traceparent', ROW(1, 'epoch', 5, 1, 2, NULL, 'epoch', 'epoch', 'epoch', false, 't', 's', 'o', 'b', NULL, NULL)::alloc.event),
	('type', ROW(1, 'epoch', 5, 1, 2, NULL, 'epoch', 'epoch', 'epoch', false, NULL, 's', 'o', 'b', NULL, NULL)::alloc.event)
  ) AS odd (key, event);
SELECT ok(answer(ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::alloc.event) IN ('refused', '{}'),
	'a row of NULLs is empty, or refused');
SELECT is(octet_length(answer(ROW(1, 'epoch', 5, 1, NULL, NULL, 'epoch', NULL, NULL, false, 't', repeat('s', 1000000), NULL, NULL, NULL, NULL)::alloc.event)) > 1000000, true,
	'a text of 1 MB is shown whole');
SELECT * FROM finish();
ROLLBACK;
