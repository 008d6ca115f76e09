-- Delete the usage of a budget.
--
-- Returns: deleted, the number of rows.
-- Locks: the deleted rows.
-- Index: the primary key.
WITH deleted AS (
    DELETE FROM asyncsvc.budget_usage AS u
     WHERE u.tenant_id = :tenant_id
       AND u.budget_id = :id
    RETURNING u.budget_id
)
SELECT count(*) AS deleted
  FROM deleted AS d
