-- Return the version of Citus, and how it distributes the tables of the schema.
--
-- Returns: extension and library, the versions that the database and the loaded library have; has_jit,
--   whether this session compiles plans; turn_jit_off, the command that turns it off for this role;
--   distributed, the distributed tables; misplaced, the tables with a tenant_id that are not distributed by
--   it together with asyncsvc.conversation, and run_on_node_v1 unless Citus calls it on the node of its
--   tenant_id.
-- Locks: none.
-- Index: the catalog.
-- Notes: it can be prepared only if the database has the extension. A coordinator without workers has the
--   shards, which are tables too.
WITH tables AS (
    SELECT c.relname::text AS name,
           coalesce(p.partmethod = 'h', false) AS is_distributed,
           CASE WHEN p.partmethod = 'h'
                THEN column_to_column_name(p.logicalrelid, p.partkey) = 'tenant_id'
                     AND p.colocationid = (SELECT f.colocationid
                                             FROM pg_catalog.pg_dist_partition AS f
                                            WHERE f.logicalrelid = to_regclass('asyncsvc.conversation'))
                ELSE false
           END AS is_placed
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
      LEFT JOIN pg_catalog.pg_dist_partition AS p ON p.logicalrelid = c.oid
     WHERE n.nspname = 'asyncsvc'
       AND c.relkind IN ('r', 'p')
       AND c.relname <> 'api_token_hash'
       AND NOT relation_is_a_known_shard(c.oid)
)
SELECT split_part(e.extversion, '-', 1) AS extension,
       substring(citus_version() FROM '\d+\.\d+') AS library,
       pg_jit_available() AS has_jit,
       format('ALTER ROLE %I SET jit = off', current_user) AS turn_jit_off,
       ARRAY(SELECT t.name FROM tables AS t WHERE t.is_distributed ORDER BY t.name) AS distributed,
       ARRAY(SELECT t.name
               FROM tables AS t
              WHERE NOT t.is_placed
              UNION ALL
             SELECT p.proname::text
               FROM pg_catalog.pg_proc AS p
              WHERE p.pronamespace = to_regnamespace('asyncsvc')
                AND p.proname = 'run_on_node_v1'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_object AS d
                                 WHERE d.classid = 'pg_catalog.pg_proc'::regclass
                                   AND d.objid = p.oid
                                   AND d.distribution_argument_index = 0)
              ORDER BY name) AS misplaced
  FROM pg_catalog.pg_extension AS e
 WHERE e.extname = 'citus'
