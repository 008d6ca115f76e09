-- Record the thresholds that the usage of budgets has crossed, each once for a subject, window and limit.
--
-- It records those of :budget_id with this usage, which includes the ledger; with rolled_up those of all
-- rolled up usage of the tenant, and then deletes the usage of ended windows and of deleted budgets.
--
-- Returns: the new crossings, each with its budget.
-- Locks: the new rows and the deleted rows, until the end of the transaction.
-- Index: the primary keys; usage_audit_crossed_idx. With rolled_up it reads all rows of budget_usage of
--   the tenant, which has no ended windows.
-- Idempotent: a second execution inserts and returns no row.
-- Notes: the usage of a window stays for 1 hour after its end, for reads that began before. Each zone has few
--   windows, which are computed once. A limit of 0 is crossed also by negative usage, after adjustments.
WITH requested AS (
    SELECT :budget_id::text AS budget_id, :subject::text AS subject,
           :window_start::timestamptz AS window_start, :used::numeric AS used
), usages AS (
    --? !rolled_up {
    SELECT b.id, b.scope, r.subject, b.metric, b.grain, b.zone, b.max_used, r.window_start, r.used
      FROM asyncsvc.budget AS b
      JOIN requested AS r ON b.id = r.budget_id
     WHERE b.tenant_id = :tenant_id
    --? }
    --? rolled_up {
    SELECT b.id, b.scope, u.subject, b.metric, b.grain, b.zone, b.max_used, u.window_start, u.used
      FROM asyncsvc.budget_usage AS u
      JOIN asyncsvc.budget AS b
        ON b.tenant_id = u.tenant_id AND b.id = u.budget_id
       AND (u.used * 2 >= b.max_used OR b.max_used = 0)
     WHERE u.tenant_id = :tenant_id
       AND (b.subject <> '' OR b.scope = 'tenant' OR NOT EXISTS (
           SELECT FROM asyncsvc.budget AS o
            WHERE o.tenant_id = :tenant_id
              AND o.scope = b.scope
              AND o.subject = u.subject
              AND o.metric = b.metric
              AND o.grain = b.grain))
), windows AS MATERIALIZED (
    SELECT b.grain, b.zone, w.window_start
      FROM (SELECT DISTINCT b.grain, b.zone
              FROM asyncsvc.budget AS b
             WHERE b.tenant_id = :tenant_id) AS b
     CROSS JOIN LATERAL asyncsvc.budget_window_v1(
           statement_timestamp() - interval '1 hour', b.grain, b.zone) AS w
), kept AS MATERIALIZED (
    SELECT b.id, coalesce(b.since, w.window_start) AS window_start
      FROM asyncsvc.budget AS b
      JOIN windows AS w ON w.grain = b.grain AND w.zone = b.zone
     WHERE b.tenant_id = :tenant_id
), ended AS (
    DELETE FROM asyncsvc.budget_usage AS u
     WHERE u.tenant_id = :tenant_id
       AND NOT EXISTS (
           SELECT FROM kept AS k
            WHERE k.id = u.budget_id
              AND u.window_start >= k.window_start)
    --? }
), crossed AS MATERIALIZED (
    SELECT u.id, u.scope, u.subject, u.metric, u.grain, u.zone, u.max_used, u.window_start, u.used,
           t.threshold
      FROM usages AS u
      JOIN (VALUES (50::smallint), (80), (100)) AS t (threshold)
        ON u.used * 100 >= u.max_used * t.threshold OR u.max_used = 0
     WHERE NOT EXISTS (
           SELECT FROM asyncsvc.usage_audit AS e
            WHERE e.tenant_id = :tenant_id
              AND e.budget_id = u.id
              AND e.subject = u.subject
              AND e.window_start = u.window_start
              AND e.threshold = t.threshold
              AND e.max_used = u.max_used
              AND e.action = 'budget_crossed')
), audit_rows AS (
    INSERT INTO asyncsvc.usage_audit AS e (
           tenant_id, at, action, budget_id, subject, window_start, threshold, max_used, detail)
    SELECT :tenant_id, statement_timestamp(), 'budget_crossed', c.id, c.subject, c.window_start, c.threshold,
           c.max_used,
           jsonb_build_object('scope', c.scope, 'metric', c.metric, 'window', c.grain, 'tz', c.zone,
                              'used', trim_scale(c.used * u.unit)::text,
                              'limit', trim_scale(c.max_used * u.unit)::text)
      FROM crossed AS c
     CROSS JOIN LATERAL (SELECT CASE c.metric WHEN 'cost' THEN 0.000000001 ELSE 1 END AS unit) AS u
     ORDER BY c.id, c.subject, c.threshold
    ON CONFLICT (tenant_id, budget_id, subject, window_start, threshold, max_used)
          WHERE action = 'budget_crossed' DO NOTHING
    RETURNING e.budget_id, e.subject, e.window_start, e.threshold, e.at
)
SELECT c.id AS budget_id, c.scope, nullif(c.subject, '') AS subject, c.metric, a.threshold, c.used,
       c.max_used AS limit, c.grain AS window, c.zone AS tz, c.window_start AS starts_at,
       nullif(w.window_end, 'infinity') AS resets_at, a.at
  FROM audit_rows AS a
  JOIN crossed AS c
    ON c.id = a.budget_id AND c.subject = a.subject AND c.window_start = a.window_start
   AND c.threshold = a.threshold
 CROSS JOIN LATERAL asyncsvc.budget_window_v1(
       CASE WHEN c.grain = 'total' THEN statement_timestamp() ELSE c.window_start END, c.grain, c.zone) AS w
 ORDER BY c.id, c.subject, a.threshold
