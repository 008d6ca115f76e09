-- Each time zone that the server knows, with its offset from UTC in seconds at this moment: by it
-- the server's rules are compared with those of the client, which computes the bounds of ranges.
--
-- Locks: none. Index: none.
SELECT z.name, extract(epoch FROM z.utc_offset)::int AS seconds, statement_timestamp() AS at
  FROM pg_catalog.pg_timezone_names AS z
