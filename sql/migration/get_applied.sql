-- List the applied migrations.
--
-- Returns: version, name, checksum, applied_at, in the order of the versions.
-- Locks: none.
-- Index: the primary key.
SELECT m.version, m.name, m.checksum, m.applied_at
  FROM asyncsvc.migration AS m
 WHERE m.applied_at IS NOT NULL
 ORDER BY m.version
