-- The token of this hash and whether it is good now, by the server's clock; stamps last_used_at when
-- the token is good and was not stamped within the last :touch_interval, which may be left out.
-- Where there are older peppers, the token may have one of the other hashes: it gets :token_hash
-- then, that of the present one. The tenant is what this statement finds, so it is no condition.
--
-- The two parts read the same snapshot, so the answer has the stamp as it was before. The first has
-- no other plan than the second, and costs next to nothing when nothing is due. Not an array of
-- hashes: for its unknown length the server would plan the statement anew each time.
--
-- statement_timestamp() and not now(): inside a long transaction of the caller's a token still
-- expires. The instant of expiry is already expired.
--
-- Repeatable: a second stamp says no more than the first.
--
-- Locks: the token's row, only when it is to be written, and without waiting: where another
-- session holds it, SKIP LOCKED leaves this stamp out and the answer is not delayed. FOR UPDATE is
-- the strongest lock that the write may need, so that it has nothing to wait for either.
-- Index: the unique index on token_hash; the stamp is a HOT update.
WITH due AS (
    SELECT t.id
      FROM asyncsvc.api_token AS t
     WHERE (t.token_hash = :token_hash
            OR t.token_hash IN (:second_hash, :third_hash, :fourth_hash) --? second_hash, third_hash, fourth_hash
           )
       AND t.kind = :kind                       --? kind
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
       AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
       AND (t.pepper_version < :pepper_version
            OR t.last_used_at IS NULL                                                   --? touch_interval
            OR t.last_used_at <= statement_timestamp() - :touch_interval::interval      --? touch_interval
           )
       FOR UPDATE OF t SKIP LOCKED
), stamped AS (
    UPDATE asyncsvc.api_token AS t
       SET pepper_version = greatest(t.pepper_version, :pepper_version),
           token_hash = CASE WHEN t.pepper_version < :pepper_version THEN :token_hash ELSE t.token_hash END
         , last_used_at = statement_timestamp() --? touch_interval
      FROM due AS d
     WHERE t.id = d.id
)
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
