-- The indexes of the schema, by name: whether each is whole, how often it was used since the
-- statistics began, how many rows its table has, and whether a constraint needs it.
--
-- Locks: none. Index: none.
SELECT s.indexrelname::text AS name,
       i.indisvalid AS is_valid,
       i.indisunique AS is_unique,
       s.idx_scan AS scans,
       pg_relation_size(s.indexrelid) AS bytes,
       t.n_live_tup AS rows
  FROM pg_catalog.pg_stat_user_indexes AS s
  JOIN pg_catalog.pg_index AS i ON i.indexrelid = s.indexrelid
  JOIN pg_catalog.pg_stat_user_tables AS t ON t.relid = s.relid
 WHERE s.schemaname = 'asyncsvc'
 ORDER BY s.indexrelname
