-- The lower bound of a verification: the token's row by its hash.
SELECT id, tenant_id, name, hint, kind, scopes, dialog_id, source, metadata::text, created_at,
       created_by, expires_at, revoked_at, revoked_reason, last_used_at, rotated_from,
       family_id, pepper_version
  FROM asyncsvc.api_token
 WHERE token_hash = $1
