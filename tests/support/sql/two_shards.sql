-- Stand-ins for 2 shards of asyncsvc.message, on a server without Citus: views over tenants before and from
-- 'b'. They need citus_stubs.sql.
SET allow_system_table_mods = on;
INSERT INTO pg_catalog.pg_dist_shard
VALUES ('asyncsvc.message', 1, '-7', '', 'b'), ('asyncsvc.message', 2, '7', 'b', '~');
RESET allow_system_table_mods;
CREATE OR REPLACE FUNCTION asyncsvc.lock_shard_v1(tenant_id text) RETURNS bigint LANGUAGE sql AS $$
    SELECT s.shardid FROM pg_catalog.pg_dist_shard AS s
     WHERE $1 COLLATE "C" >= s.first_tenant AND $1 COLLATE "C" < s.next_tenant
$$;
CREATE OR REPLACE FUNCTION asyncsvc.on_shards_v1(statement text, shard bigint) RETURNS text
    LANGUAGE plpgsql AS $body$
BEGIN
    EXECUTE (SELECT format('CREATE OR REPLACE VIEW asyncsvc.message_%s AS SELECT * FROM asyncsvc.message AS m'
                           ' WHERE m.tenant_id >= %L AND m.tenant_id < %L',
                           s.shardid, s.first_tenant, s.next_tenant)
               FROM pg_catalog.pg_dist_shard AS s
              WHERE s.shardid = shard);
    RETURN replace(statement, 'asyncsvc.message', format('asyncsvc.message_%s', shard));
END
$body$;
