-- List the time zones that a tenant declared, to compare the server's rules with those of the client.
--
-- Returns: name, seconds (offset from UTC), at (the time of this statement).
-- Locks: none.
-- Index: none. It reads a row for each tenant and declared zone.
SELECT z.name, extract(epoch FROM z.utc_offset)::int AS seconds, statement_timestamp() AS at
  FROM pg_catalog.pg_timezone_names AS z
  JOIN (SELECT DISTINCT u.zone
          FROM asyncsvc.usage_zone AS u) AS declared
    ON declared.zone = z.name
