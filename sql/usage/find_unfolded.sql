-- The tenants that have something in the usage ledger, in order, :limit at most, behind one of them;
-- for each, whether buckets in UTC are kept for it, and how many creations and deletions the ledger
-- has, counted to :most. It reads only, and of all tenants; usage/fold folds one.
--
-- Locks: none. Index: usage_ledger_tenant_idx, from one tenant to the next.
WITH RECURSIVE tenant AS (
    (SELECT u.tenant_id
       FROM asyncsvc.usage_ledger AS u
      WHERE true
        AND u.tenant_id > :after_tenant_id      --? after_tenant_id
      ORDER BY u.tenant_id
      LIMIT 1)
     UNION ALL
    SELECT n.tenant_id
      FROM tenant AS t
     CROSS JOIN LATERAL (
           SELECT u.tenant_id
             FROM asyncsvc.usage_ledger AS u
            WHERE u.tenant_id > t.tenant_id
            ORDER BY u.tenant_id
            LIMIT 1
           ) AS n
)
SELECT t.tenant_id,
       EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                WHERE z.tenant_id = t.tenant_id
                  AND z.zone = 'UTC') AS is_declared,
       (SELECT count(*)
          FROM (SELECT
                  FROM asyncsvc.usage_ledger AS u
                 WHERE u.tenant_id = t.tenant_id
                   AND u.pv <> 0
                 LIMIT :most) AS u) AS creations
  FROM tenant AS t
 LIMIT :limit
