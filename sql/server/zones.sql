-- List the time zones of the server, to compare its rules with those of the client.
--
-- Returns: name, seconds (offset from UTC), at (the time of this statement).
-- Locks: none.
-- Index: none.
SELECT z.name, extract(epoch FROM z.utc_offset)::int AS seconds, statement_timestamp() AS at
  FROM pg_catalog.pg_timezone_names AS z
