-- Set last_used_at of a valid token, and with :token_hash rehash its secret if the hash has an older pepper.
--
-- Returns: id; with :token_hash also is_rehashed, whether it changed the hash. No row if the token is not
--   valid, neither write is due, or its row is locked.
-- Locks: the token row, then with :token_hash its row in api_token_hash, until the end of the transaction.
--   SKIP LOCKED: a statement that cannot take the lock writes nothing. FOR UPDATE is the strongest lock that
--   the UPDATE may need, and a change of the hash holds the lock of the token, so no write waits either.
-- Index: the primary key and api_token_hash_token_idx. The write of last_used_at is a HOT update.
-- Idempotent: a second execution has the same effect as one.
-- Notes: separate from verify, because few verifications write, and a statement that may write
--   costs more at each call. Without :token_hash it runs on the node of the tenant alone.
--   With :hashes_apart api_token/replace_hash follows if is_rehashed.
WITH locked AS (
    SELECT t.id, t.pepper_version
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
       AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
       AND (false
            OR t.pepper_version < :pepper_version    --? token_hash, pepper_version
            --? last_used_resolution {
            OR coalesce(t.last_used_at, '-infinity')
               <= statement_timestamp() - :last_used_resolution::interval
            --? }
           )
       FOR UPDATE SKIP LOCKED
--? token_hash, pepper_version, !hashes_apart {
), rehashed AS (
    UPDATE asyncsvc.api_token_hash AS h
       SET token_hash = :token_hash
      FROM locked AS l
     WHERE h.tenant_id = :tenant_id
       AND h.token_id = l.id
       AND l.pepper_version < :pepper_version
--? }
)
UPDATE asyncsvc.api_token AS t
   SET last_used_at = statement_timestamp()                              --? last_used_resolution
   SET last_used_at = t.last_used_at                                     --? !last_used_resolution
       --? token_hash, pepper_version {
       , pepper_version = greatest(t.pepper_version, :pepper_version)
       , token_hash = CASE WHEN t.pepper_version < :pepper_version THEN :token_hash ELSE t.token_hash END
       --? }
  FROM locked AS l
 WHERE t.tenant_id = :tenant_id
   AND t.id = l.id
RETURNING t.id
          , l.pepper_version < :pepper_version AS is_rehashed    --? pepper_version
