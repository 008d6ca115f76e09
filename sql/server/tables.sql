-- List the tables of the schema with their sizes and the rights of this role.
--
-- Returns: name, bytes (with indexes), live and dead rows by the statistics, is_readable, is_writable, in
--   the order of the names. No row if the schema does not exist.
-- Locks: none.
-- Index: the catalog.
-- Notes: without the shards of Citus, whose names end with a number.
SELECT s.relname::text AS name,
       pg_total_relation_size(s.relid) AS bytes,
       s.n_live_tup AS live,
       s.n_dead_tup AS dead,
       has_schema_privilege(s.schemaname, 'USAGE')
           AND has_table_privilege(s.relid, 'SELECT') AS is_readable,
       has_schema_privilege(s.schemaname, 'USAGE')
           AND has_table_privilege(s.relid, 'INSERT')
           AND has_table_privilege(s.relid, 'UPDATE')
           AND has_table_privilege(s.relid, 'DELETE') AS is_writable
  FROM pg_catalog.pg_stat_user_tables AS s
 WHERE s.schemaname = 'asyncsvc'
   AND s.relname !~ '_\d+$'
 ORDER BY s.relname
