-- Return a tenant's usage by creation in buckets of one hour, day, week (from Monday) or month in the zone
-- :tz, or with the flag `total` of the whole range.
--
-- Each existing conversation counts at the time of its creation, with its present figures. :grain,
-- :dimension and `counted` are those of usage/stats.
--
-- Returns: the columns of usage/stats of counters that a conversation keeps.
-- Locks: none.
-- Index: the keys of usage_zone and usage_bucket, usage_ledger_tenant_idx, and for distinct users
--   conversation_user_idx. Counted conversations are read from their range of conversation_created_idx (one
--   dialog), conversation_user_idx (one user) or conversation_tenant_created_idx.
-- Read replica: the result is exact for a slightly earlier moment.
-- Notes: as in usage/stats; the ledger adds its changes of whole buckets, since counted conversations have
--   their present figures. A user adds 1 to a whole bucket if the user had no conversation in it before the
--   changes in the ledger, and subtracts 1 if the user has none after them. A user who gained n conversations
--   had one before if more than n exist now; the OFFSET tests that. Users of a range are counted from all its
--   conversations.
WITH requested AS MATERIALIZED (
    SELECT :range_from::timestamptz AS since, :range_before::timestamptz AS until
), whole AS MATERIALIZED (
    SELECT w.first_whole, w.last_whole, w.head_until, w.tail_since
      FROM requested AS r
      LEFT JOIN LATERAL asyncsvc.whole_buckets(r.since, r.until, :grain, :tz) AS w
        ON w.first_whole <= w.last_whole
       AND :grain <> 'hour'
       AND EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                    WHERE z.tenant_id = :tenant_id
                      AND z.zone = :tz)
       AND false                                --? counted
), counted_ranges AS MATERIALIZED (
    SELECT r.since, least(r.until, w.head_until) AS until, '-infinity'::timestamp AS first_bucket,
           coalesce(w.first_whole - interval '1 microsecond', 'infinity') AS last_bucket
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.first_whole IS NULL
        OR w.head_until IS NOT NULL
     UNION ALL
    SELECT greatest(r.since, w.tail_since), r.until, w.last_whole + interval '1 microsecond', 'infinity'
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.tail_since IS NOT NULL
), ledger_changes AS MATERIALIZED (
    SELECT u.conversations, u.rounds, u.tokens, u.duration, u.thumb_up, u.thumb_down, u.user_id,
           date_trunc(:grain, u.created_at, :tz) AS dt,
           date_trunc(:grain, u.created_at AT TIME ZONE :tz) AS bucket
      FROM asyncsvc.usage_ledger AS u
      JOIN whole AS w
        ON date_trunc(:grain, u.created_at AT TIME ZONE :tz) BETWEEN w.first_whole AND w.last_whole
     WHERE u.tenant_id = :tenant_id
       AND u.dialog_id = :dialog_id             --? dialog_id
       AND u.source = :source                   --? source
       AND u.source IS NULL                     --? source_is_null
       AND u.user_id = :user_id                 --? user_id
), parts AS (
    SELECT c.dt, c.user_id, NULL::bigint AS users, 1 AS conversations, c.round AS rounds, c.tokens,
           c.duration, c.thumb_up, c.thumb_down
      FROM counted_ranges AS r
     CROSS JOIN LATERAL (
            SELECT date_trunc(:grain, c.created_at, :tz) AS dt, c.user_id, c.round, c.tokens, c.duration,
                   c.thumb_up, c.thumb_down
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.created_at >= r.since
               AND c.created_at < r.until
               AND date_trunc(:grain, c.created_at AT TIME ZONE :tz)
                   BETWEEN r.first_bucket AND r.last_bucket
               AND c.dialog_id = :dialog_id     --? dialog_id
               AND c.source = :source           --? source
               AND c.source IS NULL             --? source_is_null
               AND c.user_id = :user_id         --? user_id
            OFFSET 0
           ) AS c
     UNION ALL
    SELECT b.bucket::timestamp AT TIME ZONE :tz, NULL, b.users, b.conversations, b.rounds, b.tokens,
           b.duration, b.thumb_up, b.thumb_down
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND b.zone = :tz
       AND b.basis = 'creation'
       AND b.grain = :grain
       AND b.dimension = :dimension
       AND b.value = :dialog_id                 --? dialog_id
       AND b.value = :source                    --? source
       AND b.value IS NULL                      --? !dialog_id, !source
       AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
       AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
     UNION ALL
    SELECT l.dt, NULL, NULL, l.conversations, l.rounds, l.tokens, l.duration, l.thumb_up, l.thumb_down
      FROM ledger_changes AS l
    --? !total {
     UNION ALL
    SELECT u.bucket AT TIME ZONE :tz, NULL, CASE WHEN EXISTS (
           SELECT FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND (c.user_id, c.created_at) >= (
                  u.user_id, u.bucket AT TIME ZONE :tz - interval '25 hours')
              AND (c.user_id, c.created_at) < (
                  u.user_id, (u.bucket + ('1 ' || :grain)::interval) AT TIME ZONE :tz
                             + interval '25 hours')
              AND date_trunc(:grain, c.created_at AT TIME ZONE :tz) = u.bucket
              AND c.dialog_id = :dialog_id      --? dialog_id
              AND c.source = :source            --? source
              AND c.source IS NULL              --? source_is_null
            ORDER BY c.user_id, c.created_at
           OFFSET greatest(u.conversations, 0)) THEN 0 ELSE sign(u.conversations)::bigint END,
           NULL, NULL, NULL, NULL, NULL, NULL
      FROM (SELECT l.bucket, l.user_id, sum(l.conversations) AS conversations
              FROM ledger_changes AS l
             WHERE l.conversations <> 0
               AND l.user_id <> ''
             GROUP BY l.bucket, l.user_id
            HAVING sum(l.conversations) <> 0) AS u
    --? }
     UNION ALL
    SELECT e.dt, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
      FROM (SELECT :range_from::timestamptz) AS e (dt)                                --? total
      FROM asyncsvc.bucket_labels(:range_from, :range_before, :grain, :tz) AS e (dt)  --? !total
     WHERE :fill::bool
)
SELECT b.dt, b.conversations, b.users,
       asyncsvc.bigint_v1(b.rounds) AS rounds,
       asyncsvc.bigint_v1(b.tokens) AS tokens,
       (b.duration * 0.000001)::float8 AS duration, b.thumb_up, b.thumb_down,
       coalesce(b.rounds / nullif(b.conversations, 0)::float8, 0) AS round,
       CASE WHEN greatest(b.rounds, b.tokens) > 9223372036854775807
            THEN concat_ws(' ', b.rounds, b.tokens) END AS large_sums
  FROM (
        SELECT p.dt,                                                                  --? !total
               (count(DISTINCT nullif(p.user_id, '')) + coalesce(sum(p.users), 0))::bigint --? !total
               AS users,                                                              --? !total
        --? total {
        SELECT :range_from::timestamptz AS dt, (
               SELECT count(DISTINCT nullif(c.user_id, ''))
                 FROM asyncsvc.conversation AS c
                 JOIN requested AS r
                   ON c.created_at >= r.since AND c.created_at < r.until
                WHERE c.tenant_id = :tenant_id
                  AND c.dialog_id = :dialog_id  --? dialog_id
                  AND c.source = :source        --? source
                  AND c.source IS NULL          --? source_is_null
                  AND c.user_id = :user_id      --? user_id
               ) AS users,
        --? }
               coalesce(sum(p.conversations), 0)::bigint AS conversations,
               coalesce(sum(p.rounds), 0) AS rounds, coalesce(sum(p.tokens), 0) AS tokens,
               coalesce(sum(p.duration), 0) AS duration, coalesce(sum(p.thumb_up), 0)::bigint AS thumb_up,
               coalesce(sum(p.thumb_down), 0)::bigint AS thumb_down
          FROM parts AS p
         GROUP BY p.dt                          --? !total
       ) AS b
 WHERE :fill::bool OR b.conversations > 0
 ORDER BY b.dt
