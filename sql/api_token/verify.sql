-- The token of this hash and whether it is good now, by the server's clock; stamps last_used_at
-- when the token is good and was not stamped within the last :touch_interval. The tenant is what
-- this statement finds, so it is no condition.
--
-- statement_timestamp() and not now(): inside a long transaction of the caller's a token still
-- expires. The instant of expiry is already expired.
--
-- Locks: the token's row, only when it is to be stamped, and without waiting: where another
-- session holds it, SKIP LOCKED leaves this stamp out and the answer is not delayed.
-- Index: the unique index on token_hash; the stamp is a HOT update.
WITH found AS MATERIALIZED (
    SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
           t.created_at, t.expires_at, t.revoked_at, t.last_used_at,
           CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked'
                WHEN t.expires_at <= statement_timestamp() THEN 'expired'
                ELSE 'active' END AS status
      FROM asyncsvc.api_token AS t
     WHERE t.token_hash = :token_hash
       AND t.kind = :kind                       --? kind
), due AS MATERIALIZED (
    SELECT t.id
      FROM asyncsvc.api_token AS t
      JOIN found AS f ON f.id = t.id
     WHERE f.status = 'active'
       AND (t.last_used_at IS NULL
            OR t.last_used_at <= statement_timestamp() - :touch_interval::interval)
       FOR NO KEY UPDATE OF t SKIP LOCKED
), stamped AS (
    UPDATE asyncsvc.api_token AS t
       SET last_used_at = statement_timestamp()
      FROM due AS d
     WHERE t.id = d.id
)
SELECT f.id, f.tenant_id, f.name, f.hint, f.kind, f.scopes, f.dialog_id, f.source, f.created_at,
       f.expires_at, f.revoked_at, f.last_used_at, f.status
  FROM found AS f
