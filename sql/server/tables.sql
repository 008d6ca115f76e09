-- The tables of the schema, by name: how large each is with its indexes, how many rows the
-- statistics count as live and as dead, and whether this role may read and change it. It returns
-- nothing where the schema is not there.
--
-- Locks: none. Index: none.
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
 ORDER BY s.relname
