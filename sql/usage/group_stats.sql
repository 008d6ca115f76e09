-- Return a tenant's usage by activity as the groups of a dimension, in buckets of one hour, day, week or
-- month in the zone :tz, or with the flag `total` of the whole range.
--
-- The :top groups with the highest cost, then tokens, then rounds in the range have rows of their own. All
-- other groups are one row of each bucket, so the groups add up to usage/stats. :grain is the interval of
-- the buckets, with `total` it is "day". With filters the flag `counted` is set.
--
-- Returns: dt, the label of the bucket as in usage/stats, the start of the range with `total`; group, the
--   value of the dimension, NULL for usage without one; is_other; users, NULL for other groups and with
--   `total`; the other columns of usage/stats. Oldest first, then by rank; with :fill also the empty buckets
--   of each group.
-- Locks: none.
-- Index: the keys of usage_zone, usage_bucket and usage_quarter_hour, usage_ledger_tenant_idx, and for
--   distinct users and the filter by person usage_quarter_hour_user_idx.
-- Read replica: the result is exact for a slightly earlier moment.
-- Notes: in a declared zone the whole buckets of the range are read from usage_bucket, 1 row for each bucket
--   and group. The groups are ranked by months where the range has whole months. The other groups are the
--   bucket of all usage without the groups with rows of their own. The rest is counted, as in usage/stats.
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
    SELECT date_bin('15 minutes', :range_from::timestamptz, '0001-01-01 00:00+00') AS since,
           date_bin('15 minutes', :range_before::timestamptz - interval '1 microsecond',
                    '0001-01-01 00:00+00') + interval '15 minutes' AS until
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
), months AS MATERIALIZED (
    SELECT CASE WHEN m.first_month < m.after_months THEN m.first_month ELSE m.after END AS first_month,
           CASE WHEN m.first_month < m.after_months THEN m.after_months ELSE m.after END AS after_months
      FROM (
        SELECT (w.last_whole + ('1 ' || :grain)::interval)::date AS after,
               date_trunc('month', w.first_whole + interval '1 month' - interval '1 day')::date
               AS first_month,
               CASE WHEN :grain <> 'week'
                    THEN date_trunc('month', w.last_whole + ('1 ' || :grain)::interval)::date
                    END AS after_months
          FROM whole AS w
      ) AS m
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
), counted AS MATERIALIZED (
    SELECT q.dt, q.value, count(DISTINCT nullif(q.user_id, '')) AS users,
           sum(q.conversations) AS conversations, sum(q.rounds) AS rounds, sum(q.requests) AS requests,
           sum(q.input_tokens) AS input_tokens, sum(q.cached_input_tokens) AS cached_input_tokens,
           sum(q.cache_write_tokens) AS cache_write_tokens, sum(q.output_tokens) AS output_tokens,
           sum(q.reasoning_tokens) AS reasoning_tokens, sum(q.tokens) AS tokens, sum(q.cost) AS cost,
           sum(q.unpriced) AS unpriced, sum(q.unmetered) AS unmetered, sum(q.duration) AS duration,
           sum(q.thumb_up) AS thumb_up, sum(q.thumb_down) AS thumb_down
      FROM counted_ranges AS r
     CROSS JOIN LATERAL (
            SELECT date_trunc(:grain, q.quarter_hour, :tz) AS dt, q.user_id,
                   CASE :dimension WHEN 'dialog_id' THEN q.dialog_id WHEN 'source' THEN q.source
                                   WHEN 'token_id' THEN q.token_id ELSE q.model END AS value,
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
               AND q.token_id = (SELECT t.family_id FROM token AS t) --? token_id
               AND q.token_id IS NULL                                --? token_id_is_null
               AND q.model = :model                                  --? model
               AND q.model IS NULL                                   --? model_is_null
               AND q.user_id = :user_id                              --? user_id
            OFFSET 0
           ) AS q
     GROUP BY q.dt, q.value
), ledger_changes AS MATERIALIZED (
    SELECT date_trunc(:grain, date_bin('15 minutes', u.at, '0001-01-01 00:00+00'), :tz) AS dt,
           coalesce(u.acting_user_id, u.user_id) AS user_id,
           CASE :dimension WHEN 'dialog_id' THEN u.dialog_id WHEN 'source' THEN u.source
                           WHEN 'token_id' THEN u.token_id ELSE u.model END AS value,
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
       AND u.token_id = (SELECT t.family_id FROM token AS t)         --? token_id
       AND u.token_id IS NULL                                        --? token_id_is_null
       AND u.model = :model                                          --? model
       AND u.model IS NULL                                           --? model_is_null
       AND coalesce(u.acting_user_id, u.user_id) = :user_id          --? user_id
), ranked AS MATERIALIZED (
    SELECT p.value,
           row_number() OVER (ORDER BY coalesce(sum(p.cost), 0) DESC, sum(p.tokens) DESC,
                                       sum(p.rounds) DESC, p.value) AS place,
           sum(p.rounds) AS rounds, sum(p.tokens) AS tokens, sum(p.cost) AS cost
         --? total {
         , sum(p.conversations) AS conversations, sum(p.requests) AS requests,
           sum(p.input_tokens) AS input_tokens, sum(p.cached_input_tokens) AS cached_input_tokens,
           sum(p.cache_write_tokens) AS cache_write_tokens, sum(p.output_tokens) AS output_tokens,
           sum(p.reasoning_tokens) AS reasoning_tokens, sum(p.unpriced) AS unpriced,
           sum(p.unmetered) AS unmetered, sum(p.duration) AS duration, sum(p.thumb_up) AS thumb_up,
           sum(p.thumb_down) AS thumb_down
         --? }
      FROM (
        SELECT b.value, b.rounds, b.tokens, b.cost
             --? total {
             , b.conversations, b.requests, b.input_tokens, b.cached_input_tokens, b.cache_write_tokens,
               b.output_tokens, b.reasoning_tokens, b.unpriced, b.unmetered, b.duration, b.thumb_up,
               b.thumb_down
             --? }
          FROM asyncsvc.usage_bucket AS b
         WHERE b.tenant_id = :tenant_id
           AND b.zone = :tz
           AND b.basis = 'activity'
           AND b.grain = :grain
           AND b.dimension = :dimension
           AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
           AND b.bucket < (SELECT m.first_month FROM months AS m)
         UNION ALL
        SELECT b.value, b.rounds, b.tokens, b.cost
             --? total {
             , b.conversations, b.requests, b.input_tokens, b.cached_input_tokens, b.cache_write_tokens,
               b.output_tokens, b.reasoning_tokens, b.unpriced, b.unmetered, b.duration, b.thumb_up,
               b.thumb_down
             --? }
          FROM asyncsvc.usage_bucket AS b
         WHERE b.tenant_id = :tenant_id
           AND b.zone = :tz
           AND b.basis = 'activity'
           AND b.grain = 'month'
           AND b.dimension = :dimension
           AND b.bucket >= (SELECT m.first_month FROM months AS m)
           AND b.bucket < (SELECT m.after_months FROM months AS m)
         UNION ALL
        SELECT b.value, b.rounds, b.tokens, b.cost
             --? total {
             , b.conversations, b.requests, b.input_tokens, b.cached_input_tokens, b.cache_write_tokens,
               b.output_tokens, b.reasoning_tokens, b.unpriced, b.unmetered, b.duration, b.thumb_up,
               b.thumb_down
             --? }
          FROM asyncsvc.usage_bucket AS b
         WHERE b.tenant_id = :tenant_id
           AND b.zone = :tz
           AND b.basis = 'activity'
           AND b.grain = :grain
           AND b.dimension = :dimension
           AND b.bucket >= (SELECT m.after_months FROM months AS m)
           AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
         UNION ALL
        SELECT c.value, c.rounds, c.tokens, c.cost
             --? total {
             , c.conversations, c.requests, c.input_tokens, c.cached_input_tokens, c.cache_write_tokens,
               c.output_tokens, c.reasoning_tokens, c.unpriced, c.unmetered, c.duration, c.thumb_up,
               c.thumb_down
             --? }
          FROM counted AS c
         UNION ALL
        SELECT l.value, l.rounds, l.tokens, l.cost
             --? total {
             , l.conversations, l.requests, l.input_tokens, l.cached_input_tokens, l.cache_write_tokens,
               l.output_tokens, l.reasoning_tokens, l.unpriced, l.unmetered, l.duration, l.thumb_up,
               l.thumb_down
             --? }
          FROM ledger_changes AS l
      ) AS p
     GROUP BY p.value
--? total {
), summed AS (
    SELECT :range_from::timestamptz AS dt, CASE WHEN r.place <= :top THEN r.value END AS value,
           CASE WHEN r.place <= :top THEN r.place END AS place, NULL::bigint AS users,
           coalesce(sum(r.conversations), 0)::bigint AS conversations,
           coalesce(sum(r.rounds), 0) AS rounds, coalesce(sum(r.requests), 0) AS requests,
           coalesce(sum(r.input_tokens), 0) AS input_tokens,
           coalesce(sum(r.cached_input_tokens), 0) AS cached_input_tokens,
           coalesce(sum(r.cache_write_tokens), 0) AS cache_write_tokens,
           coalesce(sum(r.output_tokens), 0) AS output_tokens,
           coalesce(sum(r.reasoning_tokens), 0) AS reasoning_tokens, coalesce(sum(r.tokens), 0) AS tokens,
           coalesce(sum(r.cost), 0) AS cost, coalesce(sum(r.unpriced), 0) AS unpriced,
           coalesce(sum(r.unmetered), 0)::bigint AS unmetered, coalesce(sum(r.duration), 0) AS duration,
           coalesce(sum(r.thumb_up), 0)::bigint AS thumb_up,
           coalesce(sum(r.thumb_down), 0)::bigint AS thumb_down
      FROM ranked AS r
     GROUP BY 2, 3
--? }
--? !total {
), top AS MATERIALIZED (
    SELECT r.value, r.place
      FROM ranked AS r
     WHERE r.place <= :top
), stored_buckets AS MATERIALIZED (
    SELECT t.place, b.dt, b.users,
           b.conversations, b.rounds, b.requests, b.input_tokens, b.cached_input_tokens,
           b.cache_write_tokens, b.output_tokens, b.reasoning_tokens, b.tokens, b.cost, b.unpriced,
           b.unmetered, b.duration, b.thumb_up, b.thumb_down
      FROM top AS t
     CROSS JOIN LATERAL (
            SELECT b.bucket::timestamp AT TIME ZONE :tz AS dt, b.users,
                   b.conversations, b.rounds, b.requests, b.input_tokens, b.cached_input_tokens,
                   b.cache_write_tokens, b.output_tokens, b.reasoning_tokens, b.tokens, b.cost, b.unpriced,
                   b.unmetered, b.duration, b.thumb_up, b.thumb_down
              FROM asyncsvc.usage_bucket AS b
             WHERE b.tenant_id = :tenant_id
               AND b.zone = :tz
               AND b.basis = 'activity'
               AND b.grain = :grain
               AND b.dimension = :dimension
               AND b.value = t.value
               AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
               AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
            OFFSET 0
           ) AS b
     UNION ALL
    SELECT t.place, b.bucket::timestamp AT TIME ZONE :tz, b.users,
           b.conversations, b.rounds, b.requests, b.input_tokens, b.cached_input_tokens,
           b.cache_write_tokens, b.output_tokens, b.reasoning_tokens, b.tokens, b.cost, b.unpriced,
           b.unmetered, b.duration, b.thumb_up, b.thumb_down
      FROM top AS t
      JOIN asyncsvc.usage_bucket AS b ON t.value IS NULL
     WHERE b.tenant_id = :tenant_id
       AND b.zone = :tz
       AND b.basis = 'activity'
       AND b.grain = :grain
       AND b.dimension = :dimension
       AND b.value IS NULL
       AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
       AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
), new_users AS (
    SELECT u.dt, t.place, count(*) FILTER (WHERE NOT EXISTS (
           SELECT FROM asyncsvc.usage_quarter_hour AS q
            WHERE q.tenant_id = :tenant_id
              AND (q.user_id, q.quarter_hour) >= (
                  u.user_id, greatest(r.since, u.dt - interval '25 hours'))
              AND (q.user_id, q.quarter_hour) < (
                  u.user_id, least(r.until, (u.dt AT TIME ZONE :tz + ('1 ' || :grain)::interval)
                                            AT TIME ZONE :tz + interval '25 hours'))
              AND date_trunc(:grain, q.quarter_hour, :tz) = u.dt
              AND u.value IS NOT DISTINCT FROM
                  CASE :dimension WHEN 'dialog_id' THEN q.dialog_id WHEN 'source' THEN q.source
                                  WHEN 'token_id' THEN q.token_id ELSE q.model END
              AND q.dialog_id = :dialog_id                           --? dialog_id
              AND q.source = :source                                 --? source
              AND q.source IS NULL                                   --? source_is_null
              AND q.token_id = (SELECT t.family_id FROM token AS t)  --? token_id
              AND q.token_id IS NULL                                 --? token_id_is_null
              AND q.model = :model                                   --? model
              AND q.model IS NULL                                    --? model_is_null
              AND q.user_id = :user_id                               --? user_id
            ORDER BY q.user_id, q.quarter_hour
           OFFSET 0)) AS users
      FROM (SELECT DISTINCT l.dt, l.value, l.user_id
              FROM ledger_changes AS l
             WHERE l.user_id <> '') AS u
      JOIN top AS t ON t.value IS NOT DISTINCT FROM u.value
     CROSS JOIN requested AS r
     GROUP BY u.dt, t.place
), parts AS (
    SELECT b.dt, b.place, b.users,
           b.conversations, b.rounds, b.requests, b.input_tokens, b.cached_input_tokens,
           b.cache_write_tokens, b.output_tokens, b.reasoning_tokens, b.tokens, b.cost, b.unpriced,
           b.unmetered, b.duration, b.thumb_up, b.thumb_down
      FROM stored_buckets AS b
     UNION ALL
    SELECT b.dt, NULL, NULL,
           -b.conversations, -b.rounds, -b.requests, -b.input_tokens, -b.cached_input_tokens,
           -b.cache_write_tokens, -b.output_tokens, -b.reasoning_tokens, -b.tokens, -b.cost, -b.unpriced,
           -b.unmetered, -b.duration, -b.thumb_up, -b.thumb_down
      FROM stored_buckets AS b
     UNION ALL
    SELECT b.bucket::timestamp AT TIME ZONE :tz, NULL, NULL,
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
    SELECT c.dt, t.place, c.users,
           c.conversations, c.rounds, c.requests, c.input_tokens, c.cached_input_tokens,
           c.cache_write_tokens, c.output_tokens, c.reasoning_tokens, c.tokens, c.cost, c.unpriced,
           c.unmetered, c.duration, c.thumb_up, c.thumb_down
      FROM counted AS c
      LEFT JOIN top AS t ON t.value IS NOT DISTINCT FROM c.value
     UNION ALL
    SELECT l.dt, t.place, NULL,
           l.conversations, l.rounds, l.requests, l.input_tokens, l.cached_input_tokens,
           l.cache_write_tokens, l.output_tokens, l.reasoning_tokens, l.tokens, l.cost, l.unpriced,
           l.unmetered, l.duration, l.thumb_up, l.thumb_down
      FROM ledger_changes AS l
      LEFT JOIN top AS t ON t.value IS NOT DISTINCT FROM l.value
     UNION ALL
    SELECT u.dt, u.place, u.users,
           NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
      FROM new_users AS u
     UNION ALL
    SELECT e.dt, t.place, NULL,
           NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
      FROM asyncsvc.bucket_labels(:range_from, :range_before, :grain, :tz) AS e (dt)
     CROSS JOIN (SELECT t.place FROM top AS t UNION ALL SELECT NULL) AS t
     WHERE :fill::bool                          --? fill
), summed AS (
    SELECT p.dt, t.value, p.place,
           CASE WHEN p.place IS NOT NULL THEN coalesce(sum(p.users), 0)::bigint END AS users,
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
     GROUP BY p.dt, t.value, p.place
--? }
)
SELECT b.dt, nullif(b.value, '') AS "group", b.place IS NULL AS is_other, b.conversations, b.users,
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
