-- The lower bound of a verification: the token's row by its hash.
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source, t.metadata::text,
       t.created_at, t.created_by, t.expires_at, t.revoked_at, t.revoked_reason, t.last_used_at,
       t.rotated_from, t.family_id, t.pepper_version
  FROM asyncsvc.api_token_hash AS h
  JOIN asyncsvc.api_token AS t ON t.tenant_id = h.tenant_id AND t.id = h.token_id
 WHERE h.token_hash = $1
