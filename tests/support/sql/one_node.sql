-- Let a server without Citus run the statements for one node, on the tables themselves.
CREATE OR REPLACE FUNCTION asyncsvc.lock_shard_v1(tenant_id text) RETURNS bigint
    LANGUAGE sql AS 'SELECT 1::bigint';
CREATE OR REPLACE FUNCTION asyncsvc.on_shards_v1(statement text, shard bigint) RETURNS text
    LANGUAGE sql AS 'SELECT statement';
