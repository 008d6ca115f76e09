-- Count the buckets of a tenant again: in each declared zone, with an empty usage ledger; or with :tz in
-- this new zone only.
--
-- Creations are counted from the conversations, activity from the sums by quarter hour. It runs for a
-- new zone, after new rules for a zone, and if there are so many creations that a roll-up costs more.
--
-- Returns: ledger_rows, the number of ledger rows deleted, which the sums now include; 0 with :tz.
-- Locks: the rows of the ledger and of the sums; no append waits for it.
-- Index: usage_ledger_tenant_idx and the keys of the sums. It reads all conversations of the tenant
--   and sorts them for each zone.
-- Timeout: none. It reads all conversations of the tenant.
-- Notes: the caller locks the tenant's usage in an earlier statement (usage/lock), so this snapshot
--   includes each roll-up that committed before.
--   With :tz the ledger stays, since the other zones do not include it. The buckets of the new zone are
--   those of the conversations without the changes in the ledger.
--   A user counts on the first of the user's days in a bucket: the previous day with a conversation, of
--   the same dialog or source, is before the start of the bucket. So distinct users are sums over days.
--   EXCEPT compares all keys at once, whatever the statistics expect, unlike NOT EXISTS.
WITH
--? !tz {
drained AS (
    DELETE FROM asyncsvc.usage_ledger AS u
     WHERE u.tenant_id = :tenant_id
    RETURNING u.dialog_id, u.source, u.user_id, u.created_at, u.at, u.token_id, u.conversations,
              u.tokens, u.duration, u.rounds, u.thumb_up, u.thumb_down
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
),
--? }
zones AS (
    SELECT :tz::text AS zone                                                       --? tz
    --? !tz {
    SELECT z.zone
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
    --? }
), user_days AS (
    SELECT z.zone, c.user_id, (c.created_at AT TIME ZONE z.zone)::date AS day, c.dialog_id, c.source
      FROM asyncsvc.conversation AS c                                              --? !tz
      --? tz {
      FROM (
        SELECT c.user_id, c.created_at, c.dialog_id, c.source, 1 AS conversations
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
         UNION ALL
        SELECT u.user_id, u.created_at, u.dialog_id, u.source, -u.conversations
          FROM asyncsvc.usage_ledger AS u
         WHERE u.tenant_id = :tenant_id
           AND u.created_at IS NOT NULL
      ) AS c
      --? }
     CROSS JOIN zones AS z
     WHERE c.user_id <> ''
       AND c.tenant_id = :tenant_id                                                --? !tz
     GROUP BY z.zone, c.user_id, day, c.dialog_id, c.source                        --? tz
    HAVING sum(c.conversations) > 0                                                           --? tz
), days_before AS (
    SELECT u.zone, u.day, u.dialog_id, u.source,
           date_trunc('week', u.day::timestamp)::date AS week,
           date_trunc('month', u.day::timestamp)::date AS month,
           lag(u.day, 1, '-infinity') OVER (PARTITION BY u.zone, u.user_id ORDER BY u.day) AS of_all,
           lag(u.day, 1, '-infinity') OVER (
               PARTITION BY u.zone, u.user_id, u.dialog_id ORDER BY u.day) AS of_dialog,
           lag(u.day, 1, '-infinity') OVER (
               PARTITION BY u.zone, u.user_id, u.source ORDER BY u.day) AS of_source,
           lag(u.day, 1, '-infinity') OVER (
               PARTITION BY u.zone, u.user_id, u.dialog_id, u.source ORDER BY u.day) AS of_pair
      FROM user_days AS u
), day_users AS (
    SELECT b.zone, b.day, b.dialog_id, b.source,
           count(*) FILTER (WHERE b.of_all < b.day) AS day_all,
           count(*) FILTER (WHERE b.of_dialog < b.day) AS day_dialog,
           count(*) FILTER (WHERE b.of_source < b.day) AS day_source,
           count(*) FILTER (WHERE b.of_pair < b.day) AS day_pair,
           count(*) FILTER (WHERE b.of_all < b.week) AS week_all,
           count(*) FILTER (WHERE b.of_dialog < b.week) AS week_dialog,
           count(*) FILTER (WHERE b.of_source < b.week) AS week_source,
           count(*) FILTER (WHERE b.of_pair < b.week) AS week_pair,
           count(*) FILTER (WHERE b.of_all < b.month) AS month_all,
           count(*) FILTER (WHERE b.of_dialog < b.month) AS month_dialog,
           count(*) FILTER (WHERE b.of_source < b.month) AS month_source,
           count(*) FILTER (WHERE b.of_pair < b.month) AS month_pair
      FROM days_before AS b
     GROUP BY b.zone, b.day, b.dialog_id, b.source
), day_sums AS (
    SELECT z.zone, 'creation' AS basis, (c.created_at AT TIME ZONE z.zone)::date AS day, c.dialog_id,
           c.source, count(*) AS conversations, sum(c.tokens) AS tokens, sum(c.duration) AS duration,
           sum(c.round) AS rounds, sum(c.thumb_up) AS thumb_up, sum(c.thumb_down) AS thumb_down
      FROM asyncsvc.conversation AS c
     CROSS JOIN zones AS z
     WHERE c.tenant_id = :tenant_id
     GROUP BY z.zone, day, c.dialog_id, c.source
     UNION ALL
    SELECT z.zone, 'activity', (q.quarter_hour AT TIME ZONE z.zone)::date AS day, q.dialog_id, q.source,
           sum(q.conversations), sum(q.tokens), sum(q.duration), sum(q.rounds), sum(q.thumb_up),
           sum(q.thumb_down)
      FROM asyncsvc.usage_quarter_hour AS q
     CROSS JOIN zones AS z
     WHERE q.tenant_id = :tenant_id
     GROUP BY z.zone, day, q.dialog_id, q.source
     UNION ALL
    --? tz {
    SELECT z.zone, 'creation', (u.created_at AT TIME ZONE z.zone)::date AS day, u.dialog_id, u.source,
           -sum(u.conversations), -sum(u.tokens), -sum(u.duration), -sum(u.rounds), -sum(u.thumb_up),
           -sum(u.thumb_down)
      FROM asyncsvc.usage_ledger AS u
     CROSS JOIN zones AS z
     WHERE u.tenant_id = :tenant_id
       AND u.created_at IS NOT NULL
     GROUP BY z.zone, day, u.dialog_id, u.source
    --? }
    --? !tz {
    SELECT z.zone, 'activity',
           (date_bin('15 minutes', d.at, '0001-01-01 00:00+00') AT TIME ZONE z.zone)::date AS day,
           d.dialog_id, d.source,
           sum(d.conversations), sum(d.tokens), sum(d.duration), sum(d.rounds), sum(d.thumb_up),
           sum(d.thumb_down)
      FROM drained AS d
     CROSS JOIN zones AS z
     WHERE d.at IS NOT NULL
     GROUP BY z.zone, day, d.dialog_id, d.source
    --? }
), grain_sums AS (
    SELECT d.zone, d.basis, d.grain, date_trunc(d.grain, d.day::timestamp)::date AS bucket, d.dialog_id,
           d.source, sum(d.conversations)::bigint AS conversations, sum(d.tokens) AS tokens,
           sum(d.duration) AS duration, sum(d.rounds) AS rounds, sum(d.thumb_up)::bigint AS thumb_up,
           sum(d.thumb_down)::bigint AS thumb_down, sum(d.users) AS users,
           sum(d.dialog_users) AS dialog_users, sum(d.source_users) AS source_users,
           sum(d.pair_users) AS pair_users
      FROM (
        SELECT s.zone, s.basis, g.grain, s.day, s.dialog_id, s.source, s.conversations, s.tokens, s.duration,
               s.rounds, s.thumb_up, s.thumb_down, 0 AS users, 0 AS dialog_users, 0 AS source_users,
               0 AS pair_users
          FROM day_sums AS s
         CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
         UNION ALL
        SELECT u.zone, 'creation', g.grain, u.day, u.dialog_id, u.source, 0, 0, 0, 0, 0, 0, g.users,
               g.dialog_users, g.source_users, g.pair_users
          FROM day_users AS u
         CROSS JOIN LATERAL (
                VALUES ('day', u.day_all, u.day_dialog, u.day_source, u.day_pair),
                       ('week', u.week_all, u.week_dialog, u.week_source, u.week_pair),
                       ('month', u.month_all, u.month_dialog, u.month_source, u.month_pair)
               ) AS g (grain, users, dialog_users, source_users, pair_users)
      ) AS d
     GROUP BY d.zone, d.basis, d.grain, bucket, d.dialog_id, d.source
), counted AS MATERIALIZED (
    SELECT g.zone, g.basis, g.grain, k.dialog_key, k.source_key, g.bucket,
           sum(g.conversations)::bigint AS conversations, sum(k.users)::bigint AS users,
           sum(g.tokens) AS tokens, sum(g.duration) AS duration,
           sum(g.rounds) AS rounds, sum(g.thumb_up)::bigint AS thumb_up,
           sum(g.thumb_down)::bigint AS thumb_down
      FROM grain_sums AS g
     CROSS JOIN LATERAL (
            VALUES ('*', '*', g.users),
                   ('=' || g.dialog_id, '*', g.dialog_users),
                   ('*', coalesce('=' || g.source, '-'), g.source_users),
                   ('=' || g.dialog_id, coalesce('=' || g.source, '-'), g.pair_users)
           ) AS k (dialog_key, source_key, users)
     GROUP BY g.zone, g.basis, g.grain, k.dialog_key, k.source_key, g.bucket
    HAVING sum(g.conversations) <> 0 OR g.basis = 'activity'                                  --? tz
),
--? !tz {
deleted AS (
    DELETE FROM asyncsvc.usage_bucket AS b
     USING (
           SELECT b.zone, b.basis, b.grain, b.dialog_key, b.source_key, b.bucket
             FROM asyncsvc.usage_bucket AS b
            WHERE b.tenant_id = :tenant_id
           EXCEPT
           SELECT n.zone, n.basis, n.grain, n.dialog_key, n.source_key, n.bucket
             FROM counted AS n
           ) AS e
     WHERE b.tenant_id = :tenant_id
       AND b.zone = e.zone AND b.basis = e.basis AND b.grain = e.grain
       AND b.dialog_key = e.dialog_key AND b.source_key = e.source_key AND b.bucket = e.bucket
),
--? }
bucket_rows AS (
    INSERT INTO asyncsvc.usage_bucket AS b (
           tenant_id, zone, basis, grain, dialog_key, source_key, bucket, conversations, users, tokens,
           duration, rounds, thumb_up, thumb_down)
    SELECT :tenant_id, n.zone, n.basis, n.grain, n.dialog_key, n.source_key, n.bucket,
           n.conversations, n.users, n.tokens, n.duration, n.rounds, n.thumb_up, n.thumb_down
      FROM counted AS n
     ORDER BY n.zone, n.basis, n.grain, n.dialog_key, n.source_key, n.bucket
    ON CONFLICT (tenant_id, zone, basis, grain, dialog_key, source_key, bucket) DO UPDATE
       SET conversations = excluded.conversations,
           users = excluded.users,
           tokens = excluded.tokens,
           duration = excluded.duration,
           rounds = excluded.rounds,
           thumb_up = excluded.thumb_up,
           thumb_down = excluded.thumb_down
)
SELECT 0::bigint AS ledger_rows                                                    --? tz
SELECT count(*) AS ledger_rows                                                     --? !tz
  FROM drained AS d                                                                --? !tz
