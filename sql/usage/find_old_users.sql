-- Return the next tenants, in the order of ids, whose sums may name persons before the UTC month that
-- :retention ago began.
--
-- Returns: tenant_id; at most :limit rows.
-- Locks: none.
-- Index: usage_zone_users_since_idx, the rows of these tenants.
-- Notes: it reads all tenants; usage/sum_out_users changes one.
SELECT z.tenant_id
  FROM asyncsvc.usage_zone AS z
 WHERE z.zone = 'UTC'
   AND z.users_since < date_trunc('month', (statement_timestamp() - :retention::interval) AT TIME ZONE 'UTC')
   AND z.tenant_id > :after_tenant_id
 ORDER BY z.tenant_id
 LIMIT :limit
