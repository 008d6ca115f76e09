-- List the tables of the schema with their sizes.
--
-- Returns: name; rows, by the statistics of the last VACUUM or ANALYZE; bytes, with indexes. With
--   :with_shards both include the shards of Citus whose nodes answer. No row if the schema does not exist.
-- Locks: none.
-- Index: the catalog.
-- Notes: with :with_shards it can be prepared only if the database has Citus. It sends a
--   command to each shard.
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
  LEFT JOIN LATERAL (
    SELECT sum(split_part(r.result, ' ', 1)::float) AS rows,
           sum(split_part(r.result, ' ', 2)::bigint) AS bytes
      FROM pg_catalog.pg_dist_partition AS p
     CROSS JOIN run_command_on_shards(p.logicalrelid, $command$
                    SELECT concat(greatest(t.reltuples, 0), ' ', pg_total_relation_size(t.oid))
                      FROM pg_catalog.pg_class AS t
                     WHERE t.oid = '%s'::regclass
                $command$) AS r
     WHERE p.logicalrelid = c.oid
       AND r.success
  ) AS s ON true
  --? }
 WHERE n.nspname = 'asyncsvc'
   AND c.relkind = 'r'
 ORDER BY c.relname
