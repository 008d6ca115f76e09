-- How far a replica has replayed the primary's write-ahead log: a snapshot that is taken after this
-- has everything up to there. It says nothing of a primary; nor of a standby to which
-- nobody streams: its primary may be gone, and the next one promoted without what this one has.
--
-- Locks: none. Index: none.
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END AS position,
       pg_is_in_recovery() AS is_standby,
       EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) AS is_streaming
