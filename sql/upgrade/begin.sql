-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION alloc UPDATE" to load this file. \quit

-- Here is what cannot be replaced in place: tables, types, sequences, indexes
-- and triggers of parts that version 0.1.0 has, and functions and views whose
-- columns changed or that are gone.

ALTER TABLE alloc.consumer
	DROP CONSTRAINT consumer_kind,
	ADD CONSTRAINT consumer_kind CHECK (kind IN ('consumer', 'counted', 'relay', 'handler'));
