-- Create the successor of an active token, retire the token, and record both in the audit.
--
-- Returns: the successor, equal to the token except for secret and :expires_at. No row if the
--   tenant has no token with this id, or the token is expired, revoked or already rotated.
-- Locks: the token row, until the end of the transaction. Of two concurrent rotations the second
--   waits, then finds revoked_at set and returns no row, so a token has at most one successor.
-- Index: the primary key.
-- Notes: the token stays valid for :overlap, but not beyond its own expires_at.
--   With :hashes_apart api_token/add_hashes stores the hash of the successor.
WITH retired AS (
    UPDATE asyncsvc.api_token AS t
       SET revoked_at = statement_timestamp() + :overlap::interval,
           revoked_reason = 'rotated'
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
       AND t.revoked_at IS NULL
       AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
    RETURNING t.id, t.tenant_id, t.name, t.kind, t.scopes, t.dialog_id, t.source, t.metadata,
              t.family_id, t.expires_at, t.revoked_at
), created AS (
    INSERT INTO asyncsvc.api_token AS t (
           id, tenant_id, name, token_hash, pepper_version, hint, kind, scopes, dialog_id, source,
           metadata, created_at, created_by, rotated_from, family_id, expires_at)
    SELECT :successor_id, r.tenant_id, r.name, :token_hash, :pepper_version, :hint, r.kind, r.scopes,
           r.dialog_id, r.source, r.metadata, statement_timestamp(), :actor, r.id, r.family_id
           , r.expires_at                --? !expires_at
           , :expires_at::timestamptz    --? expires_at
      FROM retired AS r
    RETURNING t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
              t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
              t.revoked_reason, t.last_used_at, t.rotated_from, t.family_id, t.pepper_version,
              CASE WHEN t.expires_at <= t.created_at THEN 'expired' ELSE 'active' END AS status
--? !hashes_apart {
), hash_row AS (
    INSERT INTO asyncsvc.api_token_hash (token_hash, tenant_id, token_id)
    SELECT :token_hash, r.tenant_id, :successor_id
      FROM retired AS r
--? }
), audit_rows AS (
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
TABLE created
