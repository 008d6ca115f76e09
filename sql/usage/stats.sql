-- Return a tenant's usage by activity in buckets of one hour, day, week (from Monday) or month in the zone
-- :tz, or with the flag `total` of the whole range; with :group_by as the groups of a dimension.
--
-- Each change counts at the time of the change, and the range is widened to quarter hours. :grain is the
-- interval of the buckets, with `total` it is "day". The buckets of :dimension have the usage with the
-- filter, unless `counted` is set: then the filters are several, a person, or beside groups. :token_id may
-- be any token of a family of rotated tokens. The :top groups with the highest cost, then tokens, then rounds
-- in the range have rows of their own; all others are one row of each bucket. `by_user` is set for the groups
-- of persons. `by_month` is set if usage_user_month has the usage with the filter.
--
-- Returns: dt, the label of the bucket by date_trunc (the second midnight, if a clock goes back over
--   midnight), or the start of the range with `total`; group and is_other with :group_by, NULL for usage
--   without a value; users, the number of distinct persons without '', NULL for other groups and, but for
--   persons, for groups of a range; the sums of the counters; round, the mean number of rounds per creation;
--   large_sums, NULL if a bigint holds all sums, otherwise the sums in one text, since a client reads bigint
--   much faster. Oldest first, then by rank; with :fill also the empty buckets.
-- Locks: none.
-- Index: the keys of usage_zone, usage_bucket, usage_quarter_hour and usage_user_month,
--   usage_ledger_tenant_idx, for persons usage_user_bound_idx, and for distinct users and the usage of one
--   person usage_quarter_hour_user_idx.
-- Read replica: the result is exact for a slightly earlier moment.
-- Notes: in a declared zone the whole buckets of the range are read from usage_bucket, 1 row each; `whole`
--   has NULL if there are none. The range of the groups' ranks and of a total is `spans`: whole months, and
--   the buckets before and after them. `changes` adds the rest: quarter hours of `counted_ranges`, which are
--   cut buckets at both ends or the whole range, and the ledger. A person of the ledger is new in a bucket
--   without a quarter hour of the person. The other groups are all usage without the first groups.
--   A stored bucket without `changes` is returned as it is: to sum each of them costs more than to read it.
--   The usage of persons in a range is that of whole UTC months, of quarter hours at its `edges`, and the
--   ledger. In a range it is at most the bound in usage_user plus the ledger. `known` is the usage of persons
--   who are likely the first ones: those with the highest bounds and those of the ledger. It is complete for
--   these, and without the months for others. A person with a higher usage than the `threshold`, that of the
--   next one after the :top likely ones, has a bound as high, so `ranked` adds the months of these alone. The
--   range of cost tells the planner that they are few. With filters there are no months.
--   OFFSET 0 makes the server look up each range separately. A plan for all ranges together would read
--   the whole tenant and then assign the rows to ranges.
--   The subquery of a person selects rounds, which no index has. With an index-only scan of
--   usage_quarter_hour_key, a generic plan reads the whole tenant for each person.
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
    SELECT w.first_whole, w.last_whole, w.head_until, w.tail_since,
           (w.last_whole + ('1 ' || :grain)::interval)::date AS after_whole
      FROM requested AS r
      LEFT JOIN LATERAL asyncsvc.whole_buckets(r.since, r.until, :grain, :tz) AS w
        ON w.first_whole <= w.last_whole
       AND :grain <> 'hour'
       AND EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                    WHERE z.tenant_id = :tenant_id
                      AND z.zone = :tz)
       AND false                                                     --? counted
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
), spans AS MATERIALIZED (
    SELECT s.grain, s.since, s.until
      FROM (SELECT w.first_whole::date AS first_whole, w.after_whole,
                   CASE WHEN :grain = 'week' OR m.first_month >= m.after_months
                        THEN w.after_whole ELSE m.first_month END AS first_month,
                   CASE WHEN :grain = 'week' OR m.first_month >= m.after_months
                        THEN w.after_whole ELSE m.after_months END AS after_months
              FROM whole AS w
             CROSS JOIN LATERAL (
                    SELECT date_trunc('month', w.first_whole + interval '1 month' - interval '1 day')::date
                           AS first_month,
                           date_trunc('month', w.after_whole::timestamp)::date AS after_months) AS m) AS m
     CROSS JOIN LATERAL (
            VALUES (:grain::text, m.first_whole, m.first_month), ('month', m.first_month, m.after_months),
                   (:grain, m.after_months, m.after_whole)) AS s (grain, since, until)
     WHERE s.since < s.until
), ledger_changes AS MATERIALIZED (
    SELECT :range_from::timestamptz AS dt,                           --? total
    SELECT date_trunc(:grain, date_bin('15 minutes', u.at, '0001-01-01 00:00+00'), :tz) AS dt, --? !total
           coalesce(u.acting_user_id, u.user_id) AS user_id,
           NULL::text AS value,                                      --? !group_by
           --? group_by {
           CASE :group_by::text WHEN 'dialog_id' THEN u.dialog_id WHEN 'source' THEN u.source
                          WHEN 'token_id' THEN u.token_id WHEN 'model' THEN u.model END AS value,
           --? }
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
), quarter_hours AS NOT MATERIALIZED (
    SELECT q.quarter_hour, :range_from::timestamptz AS dt,           --? total
    SELECT q.quarter_hour, date_trunc(:grain, q.quarter_hour, :tz) AS dt, --? !total
           q.user_id,
           NULL::text AS value,                                      --? !group_by
           --? group_by {
           CASE :group_by::text WHEN 'dialog_id' THEN q.dialog_id WHEN 'source' THEN q.source
                          WHEN 'token_id' THEN q.token_id WHEN 'model' THEN q.model END AS value,
           --? }
           q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
           q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
           q.unmetered, q.duration, q.thumb_up, q.thumb_down
      FROM asyncsvc.usage_quarter_hour AS q
     WHERE q.tenant_id = :tenant_id
       AND q.dialog_id = :dialog_id                                  --? dialog_id
       AND q.source = :source                                        --? source
       AND q.source IS NULL                                          --? source_is_null
       AND q.token_id = (SELECT r.family_id FROM requested AS r)     --? token_id
       AND q.token_id IS NULL                                        --? token_id_is_null
       AND q.model = :model                                          --? model
       AND q.model IS NULL                                           --? model_is_null
       AND q.user_id = :user_id                                      --? user_id
), changes AS MATERIALIZED (
    SELECT c.dt, c.value, count(DISTINCT nullif(c.user_id, '')) AS users, --? !total, !by_user
    SELECT c.dt, c.value, NULL::bigint AS users,                     --? !total, by_user
    SELECT c.dt, c.value, NULL::bigint AS users,                     --? total
           sum(c.conversations) AS conversations, sum(c.rounds) AS rounds, sum(c.requests) AS requests,
           sum(c.input_tokens) AS input_tokens, sum(c.cached_input_tokens) AS cached_input_tokens,
           sum(c.cache_write_tokens) AS cache_write_tokens, sum(c.output_tokens) AS output_tokens,
           sum(c.reasoning_tokens) AS reasoning_tokens, sum(c.tokens) AS tokens, sum(c.cost) AS cost,
           sum(c.unpriced) AS unpriced, sum(c.unmetered) AS unmetered, sum(c.duration) AS duration,
           sum(c.thumb_up) AS thumb_up, sum(c.thumb_down) AS thumb_down
      FROM (
        SELECT q.dt, q.value, q.user_id, q.conversations, q.rounds, q.requests, q.input_tokens,
               q.cached_input_tokens, q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens,
               q.cost, q.unpriced, q.unmetered, q.duration, q.thumb_up, q.thumb_down
          FROM counted_ranges AS r
         CROSS JOIN LATERAL (
                SELECT q.dt, q.value, q.user_id, q.conversations, q.rounds, q.requests, q.input_tokens,
                       q.cached_input_tokens, q.cache_write_tokens, q.output_tokens, q.reasoning_tokens,
                       q.tokens, q.cost, q.unpriced, q.unmetered, q.duration, q.thumb_up, q.thumb_down
                  FROM quarter_hours AS q
                 WHERE q.quarter_hour >= r.since
                   AND q.quarter_hour < r.until
                   AND date_trunc(:grain, q.quarter_hour AT TIME ZONE :tz)
                       BETWEEN r.first_bucket AND r.last_bucket
                OFFSET 0
               ) AS q
         UNION ALL
        SELECT l.dt, l.value, NULL, l.conversations, l.rounds, l.requests, l.input_tokens,
               l.cached_input_tokens, l.cache_write_tokens, l.output_tokens, l.reasoning_tokens, l.tokens,
               l.cost, l.unpriced, l.unmetered, l.duration, l.thumb_up, l.thumb_down
          FROM ledger_changes AS l
        --? !total, !by_user {
         UNION ALL
        SELECT u.dt, u.value, u.user_id,
               NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
          FROM (SELECT DISTINCT l.dt, l.value, l.user_id
                  FROM ledger_changes AS l
                 WHERE l.user_id <> '') AS u
         CROSS JOIN requested AS r
         WHERE NOT EXISTS (
               SELECT q.rounds FROM quarter_hours AS q
                WHERE (q.user_id, q.quarter_hour) >= (
                      u.user_id, greatest(r.since, u.dt - interval '25 hours'))
                  AND (q.user_id, q.quarter_hour) < (
                      u.user_id, least(r.until, (u.dt AT TIME ZONE :tz + ('1 ' || :grain)::interval)
                                                AT TIME ZONE :tz + interval '25 hours'))
                  AND q.dt = u.dt
                  AND q.value IS NOT DISTINCT FROM u.value
                ORDER BY q.user_id, q.quarter_hour
               OFFSET 0)
        --? }
      ) AS c
     GROUP BY c.dt, c.value
), months AS MATERIALIZED (
    SELECT m.first_month, m.after_months
      FROM requested AS r
      LEFT JOIN LATERAL (
             SELECT date_trunc('month', r.since AT TIME ZONE 'UTC' + interval '1 month'
                                        - interval '1 microsecond') AS first_month,
                    date_trunc('month', r.until AT TIME ZONE 'UTC') AS after_months
           ) AS m
        ON m.first_month < m.after_months
       AND false                                                     --? !by_month
), user_months AS NOT MATERIALIZED (
    SELECT m.user_id, m.conversations, m.rounds, m.requests, m.input_tokens, m.cached_input_tokens,
           m.cache_write_tokens, m.output_tokens, m.reasoning_tokens, m.tokens, m.cost, m.unpriced,
           m.unmetered, m.duration, m.thumb_up, m.thumb_down
      FROM asyncsvc.usage_user_month AS m
     WHERE m.tenant_id = :tenant_id
       AND m.month >= (SELECT m.first_month::date FROM months AS m)
       AND m.month < (SELECT m.after_months::date FROM months AS m)
), edges AS MATERIALIZED (
    SELECT e.since, e.until
      FROM requested AS r
     CROSS JOIN months AS m
     CROSS JOIN LATERAL (
            VALUES (r.since, coalesce(m.first_month AT TIME ZONE 'UTC', r.until)),
                   (m.after_months AT TIME ZONE 'UTC', r.until)
           ) AS e (since, until)
     WHERE e.since < e.until
--? by_user {
), likely AS MATERIALIZED (
    SELECT u.user_id
      FROM (
        SELECT u.user_id
          FROM (
            SELECT u.user_id
              FROM asyncsvc.usage_user AS u
             WHERE u.tenant_id = :tenant_id
               AND (SELECT m.first_month IS NOT NULL FROM months AS m)
             ORDER BY u.cost DESC, u.tokens DESC, u.rounds DESC
             LIMIT 2000
          ) AS u
         LIMIT :top + 200                                            --? top
      ) AS u
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
                  FROM user_months AS m
                 WHERE m.user_id = y.user_id
                OFFSET 0
               ) AS m
         UNION ALL
        SELECT q.user_id, q.cost, q.tokens, q.rounds, false
          FROM edges AS e
         CROSS JOIN LATERAL (
                SELECT q.user_id, q.cost, q.tokens, q.rounds
                  FROM quarter_hours AS q
                 WHERE q.quarter_hour >= e.since
                   AND q.quarter_hour < e.until
                OFFSET 0
               ) AS q
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
    OFFSET :top                                                      --? top
     LIMIT 1
), ranked AS MATERIALIZED (
    SELECT p.user_id AS value, row_number() OVER (
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
                      FROM user_months AS m
                     WHERE m.user_id = u.user_id
                    OFFSET 0
                   ) AS m
          ) AS p
         GROUP BY p.user_id
         ORDER BY 2 DESC, 3 DESC, 4 DESC, nullif(p.user_id, '')
         LIMIT :top + 1                                              --? top
      ) AS p
