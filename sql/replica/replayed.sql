-- How far a replica has replayed the primary's write-ahead log: a snapshot that is taken after this
-- has everything up to there. NULL of a server that replays nothing: it is a primary, and what it has
-- says nothing of another.
--
-- Locks: none. Index: none.
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END AS position
