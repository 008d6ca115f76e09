-- List the indexes of the schema with their state and use.
--
-- Returns: name, is_valid, is_unique, scans (since the statistics were reset), bytes, rows (of the
--   table), in the order of the names.
-- Locks: none.
-- Index: the catalog.
-- Notes: without the shards of Citus, whose names end with a number.
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
   AND s.relname !~ '_\d+$'
 ORDER BY s.indexrelname
