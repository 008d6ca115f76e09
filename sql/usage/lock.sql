-- Lock a tenant's usage against roll-ups and recounts until the end of the transaction.
--
-- Returns: users_since, the first month of which the sums name the persons; no row if no buckets are stored
--   for the tenant.
-- Locks: the tenant's UTC row of usage_zone, until the end of the transaction; it waits for a
--   roll-up or recount that holds it. With skip_locked it returns no row instead.
-- Index: the primary key.
-- Timeout: none. The recount that holds the row may read all conversations of the tenant.
-- Notes: an update that changes no value. A roll-up whose snapshot is older then does nothing, since it
--   would not see a zone or a budget that this transaction adds. With skip_locked the caller adds none.
UPDATE asyncsvc.usage_zone AS z                 --? !skip_locked
   SET zone = z.zone                            --? !skip_locked
SELECT z.users_since                            --? skip_locked
  FROM asyncsvc.usage_zone AS z                 --? skip_locked
 WHERE z.tenant_id = :tenant_id
   AND z.zone = 'UTC'
RETURNING z.users_since                         --? !skip_locked
   FOR UPDATE SKIP LOCKED                       --? skip_locked
