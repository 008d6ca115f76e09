-- Count the usage of a budget from the sums by quarter hour.
--
-- Returns: counted, the number of rows of budget_usage.
-- Locks: the new rows.
-- Index: the primary key of budget; usage_quarter_hour_key, the rows from the start of the window on.
-- Timeout: none. It reads the sums of up to a month, or of all time since the begin of the budget.
-- Notes: the caller locks the tenant's usage in an earlier statement (usage/lock), so this snapshot includes
--   each roll-up that committed before, and no other roll-up runs; and deletes the rows of the budget
--   (budget/delete_usage). The ledger stays: reads add it. A window that ended within the last hour is
--   counted too, for reads that began before its end. A quarter hour is never in two windows.
WITH counted AS (
    INSERT INTO asyncsvc.budget_usage (tenant_id, budget_id, subject, window_start, used)
    SELECT :tenant_id, q.id, q.subject, coalesce(q.since, w.window_start), sum(q.used)
      FROM (
        SELECT b.id, b.grain, b.zone, b.since, s.subject, q.quarter_hour,
               sum(CASE b.metric WHEN 'cost' THEN q.cost
                                 WHEN 'tokens' THEN q.tokens
                                 WHEN 'uncached_tokens' THEN q.tokens - q.cached_input_tokens
                                 ELSE q.rounds END) AS used
          FROM asyncsvc.budget AS b
         CROSS JOIN LATERAL asyncsvc.budget_window_v1(
               statement_timestamp() - interval '1 hour', b.grain, b.zone) AS f
          JOIN asyncsvc.usage_quarter_hour AS q
            ON q.tenant_id = b.tenant_id
           AND q.quarter_hour >= coalesce(b.since, f.window_start)
           AND NOT q.is_imported
         CROSS JOIN LATERAL (
               SELECT CASE b.scope WHEN 'tenant' THEN ''
                                   WHEN 'token' THEN q.token_id
                                   WHEN 'user' THEN nullif(q.user_id, '')
                                   ELSE q.dialog_id END AS subject) AS s
         WHERE b.tenant_id = :tenant_id
           AND b.id = :id
           AND (s.subject = b.subject OR b.subject = '' AND s.subject IS NOT NULL)
         GROUP BY b.id, b.grain, b.zone, b.since, s.subject, q.quarter_hour
      ) AS q
     CROSS JOIN LATERAL asyncsvc.budget_window_v1(q.quarter_hour, q.grain, q.zone) AS w
     GROUP BY q.id, q.subject, coalesce(q.since, w.window_start)
    RETURNING 1 AS one
)
SELECT count(*) AS counted
  FROM counted AS c
