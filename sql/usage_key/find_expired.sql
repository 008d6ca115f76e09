-- Return the oldest idempotency keys of recorded usage of all tenants that are older than :lifetime.
--
-- Returns: tenant_id, key, created_at, oldest first, at most :limit rows.
-- Locks: none.
-- Index: usage_key_created_idx, from its start or from the position after the previous batch.
-- Notes: it reads all tenants; usage_key/delete_expired deletes the keys, one tenant per call.
SELECT k.tenant_id, k.key, k.created_at
  FROM asyncsvc.usage_key AS k
 WHERE k.created_at <= statement_timestamp() - :lifetime::interval
   --? after_at, after_tenant_id, after_key {
   AND (k.created_at, k.tenant_id, k.key) > (:after_at, :after_tenant_id, :after_key)
   --? }
 ORDER BY k.created_at, k.tenant_id, k.key
 LIMIT :limit
