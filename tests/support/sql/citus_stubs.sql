-- Stand-ins for the catalog and the functions of Citus that sql/server/ reads, on a server without it.
-- Tests of the doctor fill them. They are in the catalog, as those of Citus.
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (
    logicalrelid regclass, partmethod "char", partkey text, colocationid int
);
CREATE TABLE pg_catalog.pg_dist_node (
    nodeid serial, groupid int, nodename text, nodeport int, isactive bool, noderole text DEFAULT 'primary'
);
CREATE FUNCTION pg_catalog.citus_version() RETURNS text LANGUAGE sql AS $$SELECT 'Citus 13.2.2 on x'$$;
CREATE FUNCTION pg_catalog.column_to_column_name(regclass, text) RETURNS text LANGUAGE sql AS 'SELECT $2';
CREATE FUNCTION pg_catalog.run_command_on_workers(
    command text, OUT nodename text, OUT nodeport int, OUT success bool, OUT result text
) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT n.nodename, n.nodeport, n.nodeport < 6000,
           CASE WHEN n.nodeport < 6000
                THEN '{"extension": "13.2", "library": "13.2", "lock_timeout": "10000"}'
                ELSE 'failed to connect'
           END
      FROM pg_catalog.pg_dist_node AS n
     WHERE n.isactive AND n.groupid <> 0
$$;
INSERT INTO pg_catalog.pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
VALUES (99999, 'citus', 10, 11, false, '13.2-1');
INSERT INTO pg_catalog.pg_dist_partition
SELECT c.oid, 'h', 'tenant_id', 1
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
 WHERE c.relnamespace = to_regnamespace('asyncsvc')
   AND c.relkind = 'r'
   AND c.relname <> 'api_token_hash';
INSERT INTO pg_catalog.pg_dist_node (groupid, nodename, nodeport, isactive)
VALUES (0, 'coordinator', 5432, true), (1, 'one', 5432, true), (2, 'two', 5432, true);
RESET allow_system_table_mods;
