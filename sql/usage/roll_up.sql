-- Move a tenant's usage ledger into the sums by quarter hour, the sums and bounds of persons, the usage of
-- budgets, and with the flag `buckets` into the buckets of each declared zone. Without it the caller
-- recounts the buckets in the same transaction.
--
-- Returns: ledger_rows, the number of moved rows; 0 also if another session works on this tenant.
-- Locks: the tenant's UTC row of usage_zone (skipped if another session holds it), the rows of the
--   ledger, and the rows of the sums. Statements that change these hold the UTC row too, so it
--   waits for no lock, and no append waits for it.
-- Index: usage_ledger_tenant_idx, the keys of the sums; for distinct users conversation_user_idx and
--   usage_quarter_hour_user_idx.
-- Timeout: none. The number of ledger rows has no bound.
-- Notes: it is one statement, so an interruption changes nothing.
--   It takes all ledger rows of its snapshot or none, because creating_users and active_users compare the
--   conversations and quarter hours before and after these rows, like usage/stats. If two roll-ups shared
--   the rows of a tenant, neither could count the users.
--   usage/lock updates the UTC row. If that happened after this snapshot, xmin of the locked row differs,
--   so the roll-up does nothing: it would not see the new zone or the new budget.
--   Buckets and users are joined by a UNION ALL with one GROUP BY. For a LEFT JOIN the server chose a plan
--   that compares each bucket with each other one of the same grain.
--   Creations from 1973 on are grouped by quarter hour first, which reduces their number. Before 1973
--   the days of some zones did not start at a quarter hour.
--   OFFSET makes the server look up each user in the index. It would otherwise read the whole tenant.
--   The subquery of a person selects rounds, which no index has. With an index-only scan of
--   usage_quarter_hour_key, a generic plan reads the whole tenant for each person.
WITH locked AS MATERIALIZED (
    SELECT z.tenant_id
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
       AND z.zone = 'UTC'
       AND z.xmin = (SELECT o.xmin
                       FROM asyncsvc.usage_zone AS o
                      WHERE o.tenant_id = :tenant_id
                        AND o.zone = 'UTC')
       FOR UPDATE SKIP LOCKED
), drained AS (
    DELETE FROM asyncsvc.usage_ledger AS u
     USING locked AS l
     WHERE u.tenant_id = l.tenant_id
    RETURNING u.created_at, u.at, u.dialog_id, u.source, u.token_id, u.user_id, u.acting_user_id, u.model,
              u.is_imported,
              u.conversations, u.rounds, u.requests, u.input_tokens, u.cached_input_tokens,
              u.cache_write_tokens, u.output_tokens, u.reasoning_tokens, u.tokens, u.cost, u.unpriced,
              u.unmetered, u.duration, u.thumb_up, u.thumb_down
), activity AS MATERIALIZED (
    SELECT date_bin('15 minutes', d.at, '0001-01-01 00:00+00') AS quarter_hour, d.dialog_id, d.source,
           d.token_id, coalesce(d.acting_user_id, d.user_id) AS user_id, d.model, d.is_imported,
           sum(d.conversations) AS conversations,
           sum(d.rounds) AS rounds,
           coalesce(sum(d.requests), 0) AS requests,
           coalesce(sum(d.input_tokens), 0) AS input_tokens,
           coalesce(sum(d.cached_input_tokens), 0) AS cached_input_tokens,
           coalesce(sum(d.cache_write_tokens), 0) AS cache_write_tokens,
           coalesce(sum(d.output_tokens), 0) AS output_tokens,
           coalesce(sum(d.reasoning_tokens), 0) AS reasoning_tokens,
           sum(d.tokens) AS tokens,
           coalesce(sum(d.cost), 0) AS cost,
           coalesce(sum(d.unpriced), 0) AS unpriced,
           coalesce(sum(d.unmetered), 0) AS unmetered,
           sum(d.duration) AS duration,
           sum(d.thumb_up) AS thumb_up,
           sum(d.thumb_down) AS thumb_down
      FROM drained AS d
     WHERE d.at IS NOT NULL
     GROUP BY quarter_hour, d.dialog_id, d.source, d.token_id, coalesce(d.acting_user_id, d.user_id),
              d.model, d.is_imported
), quarter_hour_rows AS (
    INSERT INTO asyncsvc.usage_quarter_hour AS q (
           tenant_id, quarter_hour, dialog_id, source, token_id, user_id, model, is_imported,
           conversations, rounds, requests, input_tokens, cached_input_tokens, cache_write_tokens,
           output_tokens, reasoning_tokens, tokens, cost, unpriced, unmetered, duration, thumb_up,
           thumb_down)
    SELECT :tenant_id, a.quarter_hour, a.dialog_id, a.source, a.token_id, a.user_id, a.model, a.is_imported,
           a.conversations, a.rounds, a.requests, a.input_tokens, a.cached_input_tokens,
           a.cache_write_tokens, a.output_tokens, a.reasoning_tokens, a.tokens, a.cost, a.unpriced,
           a.unmetered, a.duration, a.thumb_up, a.thumb_down
      FROM activity AS a
    ON CONFLICT (tenant_id, quarter_hour, dialog_id, source, token_id, user_id, model, is_imported) DO UPDATE
       SET conversations = q.conversations + excluded.conversations,
           rounds = q.rounds + excluded.rounds,
           requests = q.requests + excluded.requests,
           input_tokens = q.input_tokens + excluded.input_tokens,
           cached_input_tokens = q.cached_input_tokens + excluded.cached_input_tokens,
           cache_write_tokens = q.cache_write_tokens + excluded.cache_write_tokens,
           output_tokens = q.output_tokens + excluded.output_tokens,
           reasoning_tokens = q.reasoning_tokens + excluded.reasoning_tokens,
           tokens = q.tokens + excluded.tokens,
           cost = q.cost + excluded.cost,
           unpriced = q.unpriced + excluded.unpriced,
           unmetered = q.unmetered + excluded.unmetered,
           duration = q.duration + excluded.duration,
           thumb_up = q.thumb_up + excluded.thumb_up,
           thumb_down = q.thumb_down + excluded.thumb_down
), budget_windows AS MATERIALIZED (
    SELECT d.quarter_hour, b.grain, b.zone, w.window_start
      FROM (SELECT DISTINCT date_bin('15 minutes', d.at, '0001-01-01 00:00+00') AS quarter_hour
              FROM drained AS d
             WHERE d.at IS NOT NULL
               AND NOT d.is_imported) AS d
     CROSS JOIN (SELECT DISTINCT b.grain, b.zone
                   FROM asyncsvc.budget AS b
                  WHERE b.tenant_id = :tenant_id) AS b
     CROSS JOIN LATERAL asyncsvc.budget_window_v1(d.quarter_hour, b.grain, b.zone) AS w
     WHERE w.window_end > statement_timestamp() - interval '1 hour'
), subject_changes AS MATERIALIZED (
    SELECT date_bin('15 minutes', d.at, '0001-01-01 00:00+00') AS quarter_hour, s.scope, s.subject,
           min(d.at) AS first_at, sum(d.cost) AS cost, sum(d.tokens) AS tokens,
           sum(d.tokens) - coalesce(sum(d.cached_input_tokens), 0) AS uncached_tokens,
           sum(d.rounds) AS rounds
      FROM drained AS d
     CROSS JOIN LATERAL (
           VALUES ('tenant', ''), ('token', d.token_id),
                  ('user', nullif(coalesce(d.acting_user_id, d.user_id), '')),
                  ('dialog', d.dialog_id)) AS s (scope, subject)
     WHERE EXISTS (SELECT FROM budget_windows)
       AND d.at IS NOT NULL
       AND NOT d.is_imported
       AND s.subject IS NOT NULL
     GROUP BY quarter_hour, s.scope, s.subject, width_bucket(d.at, (
              SELECT array_agg(b.since ORDER BY b.since)
                FROM asyncsvc.budget AS b
               WHERE b.tenant_id = :tenant_id
                 AND b.since IS NOT NULL))
), budget_usage_rows AS (
    INSERT INTO asyncsvc.budget_usage AS u (tenant_id, budget_id, subject, window_start, used)
    SELECT :tenant_id, b.id, s.subject, coalesce(b.since, w.window_start) AS window_start,
           coalesce(sum(CASE b.metric WHEN 'cost' THEN s.cost
                                      WHEN 'tokens' THEN s.tokens
                                      WHEN 'uncached_tokens' THEN s.uncached_tokens
                                      ELSE s.rounds END), 0)
      FROM (SELECT s.quarter_hour, s.scope, s.subject, s.first_at, s.cost, s.tokens, s.uncached_tokens,
                   s.rounds, k.key
              FROM subject_changes AS s
             CROSS JOIN LATERAL (SELECT '' UNION SELECT s.subject) AS k (key)) AS s
     CROSS JOIN LATERAL (
           SELECT b.id, b.metric, b.grain, b.zone, b.since
             FROM asyncsvc.budget AS b
            WHERE b.tenant_id = :tenant_id
              AND b.subject BETWEEN s.key AND s.key
              AND b.scope = s.scope
            ORDER BY b.subject
            LIMIT 80) AS b
      JOIN budget_windows AS w
        ON w.quarter_hour = s.quarter_hour AND w.grain = b.grain AND w.zone = b.zone
     WHERE b.since IS NULL OR s.first_at >= b.since
     GROUP BY b.id, s.subject, coalesce(b.since, w.window_start)
    ON CONFLICT (tenant_id, budget_id, subject, window_start) DO UPDATE
       SET used = u.used + excluded.used
), user_month_rows AS (
    INSERT INTO asyncsvc.usage_user_month AS m (
           tenant_id, user_id, month, conversations, rounds, requests, input_tokens, cached_input_tokens,
           cache_write_tokens, output_tokens, reasoning_tokens, tokens, cost, unpriced, unmetered,
           duration, thumb_up, thumb_down)
    SELECT :tenant_id, a.user_id, date_trunc('month', a.quarter_hour AT TIME ZONE 'UTC')::date AS month,
           sum(a.conversations), sum(a.rounds), sum(a.requests), sum(a.input_tokens),
           sum(a.cached_input_tokens), sum(a.cache_write_tokens), sum(a.output_tokens),
           sum(a.reasoning_tokens), sum(a.tokens), sum(a.cost), sum(a.unpriced), sum(a.unmetered),
           sum(a.duration), sum(a.thumb_up), sum(a.thumb_down)
      FROM activity AS a
     GROUP BY a.user_id, month
    ON CONFLICT (tenant_id, user_id, month) DO UPDATE
       SET conversations = m.conversations + excluded.conversations,
           rounds = m.rounds + excluded.rounds,
           requests = m.requests + excluded.requests,
           input_tokens = m.input_tokens + excluded.input_tokens,
           cached_input_tokens = m.cached_input_tokens + excluded.cached_input_tokens,
           cache_write_tokens = m.cache_write_tokens + excluded.cache_write_tokens,
           output_tokens = m.output_tokens + excluded.output_tokens,
           reasoning_tokens = m.reasoning_tokens + excluded.reasoning_tokens,
           tokens = m.tokens + excluded.tokens,
           cost = m.cost + excluded.cost,
           unpriced = m.unpriced + excluded.unpriced,
           unmetered = m.unmetered + excluded.unmetered,
           duration = m.duration + excluded.duration,
           thumb_up = m.thumb_up + excluded.thumb_up,
           thumb_down = m.thumb_down + excluded.thumb_down
), user_rows AS (
    INSERT INTO asyncsvc.usage_user AS u (tenant_id, user_id, last_month, cost, tokens, rounds)
    SELECT :tenant_id, a.user_id, max(date_trunc('month', a.quarter_hour AT TIME ZONE 'UTC')::date),
           sum(greatest(a.cost, 0)), sum(greatest(a.tokens, 0)), sum(greatest(a.rounds, 0))
      FROM activity AS a
     WHERE a.user_id <> ''
     GROUP BY a.user_id
    ON CONFLICT (tenant_id, user_id) DO UPDATE
       SET last_month = greatest(u.last_month, excluded.last_month),
           cost = u.cost + excluded.cost,
           tokens = u.tokens + excluded.tokens,
           rounds = u.rounds + excluded.rounds
--? buckets {
), creations AS MATERIALIZED (
    SELECT CASE WHEN d.created_at < '1973-01-01 00:00+00' THEN d.created_at
                ELSE date_bin('15 minutes', d.created_at, '0001-01-01 00:00+00') END AS at,
           d.dialog_id, d.source, d.user_id,
           sum(d.conversations) AS conversations,
           sum(d.rounds) AS rounds,
           sum(d.tokens) AS tokens,
           sum(d.duration) AS duration,
           sum(d.thumb_up) AS thumb_up,
           sum(d.thumb_down) AS thumb_down
      FROM drained AS d
     WHERE d.created_at IS NOT NULL
     GROUP BY 1, d.dialog_id, d.source, d.user_id
), zones AS (
    SELECT z.zone
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
), creating_users AS (
    SELECT u.zone, u.grain, u.dimension, u.value, u.bucket::date AS bucket, sum(CASE WHEN EXISTS (
           SELECT FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND (c.user_id, c.created_at) >= (
                  u.user_id, u.bucket AT TIME ZONE u.zone - interval '25 hours')
              AND (c.user_id, c.created_at) < (
                  u.user_id, (u.bucket + ('1 ' || u.grain)::interval) AT TIME ZONE u.zone
                             + interval '25 hours')
              AND date_trunc(u.grain, c.created_at AT TIME ZONE u.zone) = u.bucket
              AND CASE u.dimension WHEN 'dialog_id' THEN c.dialog_id = u.value
                                   WHEN 'source' THEN c.source IS NOT DISTINCT FROM u.value
                                   ELSE true END
            ORDER BY c.user_id, c.created_at
           OFFSET greatest(u.conversations, 0)) THEN 0 ELSE sign(u.conversations) END) AS users
      FROM (
        SELECT z.zone, g.grain, k.dimension, k.value,
               date_trunc(g.grain, c.at AT TIME ZONE z.zone) AS bucket, c.user_id,
               sum(c.conversations) AS conversations
          FROM creations AS c
         CROSS JOIN zones AS z
         CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
         CROSS JOIN LATERAL (
                VALUES ('all', NULL), ('dialog_id', c.dialog_id), ('source', c.source)
               ) AS k (dimension, value)
         WHERE c.conversations <> 0
           AND c.user_id <> ''
         GROUP BY z.zone, g.grain, k.dimension, k.value, bucket, c.user_id
        HAVING sum(c.conversations) <> 0
      ) AS u
     GROUP BY u.zone, u.grain, u.dimension, u.value, u.bucket
), active_users AS (
    SELECT u.zone, u.grain, u.dimension, u.value, u.bucket::date AS bucket,
           count(*) FILTER (WHERE NOT EXISTS (
           SELECT q.rounds FROM asyncsvc.usage_quarter_hour AS q
            WHERE q.tenant_id = :tenant_id
              AND (q.user_id, q.quarter_hour) >= (
                  u.user_id, u.bucket AT TIME ZONE u.zone - interval '25 hours')
              AND (q.user_id, q.quarter_hour) < (
                  u.user_id, (u.bucket + ('1 ' || u.grain)::interval) AT TIME ZONE u.zone
                             + interval '25 hours')
              AND date_trunc(u.grain, q.quarter_hour AT TIME ZONE u.zone) = u.bucket
              AND CASE u.dimension WHEN 'dialog_id' THEN q.dialog_id = u.value
                                   WHEN 'source' THEN q.source IS NOT DISTINCT FROM u.value
                                   WHEN 'token_id' THEN q.token_id IS NOT DISTINCT FROM u.value
                                   WHEN 'model' THEN q.model IS NOT DISTINCT FROM u.value
                                   ELSE true END
            ORDER BY q.user_id, q.quarter_hour
           OFFSET 0)) AS users
      FROM (
        SELECT DISTINCT a.zone, g.grain, k.dimension, k.value, date_trunc(g.grain, a.day) AS bucket,
               a.user_id
          FROM (
            SELECT DISTINCT z.zone, date_trunc('day', a.quarter_hour AT TIME ZONE z.zone) AS day,
                   a.dialog_id, a.source, a.token_id, a.model, a.user_id
              FROM activity AS a
             CROSS JOIN zones AS z
             WHERE a.user_id <> ''
          ) AS a
         CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
         CROSS JOIN LATERAL (
                VALUES ('all', NULL), ('dialog_id', a.dialog_id), ('source', a.source),
                       ('token_id', a.token_id), ('model', a.model)
               ) AS k (dimension, value)
      ) AS u
     GROUP BY u.zone, u.grain, u.dimension, u.value, u.bucket
), days AS (
    SELECT z.zone, 'activity' AS basis, (a.quarter_hour AT TIME ZONE z.zone)::date AS day, a.dialog_id,
           a.source, a.token_id, a.model, sum(a.conversations) AS conversations, sum(a.rounds) AS rounds,
           sum(a.requests) AS requests, sum(a.input_tokens) AS input_tokens,
           sum(a.cached_input_tokens) AS cached_input_tokens,
           sum(a.cache_write_tokens) AS cache_write_tokens, sum(a.output_tokens) AS output_tokens,
           sum(a.reasoning_tokens) AS reasoning_tokens, sum(a.tokens) AS tokens, sum(a.cost) AS cost,
           sum(a.unpriced) AS unpriced, sum(a.unmetered) AS unmetered, sum(a.duration) AS duration,
           sum(a.thumb_up) AS thumb_up, sum(a.thumb_down) AS thumb_down
      FROM activity AS a
     CROSS JOIN zones AS z
     GROUP BY z.zone, day, a.dialog_id, a.source, a.token_id, a.model
     UNION ALL
    SELECT z.zone, 'creation', (c.at AT TIME ZONE z.zone)::date AS day, c.dialog_id, c.source, NULL, NULL,
           sum(c.conversations), sum(c.rounds), NULL, NULL, NULL, NULL, NULL, NULL, sum(c.tokens), NULL,
           NULL, NULL, sum(c.duration), sum(c.thumb_up), sum(c.thumb_down)
      FROM creations AS c
     CROSS JOIN zones AS z
     GROUP BY z.zone, day, c.dialog_id, c.source
), bucket_rows AS (
    INSERT INTO asyncsvc.usage_bucket AS b (
           tenant_id, zone, basis, grain, dimension, value, bucket, conversations, users, rounds, requests,
           input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, tokens,
           cost, unpriced, unmetered, duration, thumb_up, thumb_down)
    SELECT :tenant_id, c.zone, c.basis, c.grain, c.dimension, c.value, c.bucket, sum(c.conversations),
           coalesce(sum(c.users), 0), sum(c.rounds), sum(c.requests), sum(c.input_tokens),
           sum(c.cached_input_tokens), sum(c.cache_write_tokens), sum(c.output_tokens),
           sum(c.reasoning_tokens), sum(c.tokens), sum(c.cost), sum(c.unpriced), sum(c.unmetered),
           sum(c.duration), sum(c.thumb_up), sum(c.thumb_down)
      FROM (
        SELECT d.zone, d.basis, g.grain, k.dimension, k.value,
               date_trunc(g.grain, d.day::timestamp)::date AS bucket, NULL AS users, d.conversations,
               d.rounds, d.requests, d.input_tokens, d.cached_input_tokens, d.cache_write_tokens,
               d.output_tokens, d.reasoning_tokens, d.tokens, d.cost, d.unpriced, d.unmetered, d.duration,
               d.thumb_up, d.thumb_down
          FROM days AS d
         CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
         CROSS JOIN LATERAL (
                VALUES ('all', NULL), ('dialog_id', d.dialog_id), ('source', d.source),
                       ('token_id', d.token_id), ('model', d.model)
               ) AS k (dimension, value)
         WHERE d.basis = 'activity'
            OR k.dimension IN ('all', 'dialog_id', 'source')
         UNION ALL
        SELECT u.zone, 'creation', u.grain, u.dimension, u.value, u.bucket, u.users,
               NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
          FROM creating_users AS u
         UNION ALL
        SELECT u.zone, 'activity', u.grain, u.dimension, u.value, u.bucket, u.users,
               NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
          FROM active_users AS u
      ) AS c
     GROUP BY c.zone, c.basis, c.grain, c.dimension, c.value, c.bucket
    ON CONFLICT (tenant_id, zone, basis, grain, dimension, value, bucket) DO UPDATE
       SET conversations = b.conversations + excluded.conversations,
           users = b.users + excluded.users,
           rounds = b.rounds + excluded.rounds,
           requests = b.requests + excluded.requests,
           input_tokens = b.input_tokens + excluded.input_tokens,
           cached_input_tokens = b.cached_input_tokens + excluded.cached_input_tokens,
           cache_write_tokens = b.cache_write_tokens + excluded.cache_write_tokens,
           output_tokens = b.output_tokens + excluded.output_tokens,
           reasoning_tokens = b.reasoning_tokens + excluded.reasoning_tokens,
           tokens = b.tokens + excluded.tokens,
           cost = b.cost + excluded.cost,
           unpriced = b.unpriced + excluded.unpriced,
           unmetered = b.unmetered + excluded.unmetered,
           duration = b.duration + excluded.duration,
           thumb_up = b.thumb_up + excluded.thumb_up,
           thumb_down = b.thumb_down + excluded.thumb_down
--? }
)
SELECT count(*) AS ledger_rows
  FROM drained AS d
