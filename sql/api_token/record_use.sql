-- Set last_used_at of a valid token, and rehash its secret if the hash has an older pepper.
--
-- Returns: id. No row if the token is not valid, neither write is due, or its row is locked.
-- Locks: the token row, until the end of the transaction. SKIP LOCKED: a statement that cannot take
--   the lock writes nothing. FOR UPDATE is the strongest lock that the UPDATE may need, so the
--   UPDATE does not wait either.
-- Index: the primary key. The write of last_used_at is a HOT update.
-- Idempotent: a second execution has the same effect as one.
-- Notes: separate from verify, because few verifications write, and a statement that may write
--   costs more at each call: on Citus, where each node has all tokens, 40 times as much.
WITH locked AS (
    SELECT t.id
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
       AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
       AND (t.pepper_version < :pepper_version
            --? last_used_resolution {
            OR coalesce(t.last_used_at, '-infinity')
               <= statement_timestamp() - :last_used_resolution::interval
            --? }
           )
       FOR UPDATE SKIP LOCKED
)
UPDATE asyncsvc.api_token AS t
   SET pepper_version = greatest(t.pepper_version, :pepper_version),
       token_hash = CASE WHEN t.pepper_version < :pepper_version THEN :token_hash ELSE t.token_hash END
       , last_used_at = statement_timestamp()    --? last_used_resolution
  FROM locked AS l
 WHERE t.tenant_id = :tenant_id
   AND t.id = l.id
RETURNING t.id
