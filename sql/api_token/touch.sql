-- Notes that a token was used, if it is good and that is still due, as api_token/verify says: stamps
-- last_used_at, and hashes the token by the present pepper, :token_hash, where an older one did. It
-- returns the token's id when it did so.
--
-- It is a statement of its own, since few uses are noted: one that may write costs more each time, and
-- on Citus, which has the tokens on each node, forty times as much.
--
-- Idempotent: a second stamp says no more than the first.
--
-- Locks: the token's row, without waiting: where another session holds it, SKIP LOCKED leaves this
-- stamp out. FOR UPDATE is the strongest lock that the write may need, so that it has nothing to wait
-- for either. Index: the primary key; the stamp is a HOT update.
WITH due AS (
    SELECT t.id
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
       AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
       AND (t.pepper_version < :pepper_version
            OR t.last_used_at IS NULL                                                  --? last_used_resolution
            OR t.last_used_at <= statement_timestamp() - :last_used_resolution::interval     --? last_used_resolution
           )
       FOR UPDATE SKIP LOCKED
)
UPDATE asyncsvc.api_token AS t
   SET pepper_version = greatest(t.pepper_version, :pepper_version),
       token_hash = CASE WHEN t.pepper_version < :pepper_version THEN :token_hash ELSE t.token_hash END
     , last_used_at = statement_timestamp() --? last_used_resolution
  FROM due AS d
 WHERE t.tenant_id = :tenant_id
   AND t.id = d.id
RETURNING t.id
