-- Read one page of a tenant's tokens, newest first.
--
-- Returns: at most :limit tokens after the position (:after_at, :after_id).
-- Locks: none.
-- Index: api_token_tenant_idx, backwards from the position.
-- Read replica: a list may be slightly stale. Verification reads the primary.
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.family_id, t.pepper_version,
       CASE WHEN t.revoked_at <= statement_timestamp() THEN 'revoked'
            WHEN t.expires_at <= statement_timestamp() THEN 'expired'
            WHEN t.revoked_at IS NOT NULL THEN 'retiring'
            ELSE 'active' END AS status
  FROM asyncsvc.api_token AS t
 WHERE t.tenant_id = :tenant_id
   AND t.created_at >= '-infinity'
   AND t.kind = :kind                                   --? kind
   AND t.dialog_id = :dialog_id                         --? dialog_id
   AND t.dialog_id IS NULL                              --? dialog_id_is_null
   AND (t.created_at, t.id) < (:after_at, :after_id)    --? after_at, after_id
 ORDER BY t.created_at DESC, t.id DESC
 LIMIT :limit
