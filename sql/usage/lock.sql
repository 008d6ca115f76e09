-- Lock a tenant's usage against roll-ups and recounts until the end of the transaction.
--
-- Returns: users_since, the first month of which the sums name the persons; no row if no buckets are stored
--   for the tenant.
-- Locks: the tenant's UTC row of usage_zone, until the end of the transaction; it waits for a
--   roll-up or recount that holds it. With skip_locked it returns no row instead.
-- Index: the primary key.
-- Timeout: none. The recount that holds the row may read all conversations of the tenant.
SELECT z.users_since
  FROM asyncsvc.usage_zone AS z
 WHERE z.tenant_id = :tenant_id
   AND z.zone = 'UTC'
   FOR UPDATE
   SKIP LOCKED                                  --? skip_locked
