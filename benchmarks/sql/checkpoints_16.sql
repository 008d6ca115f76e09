-- The same as `checkpoints` on PostgreSQL 16 and older.
SELECT checkpoints_timed + checkpoints_req AS checkpoints,
       pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS wal
  FROM pg_stat_bgwriter
