-- The number of checkpoints and the bytes of WAL since the server's creation, on PostgreSQL 17 and newer.
SELECT num_timed + num_requested AS checkpoints,
       pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS wal
  FROM pg_stat_checkpointer
