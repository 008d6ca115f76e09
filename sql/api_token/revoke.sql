-- Revokes a token from this instant on, notes that in the audit, and returns the token. Nothing
-- when the tenant has none of this id, or it is revoked already; one that is retiring ends now.
--
-- Locks: the token's row. Index: the primary key.
WITH revoked AS (
    UPDATE asyncsvc.api_token AS t
       SET revoked_at = statement_timestamp(),
           revoked_reason = :reason
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
              t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version
), audited AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'revoke', :actor, t.revoked_at,
           jsonb_build_object('reason', t.revoked_reason)
      FROM revoked AS t
)
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version,
       'revoked' AS status
  FROM revoked AS t
