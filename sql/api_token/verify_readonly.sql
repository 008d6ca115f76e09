-- As api_token/verify, without the stamp: for a replica, or where no use is to be recorded. The
-- tenant is what this statement finds, so it is no condition.
--
-- Locks: none. Index: the unique index on token_hash.
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source, t.created_at,
       t.expires_at, t.revoked_at, t.last_used_at,
       CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked'
            WHEN t.expires_at <= statement_timestamp() THEN 'expired'
            ELSE 'active' END AS status
  FROM asyncsvc.api_token AS t
 WHERE t.token_hash = :token_hash
   AND t.kind = :kind                           --? kind
