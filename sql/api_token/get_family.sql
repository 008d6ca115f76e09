-- The ids of a token, of all that it was rotated from and of all that were rotated from it, each with
-- whether it is not over yet. None when the tenant has no token of this id.
--
-- A link leads to one token at most: LIMIT 1 has the server follow it by its index, whatever it
-- thinks of the tenant's size.
--
-- Locks: none. Index: the primary key up the line, api_token_rotated_from_idx down.
WITH RECURSIVE older AS (
    SELECT t.id, t.rotated_from, t.revoked_at
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
     UNION
    SELECT t.id, t.rotated_from, t.revoked_at
      FROM older AS o
     CROSS JOIN LATERAL (
           SELECT t.id, t.rotated_from, t.revoked_at
             FROM asyncsvc.api_token AS t
            WHERE t.tenant_id = :tenant_id
              AND t.id = o.rotated_from
            LIMIT 1) AS t
), newer AS (
    SELECT o.id, o.revoked_at
      FROM older AS o
     UNION
    SELECT t.id, t.revoked_at
      FROM newer AS n
     CROSS JOIN LATERAL (
           SELECT t.id, t.revoked_at
             FROM asyncsvc.api_token AS t
            WHERE t.tenant_id = :tenant_id
              AND t.rotated_from = n.id
            LIMIT 1) AS t
)
SELECT n.id, n.revoked_at IS NULL OR n.revoked_at > statement_timestamp() AS is_live
  FROM newer AS n
