-- Delete up to :batch_size events of a tenant, the oldest first.
--
-- Returns: deleted, the number of events.
-- Locks: the deleted rows.
-- Index: the primary key.
WITH deleted AS (
    DELETE FROM asyncsvc.token_audit AS e
     WHERE e.tenant_id = :tenant_id
       AND (e.at, e.id) IN (
               SELECT n.at, n.id
                 FROM asyncsvc.token_audit AS n
                WHERE n.tenant_id = :tenant_id
                ORDER BY n.at, n.id
                LIMIT :batch_size
           )
    RETURNING e.id
)
SELECT count(*) AS deleted
  FROM deleted
