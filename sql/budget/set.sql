-- Create a budget, or set limit, zone and begin of the existing one of the same scope, subject, metric and
-- grain, and record that in the audit.
--
-- Returns: the budget, and must_recount, whether its usage must be counted (budget/recount). No row if
--   :subject is no token of the tenant. A deleted first token stands for its rotations.
-- Locks: the budget row, until the end of the transaction.
-- Index: the primary keys of budget and api_token, api_token_family_idx.
-- Notes: the caller holds the tenant's usage (usage/lock) since an earlier statement, so `previous` is the
--   row that is updated. A past :since is rounded down to its quarter hour, since older usage has no exact
--   times.
WITH requested AS MATERIALIZED (
    SELECT coalesce(
           --? of_token {
           (SELECT t.family_id
              FROM asyncsvc.api_token AS t
             WHERE t.tenant_id = :tenant_id
               AND t.id = :subject),
           --? }
           :subject::text) AS subject
     --? of_token {
     WHERE EXISTS (SELECT FROM asyncsvc.api_token AS t
                    WHERE (t.tenant_id = :tenant_id) IS TRUE
                      AND t.id = :subject)
        OR EXISTS (SELECT FROM asyncsvc.api_token AS t
                    WHERE (t.tenant_id = :tenant_id) IS TRUE
                      AND t.family_id = :subject)
     --? }
), previous AS MATERIALIZED (
    SELECT b.id, b.zone, b.since, b.max_used
      FROM asyncsvc.budget AS b
     CROSS JOIN requested AS r
     WHERE b.tenant_id = :tenant_id
       AND b.scope = :scope
       AND b.subject = r.subject
       AND b.metric = :metric
       AND b.grain = :grain
), stored AS (
    INSERT INTO asyncsvc.budget AS b (
           tenant_id, id, scope, subject, metric, grain, zone, max_used, since, created_at, updated_at)
    SELECT :tenant_id, :id, :scope, r.subject, :metric, :grain, :zone, :max_used::numeric,
           CASE WHEN :since::timestamptz < statement_timestamp()                          --? since
                THEN date_bin('15 minutes', :since, '0001-01-01 00:00+00') ELSE :since    --? since
           CASE WHEN :grain = 'total' THEN statement_timestamp()                          --? !since
                END,
           statement_timestamp(), statement_timestamp()
      FROM requested AS r
    ON CONFLICT (tenant_id, subject, scope, metric, grain) DO UPDATE
       SET zone = excluded.zone,
           since = excluded.since,                                --? since
           max_used = excluded.max_used,
           updated_at = excluded.updated_at
    RETURNING b.id, b.scope, b.subject, b.metric, b.grain, b.zone, b.max_used, b.since, b.created_at,
              b.updated_at
), audit_rows AS (
    INSERT INTO asyncsvc.usage_audit (tenant_id, at, action, actor, budget_id, subject, detail)
    SELECT :tenant_id, s.updated_at, 'set_budget', :actor, s.id, nullif(s.subject, ''),
           jsonb_build_object('scope', s.scope, 'metric', s.metric, 'window', s.grain, 'tz', s.zone,
                              'since', s.since, 'limit', trim_scale(s.max_used * u.unit)::text,
                              'previous_limit', trim_scale(p.max_used * u.unit)::text)
      FROM stored AS s
     CROSS JOIN LATERAL (SELECT CASE s.metric WHEN 'cost' THEN 0.000000001 ELSE 1 END AS unit) AS u
      LEFT JOIN previous AS p ON p.id = s.id
)
SELECT s.id, s.scope, nullif(s.subject, '') AS subject, s.metric, s.max_used AS limit, s.grain AS window,
       s.zone AS tz, s.since, s.created_at, s.updated_at,
       p.id IS NULL OR p.since IS DISTINCT FROM s.since
       OR (p.zone <> s.zone AND s.grain <> 'total') AS must_recount
  FROM stored AS s
  LEFT JOIN previous AS p ON p.id = s.id
