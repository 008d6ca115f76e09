-- What was done to a tenant's tokens, newest first, :limit at most from the cursor on.
--
-- Read replica: as conversation/get_list.
--
-- Locks: none. Index: the primary key, or token_audit_token_idx for one token, walked backwards.
SELECT a.id, a.tenant_id, a.token_id, a.action, a.actor, a.at, a.detail::text AS detail
  FROM asyncsvc.token_audit AS a
 WHERE a.tenant_id = :tenant_id
   AND a.token_id = :token_id                   --? token_id
   AND (a.at, a.id) < (:after_at, :after_id)    --? after_at, after_id
 ORDER BY a.at DESC, a.id DESC
 LIMIT :limit
