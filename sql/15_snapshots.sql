-- Snapshots of the log: what it tells up to an event.  A replay begins with
-- one, and events before it can be moved out.

CREATE TABLE alloc.snapshot (
	event_id bigint NOT NULL,
	taken_at timestamptz NOT NULL,
	CONSTRAINT snapshot_pkey PRIMARY KEY (event_id)
) USING heap;
COMMENT ON TABLE alloc.snapshot IS
	'snapshots of the log, each by the last event that it takes in';

CREATE TABLE alloc.snapshot_batch (
	snapshot  bigint NOT NULL,
	created   bigint NOT NULL,
	purchased bigint NOT NULL,
	shipped   bigint NOT NULL,
	allocated bigint NOT NULL,
	eta       date,
	ref       text NOT NULL,
	sku       text NOT NULL
) USING heap;
CREATE UNIQUE INDEX snapshot_batch_sku ON alloc.snapshot_batch
	(snapshot, sku text_pattern_ops, ref text_pattern_ops);
ALTER TABLE alloc.snapshot_batch REPLICA IDENTITY USING INDEX snapshot_batch_sku;
COMMENT ON TABLE alloc.snapshot_batch IS
	'batches as a snapshot has them; created is the event that did';

CREATE TABLE alloc.snapshot_line (
	snapshot   bigint NOT NULL,
	event_id   bigint NOT NULL,
	qty        bigint NOT NULL,
	expires_at timestamptz,
	shipped_at timestamptz,
	sku        text NOT NULL,
	batchref   text NOT NULL,
	orderid    text NOT NULL
) USING heap;
-- The lines of a batch by age: the list of its lines goes on here when the
-- events that it leads to were moved out of the log.
CREATE UNIQUE INDEX snapshot_line_batch ON alloc.snapshot_line
	(snapshot, sku text_pattern_ops, batchref text_pattern_ops, event_id);
ALTER TABLE alloc.snapshot_line REPLICA IDENTITY USING INDEX snapshot_line_batch;
COMMENT ON TABLE alloc.snapshot_line IS
	'order lines that were served as a snapshot has them';

CREATE TABLE alloc.snapshot_backorder (
	snapshot bigint NOT NULL,
	event_id bigint NOT NULL,
	qty      bigint NOT NULL,
	since    timestamptz NOT NULL,
	sku      text NOT NULL,
	orderid  text NOT NULL
) USING heap;
CREATE UNIQUE INDEX snapshot_backorder_line ON alloc.snapshot_backorder
	(snapshot, sku text_pattern_ops, orderid text_pattern_ops);
ALTER TABLE alloc.snapshot_backorder REPLICA IDENTITY USING INDEX snapshot_backorder_line;
COMMENT ON TABLE alloc.snapshot_backorder IS
	'order lines that waited for stock as a snapshot has them';

CREATE TABLE alloc.archive (
	event_id bigint NOT NULL,
	moved_at timestamptz NOT NULL,
	CONSTRAINT archive_pkey PRIMARY KEY (event_id)
) USING heap;
COMMENT ON TABLE alloc.archive IS
	'up to which event the log was moved out, each time';

SELECT pg_catalog.pg_extension_config_dump('alloc.snapshot', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.snapshot_batch', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.snapshot_line', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.snapshot_backorder', '');
SELECT pg_catalog.pg_extension_config_dump('alloc.archive', '');
