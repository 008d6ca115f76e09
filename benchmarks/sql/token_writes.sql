-- The number of updates of token rows, and the bytes of WAL since the server's creation.
SELECT n_tup_upd, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint
  FROM pg_stat_user_tables
 WHERE schemaname = 'asyncsvc' AND relname = 'api_token'
