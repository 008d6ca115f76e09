-- Return the progress of a backfill that is not finished.
--
-- Returns: position, rows. No row if it has not begun, or began with other commands.
-- Locks: none. In a batch, the caller holds the lock of migration/try_lock.
-- Index: the primary key.
SELECT m.position, m.rows
  FROM asyncsvc.migration AS m
 WHERE m.version = :version
   AND m.checksum = :checksum
   AND m.applied_at IS NULL
