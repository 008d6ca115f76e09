-- Stores a new token by the hash of its secret and returns it as stored.
--
-- Locks: the new row. Index: the unique index on token_hash refuses a secret that exists.
WITH created AS (
    INSERT INTO asyncsvc.api_token AS t (
           id, tenant_id, name, token_hash, hint, kind, scopes, dialog_id, source, created_at,
           expires_at)
    VALUES (:id, :tenant_id, :name, :token_hash, :hint, :kind, :scopes, :dialog_id, :source,
           statement_timestamp(), :expires_at)
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.created_at, t.expires_at, t.revoked_at, t.last_used_at
)
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source, t.created_at,
       t.expires_at, t.revoked_at, t.last_used_at,
       CASE WHEN t.expires_at <= statement_timestamp() THEN 'expired' ELSE 'active' END AS status
  FROM created AS t
