-- Count the buckets of a tenant again, in each declared zone, or with :tz in this zone only.
--
-- Creations are counted from the conversations, activity from the sums by quarter hour. It runs for a
-- new zone, after new rules for a zone, and if there are so many creations that a roll-up costs more.
--
-- Returns: buckets, their number.
-- Locks: the buckets; no append waits for it.
-- Index: usage_ledger_tenant_idx and the keys of the sums. It reads all conversations and quarter hours of
--   the tenant and sorts them for each zone.
-- Timeout: none. It reads all conversations of the tenant.
-- Notes: the caller locks the tenant's usage in an earlier statement (usage/lock), so this snapshot
--   includes each roll-up that committed before.
--   The buckets are those of the conversations without the changes that are still in the ledger.
--   A user counts on the first of the user's days in a bucket: the previous day with a conversation or with
--   activity, of the same dialog, source, token or model, is before the start of the bucket. So distinct
--   users are sums over days.
--   Quarter hours before :users_since (usage/lock) have no users. Stored buckets that begin earlier keep
--   theirs.
--   EXCEPT compares all keys at once, whatever the statistics expect, unlike NOT EXISTS.
WITH zones AS (
    SELECT :tz::text AS zone                                                       --? tz
    --? !tz {
    SELECT z.zone
      FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
    --? }
), days AS MATERIALIZED (
    SELECT z.zone, 'creation' AS basis, (c.created_at AT TIME ZONE z.zone)::date AS day, c.dialog_id,
           c.source, NULL::text AS token_id, NULL::text AS model, c.user_id, count(*) AS conversations,
           sum(c.round) AS rounds, NULL::numeric AS requests, NULL::numeric AS input_tokens,
           NULL::numeric AS cached_input_tokens, NULL::numeric AS cache_write_tokens,
           NULL::numeric AS output_tokens, NULL::numeric AS reasoning_tokens, sum(c.tokens) AS tokens,
           NULL::numeric AS cost, NULL::numeric AS unpriced, NULL::numeric AS unmetered,
           sum(c.duration) AS duration, sum(c.thumb_up) AS thumb_up, sum(c.thumb_down) AS thumb_down
      FROM asyncsvc.conversation AS c
     CROSS JOIN zones AS z
     WHERE c.tenant_id = :tenant_id
     GROUP BY z.zone, day, c.dialog_id, c.source, c.user_id
     UNION ALL
    SELECT z.zone, 'activity', (q.quarter_hour AT TIME ZONE z.zone)::date AS day, q.dialog_id, q.source,
           q.token_id, q.model, q.user_id, sum(q.conversations), sum(q.rounds), sum(q.requests),
           sum(q.input_tokens), sum(q.cached_input_tokens), sum(q.cache_write_tokens),
           sum(q.output_tokens), sum(q.reasoning_tokens), sum(q.tokens), sum(q.cost), sum(q.unpriced),
           sum(q.unmetered), sum(q.duration), sum(q.thumb_up), sum(q.thumb_down)
      FROM asyncsvc.usage_quarter_hour AS q
     CROSS JOIN zones AS z
     WHERE q.tenant_id = :tenant_id
     GROUP BY z.zone, day, q.dialog_id, q.source, q.token_id, q.model, q.user_id
     UNION ALL
    SELECT z.zone, 'creation', (u.created_at AT TIME ZONE z.zone)::date AS day, u.dialog_id, u.source,
           NULL, NULL, u.user_id, -sum(u.conversations), -sum(u.rounds), NULL, NULL, NULL, NULL, NULL, NULL,
           -sum(u.tokens), NULL, NULL, NULL, -sum(u.duration), -sum(u.thumb_up), -sum(u.thumb_down)
      FROM asyncsvc.usage_ledger AS u
     CROSS JOIN zones AS z
     WHERE u.tenant_id = :tenant_id
       AND u.created_at IS NOT NULL
     GROUP BY z.zone, day, u.dialog_id, u.source, u.user_id
), user_days AS (
    SELECT d.zone, d.basis, k.dimension, k.value, d.day,
           lag(d.day, 1, '-infinity') OVER (
               PARTITION BY d.zone, d.basis, k.dimension, k.value, d.user_id ORDER BY d.day) AS previous
      FROM days AS d
     CROSS JOIN LATERAL (
            VALUES ('all', NULL), ('dialog_id', d.dialog_id), ('source', d.source),
                   ('token_id', d.token_id), ('model', d.model)
           ) AS k (dimension, value)
     WHERE d.user_id <> ''
       AND (d.basis = 'activity' OR k.dimension IN ('all', 'dialog_id', 'source'))
     GROUP BY d.zone, d.basis, k.dimension, k.value, d.user_id, d.day
    HAVING d.basis = 'activity' OR sum(d.conversations) > 0
), day_sums AS (
    SELECT d.zone, d.basis, d.day, d.dialog_id, d.source, d.token_id, d.model,
           sum(d.conversations) AS conversations, sum(d.rounds) AS rounds, sum(d.requests) AS requests,
           sum(d.input_tokens) AS input_tokens, sum(d.cached_input_tokens) AS cached_input_tokens,
           sum(d.cache_write_tokens) AS cache_write_tokens, sum(d.output_tokens) AS output_tokens,
           sum(d.reasoning_tokens) AS reasoning_tokens, sum(d.tokens) AS tokens, sum(d.cost) AS cost,
           sum(d.unpriced) AS unpriced, sum(d.unmetered) AS unmetered, sum(d.duration) AS duration,
           sum(d.thumb_up) AS thumb_up, sum(d.thumb_down) AS thumb_down
      FROM days AS d
     GROUP BY d.zone, d.basis, d.day, d.dialog_id, d.source, d.token_id, d.model
), counted AS MATERIALIZED (
    SELECT c.zone, c.basis, c.grain, c.dimension, c.value, c.bucket, sum(c.conversations) AS conversations,
           coalesce(sum(c.users), 0) AS users, sum(c.rounds) AS rounds, sum(c.requests) AS requests,
           sum(c.input_tokens) AS input_tokens, sum(c.cached_input_tokens) AS cached_input_tokens,
           sum(c.cache_write_tokens) AS cache_write_tokens, sum(c.output_tokens) AS output_tokens,
           sum(c.reasoning_tokens) AS reasoning_tokens, sum(c.tokens) AS tokens, sum(c.cost) AS cost,
           sum(c.unpriced) AS unpriced, sum(c.unmetered) AS unmetered, sum(c.duration) AS duration,
           sum(c.thumb_up) AS thumb_up, sum(c.thumb_down) AS thumb_down
      FROM (
        SELECT d.zone, d.basis, g.grain, k.dimension, k.value,
               date_trunc(g.grain, d.day::timestamp)::date AS bucket, NULL AS users, d.conversations,
               d.rounds, d.requests, d.input_tokens, d.cached_input_tokens, d.cache_write_tokens,
               d.output_tokens, d.reasoning_tokens, d.tokens, d.cost, d.unpriced, d.unmetered, d.duration,
               d.thumb_up, d.thumb_down
          FROM day_sums AS d
         CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
         CROSS JOIN LATERAL (
                VALUES ('all', NULL), ('dialog_id', d.dialog_id), ('source', d.source),
                       ('token_id', d.token_id), ('model', d.model)
               ) AS k (dimension, value)
         WHERE d.basis = 'activity'
            OR k.dimension IN ('all', 'dialog_id', 'source')
         UNION ALL
        SELECT u.zone, u.basis, g.grain, u.dimension, u.value,
               date_trunc(g.grain, u.day::timestamp)::date AS bucket, count(*),
               NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
          FROM user_days AS u
         CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
         WHERE u.previous < date_trunc(g.grain, u.day::timestamp)
         GROUP BY u.zone, u.basis, g.grain, u.dimension, u.value, bucket
      ) AS c
     GROUP BY c.zone, c.basis, c.grain, c.dimension, c.value, c.bucket
    HAVING sum(c.conversations) <> 0 OR c.basis = 'activity'
), deleted AS (
    DELETE FROM asyncsvc.usage_bucket AS b
     USING (
           SELECT b.zone, b.basis, b.grain, b.dimension, b.value, b.bucket
             FROM asyncsvc.usage_bucket AS b
             JOIN zones AS z ON z.zone = b.zone
            WHERE b.tenant_id = :tenant_id
           EXCEPT
           SELECT n.zone, n.basis, n.grain, n.dimension, n.value, n.bucket
             FROM counted AS n
           ) AS e
     WHERE b.tenant_id = :tenant_id
       AND b.zone = e.zone AND b.basis = e.basis AND b.grain = e.grain
       AND b.dimension = e.dimension AND b.value IS NOT DISTINCT FROM e.value AND b.bucket = e.bucket
), bucket_rows AS (
    INSERT INTO asyncsvc.usage_bucket AS b (
           tenant_id, zone, basis, grain, dimension, value, bucket, conversations, users, rounds, requests,
           input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, tokens,
           cost, unpriced, unmetered, duration, thumb_up, thumb_down)
    SELECT :tenant_id, n.zone, n.basis, n.grain, n.dimension, n.value, n.bucket, n.conversations, n.users,
           n.rounds, n.requests, n.input_tokens, n.cached_input_tokens, n.cache_write_tokens,
           n.output_tokens, n.reasoning_tokens, n.tokens, n.cost, n.unpriced, n.unmetered, n.duration,
           n.thumb_up, n.thumb_down
      FROM counted AS n
     ORDER BY n.zone, n.basis, n.grain, n.dimension, n.value, n.bucket
    ON CONFLICT (tenant_id, zone, basis, grain, dimension, value, bucket) DO UPDATE
       SET conversations = excluded.conversations,
           users = CASE WHEN b.basis = 'activity' AND b.bucket <= :users_since
                        THEN greatest(b.users, excluded.users) ELSE excluded.users END,
           rounds = excluded.rounds,
           requests = excluded.requests,
           input_tokens = excluded.input_tokens,
           cached_input_tokens = excluded.cached_input_tokens,
           cache_write_tokens = excluded.cache_write_tokens,
           output_tokens = excluded.output_tokens,
           reasoning_tokens = excluded.reasoning_tokens,
           tokens = excluded.tokens,
           cost = excluded.cost,
           unpriced = excluded.unpriced,
           unmetered = excluded.unmetered,
           duration = excluded.duration,
           thumb_up = excluded.thumb_up,
           thumb_down = excluded.thumb_down
)
SELECT count(*) AS buckets
  FROM counted AS n
