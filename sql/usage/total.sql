-- Return a tenant's usage of a whole range, as one bucket.
--
-- By creation, or with the flag `activity` by activity, as usage/stats. The buckets of :dimension have the
-- usage with the filter, unless `counted` is set. `by_month` is set without a filter of a dimension.
--
-- Returns: dt, the start of the range; the other columns of usage/stats. 1 row.
-- Locks: none.
-- Index: the keys of usage_zone, usage_bucket, usage_quarter_hour and usage_user_month,
--   usage_ledger_tenant_idx, and for the filter by person usage_quarter_hour_user_idx. By creation the
--   range of conversation_tenant_created_idx, of conversation_created_idx (one dialog) or of
--   conversation_user_idx (one user).
-- Read replica: the result is exact for a slightly earlier moment.
-- Notes: in a declared zone the whole days of the range are read from usage_bucket, and the ledger adds the
--   changes since the last roll-up. The rest is counted, as in usage/stats.
--   Users are counted by activity from whole UTC months, quarter hours at both ends and the ledger; by
--   creation from all conversations of the range.
WITH
--? token_id {
token AS MATERIALIZED (
    SELECT coalesce((SELECT t.family_id
                       FROM asyncsvc.api_token AS t
                      WHERE t.tenant_id = :tenant_id
                        AND t.id = :token_id), :token_id) AS family_id
),
--? }
requested AS MATERIALIZED (
    SELECT r.since, r.until                                              --? !activity
    --? activity {
    SELECT date_bin('15 minutes', r.since, '0001-01-01 00:00+00') AS since,
           date_bin('15 minutes', r.until - interval '1 microsecond', '0001-01-01 00:00+00')
           + interval '15 minutes' AS until
    --? }
      FROM (SELECT :range_from::timestamptz AS since, :range_before::timestamptz AS until) AS r
), whole AS MATERIALIZED (
    SELECT w.first_whole, w.last_whole, w.head_until, w.tail_since
      FROM requested AS r
      LEFT JOIN LATERAL asyncsvc.whole_buckets(r.since, r.until, 'day', :tz) AS w
        ON w.first_whole <= w.last_whole
       AND EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                    WHERE z.tenant_id = :tenant_id
                      AND z.zone = :tz)
       AND false                                --? counted
), counted_ranges AS MATERIALIZED (
    SELECT r.since, r.until, '-infinity'::timestamp AS first_bucket, 'infinity'::timestamp AS last_bucket
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.first_whole IS NULL
     UNION ALL
    SELECT r.since, least(r.until, w.head_until), '-infinity', w.first_whole - interval '1 microsecond'
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.head_until IS NOT NULL
     UNION ALL
    SELECT greatest(r.since, w.tail_since), r.until, w.last_whole + interval '1 microsecond', 'infinity'
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.tail_since IS NOT NULL
), ledger_changes AS MATERIALIZED (
    SELECT u.conversations, u.rounds, u.tokens, u.duration, u.thumb_up, u.thumb_down
         --? activity {
         , u.requests, u.input_tokens, u.cached_input_tokens, u.cache_write_tokens, u.output_tokens,
           u.reasoning_tokens, u.cost, u.unpriced, u.unmetered,
           coalesce(u.acting_user_id, u.user_id) AS user_id
         --? }
      FROM asyncsvc.usage_ledger AS u
      --? !activity {
      JOIN whole AS w
        ON date_trunc('day', u.created_at AT TIME ZONE :tz) BETWEEN w.first_whole AND w.last_whole
      --? }
      --? activity {
      JOIN requested AS r
        ON u.at >= r.since AND u.at < r.until
      --? }
     WHERE u.tenant_id = :tenant_id
       AND u.dialog_id = :dialog_id                                  --? dialog_id
       AND u.source = :source                                        --? source
       AND u.source IS NULL                                          --? source_is_null
       AND u.token_id = (SELECT t.family_id FROM token AS t)         --? token_id
       AND u.token_id IS NULL                                        --? token_id_is_null
       AND u.model = :model                                          --? model
       AND u.model IS NULL                                           --? model_is_null
       AND coalesce(u.acting_user_id, u.user_id) = :user_id          --? user_id
--? activity {
), months AS MATERIALIZED (
    SELECT m.first_month, m.after_months
      FROM requested AS r
      LEFT JOIN LATERAL (
             SELECT date_trunc('month', r.since AT TIME ZONE 'UTC' + interval '1 month'
                                        - interval '1 microsecond') AS first_month,
                    date_trunc('month', r.until AT TIME ZONE 'UTC') AS after_months
           ) AS m
        ON m.first_month < m.after_months
       AND false                                                         --? !by_month
), active_users AS (
    SELECT u.user_id
      FROM asyncsvc.usage_user_month AS u
     WHERE u.tenant_id = :tenant_id
       AND u.month >= (SELECT m.first_month::date FROM months AS m)
       AND u.month < (SELECT m.after_months::date FROM months AS m)
       AND u.user_id = :user_id                                          --? user_id
     UNION
    SELECT q.user_id
      FROM requested AS r
     CROSS JOIN months AS m
     CROSS JOIN LATERAL (
            VALUES (r.since, coalesce(m.first_month AT TIME ZONE 'UTC', r.until)),
                   (m.after_months AT TIME ZONE 'UTC', r.until)
           ) AS e (since, until)
     CROSS JOIN LATERAL (
            SELECT q.user_id
              FROM asyncsvc.usage_quarter_hour AS q
             WHERE q.tenant_id = :tenant_id
               AND q.quarter_hour >= e.since
               AND q.quarter_hour < e.until
               AND q.dialog_id = :dialog_id                          --? dialog_id
               AND q.source = :source                                --? source
               AND q.source IS NULL                                  --? source_is_null
               AND q.token_id = (SELECT t.family_id FROM token AS t) --? token_id
               AND q.token_id IS NULL                                --? token_id_is_null
               AND q.model = :model                                  --? model
               AND q.model IS NULL                                   --? model_is_null
               AND q.user_id = :user_id                              --? user_id
            OFFSET 0
           ) AS q
     UNION
    SELECT l.user_id
      FROM ledger_changes AS l
--? }
--? !activity {
), active_users AS (
    SELECT DISTINCT c.user_id
      FROM asyncsvc.conversation AS c
      JOIN requested AS r
        ON c.created_at >= r.since AND c.created_at < r.until
     WHERE c.tenant_id = :tenant_id
       AND c.dialog_id = :dialog_id                  --? dialog_id
       AND c.source = :source                --? source
       AND c.source IS NULL                  --? source_is_null
       AND c.user_id = :user_id              --? user_id
--? }
), parts AS (
    --? !activity {
    SELECT 1 AS conversations, c.round AS rounds, c.tokens, c.duration, c.thumb_up, c.thumb_down
      FROM counted_ranges AS r
     CROSS JOIN LATERAL (
            SELECT c.round, c.tokens, c.duration, c.thumb_up, c.thumb_down
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.created_at >= r.since
               AND c.created_at < r.until
               AND date_trunc('day', c.created_at AT TIME ZONE :tz)
                   BETWEEN r.first_bucket AND r.last_bucket
               AND c.dialog_id = :dialog_id                          --? dialog_id
               AND c.source = :source                                --? source
               AND c.source IS NULL                                  --? source_is_null
               AND c.user_id = :user_id                              --? user_id
            OFFSET 0
           ) AS c
    --? }
    --? activity {
    SELECT q.conversations, q.rounds, q.tokens, q.duration, q.thumb_up, q.thumb_down
         , q.requests, q.input_tokens, q.cached_input_tokens, q.cache_write_tokens, q.output_tokens,
           q.reasoning_tokens, q.cost, q.unpriced, q.unmetered
      FROM counted_ranges AS r
     CROSS JOIN LATERAL (
            SELECT q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
                   q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
                   q.unmetered, q.duration, q.thumb_up, q.thumb_down
              FROM asyncsvc.usage_quarter_hour AS q
             WHERE q.tenant_id = :tenant_id
               AND q.quarter_hour >= r.since
               AND q.quarter_hour < r.until
               AND date_trunc('day', q.quarter_hour AT TIME ZONE :tz)
                   BETWEEN r.first_bucket AND r.last_bucket
               AND q.dialog_id = :dialog_id                          --? dialog_id
               AND q.source = :source                                --? source
               AND q.source IS NULL                                  --? source_is_null
               AND q.token_id = (SELECT t.family_id FROM token AS t) --? token_id
               AND q.token_id IS NULL                                --? token_id_is_null
               AND q.model = :model                                  --? model
               AND q.model IS NULL                                   --? model_is_null
               AND q.user_id = :user_id                              --? user_id
            OFFSET 0
           ) AS q
    --? }
     UNION ALL
    SELECT b.conversations, b.rounds, b.tokens, b.duration, b.thumb_up, b.thumb_down
         --? activity {
         , b.requests, b.input_tokens, b.cached_input_tokens, b.cache_write_tokens, b.output_tokens,
           b.reasoning_tokens, b.cost, b.unpriced, b.unmetered
         --? }
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND b.zone = :tz
       AND b.basis = 'creation'                                          --? !activity
       AND b.basis = 'activity'                                          --? activity
       AND b.grain = 'day'
       AND b.dimension = :dimension
       AND b.value = :dialog_id                                          --? dialog_id
       AND b.value = :source                                             --? source
       AND b.value = (SELECT t.family_id FROM token AS t)                --? token_id
       AND b.value = :model                                              --? model
       AND b.value IS NULL                                --? !dialog_id, !source, !token_id, !model
       AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
       AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
     UNION ALL
    SELECT l.conversations, l.rounds, l.tokens, l.duration, l.thumb_up, l.thumb_down
         --? activity {
         , l.requests, l.input_tokens, l.cached_input_tokens, l.cache_write_tokens, l.output_tokens,
           l.reasoning_tokens, l.cost, l.unpriced, l.unmetered
         --? }
      FROM ledger_changes AS l
)
SELECT :range_from::timestamptz AS dt, b.conversations, b.users,
       asyncsvc.bigint_v1(b.rounds) AS rounds,
       asyncsvc.bigint_v1(b.tokens) AS tokens,
       (b.duration * 0.000001)::float8 AS duration, b.thumb_up, b.thumb_down,
       coalesce(b.rounds / nullif(b.conversations, 0)::float8, 0) AS round,
       --? !activity {
       CASE WHEN greatest(b.rounds, b.tokens) > 9223372036854775807
            THEN concat_ws(' ', b.rounds, b.tokens) END AS large_sums
       --? }
       --? activity {
       CASE WHEN greatest(abs(b.rounds), abs(b.requests), abs(b.input_tokens), abs(b.cached_input_tokens),
                          abs(b.cache_write_tokens), abs(b.output_tokens), abs(b.reasoning_tokens),
                          abs(b.tokens), abs(b.cost), abs(b.unpriced)) > 9223372036854775807
            THEN concat_ws(' ', b.rounds, b.requests, b.input_tokens, b.cached_input_tokens,
                           b.cache_write_tokens, b.output_tokens, b.reasoning_tokens, b.tokens, b.cost,
                           b.unpriced) END AS large_sums,
       asyncsvc.bigint_v1(b.requests) AS requests,
       asyncsvc.bigint_v1(b.input_tokens) AS input_tokens,
       asyncsvc.bigint_v1(b.cached_input_tokens) AS cached_input_tokens,
       asyncsvc.bigint_v1(b.cache_write_tokens) AS cache_write_tokens,
       asyncsvc.bigint_v1(b.output_tokens) AS output_tokens,
       asyncsvc.bigint_v1(b.reasoning_tokens) AS reasoning_tokens,
       asyncsvc.bigint_v1(b.cost) AS cost,
       asyncsvc.bigint_v1(b.unpriced) AS unpriced, b.unmetered
       --? }
  FROM (SELECT coalesce(sum(p.conversations), 0)::bigint AS conversations,
               coalesce(sum(p.rounds), 0) AS rounds, coalesce(sum(p.tokens), 0) AS tokens,
               coalesce(sum(p.duration), 0) AS duration, coalesce(sum(p.thumb_up), 0)::bigint AS thumb_up,
               coalesce(sum(p.thumb_down), 0)::bigint AS thumb_down,
               (SELECT count(*) FROM active_users AS u WHERE u.user_id <> '') AS users
             --? activity {
             , coalesce(sum(p.requests), 0) AS requests, coalesce(sum(p.input_tokens), 0) AS input_tokens,
               coalesce(sum(p.cached_input_tokens), 0) AS cached_input_tokens,
               coalesce(sum(p.cache_write_tokens), 0) AS cache_write_tokens,
               coalesce(sum(p.output_tokens), 0) AS output_tokens,
               coalesce(sum(p.reasoning_tokens), 0) AS reasoning_tokens, coalesce(sum(p.cost), 0) AS cost,
               coalesce(sum(p.unpriced), 0) AS unpriced, coalesce(sum(p.unmetered), 0)::bigint AS unmetered
             --? }
          FROM parts AS p) AS b
