-- List the tables of the schema with their sizes.
--
-- Returns: name; rows, by the statistics of the last VACUUM or ANALYZE; bytes, with indexes. No row if the
--   schema does not exist.
-- Locks: none.
-- Index: the catalog.
-- Notes: on Citus, the coordinator has the definitions of the distributed tables and not their rows.
SELECT c.relname::text AS name,
       greatest(c.reltuples, 0)::bigint AS rows,
       pg_total_relation_size(c.oid) AS bytes
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = 'asyncsvc'
   AND c.relkind = 'r'
 ORDER BY c.relname
