-- Replace a user by another id in the budgets, their usage and the audit.
--
-- Returns: replaced, the number of rows.
-- Locks: the changed rows, until the end of the transaction.
-- Index: the primary key of budget; budget_usage_subject_idx; usage_audit_subject_idx.
-- Notes: only rows of the scope user and adjustments change: a dialog or a token may have the same id.
WITH users_budgets AS MATERIALIZED (
    SELECT b.id
      FROM asyncsvc.budget AS b
     WHERE b.tenant_id = :tenant_id
       AND b.scope = 'user'
       AND b.subject IN ('', :user_id)
), budgets AS (
    UPDATE asyncsvc.budget AS b
       SET subject = :erased_id
     WHERE b.tenant_id = :tenant_id
       AND b.scope = 'user'
       AND b.subject = :user_id
    RETURNING 1 AS one
), usage_rows AS (
    UPDATE asyncsvc.budget_usage AS u
       SET subject = :erased_id
     WHERE u.tenant_id = :tenant_id
       AND u.subject = :user_id
       AND u.budget_id IN (SELECT b.id FROM users_budgets AS b)
    RETURNING 1 AS one
), audit_rows AS (
    UPDATE asyncsvc.usage_audit AS e
       SET subject = :erased_id
     WHERE e.tenant_id = :tenant_id
       AND e.subject = :user_id
       AND (e.action = 'adjust' OR e.detail ->> 'scope' = 'user')
    RETURNING 1 AS one
)
SELECT (SELECT count(*) FROM budgets) + (SELECT count(*) FROM usage_rows)
       + (SELECT count(*) FROM audit_rows) AS replaced
