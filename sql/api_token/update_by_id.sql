-- Set columns of a token and record the patch in the audit.
--
-- Returns: the token after the update. No row if the tenant has no token with this id.
-- Locks: the token row, until the end of the transaction.
-- Index: the primary key.
-- Notes: :patch is a JSON object of columns. A missing key leaves the column unchanged, null sets
--   NULL. Other statements write the hash, the revocation and the time of last use.
WITH updated AS (
    UPDATE asyncsvc.api_token AS t
       SET name = CASE WHEN p.patch ? 'name' THEN p.patch ->> 'name' ELSE t.name END,
           scopes = CASE WHEN p.patch ? 'scopes'
                         THEN ARRAY(SELECT jsonb_array_elements_text(p.patch -> 'scopes'))
                         ELSE t.scopes END,
           dialog_id = CASE WHEN p.patch ? 'dialog_id' THEN p.patch ->> 'dialog_id'
                            ELSE t.dialog_id END,
           source = CASE WHEN p.patch ? 'source' THEN p.patch ->> 'source' ELSE t.source END,
           metadata = CASE WHEN p.patch ? 'metadata' THEN p.patch -> 'metadata' ELSE t.metadata END,
           expires_at = CASE WHEN p.patch ? 'expires_at' THEN (p.patch ->> 'expires_at')::timestamptz
                             ELSE t.expires_at END
      FROM (SELECT :patch::text::jsonb AS patch) AS p
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
              t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version
), audit_rows AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'update', :actor, statement_timestamp(), :patch::text::jsonb
      FROM updated AS t
)
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version,
       CASE WHEN t.revoked_at <= statement_timestamp() THEN 'revoked'
            WHEN t.expires_at <= statement_timestamp() THEN 'expired'
            WHEN t.revoked_at IS NOT NULL THEN 'retiring'
            ELSE 'active' END AS status
  FROM updated AS t
