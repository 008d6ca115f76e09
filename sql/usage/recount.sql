-- Counts all buckets of a tenant anew, in each zone in which they are kept: the creations from the
-- conversations, the activity from its quarter_hours; and empties the ledger, whose rows they then have. It
-- returns how many rows that were. For a new zone, after many creations at once, which one by one
-- would cost more than all of them together, and where the server's zones have changed.
--
-- The caller has locked the tenant's usage in a statement before (usage/lock), so that no fold is
-- younger than this snapshot.
--
-- Timeout: none. it reads all that a tenant has.
--
-- Locks: the rows of the ledger and of the sums; no append waits for it.
-- Index: usage_ledger_tenant_idx and the keys of the sums. It reads all conversations of the tenant,
-- and sorts them for each zone and size of bucket.
WITH gone AS (
    DELETE FROM asyncsvc.usage_ledger AS u
     WHERE u.tenant_id = :tenant_id
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
), kept AS (
    SELECT z.zone
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
), created AS (
    SELECT k.zone, g.grain, c.dialog_id, c.source,
           date_trunc(g.grain, c.created_at AT TIME ZONE k.zone)::date AS bucket,
           nullif(c.user_id, '') AS user_id, c.tokens, c.duration, c.round, c.thumb_up, c.thumb_down
      FROM asyncsvc.conversation AS c
     CROSS JOIN kept AS k
     CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
     WHERE c.tenant_id = :tenant_id
), happened AS (
    SELECT a.quarter_hour, a.dialog_id, a.source,
           sum(a.pv)::bigint AS pv,
           sum(a.tokens)::bigint AS tokens,
           sum(a.duration)::bigint AS duration,
           sum(a.rounds)::bigint AS rounds,
           sum(a.thumb_up)::bigint AS thumb_up,
           sum(a.thumb_down)::bigint AS thumb_down
      FROM (
        SELECT q.quarter_hour, q.dialog_id, q.source, q.pv, q.tokens, q.duration, q.rounds, q.thumb_up,
               q.thumb_down
          FROM asyncsvc.usage_quarter_hour AS q
         WHERE q.tenant_id = :tenant_id
         UNION ALL
        SELECT g.quarter_hour, g.dialog_id, g.source, g.pv, g.tokens, g.duration, g.rounds, g.thumb_up,
               g.thumb_down
          FROM gone AS g
         WHERE g.quarter_hour IS NOT NULL
      ) AS a
     GROUP BY a.quarter_hour, a.dialog_id, a.source
), counted AS MATERIALIZED (
    SELECT c.zone, 'creation' AS basis, c.grain,
           CASE WHEN grouping(c.dialog_id) = 1 THEN '*' ELSE '=' || c.dialog_id END AS dialog_key,
           CASE WHEN grouping(c.source) = 1 THEN '*' ELSE coalesce('=' || c.source, '-') END AS source_key,
           c.bucket, count(*) AS pv, count(DISTINCT c.user_id) AS uv, sum(c.tokens) AS tokens,
           sum(c.duration) AS duration, sum(c.round) AS rounds, sum(c.thumb_up) AS thumb_up,
           sum(c.thumb_down) AS thumb_down
      FROM created AS c
     GROUP BY c.zone, c.grain, c.bucket, CUBE (c.dialog_id, c.source)
     UNION ALL
    SELECT k.zone, 'activity', g.grain, d.key, s.key,
           date_trunc(g.grain, a.quarter_hour AT TIME ZONE k.zone)::date, sum(a.pv), 0, sum(a.tokens),
           sum(a.duration), sum(a.rounds), sum(a.thumb_up), sum(a.thumb_down)
      FROM happened AS a
     CROSS JOIN kept AS k
     CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
     CROSS JOIN LATERAL (VALUES ('*'), ('=' || a.dialog_id)) AS d (key)
     CROSS JOIN LATERAL (VALUES ('*'), (coalesce('=' || a.source, '-'))) AS s (key)
     GROUP BY 1, 2, 3, 4, 5, 6
), emptied AS (
    DELETE FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND NOT EXISTS (
           SELECT FROM counted AS n
            WHERE n.zone = b.zone AND n.basis = b.basis AND n.grain = b.grain
              AND n.dialog_key = b.dialog_key AND n.source_key = b.source_key
              AND n.bucket = b.bucket)
), buckets AS (
    INSERT INTO asyncsvc.usage_bucket AS b (
           tenant_id, zone, basis, grain, dialog_key, source_key, bucket, pv, uv, tokens, duration,
           rounds, thumb_up, thumb_down)
    SELECT :tenant_id, n.zone, n.basis, n.grain, n.dialog_key, n.source_key, n.bucket, n.pv, n.uv,
           n.tokens, n.duration, n.rounds, n.thumb_up, n.thumb_down
      FROM counted AS n
    ON CONFLICT (tenant_id, zone, basis, grain, dialog_key, source_key, bucket) DO UPDATE
       SET pv = excluded.pv,
           uv = excluded.uv,
           tokens = excluded.tokens,
           duration = excluded.duration,
           rounds = excluded.rounds,
           thumb_up = excluded.thumb_up,
           thumb_down = excluded.thumb_down
)
SELECT count(*) AS folded
  FROM gone AS g
