-- Stores a new token by the hash of its secret, notes that in the audit, and returns the token.
--
-- Locks: the new rows. Index: the unique index on token_hash refuses a secret that exists.
WITH created AS (
    INSERT INTO asyncsvc.api_token AS t (
           id, tenant_id, name, token_hash, pepper_version, hint, kind, scopes, dialog_id, source,
           metadata, created_at, created_by, expires_at)
    VALUES (:id, :tenant_id, :name, :token_hash, :pepper_version, :hint, :kind, :scopes, :dialog_id,
           :source, :metadata::text::jsonb, statement_timestamp(), :actor, :expires_at)
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
              t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version
), audited AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'create', t.created_by, t.created_at,
           jsonb_build_object('name', t.name, 'kind', t.kind, 'scopes', t.scopes,
                              'expires_at', t.expires_at)
      FROM created AS t
)
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version,
       CASE WHEN t.expires_at <= statement_timestamp() THEN 'expired' ELSE 'active' END AS status
  FROM created AS t
