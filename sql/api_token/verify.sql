-- The token of this hash, whether it is good now, by the server's clock, and whether its use is to be
-- noted by api_token/touch (is_due): when that was not done within the last :last_used_resolution, which NULL
-- leaves out, or when the token is hashed by an older pepper than :pepper_version. Where there are
-- older peppers, the token may have one of the other hashes. The tenant is what this statement finds,
-- so it is no condition. Not an array of hashes: for its unknown length the server would plan the
-- statement anew each time.
--
-- statement_timestamp() and not now(): inside a long transaction of the caller's a token still
-- expires. The instant of expiry is already expired.
--
-- Locks: none. Index: the unique index on token_hash.
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version,
       CASE WHEN t.revoked_at <= statement_timestamp() THEN 'revoked'
            WHEN t.expires_at <= statement_timestamp() THEN 'expired'
            WHEN t.revoked_at IS NOT NULL THEN 'retiring'
            ELSE 'active' END AS status,
       t.pepper_version < :pepper_version
       OR coalesce(coalesce(t.last_used_at, '-infinity')
                   <= statement_timestamp() - :last_used_resolution::interval, false) AS is_due
  FROM asyncsvc.api_token AS t
 WHERE (t.token_hash = :token_hash
        OR t.token_hash IN (:second_hash, :third_hash, :fourth_hash) --? second_hash, third_hash, fourth_hash
       )
   AND t.kind = :kind                           --? kind
