-- Add :by to the limit of a budget and record that in the audit.
--
-- Returns: the budget. No row if the tenant has no budget with this id, its metric is no cost and :by is not
--   whole, or the limit would exceed :max_cost or :max_count. These and :by are in the unit of the metric, a
--   cost in units of the currency.
-- Locks: the budget row, until the end of the transaction, so concurrent calls all count.
-- Index: budget_id_key.
WITH raised AS (
    UPDATE asyncsvc.budget AS b
       SET max_used = b.max_used + :by::numeric * CASE b.metric WHEN 'cost' THEN 1000000000 ELSE 1 END,
           updated_at = greatest(b.updated_at, statement_timestamp())
     WHERE b.tenant_id = :tenant_id
       AND b.id = :id
       AND CASE b.metric WHEN 'cost'
           THEN b.max_used + :by::numeric * 1000000000 <= :max_cost::numeric * 1000000000
           ELSE b.max_used + :by::numeric <= :max_count::numeric
                AND :by::numeric = trunc(:by::numeric) END
    RETURNING b.id, b.scope, b.subject, b.metric, b.grain, b.zone, b.max_used, b.since, b.created_at,
              b.updated_at
), audit_rows AS (
    INSERT INTO asyncsvc.usage_audit (tenant_id, at, action, actor, budget_id, subject, detail)
    SELECT :tenant_id, statement_timestamp(), 'raise_limit', :actor, r.id, nullif(r.subject, ''),
           jsonb_build_object('scope', r.scope, 'metric', r.metric, 'window', r.grain,
                              'by', trim_scale(:by::numeric)::text,
                              'limit', trim_scale(r.max_used * u.unit)::text)
      FROM raised AS r
     CROSS JOIN LATERAL (SELECT CASE r.metric WHEN 'cost' THEN 0.000000001 ELSE 1 END AS unit) AS u
)
SELECT r.id, r.scope, nullif(r.subject, '') AS subject, r.metric, r.max_used AS limit, r.grain AS window,
       r.zone AS tz, r.since, r.created_at, r.updated_at
  FROM raised AS r
