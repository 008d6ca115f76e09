-- As api_token/verify, and writes nothing: for a replica, or where no use is to be recorded. The
-- tenant is what this statement finds, so it is no condition.
--
-- Locks: none. Index: the unique index on token_hash.
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.pepper_version,
       CASE WHEN t.revoked_at <= statement_timestamp() THEN 'revoked'
            WHEN t.expires_at <= statement_timestamp() THEN 'expired'
            WHEN t.revoked_at IS NOT NULL THEN 'retiring'
            ELSE 'active' END AS status
  FROM asyncsvc.api_token AS t
 WHERE (t.token_hash = :token_hash
        OR t.token_hash IN (:second_hash, :third_hash, :fourth_hash) --? second_hash, third_hash, fourth_hash
       )
   AND t.kind = :kind                           --? kind
