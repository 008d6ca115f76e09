-- Replace persons by '' in the sums of a tenant before the UTC month that :retention ago began, one batch of
-- months of persons. Without such months it records that the sums are complete from that month on.
--
-- Returns: user_months, the number of replaced months; last_user_id, from which on the next batch begins. 0
--   if there are none, or another session works on this tenant.
-- Locks: the tenant's UTC row of usage_zone (skipped if another session holds it), and the changed rows.
-- Index: usage_user_month_pkey, all entries of the tenant; usage_quarter_hour_user_idx; usage_user_pkey.
-- Timeout: none. The number of a tenant's persons has no bound.
-- Notes: a batch is one statement, so an interruption loses nothing, and the sums without persons never
--   change. A row that a roll-up has changed meanwhile is deleted with its new values. The bound of a person
--   (usage_user) is deleted with the last month.
WITH locked AS MATERIALIZED (
    SELECT z.tenant_id,
           date_trunc('month', (statement_timestamp() - :retention::interval) AT TIME ZONE 'UTC') AS month
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
       AND z.zone = 'UTC'
       FOR UPDATE SKIP LOCKED
), old AS MATERIALIZED (
    SELECT m.user_id, m.month
      FROM asyncsvc.usage_user_month AS m
     WHERE m.tenant_id = :tenant_id
       AND m.user_id > ''
       AND m.user_id >= :after_user_id
       AND m.month < (SELECT l.month::date FROM locked AS l)
     ORDER BY m.user_id, m.month
     LIMIT :batch_size
), months AS (
    DELETE FROM asyncsvc.usage_user_month AS m
     USING old AS o
     WHERE m.tenant_id = :tenant_id
       AND m.user_id = o.user_id
       AND m.month = o.month
    RETURNING m.user_id, m.month,
              m.conversations, m.rounds, m.requests, m.input_tokens, m.cached_input_tokens,
              m.cache_write_tokens, m.output_tokens, m.reasoning_tokens, m.tokens, m.cost, m.unpriced,
              m.unmetered, m.duration, m.thumb_up, m.thumb_down
), month_rows AS (
    INSERT INTO asyncsvc.usage_user_month AS m (
           tenant_id, user_id, month,
           conversations, rounds, requests, input_tokens, cached_input_tokens, cache_write_tokens,
           output_tokens, reasoning_tokens, tokens, cost, unpriced, unmetered, duration, thumb_up,
           thumb_down)
    SELECT :tenant_id, '', n.month,
           sum(n.conversations), sum(n.rounds), sum(n.requests), sum(n.input_tokens),
           sum(n.cached_input_tokens), sum(n.cache_write_tokens), sum(n.output_tokens),
           sum(n.reasoning_tokens), sum(n.tokens), sum(n.cost), sum(n.unpriced), sum(n.unmetered),
           sum(n.duration), sum(n.thumb_up), sum(n.thumb_down)
      FROM months AS n
     GROUP BY n.month
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
), quarter_hours AS (
    DELETE FROM asyncsvc.usage_quarter_hour AS q
     USING old AS o
     WHERE q.tenant_id = :tenant_id
       AND q.user_id = o.user_id
       AND q.quarter_hour >= o.month::timestamp AT TIME ZONE 'UTC'
       AND q.quarter_hour < (o.month + interval '1 month') AT TIME ZONE 'UTC'
    RETURNING q.quarter_hour, q.dialog_id, q.source, q.token_id, q.model, q.is_imported,
              q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
              q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
              q.unmetered, q.duration, q.thumb_up, q.thumb_down
), quarter_hour_rows AS (
    INSERT INTO asyncsvc.usage_quarter_hour AS q (
           tenant_id, quarter_hour, dialog_id, source, token_id, user_id, model, is_imported,
           conversations, rounds, requests, input_tokens, cached_input_tokens, cache_write_tokens,
           output_tokens, reasoning_tokens, tokens, cost, unpriced, unmetered, duration, thumb_up,
           thumb_down)
    SELECT :tenant_id, n.quarter_hour, n.dialog_id, n.source, n.token_id, '', n.model, n.is_imported,
           sum(n.conversations), sum(n.rounds), sum(n.requests), sum(n.input_tokens),
           sum(n.cached_input_tokens), sum(n.cache_write_tokens), sum(n.output_tokens),
           sum(n.reasoning_tokens), sum(n.tokens), sum(n.cost), sum(n.unpriced), sum(n.unmetered),
           sum(n.duration), sum(n.thumb_up), sum(n.thumb_down)
      FROM quarter_hours AS n
     GROUP BY n.quarter_hour, n.dialog_id, n.source, n.token_id, n.model, n.is_imported
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
), bounds AS (
    UPDATE asyncsvc.usage_user AS u
       SET cost = u.cost - n.cost,
           tokens = u.tokens - n.tokens,
           rounds = u.rounds - n.rounds
      FROM (SELECT n.user_id, max(n.month) AS last_month, sum(n.cost) AS cost, sum(n.tokens) AS tokens,
                   sum(n.rounds) AS rounds
              FROM months AS n
             GROUP BY n.user_id) AS n
     WHERE u.tenant_id = :tenant_id
       AND u.user_id = n.user_id
       AND u.last_month > n.last_month
), gone AS (
    DELETE FROM asyncsvc.usage_user AS u
     USING months AS n
     WHERE u.tenant_id = :tenant_id
       AND u.user_id = n.user_id
       AND u.last_month = n.month
), completed AS (
    UPDATE asyncsvc.usage_zone AS z
       SET users_since = l.month
      FROM locked AS l
     WHERE z.tenant_id = :tenant_id
       AND z.zone = 'UTC'
       AND :after_user_id = ''
       AND NOT EXISTS (SELECT FROM old)
)
SELECT count(*) AS user_months, coalesce(max(o.user_id), '') AS last_user_id
  FROM old AS o
