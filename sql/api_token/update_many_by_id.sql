-- Set columns of tokens, each by its own patch, and record the patches in the audit.
--
-- Returns: the updated tokens, in no order. An id that does not exist has no row.
-- Locks: the token rows in the order of their ids, until the end of the transaction. The order prevents
--   deadlocks between 2 such calls.
-- Index: the primary key, once per id. See docs/project/sql-files.md, Lookups by key.
-- Notes: :patches is a JSON object from id to the columns to set. JSON null sets a column to NULL; a
--   column without a key keeps its value. Other statements write the hash, the revocation and
--   last_used_at.
WITH requested AS MATERIALIZED (
    SELECT p.id, p.patch, ARRAY(SELECT jsonb_array_elements_text(p.patch -> 'scopes')) AS scopes,
           (p.patch ->> 'expires_at')::timestamptz AS expires_at
      FROM jsonb_each(:patches::text::jsonb) AS p (id, patch)
), locked AS MATERIALIZED (
    SELECT t.id
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = ANY (ARRAY(SELECT r.id FROM requested AS r))
     ORDER BY t.id
       FOR NO KEY UPDATE
), updated AS (
    UPDATE asyncsvc.api_token AS t
       SET name = CASE WHEN r.patch ? 'name' THEN r.patch ->> 'name' ELSE t.name END,
           scopes = CASE WHEN r.patch ? 'scopes' THEN r.scopes ELSE t.scopes END,
           dialog_id = CASE WHEN r.patch ? 'dialog_id' THEN r.patch ->> 'dialog_id'
                            ELSE t.dialog_id END,
           source = CASE WHEN r.patch ? 'source' THEN r.patch ->> 'source' ELSE t.source END,
           metadata = CASE WHEN r.patch ? 'metadata' THEN r.patch -> 'metadata' ELSE t.metadata END,
           expires_at = CASE WHEN r.patch ? 'expires_at' THEN r.expires_at ELSE t.expires_at END
      FROM requested AS r
     WHERE t.tenant_id = :tenant_id
       AND t.id = ANY (ARRAY(SELECT l.id FROM locked AS l))
       AND t.id = r.id
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
              t.revoked_reason, t.last_used_at, t.rotated_from, t.family_id, t.pepper_version, r.patch
), audit_rows AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'update', :actor, statement_timestamp(), t.patch
      FROM updated AS t
)
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.family_id, t.pepper_version,
       CASE WHEN t.revoked_at <= statement_timestamp() THEN 'revoked'
            WHEN t.expires_at <= statement_timestamp() THEN 'expired'
            WHEN t.revoked_at IS NOT NULL THEN 'retiring'
            ELSE 'active' END AS status
  FROM updated AS t
