-- Stand-ins for the catalog and the functions of Citus that sql/ reads, on a server without it. They are in
-- the catalog, as those of Citus.
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (
    logicalrelid regclass, partmethod "char", partkey text, colocationid int
);
CREATE TABLE pg_catalog.pg_dist_node (
    nodeid serial, groupid int, nodename text, nodeport int, isactive bool, noderole text DEFAULT 'primary'
);
CREATE TABLE pg_catalog.pg_dist_object (classid regclass, objid oid, distribution_argument_index int);
CREATE TABLE pg_catalog.pg_dist_shard (
    logicalrelid regclass, shardid bigint, shardminvalue text, first_tenant text, next_tenant text
);
CREATE FUNCTION pg_catalog.citus_version() RETURNS text LANGUAGE sql AS $$SELECT 'Citus 13.2.2 on x'$$;
CREATE FUNCTION pg_catalog.relation_is_a_known_shard(relation regclass) RETURNS bool LANGUAGE sql
    AS $$SELECT relation::text ~ '_\d{6}$'$$;
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
CREATE FUNCTION pg_catalog.run_command_on_all_nodes(
    command text, OUT nodeid int, OUT success bool, OUT result text
) RETURNS SETOF record LANGUAGE sql AS $$SELECT 1, false, 'failed to connect' $$;
CREATE FUNCTION pg_catalog.run_command_on_shards(
    table_name regclass, command text, OUT shardid bigint, OUT success bool, OUT result text
) RETURNS SETOF record LANGUAGE plpgsql AS $body$
BEGIN
    FOR shardid, success IN
        SELECT s.shardid, true FROM pg_catalog.pg_dist_shard AS s
    LOOP
        EXECUTE format(command, (
            SELECT format('(SELECT * FROM %s AS m WHERE m.tenant_id >= %L AND m.tenant_id < %L)',
                          table_name, s.first_tenant, s.next_tenant)
              FROM pg_catalog.pg_dist_shard AS s
             WHERE s.shardid = run_command_on_shards.shardid)) INTO result;
        result := coalesce(result, '');
        RETURN NEXT;
    END LOOP;
END
$body$;
INSERT INTO pg_catalog.pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
VALUES (99999, 'citus', 10, 11, false, '13.2-1');
INSERT INTO pg_catalog.pg_dist_partition
SELECT c.oid, 'h', 'tenant_id', 1
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
 WHERE c.relnamespace = to_regnamespace('asyncsvc')
   AND c.relkind = 'r'
   AND c.relname <> 'api_token_hash';
INSERT INTO pg_catalog.pg_dist_object
VALUES ('pg_catalog.pg_proc'::regclass, to_regproc('asyncsvc.run_on_node_v1'), 0);
INSERT INTO pg_catalog.pg_dist_node (groupid, nodename, nodeport, isactive)
VALUES (0, 'coordinator', 5432, true), (1, 'one', 5432, true), (2, 'two', 5432, true);
RESET allow_system_table_mods;
