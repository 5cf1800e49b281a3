-- The notifications of the first order as the listener heard them, and the
-- first that says that a line found nothing.

\echo 'What a second session heard meanwhile (LISTEN alloc_allocated, ...): the first'
\echo 'order, and the first line that found nothing.'
\echo
\pset format unaligned
\pset tuples_only
WITH sold AS (
	SELECT row_number() OVER (ORDER BY number) AS number, channel, payload
	  FROM shop.heard
	 WHERE number > (SELECT number FROM shop.heard WHERE payload = 'loaded')
)
SELECT format(E'%s. %s\n   %s', number, channel,
              -- A terminal is not as wide as that.
              regexp_replace(payload, ' ("orderid"|"batchref")', E'\n    \\1', 'g'))
  FROM sold
 WHERE number <= (SELECT min(number) FROM sold WHERE channel = 'alloc_events')
    OR number = (SELECT min(number) FROM sold WHERE channel = 'alloc_out_of_stock')
 ORDER BY number;
