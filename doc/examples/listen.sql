-- Prints the notifications of alloc, for an hour or as long as told:
--   psql -X -v seconds=60 -f listen.sql shop
\set QUIET on
\if :{?seconds}
\else
\set seconds 3600
\endif
LISTEN alloc_allocated;
LISTEN alloc_out_of_stock;
LISTEN alloc_events;
\echo listening
-- psql prints what has arrived after each command: here one a second.
SELECT 'DO $$BEGIN PERFORM pg_sleep(1); END$$' FROM generate_series(1, :seconds)
\gexec
