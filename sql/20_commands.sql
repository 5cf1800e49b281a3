-- Commands.  None is STRICT: a NULL key is refused, not passed over.

CREATE FUNCTION alloc.add_batch(ref text, sku text, qty bigint, eta date DEFAULT NULL)
RETURNS text
AS 'MODULE_PATHNAME', 'alloc_add_batch'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.add_batch(text, text, bigint, date) IS
	'buys a batch: reference, sku, quantity (0 or more), day of arrival (NULL: it is in the warehouse); returns the reference';

CREATE FUNCTION alloc.allocate(orderid text, sku text, qty bigint)
RETURNS text
AS 'MODULE_PATHNAME', 'alloc_allocate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.allocate(text, text, bigint) IS
	'gives an order line the best batch that can serve all of it: in stock first, then the earliest arrival; returns its reference, or NULL when the sku is out of stock';

CREATE FUNCTION alloc.hold(orderid text, sku text, qty bigint, ttl interval)
RETURNS text
AS 'MODULE_PATHNAME', 'alloc_hold'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.hold(text, text, bigint, interval) IS
	'allocates an order line as allocate() does, until ttl has passed since the beginning of the statement; returns the batch''s reference, or NULL when the sku is out of stock';

CREATE FUNCTION alloc.confirm(orderid text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_confirm'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.confirm(text) IS
	'allocates the lines of an order that are held for good; returns how many';

CREATE FUNCTION alloc.release(orderid text)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_release'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.release(text) IS
	'frees the lines of an order that are held; returns how many';

CREATE FUNCTION alloc.extend_hold(orderid text, ttl interval)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_extend_hold'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.extend_hold(text, interval) IS
	'makes the holds of an order last until ttl has passed since the beginning of the statement, if they do not last longer anyway; returns how many there are';

CREATE TYPE alloc.order_line AS (orderid text, sku text, qty bigint);
COMMENT ON TYPE alloc.order_line IS
	'what a customer orders of one sku';

CREATE FUNCTION alloc.allocate_lines(
	lines alloc.order_line[],
	OUT orderid text, OUT sku text, OUT qty bigint, OUT batchref text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_allocate_lines'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.allocate_lines(alloc.order_line[]) IS
	'allocates many order lines in one pass, as allocate() called for each in turn would; returns each with its batch, NULL when it is out of stock';

CREATE FUNCTION alloc.allocate_order(
	orderid text, lines alloc.order_line[], mode text DEFAULT 'all',
	OUT sku text, OUT qty bigint, OUT batchref text, OUT status text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_allocate_order'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.allocate_order(text, alloc.order_line[], text) IS
	'allocates the lines of an order, those of one sku added together: every line or none (mode all), or those that can be served (partial), and the others wait for stock (backorder); returns a row for each sku with its batch and what became of it: allocated, out_of_stock, backordered or not_taken';

CREATE FUNCTION alloc.deallocate(orderid text, sku text)
RETURNS text
AS 'MODULE_PATHNAME', 'alloc_deallocate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.deallocate(text, text) IS
	'frees an order line; returns the reference of the batch it was freed from, or NULL if it was not allocated';

CREATE FUNCTION alloc.cancel_backorder(orderid text, sku text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'alloc_cancel_backorder'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.cancel_backorder(text, text) IS
	'takes an order line that waits for stock out of the queue; returns false if it does not wait';

CREATE FUNCTION alloc.change_batch_quantity(
	ref text, qty bigint,
	OUT orderid text, OUT sku text, OUT qty bigint,
	OUT old_batchref text, OUT new_batchref text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_change_batch_quantity'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.change_batch_quantity(text, bigint) IS
	'sets what was purchased of a batch; lines that no longer fit, newest first, are taken off and allocated again, oldest first; returns a row for each';

CREATE FUNCTION alloc.change_batch_eta(
	ref text, eta date,
	OUT orderid text, OUT sku text, OUT qty bigint,
	OUT old_eta date, OUT new_eta date)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_change_batch_eta'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.change_batch_eta(text, date) IS
	'sets the day of arrival of a batch, NULL: it is in the warehouse; returns a row for each order line that it serves, oldest first';

CREATE FUNCTION alloc.sync_batches(
	source regclass, dry_run boolean DEFAULT false,
	OUT action text, OUT ref text, OUT sku text,
	OUT old_qty bigint, OUT new_qty bigint, OUT old_eta date, OUT new_eta date)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'alloc_sync_batches'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.sync_batches(regclass, boolean) IS
	'makes the batches equal to a feed: a table, view or foreign table with columns ref, sku, qty, eta; a batch that is not in it is left with what has been shipped; returns a row for each change; dry_run: changes nothing';

CREATE FUNCTION alloc.ship(orderid text, sku text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_ship'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.ship(text, text) IS
	'the stock of an order''s line, or of all its lines, has left; returns how many lines';

CREATE FUNCTION alloc.purge_shipped(before timestamptz)
RETURNS bigint
AS 'MODULE_PATHNAME', 'alloc_purge_shipped'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION alloc.purge_shipped(timestamptz) IS
	'forgets order lines that were shipped before that moment; returns how many';
