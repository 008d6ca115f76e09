-- Waits until nobody folds this tenant's usage, and keeps it so to the end of the transaction. It
-- returns the tenant, or nothing where no buckets are kept.
--
-- Timeout: none. a recount may take long.
--
-- Locks: the tenant's row of UTC in usage_zone. Index: the primary key.
SELECT z.tenant_id
  FROM asyncsvc.usage_zone AS z
 WHERE z.tenant_id = :tenant_id
   AND z.zone = 'UTC'
   FOR UPDATE
