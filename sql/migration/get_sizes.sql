-- List the tables of the schema with their sizes.
--
-- Returns: name; rows, by the statistics of the last VACUUM or ANALYZE; bytes, with indexes. With
--   :with_shards both include the shards of Citus whose nodes answer. No row if the schema does not exist.
-- Locks: none.
-- Index: the catalog.
-- Notes: with :with_shards it can be prepared only if the database has Citus. It sends a
--   command to each node. The name of a shard is that of its table and a number.
SELECT c.relname::text AS name,
       (greatest(c.reltuples, 0)
        + coalesce(s.rows, 0)                --? with_shards
       )::bigint AS rows,
       pg_total_relation_size(c.oid)
       + coalesce(s.bytes, 0)::bigint        --? with_shards
       AS bytes
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  --? with_shards {
  LEFT JOIN (
    SELECT t.name, sum(t.rows) AS rows, sum(t.bytes) AS bytes
      FROM run_command_on_all_nodes($command$
               SELECT jsonb_agg(jsonb_build_object(
                          'name', regexp_replace(c.relname, '_\d+$', ''),
                          'rows', greatest(c.reltuples, 0),
                          'bytes', pg_total_relation_size(c.oid)))
                 FROM pg_catalog.pg_class AS c
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = 'asyncsvc'
                  AND c.relkind = 'r'
                  AND c.relname ~ '_\d+$'
           $command$) AS r
     CROSS JOIN LATERAL jsonb_to_recordset(CASE WHEN r.success THEN nullif(r.result, '')::jsonb END)
           AS t (name text, rows float8, bytes bigint)
     GROUP BY t.name
  ) AS s ON s.name = c.relname
  --? }
 WHERE n.nspname = 'asyncsvc'
   AND c.relkind = 'r'
 ORDER BY c.relname
