-- Read the ids of a token and of its relatives by rotation.
--
-- Returns: id, is_live (not revoked yet; a retiring token is live). No row if the tenant has no
--   token with this id.
-- Locks: none.
-- Index: the primary key, then api_token_family_idx.
SELECT t.id, t.revoked_at IS NULL OR t.revoked_at > statement_timestamp() AS is_live
  FROM asyncsvc.api_token AS t
 WHERE t.tenant_id = :tenant_id
   AND t.family_id = (
       SELECT o.family_id
         FROM asyncsvc.api_token AS o
        WHERE o.tenant_id = :tenant_id
          AND o.id = :id
   )
