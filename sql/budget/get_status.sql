-- Read each budget that applies to a token, a user and a dialog, with the usage of its present window.
--
-- Returns: the budgets, the tightest first.
-- Locks: none.
-- Index: the primary keys of budget and budget_usage; usage_ledger_tenant_idx, all ledger rows of the
--   tenant for each budget.
-- Notes: sums and ledger are read in one snapshot, so usage that a roll-up moves meanwhile is counted once.
--   api_token/verify has read the family; otherwise :token_id is any token of it. Spent budgets come first,
--   since a share that is nearly 1 may be rounded to 1. The subquery s is the body of
--   asyncsvc.budget_status_v1, which api_token/verify calls: Citus rejects functions that read its tables.
SELECT s.budget_id, s.scope, s.subject, s.is_default, s.metric, s.used, s.max_used AS limit,
       greatest(s.max_used - s.used, 0) AS remaining, s.grain AS window, s.zone AS tz,
       s.window_start AS starts_at, s.window_end AS resets_at, s.is_alerted
  FROM (
    SELECT a.id AS budget_id, a.scope, nullif(a.subject, '') AS subject, a.is_default, a.metric, a.grain,
           a.zone, a.max_used, a.window_start, nullif(a.window_end, 'infinity') AS window_end, u.used,
           CASE a.max_used WHEN 0 THEN 'infinity' ELSE u.used / a.max_used END AS share,
           (u.used >= a.max_used OR a.max_used = 0) AND EXISTS (
               SELECT FROM asyncsvc.usage_audit AS e
                WHERE e.tenant_id = :tenant_id
                  AND e.budget_id = a.id
                  AND e.subject = a.subject
                  AND e.window_start = a.window_start
                  AND e.threshold = 100
                  AND e.max_used = a.max_used
                  AND e.action = 'budget_crossed') AS is_alerted
      FROM (
        SELECT DISTINCT ON (b.scope, b.metric, b.grain)
               b.id, b.scope, s.subject, b.subject = '' AND b.scope <> 'tenant' AS is_default, b.metric,
               b.grain, b.zone, b.max_used, coalesce(b.since, w.window_start) AS window_start, w.window_end,
               CASE b.scope WHEN 'token' THEN s.subject END AS token_id,
               CASE b.scope WHEN 'user' THEN s.subject END AS user_id,
               CASE b.scope WHEN 'dialog' THEN s.subject END AS dialog_id
          FROM asyncsvc.budget AS b
         CROSS JOIN LATERAL (
               SELECT
                      :family_id                                             --? family_id
                      --? token_id, !family_id {
                      coalesce((SELECT t.family_id
                                  FROM asyncsvc.api_token AS t
                                 WHERE t.tenant_id = :tenant_id
                                   AND t.id = :token_id), :token_id)
                      --? }
                      NULL                                                   --? !token_id, !family_id
                      AS family_id) AS f
         CROSS JOIN LATERAL (
               SELECT CASE b.scope WHEN 'tenant' THEN ''
                                   WHEN 'token' THEN f.family_id
                                   WHEN 'user' THEN nullif(:user_id, '')
                                   ELSE :dialog_id END AS subject) AS s
         CROSS JOIN LATERAL asyncsvc.budget_window_v1(statement_timestamp(), b.grain, b.zone) AS w
         WHERE b.tenant_id = :tenant_id
           AND b.subject = ANY (ARRAY['', f.family_id, :user_id, :dialog_id])
           AND (b.subject = s.subject OR b.subject = '' AND s.subject IS NOT NULL)
         ORDER BY b.scope, b.metric, b.grain, b.subject DESC
      ) AS a
      LEFT JOIN asyncsvc.budget_usage AS r
        ON r.tenant_id = :tenant_id AND r.budget_id = a.id AND r.subject = a.subject
       AND r.window_start = a.window_start
     CROSS JOIN LATERAL (
           SELECT sum(CASE a.metric WHEN 'cost' THEN l.cost
                                    WHEN 'tokens' THEN l.tokens
                                    WHEN 'rounds' THEN l.rounds
                                    ELSE l.tokens - coalesce(l.cached_input_tokens, 0) END) AS used
             FROM asyncsvc.usage_ledger AS l
            WHERE l.tenant_id = :tenant_id
              AND l.at >= a.window_start
              AND l.at < a.window_end
              AND NOT l.is_imported
              AND (a.token_id IS NULL OR l.token_id = a.token_id)
              AND (a.user_id IS NULL OR coalesce(l.acting_user_id, l.user_id) = a.user_id)
              AND (a.dialog_id IS NULL OR l.dialog_id = a.dialog_id)) AS l
     CROSS JOIN LATERAL (SELECT coalesce(r.used, 0) + coalesce(l.used, 0) AS used) AS u
       ) AS s
 ORDER BY greatest(s.used, 0) >= s.max_used DESC, s.share DESC, s.window_end DESC NULLS FIRST, s.budget_id
