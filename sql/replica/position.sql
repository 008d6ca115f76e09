-- How far the primary's write-ahead log goes: a server that has replayed it up to here has everything
-- that was committed before this statement began, however it was committed. It is the place of the next
-- record, for the last flushed one may not cover what an asynchronous commit has acknowledged.
--
-- Locks: none. Index: none.
SELECT pg_current_wal_insert_lsn()::text AS position
