-- Delete all budgets of a tenant and their usage. usage/delete deletes the audit.
--
-- Returns: deleted, the number of rows.
-- Locks: the deleted rows.
-- Index: the primary keys.
-- Timeout: none. The number of budgets has no bound.
WITH budgets AS (
    DELETE FROM asyncsvc.budget AS b
     WHERE b.tenant_id = :tenant_id
    RETURNING 1 AS one
), usage_rows AS (
    DELETE FROM asyncsvc.budget_usage AS u
     WHERE u.tenant_id = :tenant_id
    RETURNING 1 AS one
)
SELECT (SELECT count(*) FROM budgets) + (SELECT count(*) FROM usage_rows) AS deleted
