-- Set columns of tokens, each by its own patch, and record the patches in the audit.
--
-- Returns: the updated tokens, in no order. An id that does not exist has no row.
-- Locks: the token rows in the order of their ids, until the end of the transaction. The order prevents
--   deadlocks between 2 such calls.
-- Index: the primary key, once per id.
-- Notes: :patches is a JSON object from id to the columns to set. JSON null sets a column to NULL; a
--   column without a key keeps its value. Other statements write the hash, the revocation and
--   last_used_at.
WITH locked AS MATERIALIZED (
    SELECT t.id, requested.patch
      FROM (SELECT p.id, p.patch
              FROM jsonb_each(:patches::text::jsonb) AS p (id, patch)
             ORDER BY p.id COLLATE "C") AS requested
     CROSS JOIN LATERAL (
            SELECT t.id
              FROM asyncsvc.api_token AS t
             WHERE t.tenant_id = :tenant_id
               AND t.id BETWEEN requested.id AND requested.id
             ORDER BY t.id
             LIMIT 1
               FOR NO KEY UPDATE
           ) AS t
), updated AS (
    UPDATE asyncsvc.api_token AS t
       SET name = CASE WHEN l.patch ? 'name' THEN l.patch ->> 'name' ELSE t.name END,
           scopes = CASE WHEN l.patch ? 'scopes'
                         THEN ARRAY(SELECT jsonb_array_elements_text(l.patch -> 'scopes'))
                         ELSE t.scopes END,
           dialog_id = CASE WHEN l.patch ? 'dialog_id' THEN l.patch ->> 'dialog_id'
                            ELSE t.dialog_id END,
           source = CASE WHEN l.patch ? 'source' THEN l.patch ->> 'source' ELSE t.source END,
           metadata = CASE WHEN l.patch ? 'metadata' THEN l.patch -> 'metadata' ELSE t.metadata END,
           expires_at = CASE WHEN l.patch ? 'expires_at' THEN (l.patch ->> 'expires_at')::timestamptz
                             ELSE t.expires_at END
      FROM locked AS l
     WHERE t.tenant_id = :tenant_id
       AND t.id = l.id
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
              t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version, l.patch
), audit_rows AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'update', :actor, statement_timestamp(), t.patch
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
