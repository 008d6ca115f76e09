-- The oldest idempotency keys of all tenants that were claimed longer than :lifetime ago, :limit at
-- most, behind the one that is named by its time and itself. It reads only, and of all tenants;
-- append_key/delete_old deletes what it found, tenant by tenant.
--
-- Locks: none. Index: append_key_created_idx, walked from its beginning or from the last one on.
SELECT k.tenant_id, k.conversation_id, k.key, k.created_at
  FROM asyncsvc.append_key AS k
 WHERE k.created_at <= statement_timestamp() - :lifetime::interval
   AND (k.created_at, k.tenant_id, k.conversation_id, k.key) > (:after_at, :after_tenant_id, :after_conversation_id, :after_key) --? after_at, after_tenant_id, after_conversation_id, after_key
 ORDER BY k.created_at, k.tenant_id, k.conversation_id, k.key
 LIMIT :limit
