-- One token of the tenant; nothing when the tenant has none of this id.
--
-- Locks: none. Index: the primary key.
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source, t.created_at,
       t.expires_at, t.revoked_at, t.last_used_at,
       CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked'
            WHEN t.expires_at <= statement_timestamp() THEN 'expired'
            ELSE 'active' END AS status
  FROM asyncsvc.api_token AS t
 WHERE t.tenant_id = :tenant_id
   AND t.id = :id
