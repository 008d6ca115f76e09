-- Return the next tenants, in the order of ids, that have rows in the usage ledger; or the tenant
-- :tenant_id, if it has some.
--
-- Returns: tenant_id; has_utc_zone, whether buckets in UTC are stored for the tenant; has_budgets;
--   creations, the number of its ledger rows that create or delete conversations; conversations, the
--   number of its conversations; at most :limit rows.
-- Locks: none.
-- Index: usage_ledger_tenant_idx, the rows of these tenants; the primary key of usage_zone and
--   usage_bucket_key.
-- Timeout: none. The number of ledger rows has no bound.
-- Notes: it reads all tenants; usage/roll_up rolls up one.
SELECT u.tenant_id,
       EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                WHERE z.tenant_id = u.tenant_id
                  AND z.zone = 'UTC') AS has_utc_zone,
       EXISTS (SELECT FROM asyncsvc.budget AS b
                WHERE b.tenant_id = u.tenant_id) AS has_budgets,
       count(*) FILTER (WHERE u.conversations <> 0) AS creations,
       (sum(u.conversations) + (SELECT coalesce(sum(b.conversations), 0)
                       FROM asyncsvc.usage_bucket AS b
                      WHERE b.tenant_id = u.tenant_id
                        AND b.zone = 'UTC'
                        AND b.basis = 'creation'
                        AND b.grain = 'month'
                        AND b.dimension = 'all'))::bigint AS conversations
  FROM asyncsvc.usage_ledger AS u
 WHERE true
   AND u.tenant_id = :tenant_id                 --? tenant_id
   AND u.tenant_id > :after_tenant_id           --? after_tenant_id
 GROUP BY u.tenant_id
 ORDER BY u.tenant_id
 LIMIT :limit
