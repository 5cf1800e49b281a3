-- The events of the cut as the listener heard them.

\pset title 'What the listener heard of it'
SELECT channel, payload::jsonb ->> 'orderid' AS orderid,
       payload::jsonb ->> 'qty' AS qty, payload::jsonb ->> 'old_qty' AS old_qty,
       payload::jsonb ->> 'batchref' AS batchref
  FROM shop.heard
 WHERE number > (SELECT number FROM shop.heard WHERE payload = 'allocated')
   AND channel <> ALL ('{alloc_events,demo}')
 ORDER BY number;
