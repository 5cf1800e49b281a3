-- The events of the late ship as the listener heard them.

\pset title 'What the listener heard of the late ship'
SELECT channel, payload::jsonb ->> 'orderid' AS orderid,
       payload::jsonb ->> 'old_eta' AS old_eta, payload::jsonb ->> 'eta' AS eta,
       payload::jsonb ->> 'batchref' AS batchref
  FROM shop.heard
 WHERE number > (SELECT number FROM shop.heard WHERE payload = 'cut')
   AND channel <> ALL ('{alloc_events,demo}')
 ORDER BY number;
