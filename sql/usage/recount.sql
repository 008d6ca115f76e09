-- Count all buckets of a tenant again, in each declared zone, and empty its usage ledger.
--
-- Creations are counted from the conversations, activity from the sums by quarter hour. It runs for a
-- new zone, after new rules for a zone, and if there are so many creations that a roll-up costs more.
--
-- Returns: ledger_rows, the number of ledger rows deleted, which the sums now include.
-- Locks: the rows of the ledger and of the sums; no append waits for it.
-- Index: usage_ledger_tenant_idx and the keys of the sums. It reads all conversations of the tenant
--   and sorts them for each zone and grain.
-- Timeout: none. It reads all conversations of the tenant.
-- Notes: the caller locks the tenant's usage in an earlier statement (usage/lock), so this snapshot
--   includes each roll-up that committed before.
WITH drained AS (
    DELETE FROM asyncsvc.usage_ledger AS u
     WHERE u.tenant_id = :tenant_id
    RETURNING u.dialog_id, u.source, u.user_id, u.created_at, u.quarter_hour, u.token_id, u.pv, u.tokens,
              u.duration, u.rounds, u.thumb_up, u.thumb_down
), quarter_hour_rows AS (
    INSERT INTO asyncsvc.usage_quarter_hour AS q (
           tenant_id, quarter_hour, dialog_id, source, token_id, pv, tokens, duration, rounds, thumb_up,
           thumb_down)
    SELECT :tenant_id, d.quarter_hour, d.dialog_id, d.source, d.token_id, sum(d.pv), sum(d.tokens),
           sum(d.duration), sum(d.rounds), sum(d.thumb_up), sum(d.thumb_down)
      FROM drained AS d
     WHERE d.quarter_hour IS NOT NULL
     GROUP BY d.quarter_hour, d.dialog_id, d.source, d.token_id
    ON CONFLICT (tenant_id, quarter_hour, dialog_id, source, token_id) DO UPDATE
       SET pv = q.pv + excluded.pv,
           tokens = q.tokens + excluded.tokens,
           duration = q.duration + excluded.duration,
           rounds = q.rounds + excluded.rounds,
           thumb_up = q.thumb_up + excluded.thumb_up,
           thumb_down = q.thumb_down + excluded.thumb_down
), zones AS (
    SELECT z.zone
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
), creations AS (
    SELECT z.zone, g.grain, c.dialog_id, c.source,
           date_trunc(g.grain, c.created_at AT TIME ZONE z.zone)::date AS bucket,
           nullif(c.user_id, '') AS user_id, c.tokens, c.duration, c.round, c.thumb_up, c.thumb_down
      FROM asyncsvc.conversation AS c
     CROSS JOIN zones AS z
     CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
     WHERE c.tenant_id = :tenant_id
), activity AS (
    SELECT a.quarter_hour, a.dialog_id, a.source,
           sum(a.pv)::bigint AS pv,
           sum(a.tokens) AS tokens,
           sum(a.duration) AS duration,
           sum(a.rounds) AS rounds,
           sum(a.thumb_up)::bigint AS thumb_up,
           sum(a.thumb_down)::bigint AS thumb_down
      FROM (
        SELECT q.quarter_hour, q.dialog_id, q.source, q.pv, q.tokens, q.duration, q.rounds, q.thumb_up,
               q.thumb_down
          FROM asyncsvc.usage_quarter_hour AS q
         WHERE q.tenant_id = :tenant_id
         UNION ALL
        SELECT d.quarter_hour, d.dialog_id, d.source, d.pv, d.tokens, d.duration, d.rounds, d.thumb_up,
               d.thumb_down
          FROM drained AS d
         WHERE d.quarter_hour IS NOT NULL
      ) AS a
     GROUP BY a.quarter_hour, a.dialog_id, a.source
), counted AS MATERIALIZED (
    SELECT c.zone, 'creation' AS basis, c.grain,
           CASE WHEN grouping(c.dialog_id) = 1 THEN '*' ELSE '=' || c.dialog_id END AS dialog_key,
           CASE WHEN grouping(c.source) = 1 THEN '*' ELSE coalesce('=' || c.source, '-') END AS source_key,
           c.bucket, count(*) AS pv, count(DISTINCT c.user_id) AS uv, sum(c.tokens) AS tokens,
           sum(c.duration) AS duration, sum(c.round) AS rounds, sum(c.thumb_up) AS thumb_up,
           sum(c.thumb_down) AS thumb_down
      FROM creations AS c
     GROUP BY c.zone, c.grain, c.bucket, CUBE (c.dialog_id, c.source)
     UNION ALL
    SELECT z.zone, 'activity', g.grain, d.key, s.key,
           date_trunc(g.grain, a.quarter_hour AT TIME ZONE z.zone)::date, sum(a.pv), 0, sum(a.tokens),
           sum(a.duration), sum(a.rounds), sum(a.thumb_up), sum(a.thumb_down)
      FROM activity AS a
     CROSS JOIN zones AS z
     CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
     CROSS JOIN LATERAL (VALUES ('*'), ('=' || a.dialog_id)) AS d (key)
     CROSS JOIN LATERAL (VALUES ('*'), (coalesce('=' || a.source, '-'))) AS s (key)
     GROUP BY 1, 2, 3, 4, 5, 6
), deleted AS (
    DELETE FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND NOT EXISTS (
           SELECT FROM counted AS n
            WHERE n.zone = b.zone AND n.basis = b.basis AND n.grain = b.grain
              AND n.dialog_key = b.dialog_key AND n.source_key = b.source_key
              AND n.bucket = b.bucket)
), bucket_rows AS (
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
SELECT count(*) AS ledger_rows
  FROM drained AS d
