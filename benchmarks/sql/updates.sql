-- How many rows of a table were updated, and how many of them without a new entry in any index.
SELECT n_tup_upd AS updates, n_tup_hot_upd AS hot
  FROM pg_stat_user_tables
 WHERE relid = $1::text::regclass
