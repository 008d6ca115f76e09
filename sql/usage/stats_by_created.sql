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
-- which no buckets are kept. There first_whole is NULL.
--
-- dt is the label that date_trunc gives a bucket; where a clock goes back over midnight, that is
-- the second of the two midnights. Empty buckets come from two series, one of which is empty:
-- days, weeks and months advance on the local calendar, so that a day of 23 or 25 hours is one
-- step; hours advance from the very start of the range to its very end by the half hour, because
-- some zones shift by half an hour. Repeated labels fall together in the end. A range that is a day
-- which its zone left out is empty.
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
           ) AS c
     GROUP BY c.dt
), kept AS (
    SELECT b.bucket::timestamp AT TIME ZONE :tz AS dt, b.pv, b.uv, b.tokens, b.duration, b.rounds,
           b.thumb_up, b.thumb_down
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND b.zone = :tz
       AND b.book = 'created'
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
), bucket AS (
    SELECT b.dt, b.pv, b.uv, b.tokens, b.duration, b.rounds, b.thumb_up, b.thumb_down
      FROM recounted AS b
     UNION ALL
    SELECT b.dt, b.pv, b.uv, b.tokens, b.duration, b.rounds, b.thumb_up, b.thumb_down
      FROM kept AS b
     UNION ALL
    SELECT b.bucket AT TIME ZONE :tz, b.pv, 0, b.tokens, b.duration, b.rounds, b.thumb_up,
           b.thumb_down
      FROM changed AS b
     UNION ALL
    SELECT b.bucket AT TIME ZONE :tz, 0, b.uv, 0, 0, 0, 0, 0
      FROM users AS b
     UNION ALL
    SELECT date_trunc('hour', s.at, :tz), 0, 0, 0, 0, 0, 0, 0
      FROM (SELECT generate_series(:range_from::timestamptz,
                                   :range_before::timestamptz - interval '1 microsecond',
                                   interval '30 minutes')
             UNION ALL
            SELECT :range_before::timestamptz - interval '1 microsecond') AS s (at)
     WHERE :fill::bool AND :interval = 'hour'
       AND :range_from::timestamptz < :range_before::timestamptz
     UNION ALL
    SELECT s.at AT TIME ZONE :tz, 0, 0, 0, 0, 0, 0, 0
      FROM generate_series(date_trunc(:interval, :range_from::timestamptz AT TIME ZONE :tz),
                           (:range_before::timestamptz - interval '1 microsecond') AT TIME ZONE :tz,
                           ('1 ' || :interval)::interval) AS s (at)
     WHERE :fill::bool AND :interval <> 'hour'
       AND :range_from::timestamptz < :range_before::timestamptz
)
SELECT b.dt,
       sum(b.pv)::bigint AS pv,
       sum(b.uv)::bigint AS uv,
       sum(b.tokens)::bigint AS tokens,
       (sum(b.duration) / 1e6)::float8 AS duration,
       sum(b.rounds)::bigint AS rounds,
       coalesce(sum(b.rounds)::float8 / nullif(sum(b.pv), 0)::float8, 0) AS round,
       sum(b.thumb_up)::bigint AS thumb_up,
       sum(b.thumb_down)::bigint AS thumb_down
  FROM bucket AS b
 GROUP BY b.dt
HAVING :fill::bool OR sum(b.pv) > 0
 ORDER BY b.dt
