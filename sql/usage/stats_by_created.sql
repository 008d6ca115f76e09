-- The usage of a tenant's conversations, booked on the instant each was created, as buckets of
-- :interval (hour, day, week from Monday, month) in the zone :tz, oldest first: what a recount of the
-- rows that exist says, exact at any moment. pv counts conversations, uv their distinct users that
-- are not empty, round is the mean a conversation.
--
-- Where buckets of this zone are kept, those that lie whole in the range are read: a row each (`kept`),
-- and what the ledger has beside them (`changed`). By how many the distinct users change, the
-- conversations tell (`users`): one more for a user of whom there were none before the change, one
-- less for one of whom there are none after it. Where a user's conversations became more by n, there
-- were some before if there are more than n now, which is what the OFFSET asks. What is not whole is
-- recounted (`part`): a bucket at either end of the range; and all of it for hours, or in a zone of
-- which no buckets are kept. There first_whole is NULL. OFFSET 0 has each part looked up by itself: a
-- plan for any range would else read all of the tenant and then ask which part a row is in.
--
-- dt is the label that date_trunc gives a bucket; where a clock goes back over midnight, that is
-- the second of the two midnights. Empty buckets are there where :fill asks for them.
--
-- Read replica: what they say is exact of a moment that may be a little ago.
--
-- Locks: none. Index: the keys of usage_zone and usage_bucket, usage_ledger_tenant_idx, and
-- conversation_user_idx for the users. A recount reads the range of conversation_created_idx when
-- one dialog is asked for, else of conversation_tenant_created_idx, and fetches the rows.
WITH whole AS MATERIALIZED (
    SELECT w.first_whole, w.last_whole, w.head_until, w.tail_since
      FROM (SELECT) AS always
      LEFT JOIN asyncsvc.whole_buckets(:range_from, :range_before, :interval, :tz) AS w
        ON w.first_whole <= w.last_whole
       AND :interval <> 'hour'
       AND EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                    WHERE z.tenant_id = :tenant_id
                      AND z.zone = :tz)
), part AS MATERIALIZED (
    SELECT :range_from::timestamptz AS since, :range_before::timestamptz AS until,
           '-infinity'::timestamp AS first, 'infinity'::timestamp AS last
      FROM whole AS w
     WHERE w.first_whole IS NULL
     UNION ALL
    SELECT :range_from, least(:range_before, w.head_until), '-infinity',
           w.first_whole - interval '1 microsecond'
      FROM whole AS w
     WHERE w.head_until IS NOT NULL
     UNION ALL
    SELECT greatest(:range_from, w.tail_since), :range_before,
           w.last_whole + interval '1 microsecond', 'infinity'
      FROM whole AS w
     WHERE w.tail_since IS NOT NULL
), recounted AS (
    SELECT c.dt,
           count(*) AS pv,
           count(DISTINCT nullif(c.user_id, '')) AS uv,
           sum(c.tokens)::bigint AS tokens,
           sum(c.duration)::bigint AS duration,
           sum(c.round) AS rounds,
           sum(c.thumb_up) AS thumb_up,
           sum(c.thumb_down) AS thumb_down
      FROM part AS p
     CROSS JOIN LATERAL (
            SELECT date_trunc(:interval, c.created_at, :tz) AS dt, c.user_id, c.tokens, c.duration,
                   c.round, c.thumb_up, c.thumb_down
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.created_at >= p.since
               AND c.created_at < p.until
               AND date_trunc(:interval, c.created_at AT TIME ZONE :tz) BETWEEN p.first AND p.last
               AND c.dialog_id = :dialog_id     --? dialog_id
               AND c.source = :source           --? source
               AND c.source IS NULL             --? source_is_null
            OFFSET 0
           ) AS c
     GROUP BY c.dt
), kept AS (
    SELECT b.bucket::timestamp AT TIME ZONE :tz AS dt, b.pv, b.uv, b.tokens, b.duration, b.rounds,
           b.thumb_up, b.thumb_down
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND b.zone = :tz
       AND b.basis = 'creation'
       AND b.grain = :interval
       AND b.dialog_key = '*'                   --? !dialog_id
       AND b.dialog_key = '=' || :dialog_id     --? dialog_id
       AND b.source_key = '*'                   --? !source, !source_is_null
       AND b.source_key = '=' || :source        --? source
       AND b.source_key = '-'                   --? source_is_null
       AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
       AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
), changed AS MATERIALIZED (
    SELECT date_trunc(:interval, u.created_at AT TIME ZONE :tz) AS bucket, u.user_id, u.pv,
           u.tokens, u.duration, u.rounds, u.thumb_up, u.thumb_down
      FROM whole AS w
      JOIN asyncsvc.usage_ledger AS u
        ON date_trunc(:interval, u.created_at AT TIME ZONE :tz) BETWEEN w.first_whole AND w.last_whole
     WHERE u.tenant_id = :tenant_id
       AND u.dialog_id = :dialog_id             --? dialog_id
       AND u.source = :source                   --? source
       AND u.source IS NULL                     --? source_is_null
), users AS (
    SELECT n.bucket, CASE WHEN EXISTS (
           SELECT FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND c.user_id = n.user_id
              AND c.created_at >= n.bucket AT TIME ZONE :tz - interval '25 hours'
              AND c.created_at < (n.bucket + ('1 ' || :interval)::interval) AT TIME ZONE :tz
                                 + interval '25 hours'
              AND date_trunc(:interval, c.created_at AT TIME ZONE :tz) = n.bucket
              AND c.dialog_id = :dialog_id      --? dialog_id
              AND c.source = :source            --? source
              AND c.source IS NULL              --? source_is_null
           OFFSET greatest(n.pv, 0)) THEN 0 ELSE sign(n.pv) END AS uv
      FROM (SELECT d.bucket, d.user_id, sum(d.pv) AS pv
              FROM changed AS d
             WHERE d.pv <> 0
               AND d.user_id <> ''
             GROUP BY d.bucket, d.user_id
            HAVING sum(d.pv) <> 0) AS n
), changes AS (
    SELECT b.dt, sum(b.pv)::bigint AS pv, sum(b.uv)::bigint AS uv, sum(b.tokens)::bigint AS tokens,
           sum(b.duration)::bigint AS duration, sum(b.rounds)::bigint AS rounds,
           sum(b.thumb_up)::bigint AS thumb_up, sum(b.thumb_down)::bigint AS thumb_down
      FROM (
        SELECT b.dt, b.pv, b.uv, b.tokens, b.duration, b.rounds, b.thumb_up, b.thumb_down
          FROM recounted AS b
         UNION ALL
        SELECT b.bucket AT TIME ZONE :tz, b.pv, 0, b.tokens, b.duration, b.rounds, b.thumb_up,
               b.thumb_down
          FROM changed AS b
         UNION ALL
        SELECT b.bucket AT TIME ZONE :tz, 0, b.uv, 0, 0, 0, 0, 0
          FROM users AS b
      ) AS b
     GROUP BY b.dt
), label AS (
    SELECT k.dt FROM kept AS k
     UNION
    SELECT c.dt FROM changes AS c
     UNION
    SELECT s.dt
      FROM asyncsvc.bucket_labels(:range_from, :range_before, :interval, :tz) AS s (dt)
     WHERE :fill::bool
)
SELECT b.dt, b.pv, b.uv, b.tokens, b.duration / 1e6::float8 AS duration, b.rounds,
       coalesce(b.rounds / nullif(b.pv, 0)::float8, 0) AS round, b.thumb_up, b.thumb_down
  FROM (SELECT l.dt,
               coalesce(k.pv, 0) + coalesce(c.pv, 0) AS pv,
               coalesce(k.uv, 0) + coalesce(c.uv, 0) AS uv,
               coalesce(k.tokens, 0) + coalesce(c.tokens, 0) AS tokens,
               coalesce(k.duration, 0) + coalesce(c.duration, 0) AS duration,
               coalesce(k.rounds, 0) + coalesce(c.rounds, 0) AS rounds,
               coalesce(k.thumb_up, 0) + coalesce(c.thumb_up, 0) AS thumb_up,
               coalesce(k.thumb_down, 0) + coalesce(c.thumb_down, 0) AS thumb_down
          FROM label AS l
          LEFT JOIN kept AS k ON k.dt = l.dt
          LEFT JOIN changes AS c ON c.dt = l.dt) AS b
 WHERE :fill::bool
    OR b.pv > 0
 ORDER BY b.dt
