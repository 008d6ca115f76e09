-- Return a tenant's usage by activity as the groups of persons, in buckets of one hour, day, week or month
-- in the zone :tz, or with the flag `total` of the whole range.
--
-- The :top persons with the highest cost, then tokens, then rounds in the range have rows of their own. All
-- others are one row of each bucket, so the groups add up to usage/stats. :grain is the interval of the
-- buckets, with `total` it is "day". With filters the flag `counted` is set.
--
-- Returns: the columns of usage/stats. group is NULL for usage without a person; users is 1 for a
--   person with usage in the bucket, otherwise 0, and NULL for the others.
-- Locks: none.
-- Index: the keys of usage_zone, usage_bucket, usage_quarter_hour and usage_user_month,
--   usage_ledger_tenant_idx, usage_user_bound_idx, and usage_quarter_hour_user_idx for the usage of the :top
--   persons.
-- Read replica: the result is exact for a slightly earlier moment.
-- Notes: a person's usage in a range is at most the bound in usage_user plus the ledger. `known` is the usage
--   of persons who are likely the first ones: those with the highest bounds and those of the ledger. It is
--   complete for them, and only the part outside of the UTC months for others. All persons with a higher
--   usage than the last of the first ones have a bound of the threshold or more, so `ranked` adds the months
--   of these alone. The range of cost tells the planner that they are few. With filters there are no months.
WITH requested AS MATERIALIZED (
    SELECT date_bin('15 minutes', :range_from::timestamptz, '0001-01-01 00:00+00') AS since,
           date_bin('15 minutes', :range_before::timestamptz - interval '1 microsecond',
                    '0001-01-01 00:00+00') + interval '15 minutes' AS until
         --? token_id {
         , coalesce((SELECT t.family_id
                       FROM asyncsvc.api_token AS t
                      WHERE t.tenant_id = :tenant_id
                        AND t.id = :token_id), :token_id) AS family_id
         --? }
), whole AS MATERIALIZED (
    SELECT w.first_whole, w.last_whole, w.head_until, w.tail_since
      FROM requested AS r
      LEFT JOIN LATERAL asyncsvc.whole_buckets(r.since, r.until, :grain, :tz) AS w
        ON w.first_whole <= w.last_whole
       AND :grain <> 'hour'
       AND EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                    WHERE z.tenant_id = :tenant_id
                      AND z.zone = :tz)
       AND false                                --? counted
), counted_ranges AS MATERIALIZED (
    SELECT r.since, least(r.until, w.head_until) AS until, '-infinity'::timestamp AS first_bucket,
           coalesce(w.first_whole - interval '1 microsecond', 'infinity') AS last_bucket
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.first_whole IS NULL
        OR w.head_until IS NOT NULL
     UNION ALL
    SELECT greatest(r.since, w.tail_since), r.until, w.last_whole + interval '1 microsecond', 'infinity'
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.tail_since IS NOT NULL
), months AS MATERIALIZED (
    SELECT m.first_month, m.after_months
      FROM requested AS r
      LEFT JOIN LATERAL (
             SELECT date_trunc('month', r.since AT TIME ZONE 'UTC' + interval '1 month'
                                        - interval '1 microsecond') AS first_month,
                    date_trunc('month', r.until AT TIME ZONE 'UTC') AS after_months
           ) AS m
        ON m.first_month < m.after_months
       AND false                                --? counted
), ledger_changes AS MATERIALIZED (
    SELECT date_trunc(:grain, date_bin('15 minutes', u.at, '0001-01-01 00:00+00'), :tz) AS dt,
           coalesce(u.acting_user_id, u.user_id) AS user_id,
           u.conversations, u.rounds, u.requests, u.input_tokens, u.cached_input_tokens,
           u.cache_write_tokens, u.output_tokens, u.reasoning_tokens, u.tokens, u.cost, u.unpriced,
           u.unmetered, u.duration, u.thumb_up, u.thumb_down
      FROM asyncsvc.usage_ledger AS u
      JOIN requested AS r
        ON u.at >= r.since AND u.at < r.until
     WHERE u.tenant_id = :tenant_id
       AND u.dialog_id = :dialog_id                                  --? dialog_id
       AND u.source = :source                                        --? source
       AND u.source IS NULL                                          --? source_is_null
       AND u.token_id = (SELECT r.family_id FROM requested AS r)     --? token_id
       AND u.token_id IS NULL                                        --? token_id_is_null
       AND u.model = :model                                          --? model
       AND u.model IS NULL                                           --? model_is_null
       AND coalesce(u.acting_user_id, u.user_id) = :user_id          --? user_id
), ends AS MATERIALIZED (
    SELECT q.user_id, q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
           q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
           q.unmetered, q.duration, q.thumb_up, q.thumb_down
      FROM requested AS r
     CROSS JOIN months AS m
     CROSS JOIN LATERAL (
            VALUES (r.since, coalesce(m.first_month AT TIME ZONE 'UTC', r.until)),
                   (m.after_months AT TIME ZONE 'UTC', r.until)
           ) AS e (since, until)
     CROSS JOIN LATERAL (
            SELECT q.user_id,
                   q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
                   q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
                   q.unmetered, q.duration, q.thumb_up, q.thumb_down
              FROM asyncsvc.usage_quarter_hour AS q
             WHERE q.tenant_id = :tenant_id
               AND q.quarter_hour >= e.since
               AND q.quarter_hour < e.until
               AND q.dialog_id = :dialog_id                          --? dialog_id
               AND q.source = :source                                --? source
               AND q.source IS NULL                                  --? source_is_null
               AND q.token_id = (SELECT r.family_id FROM requested AS r) --? token_id
               AND q.token_id IS NULL                                --? token_id_is_null
               AND q.model = :model                                  --? model
               AND q.model IS NULL                                   --? model_is_null
               AND q.user_id = :user_id                              --? user_id
            OFFSET 0
           ) AS q
), likely AS MATERIALIZED (
    (SELECT u.user_id
       FROM (
         SELECT u.user_id
           FROM asyncsvc.usage_user AS u
          WHERE u.tenant_id = :tenant_id
            AND (SELECT m.first_month IS NOT NULL FROM months AS m)
          ORDER BY u.cost DESC, u.tokens DESC, u.rounds DESC
          LIMIT 2000
       ) AS u
      LIMIT :top + 200)
     UNION
    SELECT l.user_id
      FROM ledger_changes AS l
     UNION
    SELECT ''
), known AS MATERIALIZED (
    SELECT k.user_id, sum(k.cost) AS cost, sum(k.tokens) AS tokens, sum(k.rounds) AS rounds,
           bool_or(k.is_likely) AS is_likely
      FROM (
        SELECT y.user_id, m.cost, m.tokens, m.rounds, true AS is_likely
          FROM likely AS y
         CROSS JOIN LATERAL (
                SELECT m.cost, m.tokens, m.rounds
                  FROM asyncsvc.usage_user_month AS m
                 WHERE m.tenant_id = :tenant_id
                   AND m.user_id = y.user_id
                   AND m.month >= (SELECT m.first_month::date FROM months AS m)
                   AND m.month < (SELECT m.after_months::date FROM months AS m)
                OFFSET 0
               ) AS m
         UNION ALL
        SELECT e.user_id, e.cost, e.tokens, e.rounds, false
          FROM ends AS e
         UNION ALL
        SELECT l.user_id, coalesce(l.cost, 0), l.tokens, l.rounds, false
          FROM ledger_changes AS l
      ) AS k
     GROUP BY k.user_id
), threshold AS MATERIALIZED (
    SELECT k.cost, k.tokens, k.rounds
      FROM known AS k
     WHERE k.is_likely
     ORDER BY k.cost DESC, k.tokens DESC, k.rounds DESC
    OFFSET :top
     LIMIT 1
), ranked AS MATERIALIZED (
    SELECT p.user_id, row_number() OVER (
               ORDER BY p.cost DESC, p.tokens DESC, p.rounds DESC, nullif(p.user_id, '')) AS place
      FROM (
        SELECT p.user_id, sum(p.cost) AS cost, sum(p.tokens) AS tokens, sum(p.rounds) AS rounds
          FROM (
            SELECT k.user_id, k.cost, k.tokens, k.rounds
              FROM known AS k
             UNION ALL
            SELECT u.user_id, m.cost, m.tokens, m.rounds
              FROM (
                SELECT u.user_id
                  FROM asyncsvc.usage_user AS u
                 WHERE u.tenant_id = :tenant_id
                   AND (SELECT m.first_month IS NOT NULL FROM months AS m)
                   AND u.last_month >= (SELECT m.first_month::date FROM months AS m)
                   AND (u.cost, u.tokens, u.rounds) >= (
                       coalesce((SELECT t.cost FROM threshold AS t), 0),
                       coalesce((SELECT t.tokens FROM threshold AS t), 0),
                       coalesce((SELECT t.rounds FROM threshold AS t), 0))
                   AND u.cost BETWEEN coalesce((SELECT t.cost FROM threshold AS t), 0) AND 'Infinity'
                   AND u.user_id NOT IN (SELECT y.user_id FROM likely AS y)
              ) AS u
             CROSS JOIN LATERAL (
                    SELECT m.cost, m.tokens, m.rounds
                      FROM asyncsvc.usage_user_month AS m
                     WHERE m.tenant_id = :tenant_id
                       AND m.user_id = u.user_id
                       AND m.month >= (SELECT m.first_month::date FROM months AS m)
                       AND m.month < (SELECT m.after_months::date FROM months AS m)
                    OFFSET 0
                   ) AS m
          ) AS p
         GROUP BY p.user_id
         ORDER BY 2 DESC, 3 DESC, 4 DESC, nullif(p.user_id, '')
         LIMIT :top + 1
      ) AS p
), top AS MATERIALIZED (
    SELECT r.user_id, r.place
      FROM ranked AS r
     WHERE r.place <= :top
), top_usage AS MATERIALIZED (
    --? total {
    SELECT :range_from::timestamptz AS dt, t.place,
           u.conversations, u.rounds, u.requests, u.input_tokens, u.cached_input_tokens,
           u.cache_write_tokens, u.output_tokens, u.reasoning_tokens, u.tokens, u.cost, u.unpriced,
           u.unmetered, u.duration, u.thumb_up, u.thumb_down
      FROM top AS t
     CROSS JOIN LATERAL (
            SELECT u.conversations, u.rounds, u.requests, u.input_tokens, u.cached_input_tokens,
                   u.cache_write_tokens, u.output_tokens, u.reasoning_tokens, u.tokens, u.cost, u.unpriced,
                   u.unmetered, u.duration, u.thumb_up, u.thumb_down
              FROM asyncsvc.usage_user_month AS u
             WHERE u.tenant_id = :tenant_id
               AND u.user_id = t.user_id
               AND u.month >= (SELECT m.first_month::date FROM months AS m)
               AND u.month < (SELECT m.after_months::date FROM months AS m)
            OFFSET 0
           ) AS u
     UNION ALL
    SELECT :range_from::timestamptz, t.place,
           e.conversations, e.rounds, e.requests, e.input_tokens, e.cached_input_tokens,
           e.cache_write_tokens, e.output_tokens, e.reasoning_tokens, e.tokens, e.cost, e.unpriced,
           e.unmetered, e.duration, e.thumb_up, e.thumb_down
      FROM top AS t
      JOIN ends AS e ON e.user_id = t.user_id
     UNION ALL
    SELECT :range_from::timestamptz, t.place,
           l.conversations, l.rounds, l.requests, l.input_tokens, l.cached_input_tokens,
           l.cache_write_tokens, l.output_tokens, l.reasoning_tokens, l.tokens, l.cost, l.unpriced,
           l.unmetered, l.duration, l.thumb_up, l.thumb_down
      FROM top AS t
      JOIN ledger_changes AS l ON l.user_id = t.user_id
    --? }
    --? !total {
    SELECT date_trunc(:grain, q.quarter_hour, :tz) AS dt, t.place,
           q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
           q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
           q.unmetered, q.duration, q.thumb_up, q.thumb_down
      FROM top AS t
     CROSS JOIN requested AS r
     CROSS JOIN LATERAL (
            SELECT q.quarter_hour,
                   q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
                   q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
                   q.unmetered, q.duration, q.thumb_up, q.thumb_down
              FROM asyncsvc.usage_quarter_hour AS q
             WHERE q.tenant_id = :tenant_id
               AND q.user_id = t.user_id
               AND q.quarter_hour >= r.since
               AND q.quarter_hour < r.until
               AND q.dialog_id = :dialog_id                          --? dialog_id
               AND q.source = :source                                --? source
               AND q.source IS NULL                                  --? source_is_null
               AND q.token_id = (SELECT r.family_id FROM requested AS r) --? token_id
               AND q.token_id IS NULL                                --? token_id_is_null
               AND q.model = :model                                  --? model
               AND q.model IS NULL                                   --? model_is_null
               AND q.user_id = :user_id                              --? user_id
            OFFSET 0
           ) AS q
     UNION ALL
    SELECT l.dt, t.place,
           l.conversations, l.rounds, l.requests, l.input_tokens, l.cached_input_tokens,
           l.cache_write_tokens, l.output_tokens, l.reasoning_tokens, l.tokens, l.cost, l.unpriced,
           l.unmetered, l.duration, l.thumb_up, l.thumb_down
      FROM top AS t
      JOIN ledger_changes AS l ON l.user_id = t.user_id
    --? }
), parts AS (
    SELECT t.dt, t.place, t.conversations, t.rounds, t.requests, t.input_tokens, t.cached_input_tokens,
           t.cache_write_tokens, t.output_tokens, t.reasoning_tokens, t.tokens, t.cost, t.unpriced,
           t.unmetered, t.duration, t.thumb_up, t.thumb_down
      FROM top_usage AS t
     UNION ALL
    SELECT t.dt, NULL, -t.conversations, -t.rounds, -t.requests, -t.input_tokens, -t.cached_input_tokens,
           -t.cache_write_tokens, -t.output_tokens, -t.reasoning_tokens, -t.tokens, -t.cost, -t.unpriced,
           -t.unmetered, -t.duration, -t.thumb_up, -t.thumb_down
      FROM top_usage AS t
     UNION ALL
    SELECT b.bucket::timestamp AT TIME ZONE :tz, NULL,                   --? !total
    SELECT :range_from::timestamptz, NULL,                               --? total
           b.conversations, b.rounds, b.requests, b.input_tokens, b.cached_input_tokens,
           b.cache_write_tokens, b.output_tokens, b.reasoning_tokens, b.tokens, b.cost, b.unpriced,
           b.unmetered, b.duration, b.thumb_up, b.thumb_down
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND b.zone = :tz
       AND b.basis = 'activity'
       AND b.grain = :grain
       AND b.dimension = 'all'
       AND b.value IS NULL
       AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
       AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
     UNION ALL
    SELECT date_trunc(:grain, q.quarter_hour, :tz), NULL,           --? !total
    SELECT :range_from::timestamptz, NULL,                               --? total
           q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
           q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
           q.unmetered, q.duration, q.thumb_up, q.thumb_down
      FROM counted_ranges AS r
     CROSS JOIN LATERAL (
            SELECT q.quarter_hour,
                   q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
                   q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
                   q.unmetered, q.duration, q.thumb_up, q.thumb_down
              FROM asyncsvc.usage_quarter_hour AS q
             WHERE q.tenant_id = :tenant_id
               AND q.quarter_hour >= r.since
               AND q.quarter_hour < r.until
               AND date_trunc(:grain, q.quarter_hour AT TIME ZONE :tz)
                   BETWEEN r.first_bucket AND r.last_bucket
               AND q.dialog_id = :dialog_id                          --? dialog_id
               AND q.source = :source                                --? source
               AND q.source IS NULL                                  --? source_is_null
               AND q.token_id = (SELECT r.family_id FROM requested AS r) --? token_id
               AND q.token_id IS NULL                                --? token_id_is_null
               AND q.model = :model                                  --? model
               AND q.model IS NULL                                   --? model_is_null
               AND q.user_id = :user_id                              --? user_id
            OFFSET 0
           ) AS q
     UNION ALL
    SELECT l.dt, NULL,                                                   --? !total
    SELECT :range_from::timestamptz, NULL,                               --? total
           l.conversations, l.rounds, l.requests, l.input_tokens, l.cached_input_tokens,
           l.cache_write_tokens, l.output_tokens, l.reasoning_tokens, l.tokens, l.cost, l.unpriced,
           l.unmetered, l.duration, l.thumb_up, l.thumb_down
      FROM ledger_changes AS l
    --? !total {
     UNION ALL
    SELECT e.dt, t.place,
           NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
      FROM asyncsvc.bucket_labels(:range_from, :range_before, :grain, :tz) AS e (dt)
     CROSS JOIN (SELECT t.place FROM top AS t UNION ALL SELECT NULL) AS t
     WHERE :fill::bool                          --? fill
    --? }
), summed AS (
    SELECT p.dt, nullif(t.user_id, '') AS value, p.place,
           CASE WHEN p.place IS NOT NULL
                THEN (t.user_id <> '' AND count(p.conversations) > 0)::integer::bigint END AS users,
           coalesce(sum(p.conversations), 0)::bigint AS conversations,
           coalesce(sum(p.rounds), 0) AS rounds, coalesce(sum(p.requests), 0) AS requests,
           coalesce(sum(p.input_tokens), 0) AS input_tokens,
           coalesce(sum(p.cached_input_tokens), 0) AS cached_input_tokens,
           coalesce(sum(p.cache_write_tokens), 0) AS cache_write_tokens,
           coalesce(sum(p.output_tokens), 0) AS output_tokens,
           coalesce(sum(p.reasoning_tokens), 0) AS reasoning_tokens, coalesce(sum(p.tokens), 0) AS tokens,
           coalesce(sum(p.cost), 0) AS cost, coalesce(sum(p.unpriced), 0) AS unpriced,
           coalesce(sum(p.unmetered), 0)::bigint AS unmetered, coalesce(sum(p.duration), 0) AS duration,
           coalesce(sum(p.thumb_up), 0)::bigint AS thumb_up,
           coalesce(sum(p.thumb_down), 0)::bigint AS thumb_down
      FROM parts AS p
      LEFT JOIN top AS t ON t.place = p.place
     GROUP BY p.dt, t.user_id, p.place
)
SELECT b.dt, b.value AS "group", b.place IS NULL AS is_other, b.conversations, b.users,
       asyncsvc.bigint_v1(b.rounds) AS rounds,
       asyncsvc.bigint_v1(b.tokens) AS tokens,
       (b.duration * 0.000001)::float8 AS duration, b.thumb_up, b.thumb_down,
       coalesce(b.rounds / nullif(b.conversations, 0)::float8, 0) AS round,
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
  FROM summed AS b
 WHERE b.place IS NOT NULL
    OR EXISTS (SELECT FROM ranked AS r WHERE r.place > :top)
 ORDER BY b.dt, b.place