--? }
--? group_by, !by_user {
), ranked AS MATERIALIZED (
    SELECT p.value,
           row_number() OVER (ORDER BY coalesce(sum(p.cost), 0) DESC, sum(p.tokens) DESC,
                                       sum(p.rounds) DESC, p.value) AS place
      FROM (
        SELECT b.value, b.rounds, b.tokens, b.cost
          FROM spans AS s
         CROSS JOIN LATERAL (
                SELECT b.value, b.rounds, b.tokens, b.cost
                  FROM asyncsvc.usage_bucket AS b
                 WHERE b.tenant_id = :tenant_id
                   AND b.zone = :tz
                   AND b.basis = 'activity'
                   AND b.grain = s.grain
                   AND b.dimension = :group_by
                   AND b.bucket >= s.since
                   AND b.bucket < s.until
                OFFSET 0
               ) AS b
         UNION ALL
        SELECT c.value, c.rounds, c.tokens, c.cost
          FROM changes AS c
      ) AS p
     GROUP BY p.value
--? }
), places AS MATERIALIZED (
    SELECT NULL::bigint AS place, :dimension::text AS dimension,
           NULL::text AS value                                --? !dialog_id, !source, !token_id, !model
           :dialog_id::text AS value                                 --? dialog_id
           :source::text AS value                                    --? source, !dialog_id
           r.family_id AS value                                      --? token_id, !dialog_id, !source
           :model::text AS value                          --? model, !dialog_id, !source, !token_id
      FROM requested AS r
    --? group_by {
     UNION ALL
    SELECT r.place, :group_by, r.value
      FROM ranked AS r
     WHERE r.place <= :top                                           --? top
    --? }
), stored_buckets AS MATERIALIZED (
    SELECT p.place, :range_from::timestamptz AS dt, NULL::bigint AS users,     --? total
    SELECT p.place, b.bucket::timestamp AT TIME ZONE :tz AS dt, b.users,       --? !total
           b.conversations, b.rounds, b.requests, b.input_tokens, b.cached_input_tokens,
           b.cache_write_tokens, b.output_tokens, b.reasoning_tokens, b.tokens, b.cost, b.unpriced,
           b.unmetered, b.duration, b.thumb_up, b.thumb_down
      FROM places AS p
     CROSS JOIN spans AS s                                           --? total
     CROSS JOIN (SELECT :grain::text, w.first_whole::date, w.after_whole --? !total
                   FROM whole AS w) AS s (grain, since, until)       --? !total
     CROSS JOIN LATERAL (
            SELECT b.bucket, b.users, b.conversations, b.rounds, b.requests, b.input_tokens,
                   b.cached_input_tokens, b.cache_write_tokens, b.output_tokens, b.reasoning_tokens,
                   b.tokens, b.cost, b.unpriced, b.unmetered, b.duration, b.thumb_up, b.thumb_down
              FROM asyncsvc.usage_bucket AS b
             WHERE b.tenant_id = :tenant_id AND b.zone = :tz AND b.basis = 'activity'
               AND b.grain = s.grain AND b.dimension = p.dimension AND b.value = p.value
               AND b.bucket >= s.since AND b.bucket < s.until
             UNION ALL
            SELECT b.bucket, b.users, b.conversations, b.rounds, b.requests, b.input_tokens,
                   b.cached_input_tokens, b.cache_write_tokens, b.output_tokens, b.reasoning_tokens,
                   b.tokens, b.cost, b.unpriced, b.unmetered, b.duration, b.thumb_up, b.thumb_down
              FROM asyncsvc.usage_bucket AS b
             WHERE b.tenant_id = :tenant_id AND b.zone = :tz AND b.basis = 'activity'
               AND b.grain = s.grain AND b.dimension = p.dimension AND b.value IS NULL AND p.value IS NULL
               AND b.bucket >= s.since AND b.bucket < s.until
            OFFSET 0
           ) AS b
    --? by_user {
     UNION ALL
    SELECT p.place, u.dt, (p.value <> '')::integer, sum(u.conversations), sum(u.rounds), sum(u.requests),
           sum(u.input_tokens), sum(u.cached_input_tokens), sum(u.cache_write_tokens),
           sum(u.output_tokens), sum(u.reasoning_tokens), sum(u.tokens), sum(u.cost), sum(u.unpriced),
           sum(u.unmetered), sum(u.duration), sum(u.thumb_up), sum(u.thumb_down)
      FROM places AS p
     CROSS JOIN LATERAL (
            SELECT q.dt, q.conversations, q.rounds, q.requests, q.input_tokens, q.cached_input_tokens,
                   q.cache_write_tokens, q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced,
                   q.unmetered, q.duration, q.thumb_up, q.thumb_down
              FROM edges AS r                                        --? total
              FROM requested AS r                                    --? !total
              JOIN quarter_hours AS q
                ON q.quarter_hour >= r.since AND q.quarter_hour < r.until
             WHERE q.user_id = p.value
             UNION ALL
            --? total {
            SELECT :range_from::timestamptz, m.conversations, m.rounds, m.requests, m.input_tokens,
                   m.cached_input_tokens, m.cache_write_tokens, m.output_tokens, m.reasoning_tokens,
                   m.tokens, m.cost, m.unpriced, m.unmetered, m.duration, m.thumb_up, m.thumb_down
              FROM user_months AS m
             WHERE m.user_id = p.value
             UNION ALL
            --? }
            SELECT l.dt, l.conversations, l.rounds, l.requests, l.input_tokens, l.cached_input_tokens,
                   l.cache_write_tokens, l.output_tokens, l.reasoning_tokens, l.tokens, l.cost, l.unpriced,
                   l.unmetered, l.duration, l.thumb_up, l.thumb_down
              FROM ledger_changes AS l
             WHERE l.user_id = p.value
            OFFSET 0
           ) AS u
     GROUP BY p.place, p.value, u.dt
    --? }
--? total, !group_by {
), active_users AS (
    SELECT m.user_id
      FROM user_months AS m
     WHERE m.user_id = :user_id                                      --? user_id
     UNION
    SELECT q.user_id
      FROM edges AS e
     CROSS JOIN LATERAL (
            SELECT q.user_id
              FROM quarter_hours AS q
             WHERE q.quarter_hour >= e.since
               AND q.quarter_hour < e.until
            OFFSET 0
           ) AS q
     UNION
    SELECT l.user_id
      FROM ledger_changes AS l
--? }
), summed AS (
    --? !total {
    SELECT b.dt, b.place, coalesce(b.users, 0) AS users, b.conversations, b.rounds, b.requests,
           b.input_tokens, b.cached_input_tokens, b.cache_write_tokens, b.output_tokens, b.reasoning_tokens,
           b.tokens, b.cost, b.unpriced, b.unmetered, b.duration, b.thumb_up, b.thumb_down
      FROM stored_buckets AS b
     WHERE b.dt NOT IN (SELECT c.dt FROM changes AS c)
       AND b.place IS NOT NULL                                       --? group_by
     UNION ALL
    --? }
    SELECT p.dt, p.place, coalesce(sum(p.users), 0)::bigint AS users,
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
      FROM (
        SELECT b.place, b.dt, b.users, b.conversations, b.rounds, b.requests, b.input_tokens,
               b.cached_input_tokens, b.cache_write_tokens, b.output_tokens, b.reasoning_tokens, b.tokens,
               b.cost, b.unpriced, b.unmetered, b.duration, b.thumb_up, b.thumb_down
          FROM stored_buckets AS b
         WHERE b.dt IN (SELECT c.dt FROM changes AS c)               --? !total, !group_by
         WHERE b.place IS NULL OR b.dt IN (SELECT c.dt FROM changes AS c) --? !total, group_by
        --? group_by {
         UNION ALL
        SELECT NULL, b.dt, NULL, -sum(b.conversations), -sum(b.rounds), -sum(b.requests),
               -sum(b.input_tokens), -sum(b.cached_input_tokens), -sum(b.cache_write_tokens),
               -sum(b.output_tokens), -sum(b.reasoning_tokens), -sum(b.tokens), -sum(b.cost),
               -sum(b.unpriced), -sum(b.unmetered), -sum(b.duration), -sum(b.thumb_up), -sum(b.thumb_down)
          FROM stored_buckets AS b
         WHERE b.place IS NOT NULL
         GROUP BY b.dt
        --? }
         UNION ALL
        SELECT p.place, c.dt, c.users, c.conversations, c.rounds, c.requests, c.input_tokens,
               c.cached_input_tokens, c.cache_write_tokens, c.output_tokens, c.reasoning_tokens, c.tokens,
               c.cost, c.unpriced, c.unmetered, c.duration, c.thumb_up, c.thumb_down
          FROM changes AS c
          LEFT JOIN places AS p
            ON p.place IS NOT NULL AND p.value IS NOT DISTINCT FROM c.value
         UNION ALL
        SELECT e.place, e.dt, NULL,
               NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
          FROM (
                SELECT p.place, :range_from::timestamptz AS dt       --? total
                  FROM places AS p                                   --? total
                --? !total {
                SELECT p.place, e.dt
                  FROM asyncsvc.bucket_labels(:range_from, :range_before, :grain, :tz) AS e (dt)
                 CROSS JOIN places AS p
                EXCEPT
                SELECT b.place, b.dt
                  FROM stored_buckets AS b
                --? }
               ) AS e
         WHERE :fill::bool
      ) AS p
     GROUP BY p.dt, p.place
)
SELECT b.dt, b.conversations,
       b.users,                                                      --? !group_by, !total
       (SELECT count(*) FROM active_users AS u WHERE u.user_id <> '') AS users, --? !group_by, total
       CASE WHEN b.place IS NOT NULL THEN b.users END AS users,      --? group_by, !total
       NULL::bigint AS users,                                        --? group_by, total, !by_user
       CASE WHEN b.place IS NOT NULL THEN b.users END AS users,      --? group_by, total, by_user
       s.rounds, s.tokens,
       (b.duration * 0.000001)::float8 AS duration, b.thumb_up, b.thumb_down,
       coalesce(b.rounds / nullif(b.conversations, 0)::float8, 0) AS round,
       CASE WHEN num_nulls(s.rounds, s.requests, s.input_tokens, s.cached_input_tokens, s.cache_write_tokens,
                           s.output_tokens, s.reasoning_tokens, s.tokens, s.cost, s.unpriced) > 0
            THEN concat_ws(' ', b.rounds, b.requests, b.input_tokens, b.cached_input_tokens,
                           b.cache_write_tokens, b.output_tokens, b.reasoning_tokens, b.tokens, b.cost,
                           b.unpriced) END AS large_sums,
       s.requests, s.input_tokens, s.cached_input_tokens, s.cache_write_tokens, s.output_tokens,
       s.reasoning_tokens, s.cost, s.unpriced, b.unmetered
     , nullif(p.value, '') AS "group", b.place IS NULL AS is_other   --? group_by
  FROM summed AS b
 CROSS JOIN LATERAL (
        SELECT asyncsvc.bigint_v1(b.rounds) AS rounds, asyncsvc.bigint_v1(b.requests) AS requests,
               asyncsvc.bigint_v1(b.input_tokens) AS input_tokens,
               asyncsvc.bigint_v1(b.cached_input_tokens) AS cached_input_tokens,
               asyncsvc.bigint_v1(b.cache_write_tokens) AS cache_write_tokens,
               asyncsvc.bigint_v1(b.output_tokens) AS output_tokens,
               asyncsvc.bigint_v1(b.reasoning_tokens) AS reasoning_tokens,
               asyncsvc.bigint_v1(b.tokens) AS tokens, asyncsvc.bigint_v1(b.cost) AS cost,
               asyncsvc.bigint_v1(b.unpriced) AS unpriced
        OFFSET 0
       ) AS s
  --? group_by {
  LEFT JOIN places AS p
    ON p.place = b.place
 WHERE b.place IS NOT NULL
    OR EXISTS (SELECT FROM ranked AS r WHERE r.place > :top)         --? top
  --? }
 ORDER BY b.dt, b.place
