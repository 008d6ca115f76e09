-- How many rows of the tokens were updated, and the WAL so far.
SELECT n_tup_upd, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint
  FROM pg_stat_user_tables
 WHERE schemaname = 'asyncsvc' AND relname = 'api_token'
