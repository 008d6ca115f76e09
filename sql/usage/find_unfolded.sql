-- The tenants that have something in the usage ledger, in order, :limit at most, behind one of them;
-- for each, whether buckets in UTC are kept for it, and how many creations and deletions the ledger
-- has. It reads only, and of all tenants; usage/fold folds one.
--
-- Locks: none. Index: usage_ledger_tenant_idx, the rows of these tenants.
SELECT u.tenant_id,
       EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                WHERE z.tenant_id = u.tenant_id
                  AND z.zone = 'UTC') AS is_declared,
       count(*) FILTER (WHERE u.pv <> 0) AS creations
  FROM asyncsvc.usage_ledger AS u
 WHERE true
   AND u.tenant_id > :after_tenant_id           --? after_tenant_id
 GROUP BY u.tenant_id
 ORDER BY u.tenant_id
 LIMIT :limit
