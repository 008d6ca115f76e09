-- List the shards of a distributed table, each with one of its tenants.
--
-- Returns: bound (the lowest hash of the shard), is_reached, tenant_id, in the order of the bounds. The
--   tenant_id of a shard without rows is empty, and that of a shard whose node is down is an error. No row
--   if the table is not distributed.
-- Locks: none.
-- Index: the index on tenant_id of each shard, 1 entry.
-- Notes: it can be prepared only if the database has Citus. A rebalancer may move a shard meanwhile: the
--   tenant leads to its new node. All tables with a tenant have shards of the same bounds.
SELECT s.shardminvalue::int AS bound, r.success AS is_reached, r.result AS tenant_id
  FROM pg_catalog.pg_dist_partition AS p
 CROSS JOIN run_command_on_shards(
           p.logicalrelid, 'SELECT t.tenant_id FROM %s AS t ORDER BY t.tenant_id LIMIT 1') AS r
  JOIN pg_catalog.pg_dist_shard AS s ON s.shardid = r.shardid
 WHERE p.logicalrelid = ('asyncsvc.' || :name)::regclass
   AND p.partmethod = 'h'
 ORDER BY bound
