-- Read the position up to which a replica has replayed the primary's write-ahead log.
--
-- Returns: position, the end of the replayed log: a later snapshot contains each commit before it; NULL
--   on a primary. is_standby. is_streaming: a server streams its log to this server.
-- Locks: none.
-- Index: none.
-- Notes: a standby without streaming may follow a failed primary, and then contain rows that the new
--   primary lacks.
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END AS position,
       pg_is_in_recovery() AS is_standby,
       EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) AS is_streaming
