-- The usage of a tenant, booked when it happened, as buckets of :interval (hour, day, week from
-- Monday, month) in the zone :tz, oldest first: pv counts creations, thumbs less withdrawn ones, and
-- round is the rounds for each creation. There are no users in this basis, so uv is 0. The range is
-- taken in whole quarters of an hour, the first and the last included. dt and the empty buckets are
-- as in usage/stats_by_created.
--
-- Buckets that lie whole in the range are read where they are kept (`kept`), others summed from the
-- quarter_hours (`part`), as there; so is what one token consumed (by_quarter). The ledger has the rest of
-- either. OFFSET 0 is as there.
--
-- Read replica: as usage/stats_by_created.
--
-- Locks: none. Index: the keys of usage_zone, usage_bucket and usage_quarter_hour, and
-- usage_ledger_tenant_idx.
WITH asked AS MATERIALIZED (
    SELECT date_bin('15 minutes', :range_from::timestamptz, '0001-01-01 00:00+00') AS since,
           date_bin('15 minutes', :range_before::timestamptz - interval '1 microsecond',
                    '0001-01-01 00:00+00') + interval '15 minutes' AS until
), whole AS MATERIALIZED (
    SELECT w.first_whole, w.last_whole, w.head_until, w.tail_since
      FROM asked AS a
      LEFT JOIN LATERAL asyncsvc.whole_buckets(a.since, a.until, :interval, :tz) AS w
        ON w.first_whole <= w.last_whole
       AND :interval <> 'hour'
       AND EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                    WHERE z.tenant_id = :tenant_id
                      AND z.zone = :tz)
       AND false                                --? by_quarter
), part AS MATERIALIZED (
    SELECT a.since, a.until, '-infinity'::timestamp AS first, 'infinity'::timestamp AS last
      FROM asked AS a
     CROSS JOIN whole AS w
     WHERE w.first_whole IS NULL
     UNION ALL
    SELECT a.since, least(a.until, w.head_until), '-infinity',
           w.first_whole - interval '1 microsecond'
      FROM asked AS a
     CROSS JOIN whole AS w
     WHERE w.head_until IS NOT NULL
     UNION ALL
    SELECT greatest(a.since, w.tail_since), a.until,
           w.last_whole + interval '1 microsecond', 'infinity'
      FROM asked AS a
     CROSS JOIN whole AS w
     WHERE w.tail_since IS NOT NULL
), summed AS (
    SELECT q.dt, q.pv, q.tokens, q.duration, q.rounds, q.thumb_up, q.thumb_down
      FROM part AS p
     CROSS JOIN LATERAL (
            SELECT date_trunc(:interval, q.quarter_hour, :tz) AS dt, q.pv, q.tokens, q.duration,
                   q.rounds, q.thumb_up, q.thumb_down
              FROM asyncsvc.usage_quarter_hour AS q
             WHERE q.tenant_id = :tenant_id
               AND q.quarter_hour >= p.since
               AND q.quarter_hour < p.until
               AND date_trunc(:interval, q.quarter_hour AT TIME ZONE :tz) BETWEEN p.first AND p.last
               AND q.dialog_id = :dialog_id     --? dialog_id
               AND q.source = :source           --? source
               AND q.source IS NULL             --? source_is_null
               AND q.token_id = :token_id       --? token_id
               AND q.token_id IS NULL           --? token_id_is_null
            OFFSET 0
           ) AS q
), kept AS (
    SELECT b.bucket::timestamp AT TIME ZONE :tz AS dt, b.pv, b.tokens, b.duration, b.rounds,
           b.thumb_up, b.thumb_down
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND b.zone = :tz
       AND b.basis = 'activity'
       AND b.grain = :interval
       AND b.dialog_key = '*'                   --? !dialog_id
       AND b.dialog_key = '=' || :dialog_id     --? dialog_id
       AND b.source_key = '*'                   --? !source, !source_is_null
       AND b.source_key = '=' || :source        --? source
       AND b.source_key = '-'                   --? source_is_null
       AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
       AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
), unfolded AS (
    SELECT date_trunc(:interval, u.quarter_hour, :tz) AS dt, u.pv, u.tokens, u.duration, u.rounds,
           u.thumb_up, u.thumb_down
      FROM asked AS a
      JOIN asyncsvc.usage_ledger AS u
        ON u.quarter_hour >= a.since AND u.quarter_hour < a.until
     WHERE u.tenant_id = :tenant_id
       AND u.dialog_id = :dialog_id             --? dialog_id
       AND u.source = :source                   --? source
       AND u.source IS NULL                     --? source_is_null
       AND u.token_id = :token_id               --? token_id
       AND u.token_id IS NULL                   --? token_id_is_null
), changes AS (
    SELECT b.dt, sum(b.pv)::bigint AS pv, sum(b.tokens)::bigint AS tokens,
           sum(b.duration)::bigint AS duration, sum(b.rounds)::bigint AS rounds,
           sum(b.thumb_up)::bigint AS thumb_up, sum(b.thumb_down)::bigint AS thumb_down
      FROM (
        SELECT b.dt, b.pv, b.tokens, b.duration, b.rounds, b.thumb_up, b.thumb_down
          FROM summed AS b
         UNION ALL
        SELECT b.dt, b.pv, b.tokens, b.duration, b.rounds, b.thumb_up, b.thumb_down
          FROM unfolded AS b
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
               0::bigint AS uv,
               coalesce(k.tokens, 0) + coalesce(c.tokens, 0) AS tokens,
               coalesce(k.duration, 0) + coalesce(c.duration, 0) AS duration,
               coalesce(k.rounds, 0) + coalesce(c.rounds, 0) AS rounds,
               coalesce(k.thumb_up, 0) + coalesce(c.thumb_up, 0) AS thumb_up,
               coalesce(k.thumb_down, 0) + coalesce(c.thumb_down, 0) AS thumb_down
          FROM label AS l
          LEFT JOIN kept AS k ON k.dt = l.dt
          LEFT JOIN changes AS c ON c.dt = l.dt) AS b
 ORDER BY b.dt
