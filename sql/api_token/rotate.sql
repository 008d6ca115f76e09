-- Gives a token a successor, which has a secret of its own and all else alike, and retires the
-- token: it ends :overlap from now, or when it expires, whichever is first. Both are noted in the
-- audit. It returns the successor; nothing when the tenant has no token of this id, or the token is
-- not active: expired, revoked, or rotated before.
--
-- Locks: the token's row. Of two that rotate at once, the second waits, finds revoked_at set, and
-- gets nothing; so there is one successor at most. Index: the primary key.
WITH retired AS (
    UPDATE asyncsvc.api_token AS t
       SET revoked_at = statement_timestamp() + :overlap::interval,
           revoked_reason = 'rotated'
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
       AND t.revoked_at IS NULL
       AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
    RETURNING t.id, t.tenant_id, t.name, t.kind, t.scopes, t.dialog_id, t.source, t.metadata,
              t.expires_at, t.revoked_at
), created AS (
    INSERT INTO asyncsvc.api_token AS t (
           id, tenant_id, name, token_hash, pepper_version, hint, kind, scopes, dialog_id, source,
           metadata, created_at, created_by, expires_at, rotated_from)
    SELECT :successor_id, r.tenant_id, r.name, :token_hash, :pepper_version, :hint, r.kind, r.scopes,
           r.dialog_id, r.source, r.metadata, statement_timestamp(), :actor,
           CASE WHEN :keep_expiry::bool THEN r.expires_at ELSE :expires_at::timestamptz END, r.id
      FROM retired AS r
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
              t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version
), audited AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT r.tenant_id, r.id, 'rotate', :actor, statement_timestamp(),
           jsonb_build_object('successor', :successor_id::text, 'ends_at', r.revoked_at)
      FROM retired AS r
     UNION ALL
    SELECT t.tenant_id, t.id, 'create', t.created_by, t.created_at,
           jsonb_build_object('name', t.name, 'kind', t.kind, 'scopes', t.scopes,
                              'expires_at', t.expires_at, 'rotated_from', t.rotated_from)
      FROM created AS t
)
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version,
       CASE WHEN t.expires_at <= statement_timestamp() THEN 'expired' ELSE 'active' END AS status
  FROM created AS t
