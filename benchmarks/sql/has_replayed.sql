-- Whether a standby has replayed the primary's log up to a position.
SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn
