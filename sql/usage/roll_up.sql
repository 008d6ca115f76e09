-- Move a tenant's usage ledger into the sums by quarter hour and the buckets of each declared zone.
--
-- Returns: ledger_rows, the number of moved rows; 0 also if another session works on this tenant.
-- Locks: the tenant's UTC row of usage_zone (skipped if another session holds it), the rows of the
--   ledger, and the rows of the sums. Statements that change these hold the UTC row too, so it
--   waits for no lock, and no append waits for it.
-- Index: usage_ledger_tenant_idx, the keys of the sums; conversation_user_idx for distinct users.
-- Timeout: none. The number of ledger rows has no bound.
-- Notes: it is one statement, so an interruption changes nothing.
--   It takes all ledger rows of its snapshot or none, because user_changes compares the conversations
--   before and after these rows, like usage/stats. If two roll-ups shared the rows of a tenant,
--   neither could count the users.
--   Buckets and users are joined by a UNION ALL with one GROUP BY. For a LEFT JOIN the server chose a plan
--   that compares each bucket with each other one of the same grain.
--   Creations from 1973 on are grouped by quarter hour first, which reduces their number. Before 1973
--   the days of some zones did not start at a quarter hour.
WITH locked AS MATERIALIZED (
    SELECT z.tenant_id
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
       AND z.zone = 'UTC'
       FOR UPDATE SKIP LOCKED
), drained AS (
    DELETE FROM asyncsvc.usage_ledger AS u
     USING locked AS l
     WHERE u.tenant_id = l.tenant_id
    RETURNING u.dialog_id, u.source, u.user_id, u.created_at, u.at, u.token_id, u.conversations, u.tokens,
              u.duration, u.rounds, u.thumb_up, u.thumb_down
), quarter_hour_rows AS (
    INSERT INTO asyncsvc.usage_quarter_hour AS q (
           tenant_id, quarter_hour, dialog_id, source, token_id, conversations, tokens, duration,
           rounds, thumb_up, thumb_down)
    SELECT :tenant_id, date_bin('15 minutes', d.at, '0001-01-01 00:00+00') AS quarter_hour, d.dialog_id,
           d.source, d.token_id, sum(d.conversations), sum(d.tokens), sum(d.duration),
           sum(d.rounds), sum(d.thumb_up), sum(d.thumb_down)
      FROM drained AS d
     WHERE d.at IS NOT NULL
     GROUP BY quarter_hour, d.dialog_id, d.source, d.token_id
    ON CONFLICT (tenant_id, quarter_hour, dialog_id, source, token_id) DO UPDATE
       SET conversations = q.conversations + excluded.conversations,
           tokens = q.tokens + excluded.tokens,
           duration = q.duration + excluded.duration,
           rounds = q.rounds + excluded.rounds,
           thumb_up = q.thumb_up + excluded.thumb_up,
           thumb_down = q.thumb_down + excluded.thumb_down
), ledger_changes AS MATERIALIZED (
    SELECT u.basis, u.at, u.dialog_id, u.source, u.user_id,
           sum(u.conversations)::bigint AS conversations,
           sum(u.tokens) AS tokens,
           sum(u.duration) AS duration,
           sum(u.rounds) AS rounds,
           sum(u.thumb_up)::bigint AS thumb_up,
           sum(u.thumb_down)::bigint AS thumb_down
      FROM (
        SELECT 'creation' AS basis,
               CASE WHEN d.created_at < '1973-01-01 00:00+00' THEN d.created_at
                    ELSE date_bin('15 minutes', d.created_at, '0001-01-01 00:00+00') END AS at,
               d.dialog_id, d.source, d.user_id, d.conversations, d.tokens, d.duration, d.rounds, d.thumb_up,
               d.thumb_down
          FROM drained AS d
         WHERE d.created_at IS NOT NULL
         UNION ALL
        SELECT 'activity', date_bin('15 minutes', d.at, '0001-01-01 00:00+00'), d.dialog_id, d.source, '',
               d.conversations, d.tokens, d.duration, d.rounds, d.thumb_up, d.thumb_down
          FROM drained AS d
         WHERE d.at IS NOT NULL
      ) AS u
     GROUP BY u.basis, u.at, u.dialog_id, u.source, u.user_id
), zones AS (
    SELECT z.zone
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
), user_changes AS (
    SELECT u.zone, u.grain, u.dialog_key, u.source_key, u.bucket::date AS bucket, sum(CASE WHEN EXISTS (
           SELECT FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND (c.user_id, c.created_at) >= (
                  u.user_id, u.bucket AT TIME ZONE u.zone - interval '25 hours')
              AND (c.user_id, c.created_at) < (
                  u.user_id, (u.bucket + ('1 ' || u.grain)::interval) AT TIME ZONE u.zone
                             + interval '25 hours')
              AND date_trunc(u.grain, c.created_at AT TIME ZONE u.zone) = u.bucket
              AND (u.dialog_key = '*' OR u.dialog_key = '=' || c.dialog_id)
              AND (u.source_key = '*' OR u.source_key = coalesce('=' || c.source, '-'))
            ORDER BY c.user_id, c.created_at
           OFFSET greatest(u.conversations, 0)) THEN 0 ELSE sign(u.conversations) END)::bigint AS users
      FROM (
        SELECT z.zone, g.grain, d.key AS dialog_key, s.key AS source_key,
               date_trunc(g.grain, h.at AT TIME ZONE z.zone) AS bucket, h.user_id,
               sum(h.conversations) AS conversations
          FROM ledger_changes AS h
         CROSS JOIN zones AS z
         CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
         CROSS JOIN LATERAL (VALUES ('*'), ('=' || h.dialog_id)) AS d (key)
         CROSS JOIN LATERAL (VALUES ('*'), (coalesce('=' || h.source, '-'))) AS s (key)
         WHERE h.conversations <> 0
           AND h.user_id <> ''
         GROUP BY z.zone, g.grain, d.key, s.key, bucket, h.user_id
        HAVING sum(h.conversations) <> 0
      ) AS u
     GROUP BY u.zone, u.grain, u.dialog_key, u.source_key, u.bucket
), bucket_changes AS (
    SELECT z.zone, h.basis, g.grain, d.key AS dialog_key, s.key AS source_key,
           date_trunc(g.grain, h.at AT TIME ZONE z.zone)::date AS bucket,
           sum(h.conversations)::bigint AS conversations,
           sum(h.tokens) AS tokens,
           sum(h.duration) AS duration,
           sum(h.rounds) AS rounds,
           sum(h.thumb_up)::bigint AS thumb_up,
           sum(h.thumb_down)::bigint AS thumb_down
      FROM ledger_changes AS h
     CROSS JOIN zones AS z
     CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
     CROSS JOIN LATERAL (VALUES ('*'), ('=' || h.dialog_id)) AS d (key)
     CROSS JOIN LATERAL (VALUES ('*'), (coalesce('=' || h.source, '-'))) AS s (key)
     GROUP BY z.zone, h.basis, g.grain, d.key, s.key, bucket
), bucket_rows AS (
    INSERT INTO asyncsvc.usage_bucket AS b (
           tenant_id, zone, basis, grain, dialog_key, source_key, bucket, conversations, users, tokens,
           duration, rounds, thumb_up, thumb_down)
    SELECT :tenant_id, c.zone, c.basis, c.grain, c.dialog_key, c.source_key, c.bucket,
           sum(c.conversations), sum(c.users), sum(c.tokens), sum(c.duration), sum(c.rounds), sum(c.thumb_up),
           sum(c.thumb_down)
      FROM (
        SELECT b.zone, b.basis, b.grain, b.dialog_key, b.source_key, b.bucket, b.conversations,
               0 AS users, b.tokens, b.duration, b.rounds, b.thumb_up, b.thumb_down
          FROM bucket_changes AS b
         UNION ALL
        SELECT u.zone, 'creation', u.grain, u.dialog_key, u.source_key, u.bucket, 0, u.users, 0, 0, 0, 0, 0
          FROM user_changes AS u
      ) AS c
     GROUP BY c.zone, c.basis, c.grain, c.dialog_key, c.source_key, c.bucket
    ON CONFLICT (tenant_id, zone, basis, grain, dialog_key, source_key, bucket) DO UPDATE
       SET conversations = b.conversations + excluded.conversations,
           users = b.users + excluded.users,
           tokens = b.tokens + excluded.tokens,
           duration = b.duration + excluded.duration,
           rounds = b.rounds + excluded.rounds,
           thumb_up = b.thumb_up + excluded.thumb_up,
           thumb_down = b.thumb_down + excluded.thumb_down
)
SELECT count(*) AS ledger_rows
  FROM drained AS d
