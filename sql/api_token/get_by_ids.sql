-- Read tokens of a tenant by id.
--
-- Returns: the tokens that exist, in the order of :ids. A repeated id is returned again.
-- Locks: none.
-- Index: the primary key, once per id.
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.family_id, t.pepper_version,
       CASE WHEN t.revoked_at <= statement_timestamp() THEN 'revoked'
            WHEN t.expires_at <= statement_timestamp() THEN 'expired'
            WHEN t.revoked_at IS NOT NULL THEN 'retiring'
            ELSE 'active' END AS status
  FROM unnest(:ids::text[]) WITH ORDINALITY AS requested (id, position)
  JOIN asyncsvc.api_token AS t ON t.tenant_id = :tenant_id AND t.id = requested.id
 ORDER BY requested.position
