-- Revokes a token from this instant on and returns it; nothing when the tenant has none of this
-- id. A token that is revoked already keeps the instant of the first time.
--
-- Locks: the token's row. Index: the primary key.
WITH revoked AS (
    UPDATE asyncsvc.api_token AS t
       SET revoked_at = least(t.revoked_at, statement_timestamp())
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.created_at, t.expires_at, t.revoked_at, t.last_used_at
)
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source, t.created_at,
       t.expires_at, t.revoked_at, t.last_used_at, 'revoked' AS status
  FROM revoked AS t
