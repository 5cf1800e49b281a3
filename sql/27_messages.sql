-- The message bus's door, and what came through it.

-- Messages that had an id, with their answers, for as long as
-- alloc.message_retention says.  The row is there before the command runs, so
-- that a second one with this id waits for the outcome; answer is NULL until
-- then.  body_hash is the SHA-256 of the message as jsonb text, numbers
-- without zeros at their ends.
CREATE TABLE alloc.message (
	message_id  text NOT NULL
		CONSTRAINT message_id_length CHECK (octet_length(message_id) BETWEEN 1 AND 255),
	received_at timestamptz NOT NULL,
	body_hash   bytea NOT NULL,
	answer      jsonb
) USING heap;
CREATE UNIQUE INDEX message_id ON alloc.message (message_id text_pattern_ops);
-- The oldest first: for those that are to be forgotten.
CREATE INDEX message_received_at ON alloc.message (received_at);
ALTER TABLE alloc.message REPLICA IDENTITY USING INDEX message_id;
COMMENT ON TABLE alloc.message IS
	'messages that handle() was given with an id, and what it answered';

SELECT pg_catalog.pg_extension_config_dump('alloc.message', '');

CREATE FUNCTION alloc.handle(message jsonb)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'alloc_handle'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.handle(jsonb) IS
	'carries out the command that a message names, with its other keys as arguments, and returns {"result": ...}; a message_id that was seen before gets the answer that it got then';
