-- Return the hash of the usage that was recorded under an idempotency key.
--
-- Returns: body_hash. No row if the key was not used.
-- Locks: none.
-- Index: usage_key_pkey.
SELECT k.body_hash
  FROM asyncsvc.usage_key AS k
 WHERE k.tenant_id = :tenant_id
   AND k.key = :key
