-- Revoke one token with immediate effect and record the revocation in the audit.
--
-- Returns: the token. No row if the tenant has no token with this id, or the token is revoked
--   already, so that the first revocation keeps its time and reason. A retiring token is revoked.
-- Locks: the token row, until the end of the transaction.
-- Index: the primary key.
WITH revoked AS (
    UPDATE asyncsvc.api_token AS t
       SET revoked_at = statement_timestamp(),
           revoked_reason = :reason
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
              t.revoked_reason, t.last_used_at, t.rotated_from, t.family_id, t.pepper_version,
              'revoked' AS status
), audit_rows AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'revoke', :actor, t.revoked_at,
           jsonb_build_object('reason', t.revoked_reason)
      FROM revoked AS t
)
TABLE revoked
