-- Read the ids of a token, of its predecessors and of its successors by rotation.
--
-- Returns: id, is_live (not revoked yet; a retiring token is live). No row if the tenant has no
--   token with this id.
-- Locks: none.
-- Index: the primary key for predecessors, api_token_rotated_from_idx for successors.
--   LIMIT 1: see docs/project/sql-files.md, Lookups by key.
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
), family AS (
    SELECT o.id, o.revoked_at
      FROM older AS o
     UNION
    SELECT t.id, t.revoked_at
      FROM family AS f
     CROSS JOIN LATERAL (
           SELECT t.id, t.revoked_at
             FROM asyncsvc.api_token AS t
            WHERE t.tenant_id = :tenant_id
              AND t.rotated_from = f.id
            LIMIT 1) AS t
)
SELECT f.id, f.revoked_at IS NULL OR f.revoked_at > statement_timestamp() AS is_live
  FROM family AS f
