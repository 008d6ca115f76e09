-- Read one page of the audit of a tenant's tokens, newest first.
--
-- Returns: at most :limit events after the position (:after_at, :after_id).
-- Locks: none.
-- Index: the primary key, or token_audit_token_idx with :token_id; backwards from the position.
-- Read replica: a list may be slightly stale.
SELECT a.id, a.tenant_id, a.token_id, a.action, a.actor, a.at, a.detail::text AS detail
  FROM asyncsvc.token_audit AS a
 WHERE a.tenant_id = :tenant_id
   AND a.token_id = :token_id                   --? token_id
   AND (a.at, a.id) < (:after_at, :after_id)    --? after_at, after_id
 ORDER BY a.at DESC, a.id DESC
 LIMIT :limit
