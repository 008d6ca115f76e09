-- How far the primary's write-ahead log goes: a server that has replayed it up to `position` has everything
-- that was committed before this statement began, however it was committed. That is the place of the
-- next record. `flushed` is how far the log is on the disk and so may be on a replica; what an
-- asynchronous commit has acknowledged comes there within a second, what is not committed when it may.
--
-- Locks: none. Index: none.
SELECT pg_current_wal_insert_lsn()::text AS position, pg_current_wal_flush_lsn()::text AS flushed
