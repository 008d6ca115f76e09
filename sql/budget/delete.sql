-- Delete a budget with its usage and record that in the audit.
--
-- Returns: deleted, 1 or 0.
-- Locks: the budget row and its usage, until the end of the transaction.
-- Index: budget_id_key; the primary key of budget_usage.
-- Notes: a roll-up whose snapshot has the budget may add usage of it afterwards. budget/record_crossings
--   deletes it with the usage of ended windows.
WITH deleted AS (
    DELETE FROM asyncsvc.budget AS b
     WHERE b.tenant_id = :tenant_id
       AND b.id = :id
    RETURNING b.id, b.scope, b.subject, b.metric, b.grain, b.max_used
), usage_rows AS (
    DELETE FROM asyncsvc.budget_usage AS u
     USING deleted AS d
     WHERE u.tenant_id = :tenant_id
       AND u.budget_id = d.id
), audit_rows AS (
    INSERT INTO asyncsvc.usage_audit (tenant_id, at, action, actor, budget_id, subject, detail)
    SELECT :tenant_id, statement_timestamp(), 'delete_budget', :actor, d.id, nullif(d.subject, ''),
           jsonb_build_object('scope', d.scope, 'metric', d.metric, 'window', d.grain,
                              'limit', trim_scale(d.max_used * u.unit)::text)
      FROM deleted AS d
     CROSS JOIN LATERAL (SELECT CASE d.metric WHEN 'cost' THEN 0.000000001 ELSE 1 END AS unit) AS u
)
SELECT count(*) AS deleted
  FROM deleted AS d
