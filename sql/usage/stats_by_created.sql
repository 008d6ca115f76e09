-- The usage of a tenant's conversations, booked on the instant each was created, as buckets of
-- :interval (hour, day, week from Monday, month) in the zone :tz, oldest first: a recount of the
-- rows that exist, exact at any moment. pv counts conversations, uv their distinct users that are
-- not empty, round is the mean a conversation.
--
-- dt is the label that date_trunc gives a bucket; where a clock goes back over midnight, that is
-- the second of the two midnights. Empty buckets come from two series, one of which is empty:
-- days, weeks and months advance on the local calendar, so that a day of 23 or 25 hours is one
-- step; hours advance from the very start of the range to its very end by the half hour, because
-- some zones shift by half an hour. Repeated labels fall together in the end. A range that is a day
-- which its zone left out is empty.
--
-- Locks: none. Index: conversation_created_idx when one dialog is asked for; else this or
-- conversation_user_idx, whose part of this tenant is read through. The rows in range are fetched.
WITH booked AS (
    SELECT date_trunc(:interval, c.created_at, :tz) AS dt,
           count(*) AS pv,
           count(DISTINCT nullif(c.user_id, '')) AS uv,
           sum(c.tokens)::bigint AS tokens,
           sum(c.duration)::bigint AS duration,
           sum(c.round) AS rounds,
           sum(c.thumb_up) AS thumb_up,
           sum(c.thumb_down) AS thumb_down
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.created_at >= :range_from
       AND c.created_at < :range_before
       AND c.dialog_id = :dialog_id             --? dialog_id
       AND c.source = :source                   --? source
       AND c.source IS NULL                     --? source_is_null
     GROUP BY 1
), bucket AS (
    SELECT b.dt, b.pv, b.uv, b.tokens, b.duration, b.rounds, b.thumb_up, b.thumb_down
      FROM booked AS b
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
 ORDER BY b.dt
