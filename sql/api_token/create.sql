-- Store a new token under the hash of its secret and record the creation in the audit.
--
-- Returns: the token.
-- Locks: the new rows, until the end of the transaction.
-- Index: the primary key of api_token_hash rejects a secret that is stored already.
-- Notes: with :hashes_apart api_token/add_hashes stores the hash.
WITH created AS (
    INSERT INTO asyncsvc.api_token AS t (
           id, tenant_id, name, token_hash, pepper_version, hint, kind, scopes, dialog_id, source,
           metadata, created_at, created_by, family_id, expires_at)
    VALUES (:id, :tenant_id, :name, :token_hash, :pepper_version, :hint, :kind, :scopes, :dialog_id,
           :source, :metadata::text::jsonb, statement_timestamp(), :actor, :id, :expires_at)
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
              t.revoked_reason, t.last_used_at, t.rotated_from, t.family_id, t.pepper_version,
              CASE WHEN t.expires_at <= t.created_at THEN 'expired' ELSE 'active' END AS status
), audit_rows AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'create', t.created_by, t.created_at,
           jsonb_build_object('name', t.name, 'kind', t.kind, 'scopes', t.scopes,
                              'expires_at', t.expires_at)
      FROM created AS t
--? !hashes_apart {
), hash_row AS (
    INSERT INTO asyncsvc.api_token_hash (token_hash, tenant_id, token_id)
    VALUES (:token_hash, :tenant_id, :id)
--? }
)
TABLE created
