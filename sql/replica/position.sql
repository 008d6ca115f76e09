-- Read the end of the primary's write-ahead log.
--
-- Returns: position, the place of the next record: a server that has replayed the log up to it contains
--   each commit before this statement began. flushed, the end of the part on disk, which a replica may
--   have completely.
-- Locks: none.
-- Index: none.
-- Notes: the record of an asynchronous commit reaches the disk within 1 second.
SELECT pg_current_wal_insert_lsn()::text AS position, pg_current_wal_flush_lsn()::text AS flushed
