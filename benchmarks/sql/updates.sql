-- The number of updates of a table's rows, and the number of HOT updates.
SELECT n_tup_upd AS updates, n_tup_hot_upd AS hot
  FROM pg_stat_user_tables
 WHERE relid = $1::text::regclass
