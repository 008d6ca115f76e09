-- Return a tenant's usage as buckets of one hour, day, week (from Monday) or month in the zone :tz.
--
-- By creation each existing conversation counts at the time of its creation, with its present figures. With
-- the flag `activity` each change counts at the time of the change, and the range is widened to quarter
-- hours. The buckets of :dimension have the usage with the filter, unless `counted` is set: then the filters
-- are several, or a person. :token_id may be any token of a family of rotated tokens.
--
-- Returns: dt, the label of the bucket by date_trunc (the second midnight, if a clock goes back over
--   midnight); conversations, the number of creations; users, the number of distinct users without '', by
--   activity those who acted; the sums of the other counters; round, the mean number of rounds per creation;
--   large_sums, NULL if a bigint holds all sums, otherwise the sums in one text, since a client reads bigint
--   much faster. Oldest first; with :fill also the empty buckets.
-- Locks: none.
-- Index: the keys of usage_zone, usage_bucket and usage_quarter_hour, usage_ledger_tenant_idx, and for
--   distinct users conversation_user_idx or usage_quarter_hour_user_idx. Counted conversations are read from
--   their range of conversation_created_idx (one dialog), conversation_user_idx (one user) or
--   conversation_tenant_created_idx, and the quarter hours of a user from usage_quarter_hour_user_idx.
-- Read replica: the result is exact for a slightly earlier moment.
-- Notes: in a declared zone the whole buckets of the range are read from usage_bucket, 1 row each, and
--   the ledger adds the changes since the last roll-up. The rest of the range is counted: cut buckets
--   at its ends; or the whole range for hours, with filters of which no buckets exist and in other zones,
--   for which first_whole is NULL.
--   user_changes by creation: a user adds 1 to a bucket if the user had no conversation in it before the
--   changes in the ledger, and subtracts 1 if the user has none after them. A user who gained n
--   conversations had one before if more than n exist now; the OFFSET tests that. By activity: a user adds
--   1 if the user has no quarter hour in the bucket.
--   OFFSET 0 makes the server look up each range separately. A plan for all ranges together would read
--   the whole tenant and then assign the rows to ranges.
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
    SELECT :range_from::timestamptz AS since, :range_before::timestamptz AS until --? !activity
    --? activity {
    SELECT date_bin('15 minutes', :range_from::timestamptz, '0001-01-01 00:00+00') AS since,
           date_bin('15 minutes', :range_before::timestamptz - interval '1 microsecond',
                    '0001-01-01 00:00+00') + interval '15 minutes' AS until
    --? }
), whole AS MATERIALIZED (
    SELECT w.first_whole, w.last_whole, w.head_until, w.tail_since
      FROM requested AS r
      LEFT JOIN LATERAL asyncsvc.whole_buckets(r.since, r.until, :interval, :tz) AS w
        ON w.first_whole <= w.last_whole
       AND :interval <> 'hour'
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
), counted AS (
    --? !activity {
    SELECT c.dt,
           count(*) AS conversations,
           count(DISTINCT nullif(c.user_id, '')) AS users,
           sum(c.round) AS rounds,
           sum(c.tokens) AS tokens,
           sum(c.duration) AS duration,
           sum(c.thumb_up) AS thumb_up,
           sum(c.thumb_down) AS thumb_down
      FROM counted_ranges AS r
     CROSS JOIN LATERAL (
            SELECT date_trunc(:interval, c.created_at, :tz) AS dt, c.user_id, c.round, c.tokens,
                   c.duration, c.thumb_up, c.thumb_down
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.created_at >= r.since
               AND c.created_at < r.until
               AND date_trunc(:interval, c.created_at AT TIME ZONE :tz)
                   BETWEEN r.first_bucket AND r.last_bucket
               AND c.dialog_id = :dialog_id     --? dialog_id
               AND c.source = :source           --? source
               AND c.source IS NULL             --? source_is_null
               AND c.user_id = :user_id         --? user_id
            OFFSET 0
           ) AS c
     GROUP BY c.dt
    --? }
    --? activity {
    SELECT q.dt,
           sum(q.conversations) AS conversations,
           count(DISTINCT nullif(q.user_id, '')) AS users,
           sum(q.rounds) AS rounds,
           sum(q.requests) AS requests,
           sum(q.input_tokens) AS input_tokens,
           sum(q.cached_input_tokens) AS cached_input_tokens,
           sum(q.cache_write_tokens) AS cache_write_tokens,
           sum(q.output_tokens) AS output_tokens,
           sum(q.reasoning_tokens) AS reasoning_tokens,
           sum(q.tokens) AS tokens,
           sum(q.cost) AS cost,
           sum(q.unpriced) AS unpriced,
           sum(q.unmetered) AS unmetered,
           sum(q.duration) AS duration,
           sum(q.thumb_up) AS thumb_up,
           sum(q.thumb_down) AS thumb_down
      FROM counted_ranges AS r
     CROSS JOIN LATERAL (
            SELECT date_trunc(:interval, q.quarter_hour, :tz) AS dt, q.user_id, q.conversations, q.rounds,
                   q.requests, q.input_tokens, q.cached_input_tokens, q.cache_write_tokens,
                   q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced, q.unmetered,
                   q.duration, q.thumb_up, q.thumb_down
              FROM asyncsvc.usage_quarter_hour AS q
             WHERE q.tenant_id = :tenant_id
               AND q.quarter_hour >= r.since
               AND q.quarter_hour < r.until
               AND date_trunc(:interval, q.quarter_hour AT TIME ZONE :tz)
                   BETWEEN r.first_bucket AND r.last_bucket
               AND q.dialog_id = :dialog_id     --? dialog_id
               AND q.source = :source           --? source
               AND q.source IS NULL             --? source_is_null
               AND q.token_id = (SELECT t.family_id FROM token AS t) --? token_id
               AND q.token_id IS NULL           --? token_id_is_null
               AND q.model = :model             --? model
               AND q.model IS NULL              --? model_is_null
               AND q.user_id = :user_id         --? user_id
            OFFSET 0
           ) AS q
     GROUP BY q.dt
    --? }
), stored_buckets AS (
    SELECT b.bucket::timestamp AT TIME ZONE :tz AS dt, b.conversations, b.users, b.rounds, b.tokens,
           b.duration, b.thumb_up, b.thumb_down
         --? activity {
         , b.requests, b.input_tokens, b.cached_input_tokens, b.cache_write_tokens, b.output_tokens,
           b.reasoning_tokens, b.cost, b.unpriced, b.unmetered
         --? }
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND b.zone = :tz
       AND b.basis = 'creation'                 --? !activity
       AND b.basis = 'activity'                 --? activity
       AND b.grain = :interval
       AND b.dimension = :dimension
       AND b.value = :dialog_id                 --? dialog_id
       AND b.value = :source                    --? source
       AND b.value = (SELECT t.family_id FROM token AS t) --? token_id
       AND b.value = :model                     --? model
       AND b.value IS NULL                      --? !dialog_id, !source, !token_id, !model
       AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
       AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
), ledger_changes AS MATERIALIZED (
    SELECT u.conversations, u.rounds, u.tokens, u.duration, u.thumb_up, u.thumb_down,
           --? !activity {
           u.user_id, date_trunc(:interval, u.created_at, :tz) AS dt,
           date_trunc(:interval, u.created_at AT TIME ZONE :tz) AS bucket
           --? }
           --? activity {
           u.requests, u.input_tokens, u.cached_input_tokens, u.cache_write_tokens, u.output_tokens,
           u.reasoning_tokens, u.cost, u.unpriced, u.unmetered,
           coalesce(u.acting_user_id, u.user_id) AS user_id,
           date_trunc(:interval, date_bin('15 minutes', u.at, '0001-01-01 00:00+00'), :tz) AS dt
           --? }
      FROM asyncsvc.usage_ledger AS u
      --? !activity {
      JOIN whole AS w
        ON date_trunc(:interval, u.created_at AT TIME ZONE :tz) BETWEEN w.first_whole AND w.last_whole
      --? }
      --? activity {
      JOIN requested AS r
        ON u.at >= r.since AND u.at < r.until
      --? }
     WHERE u.tenant_id = :tenant_id
       AND u.dialog_id = :dialog_id             --? dialog_id
       AND u.source = :source                   --? source
       AND u.source IS NULL                     --? source_is_null
       AND u.token_id = (SELECT t.family_id FROM token AS t) --? token_id
       AND u.token_id IS NULL                   --? token_id_is_null
       AND u.model = :model                     --? model
       AND u.model IS NULL                      --? model_is_null
       AND coalesce(u.acting_user_id, u.user_id) = :user_id--? user_id
), user_changes AS (
    --? !activity {
    SELECT u.bucket AT TIME ZONE :tz AS dt, CASE WHEN EXISTS (
           SELECT FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND (c.user_id, c.created_at) >= (
                  u.user_id, u.bucket AT TIME ZONE :tz - interval '25 hours')
              AND (c.user_id, c.created_at) < (
                  u.user_id, (u.bucket + ('1 ' || :interval)::interval) AT TIME ZONE :tz
                             + interval '25 hours')
              AND date_trunc(:interval, c.created_at AT TIME ZONE :tz) = u.bucket
              AND c.dialog_id = :dialog_id      --? dialog_id
              AND c.source = :source            --? source
              AND c.source IS NULL              --? source_is_null
            ORDER BY c.user_id, c.created_at
           OFFSET greatest(u.conversations, 0)) THEN 0 ELSE sign(u.conversations) END AS users
      FROM (SELECT l.bucket, l.user_id, sum(l.conversations) AS conversations
              FROM ledger_changes AS l
             WHERE l.conversations <> 0
               AND l.user_id <> ''
             GROUP BY l.bucket, l.user_id
            HAVING sum(l.conversations) <> 0) AS u
    --? }
    --? activity {
    SELECT u.dt, CASE WHEN EXISTS (
           SELECT FROM asyncsvc.usage_quarter_hour AS q
            WHERE q.tenant_id = :tenant_id
              AND (q.user_id, q.quarter_hour) >= (
                  u.user_id, greatest(r.since, u.dt - interval '25 hours'))
              AND (q.user_id, q.quarter_hour) < (
                  u.user_id, least(r.until, (u.dt AT TIME ZONE :tz + ('1 ' || :interval)::interval)
                                            AT TIME ZONE :tz + interval '25 hours'))
              AND date_trunc(:interval, q.quarter_hour, :tz) = u.dt
              AND q.dialog_id = :dialog_id      --? dialog_id
              AND q.source = :source            --? source
              AND q.source IS NULL              --? source_is_null
              AND q.token_id = (SELECT t.family_id FROM token AS t) --? token_id
              AND q.token_id IS NULL            --? token_id_is_null
              AND q.model = :model              --? model
              AND q.model IS NULL               --? model_is_null
            ORDER BY q.user_id, q.quarter_hour
           OFFSET 0) THEN 0 ELSE 1 END AS users
      FROM (SELECT DISTINCT l.dt, l.user_id
              FROM ledger_changes AS l
             WHERE l.user_id <> '') AS u
     CROSS JOIN requested AS r
    --? }
), changes AS (
    SELECT b.dt, sum(b.conversations) AS conversations, sum(b.users) AS users, sum(b.rounds) AS rounds,
           sum(b.tokens) AS tokens, sum(b.duration) AS duration, sum(b.thumb_up) AS thumb_up,
           sum(b.thumb_down) AS thumb_down
         --? activity {
         , sum(b.requests) AS requests, sum(b.input_tokens) AS input_tokens,
           sum(b.cached_input_tokens) AS cached_input_tokens,
           sum(b.cache_write_tokens) AS cache_write_tokens, sum(b.output_tokens) AS output_tokens,
           sum(b.reasoning_tokens) AS reasoning_tokens, sum(b.cost) AS cost, sum(b.unpriced) AS unpriced,
           sum(b.unmetered) AS unmetered
         --? }
      FROM (
        SELECT c.dt, c.conversations, c.users, c.rounds, c.tokens, c.duration, c.thumb_up, c.thumb_down
             --? activity {
             , c.requests, c.input_tokens, c.cached_input_tokens, c.cache_write_tokens, c.output_tokens,
               c.reasoning_tokens, c.cost, c.unpriced, c.unmetered
             --? }
          FROM counted AS c
         UNION ALL
        SELECT l.dt, l.conversations, NULL, l.rounds, l.tokens, l.duration, l.thumb_up, l.thumb_down
             --? activity {
             , l.requests, l.input_tokens, l.cached_input_tokens, l.cache_write_tokens, l.output_tokens,
               l.reasoning_tokens, l.cost, l.unpriced, l.unmetered
             --? }
          FROM ledger_changes AS l
         UNION ALL
        SELECT u.dt, NULL, u.users, NULL, NULL, NULL, NULL, NULL
             , NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL --? activity
          FROM user_changes AS u
      ) AS b
     GROUP BY b.dt
)
SELECT b.dt, b.conversations, b.users,
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
  FROM (SELECT coalesce(s.dt, c.dt, e.dt) AS dt,
               (coalesce(s.conversations, 0) + coalesce(c.conversations, 0))::bigint AS conversations,
               (coalesce(s.users, 0) + coalesce(c.users, 0))::bigint AS users,
               coalesce(s.rounds, 0) + coalesce(c.rounds, 0) AS rounds,
               coalesce(s.tokens, 0) + coalesce(c.tokens, 0) AS tokens,
               coalesce(s.duration, 0) + coalesce(c.duration, 0) AS duration,
               (coalesce(s.thumb_up, 0) + coalesce(c.thumb_up, 0))::bigint AS thumb_up,
               (coalesce(s.thumb_down, 0) + coalesce(c.thumb_down, 0))::bigint AS thumb_down
             --? activity {
             , coalesce(s.requests, 0) + coalesce(c.requests, 0) AS requests,
               coalesce(s.input_tokens, 0) + coalesce(c.input_tokens, 0) AS input_tokens,
               coalesce(s.cached_input_tokens, 0) + coalesce(c.cached_input_tokens, 0)
               AS cached_input_tokens,
               coalesce(s.cache_write_tokens, 0) + coalesce(c.cache_write_tokens, 0) AS cache_write_tokens,
               coalesce(s.output_tokens, 0) + coalesce(c.output_tokens, 0) AS output_tokens,
               coalesce(s.reasoning_tokens, 0) + coalesce(c.reasoning_tokens, 0) AS reasoning_tokens,
               coalesce(s.cost, 0) + coalesce(c.cost, 0) AS cost,
               coalesce(s.unpriced, 0) + coalesce(c.unpriced, 0) AS unpriced,
               (coalesce(s.unmetered, 0) + coalesce(c.unmetered, 0))::bigint AS unmetered
             --? }
          FROM stored_buckets AS s
          FULL JOIN changes AS c ON c.dt = s.dt
          FULL JOIN (SELECT DISTINCT e.dt
                       FROM asyncsvc.bucket_labels(:range_from, :range_before, :interval, :tz) AS e (dt)
                      WHERE :fill::bool) AS e ON e.dt = coalesce(s.dt, c.dt)) AS b
 WHERE :fill::bool OR b.conversations > 0       --? !activity
 ORDER BY b.dt
