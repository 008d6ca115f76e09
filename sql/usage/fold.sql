-- Folds a tenant's usage ledger: takes out all its rows and adds them to the sums by quarter of an hour
-- and to the buckets of the zones that are kept. It returns how many rows that were: none also when
-- another session folds this tenant.
--
-- It is one statement, so it can be broken off anywhere. It has all rows of its snapshot or none: the
-- distinct users of a bucket change by those of whom there were none before these rows, or are none
-- after them, and what was before the rows is told from the conversations, which have them all (as
-- in usage/stats_by_created). Were the rows shared out between two folds, neither could tell. So the
-- tenant's row of UTC is locked, and whoever does not get it lets it be.
--
-- Creations are cut to the quarter of an hour first, which makes them few, from 1973 on: before, not
-- every zone's days began on one.
--
-- Timeout: none. how much there is to fold is not known before.
--
-- Locks: the tenant's row of UTC in usage_zone, the rows of the ledger, which nobody else changes, and
-- of the sums. It waits for nobody, and no append waits for it.
-- Index: usage_ledger_tenant_idx, the keys of the sums, and conversation_user_idx for the users.
WITH folding AS MATERIALIZED (
    SELECT z.tenant_id
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
       AND z.zone = 'UTC'
       FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM asyncsvc.usage_ledger AS u
     USING folding AS f
     WHERE u.tenant_id = f.tenant_id
    RETURNING u.dialog_id, u.source, u.user_id, u.created_at, u.quarter_hour, u.token_id, u.pv, u.tokens,
              u.duration, u.rounds, u.thumb_up, u.thumb_down
), quarter_hours AS (
    INSERT INTO asyncsvc.usage_quarter_hour AS q (
           tenant_id, quarter_hour, dialog_id, source, token_id, pv, tokens, duration, rounds, thumb_up,
           thumb_down)
    SELECT :tenant_id, g.quarter_hour, g.dialog_id, g.source, g.token_id, sum(g.pv), sum(g.tokens),
           sum(g.duration), sum(g.rounds), sum(g.thumb_up), sum(g.thumb_down)
      FROM gone AS g
     WHERE g.quarter_hour IS NOT NULL
     GROUP BY g.quarter_hour, g.dialog_id, g.source, g.token_id
    ON CONFLICT (tenant_id, quarter_hour, dialog_id, source, token_id) DO UPDATE
       SET pv = q.pv + excluded.pv,
           tokens = q.tokens + excluded.tokens,
           duration = q.duration + excluded.duration,
           rounds = q.rounds + excluded.rounds,
           thumb_up = q.thumb_up + excluded.thumb_up,
           thumb_down = q.thumb_down + excluded.thumb_down
), booked AS MATERIALIZED (
    SELECT b.basis, b.at, b.dialog_id, b.source, b.user_id,
           sum(b.pv)::bigint AS pv,
           sum(b.tokens)::bigint AS tokens,
           sum(b.duration)::bigint AS duration,
           sum(b.rounds)::bigint AS rounds,
           sum(b.thumb_up)::bigint AS thumb_up,
           sum(b.thumb_down)::bigint AS thumb_down
      FROM (
        SELECT 'creation' AS basis,
               CASE WHEN g.created_at < '1973-01-01 00:00+00' THEN g.created_at
                    ELSE date_bin('15 minutes', g.created_at, '0001-01-01 00:00+00') END AS at,
               g.dialog_id, g.source, g.user_id, g.pv, g.tokens, g.duration, g.rounds, g.thumb_up,
               g.thumb_down
          FROM gone AS g
         UNION ALL
        SELECT 'activity', g.quarter_hour, g.dialog_id, g.source, '', g.pv, g.tokens, g.duration,
               g.rounds, g.thumb_up, g.thumb_down
          FROM gone AS g
         WHERE g.quarter_hour IS NOT NULL
      ) AS b
     GROUP BY b.basis, b.at, b.dialog_id, b.source, b.user_id
), kept AS (
    SELECT z.zone
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
), users AS (
    SELECT u.zone, u.grain, u.dialog_key, u.source_key, u.bucket, sum(CASE WHEN EXISTS (
           SELECT FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND c.user_id = u.user_id
              AND c.created_at >= u.bucket AT TIME ZONE u.zone - interval '25 hours'
              AND c.created_at < (u.bucket + ('1 ' || u.grain)::interval) AT TIME ZONE u.zone
                                 + interval '25 hours'
              AND date_trunc(u.grain, c.created_at AT TIME ZONE u.zone) = u.bucket
              AND (u.dialog_key = '*' OR u.dialog_key = '=' || c.dialog_id)
              AND (u.source_key = '*' OR u.source_key = coalesce('=' || c.source, '-'))
           OFFSET greatest(u.pv, 0)) THEN 0 ELSE sign(u.pv) END)::bigint AS uv
      FROM (
        SELECT k.zone, g.grain, d.key AS dialog_key, s.key AS source_key,
               date_trunc(g.grain, b.at AT TIME ZONE k.zone) AS bucket, b.user_id, sum(b.pv) AS pv
          FROM booked AS b
         CROSS JOIN kept AS k
         CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
         CROSS JOIN LATERAL (VALUES ('*'), ('=' || b.dialog_id)) AS d (key)
         CROSS JOIN LATERAL (VALUES ('*'), (coalesce('=' || b.source, '-'))) AS s (key)
         WHERE b.pv <> 0
           AND b.user_id <> ''
         GROUP BY k.zone, g.grain, d.key, s.key, bucket, b.user_id
        HAVING sum(b.pv) <> 0
      ) AS u
     GROUP BY u.zone, u.grain, u.dialog_key, u.source_key, u.bucket
), summed AS (
    SELECT k.zone, b.basis, g.grain, d.key AS dialog_key, s.key AS source_key,
           date_trunc(g.grain, b.at AT TIME ZONE k.zone)::date AS bucket,
           sum(b.pv)::bigint AS pv,
           sum(b.tokens)::bigint AS tokens,
           sum(b.duration)::bigint AS duration,
           sum(b.rounds)::bigint AS rounds,
           sum(b.thumb_up)::bigint AS thumb_up,
           sum(b.thumb_down)::bigint AS thumb_down
      FROM booked AS b
     CROSS JOIN kept AS k
     CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
     CROSS JOIN LATERAL (VALUES ('*'), ('=' || b.dialog_id)) AS d (key)
     CROSS JOIN LATERAL (VALUES ('*'), (coalesce('=' || b.source, '-'))) AS s (key)
     GROUP BY k.zone, b.basis, g.grain, d.key, s.key, bucket
), buckets AS (
    INSERT INTO asyncsvc.usage_bucket AS b (
           tenant_id, zone, basis, grain, dialog_key, source_key, bucket, pv, uv, tokens, duration,
           rounds, thumb_up, thumb_down)
    SELECT :tenant_id, s.zone, s.basis, s.grain, s.dialog_key, s.source_key, s.bucket, s.pv,
           coalesce(u.uv, 0), s.tokens, s.duration, s.rounds, s.thumb_up, s.thumb_down
      FROM summed AS s
      LEFT JOIN users AS u
        ON s.basis = 'creation' AND u.zone = s.zone AND u.grain = s.grain
       AND u.dialog_key = s.dialog_key AND u.source_key = s.source_key AND u.bucket = s.bucket
    ON CONFLICT (tenant_id, zone, basis, grain, dialog_key, source_key, bucket) DO UPDATE
       SET pv = b.pv + excluded.pv,
           uv = b.uv + excluded.uv,
           tokens = b.tokens + excluded.tokens,
           duration = b.duration + excluded.duration,
           rounds = b.rounds + excluded.rounds,
           thumb_up = b.thumb_up + excluded.thumb_up,
           thumb_down = b.thumb_down + excluded.thumb_down
)
SELECT count(*) AS folded
  FROM gone AS g
