-- Delete all events of up to :batch_size deleted tokens of a tenant.
--
-- Returns: deleted, the number of events.
-- Locks: the deleted rows.
-- Index: token_audit_token_idx; the primary key of api_token, once per token.
-- Notes: all events of a token are deleted in one statement, so after an interruption each token has all
--   its events or none.
WITH deleted AS (
    DELETE FROM asyncsvc.token_audit AS e
     WHERE e.tenant_id = :tenant_id
       AND e.token_id IN (
               SELECT n.token_id
                 FROM asyncsvc.token_audit AS n
                WHERE n.tenant_id = :tenant_id
                  AND NOT EXISTS (
                      SELECT FROM asyncsvc.api_token AS t
                       WHERE t.tenant_id = :tenant_id
                         AND t.id = n.token_id)
                GROUP BY n.token_id
                ORDER BY n.token_id
                LIMIT :batch_size
           )
    RETURNING e.id
)
SELECT count(*) AS deleted
  FROM deleted
