-- The usage of a tenant, booked when it happened, as buckets of :interval (hour, day, week from
-- Monday, month) in the zone :tz, oldest first: pv counts creations, thumbs less withdrawn ones, and
-- round is the rounds for each creation. There are no users in the ledger, so uv is 0. The range is
-- taken in whole quarters of an hour, the first and the last included. dt and the empty buckets are
-- as in usage/stats_by_created.
--
-- Locks: none. Index: usage_ledger_quarter_idx; the tenant's rows in range are read.
WITH booked AS (
    SELECT date_trunc(:interval, u.quarter, :tz) AS dt,
           sum(u.pv) AS pv,
           0 AS uv,
           sum(u.tokens)::bigint AS tokens,
           sum(u.duration)::bigint AS duration,
           sum(u.rounds) AS rounds,
           sum(u.thumb_up) AS thumb_up,
           sum(u.thumb_down) AS thumb_down
      FROM asyncsvc.usage_ledger AS u
     WHERE u.tenant_id = :tenant_id
       AND u.quarter >= date_bin('15 minutes', :range_from::timestamptz, '0001-01-01 00:00+00')
       AND u.quarter < :range_before
       AND u.dialog_id = :dialog_id             --? dialog_id
       AND u.source = :source                   --? source
       AND u.source IS NULL                     --? source_is_null
       AND u.token_id = :token_id               --? token_id
       AND u.token_id IS NULL                   --? token_id_is_null
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
