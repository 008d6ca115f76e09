-- Return a tenant's usage as buckets of one hour, day, week (from Monday) or month in the zone :tz.
--
-- By creation, the default, each existing conversation counts at the time of its creation, with its
-- present figures. With the flag `activity` each change counts at the time of the change, and the range
-- is widened to quarter hours.
--
-- Returns: dt, the label of the bucket by date_trunc (the second midnight, if a clock goes back over
--   midnight); conversations, the number of creations; users, the number of their distinct users without ''
--   (0 by activity); tokens, rounds, duration, thumb_up, thumb_down, sums; round, the mean number of
--   rounds per creation; large_tokens and large_rounds, the sum as numeric if a bigint does not hold it,
--   otherwise NULL, since a client reads bigint much faster. Oldest first; with :fill also the empty buckets.
-- Locks: none.
-- Index: the keys of usage_zone, usage_bucket and usage_quarter_hour, usage_ledger_tenant_idx, and
--   conversation_user_idx for distinct users. Counted conversations are read from their range of
--   conversation_created_idx (one dialog) or conversation_tenant_created_idx.
-- Read replica: the result is exact for a slightly earlier moment.
-- Notes: in a declared zone the whole buckets of the range are read from usage_bucket, 1 row each, and
--   the ledger adds the changes since the last roll-up. The rest of the range is counted: cut buckets
--   at its ends; or the whole range for hours, for one token and in other zones, for which first_whole
--   is NULL.
--   user_changes: a user adds 1 to a bucket if the user had no conversation in it before the changes in
--   the ledger, and subtracts 1 if the user has none after them. A user who gained n conversations had
--   one before if more than n exist now; the OFFSET tests that.
--   OFFSET 0 makes the server look up each range separately. A plan for all ranges together would read
--   the whole tenant and then assign the rows to ranges.
WITH requested AS MATERIALIZED (
    SELECT :range_from::timestamptz AS since, :range_before::timestamptz AS until --? !activity
    --? activity {
    SELECT date_bin('15 minutes', :range_from::timestamptz, '0001-01-01 00:00+00') AS since,
           date_bin('15 minutes', :range_before::timestamptz - interval '1 microsecond',
                    '0001-01-01 00:00+00') + interval '15 minutes' AS until
    --? }
), whole AS MATERIALIZED (
    SELECT w.first_whole, w.last_whole, w.head_until, w.tail_since
      FROM requested AS r
      LEFT JOIN LATERAL asyncsvc.whole_buckets(r.since, r.until, :interval, :tz) AS w
        ON w.first_whole <= w.last_whole
       AND :interval <> 'hour'
       AND EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                    WHERE z.tenant_id = :tenant_id
                      AND z.zone = :tz)
       AND false                                --? token_id
       AND false                                --? token_id_is_null
), counted_ranges AS MATERIALIZED (
    SELECT r.since, r.until, '-infinity'::timestamp AS first_bucket, 'infinity'::timestamp AS last_bucket
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.first_whole IS NULL
     UNION ALL
    SELECT r.since, least(r.until, w.head_until), '-infinity', w.first_whole - interval '1 microsecond'
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.head_until IS NOT NULL
     UNION ALL
    SELECT greatest(r.since, w.tail_since), r.until, w.last_whole + interval '1 microsecond', 'infinity'
      FROM requested AS r
     CROSS JOIN whole AS w
     WHERE w.tail_since IS NOT NULL
), counted AS (
    --? !activity {
    SELECT c.dt,
           count(*) AS conversations,
           count(DISTINCT nullif(c.user_id, '')) AS users,
           sum(c.tokens) AS tokens,
           sum(c.duration) AS duration,
           sum(c.round) AS rounds,
           sum(c.thumb_up) AS thumb_up,
           sum(c.thumb_down) AS thumb_down
      FROM counted_ranges AS r
     CROSS JOIN LATERAL (
            SELECT date_trunc(:interval, c.created_at, :tz) AS dt, c.user_id, c.tokens, c.duration,
                   c.round, c.thumb_up, c.thumb_down
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.created_at >= r.since
               AND c.created_at < r.until
               AND date_trunc(:interval, c.created_at AT TIME ZONE :tz)
                   BETWEEN r.first_bucket AND r.last_bucket
               AND c.dialog_id = :dialog_id     --? dialog_id
               AND c.source = :source           --? source
               AND c.source IS NULL             --? source_is_null
            OFFSET 0
           ) AS c
     GROUP BY c.dt
    --? }
    --? activity {
    SELECT q.dt, q.conversations, 0 AS users, q.tokens, q.duration, q.rounds, q.thumb_up, q.thumb_down
      FROM counted_ranges AS r
     CROSS JOIN LATERAL (
            SELECT date_trunc(:interval, q.quarter_hour, :tz) AS dt, q.conversations, q.tokens,
                   q.duration, q.rounds, q.thumb_up, q.thumb_down
              FROM asyncsvc.usage_quarter_hour AS q
             WHERE q.tenant_id = :tenant_id
               AND q.quarter_hour >= r.since
               AND q.quarter_hour < r.until
               AND date_trunc(:interval, q.quarter_hour AT TIME ZONE :tz)
                   BETWEEN r.first_bucket AND r.last_bucket
               AND q.dialog_id = :dialog_id     --? dialog_id
               AND q.source = :source           --? source
               AND q.source IS NULL             --? source_is_null
               AND q.token_id = :token_id       --? token_id
               AND q.token_id IS NULL           --? token_id_is_null
            OFFSET 0
           ) AS q
    --? }
), stored_buckets AS (
    SELECT b.bucket::timestamp AT TIME ZONE :tz AS dt, b.conversations, b.users, b.tokens,
           b.duration, b.rounds, b.thumb_up, b.thumb_down
      FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND b.zone = :tz
       AND b.basis = 'creation'                 --? !activity
       AND b.basis = 'activity'                 --? activity
       AND b.grain = :interval
       AND b.dialog_key = '*'                   --? !dialog_id
       AND b.dialog_key = '=' || :dialog_id     --? dialog_id
       AND b.source_key = '*'                   --? !source, !source_is_null
       AND b.source_key = '=' || :source        --? source
       AND b.source_key = '-'                   --? source_is_null
       AND b.bucket >= (SELECT w.first_whole::date FROM whole AS w)
       AND b.bucket <= (SELECT w.last_whole::date FROM whole AS w)
), ledger_changes AS MATERIALIZED (
    SELECT u.conversations, u.tokens, u.duration, u.rounds, u.thumb_up, u.thumb_down,
           --? !activity {
           u.user_id, date_trunc(:interval, u.created_at, :tz) AS dt,
           date_trunc(:interval, u.created_at AT TIME ZONE :tz) AS bucket
           --? }
           date_trunc(:interval, date_bin('15 minutes', u.at, '0001-01-01 00:00+00'), :tz) AS dt --? activity
      FROM asyncsvc.usage_ledger AS u
      --? !activity {
      JOIN whole AS w
        ON date_trunc(:interval, u.created_at AT TIME ZONE :tz) BETWEEN w.first_whole AND w.last_whole
      --? }
      --? activity {
      JOIN requested AS r
        ON u.at >= r.since AND u.at < r.until
      --? }
     WHERE u.tenant_id = :tenant_id
       AND u.dialog_id = :dialog_id             --? dialog_id
       AND u.source = :source                   --? source
       AND u.source IS NULL                     --? source_is_null
       AND u.token_id = :token_id               --? token_id
       AND u.token_id IS NULL                   --? token_id_is_null
--? !activity {
), user_changes AS (
    SELECT u.bucket AT TIME ZONE :tz AS dt, CASE WHEN EXISTS (
           SELECT FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND (c.user_id, c.created_at) >= (
                  u.user_id, u.bucket AT TIME ZONE :tz - interval '25 hours')
              AND (c.user_id, c.created_at) < (
                  u.user_id, (u.bucket + ('1 ' || :interval)::interval) AT TIME ZONE :tz
                             + interval '25 hours')
              AND date_trunc(:interval, c.created_at AT TIME ZONE :tz) = u.bucket
              AND c.dialog_id = :dialog_id      --? dialog_id
              AND c.source = :source            --? source
              AND c.source IS NULL              --? source_is_null
            ORDER BY c.user_id, c.created_at
           OFFSET greatest(u.conversations, 0)) THEN 0 ELSE sign(u.conversations) END AS users
      FROM (SELECT l.bucket, l.user_id, sum(l.conversations) AS conversations
              FROM ledger_changes AS l
             WHERE l.conversations <> 0
               AND l.user_id <> ''
             GROUP BY l.bucket, l.user_id
            HAVING sum(l.conversations) <> 0) AS u
--? }
), changes AS (
    SELECT b.dt, sum(b.conversations)::bigint AS conversations, sum(b.users)::bigint AS users,
           sum(b.tokens) AS tokens, sum(b.duration) AS duration, sum(b.rounds) AS rounds,
           sum(b.thumb_up)::bigint AS thumb_up, sum(b.thumb_down)::bigint AS thumb_down
      FROM (
        SELECT c.dt, c.conversations, c.users, c.tokens, c.duration, c.rounds, c.thumb_up, c.thumb_down
          FROM counted AS c
         UNION ALL
        SELECT l.dt, sum(l.conversations), 0, sum(l.tokens), sum(l.duration), sum(l.rounds), sum(l.thumb_up),
               sum(l.thumb_down)
          FROM ledger_changes AS l
         GROUP BY l.dt
        --? !activity {
         UNION ALL
        SELECT u.dt, 0, u.users, 0, 0, 0, 0, 0
          FROM user_changes AS u
        --? }
      ) AS b
     GROUP BY b.dt
)
SELECT b.dt, b.conversations, b.users,
       least(b.tokens, 9223372036854775807)::bigint AS tokens,
       (b.duration * 0.000001)::float8 AS duration,
       least(b.rounds, 9223372036854775807)::bigint AS rounds,
       coalesce(b.rounds / nullif(b.conversations, 0)::float8, 0) AS round, b.thumb_up, b.thumb_down,
       CASE WHEN b.tokens > 9223372036854775807 THEN b.tokens END AS large_tokens,
       CASE WHEN b.rounds > 9223372036854775807 THEN b.rounds END AS large_rounds
  FROM (SELECT coalesce(s.dt, c.dt, e.dt) AS dt,
               coalesce(s.conversations, 0) + coalesce(c.conversations, 0) AS conversations,
               coalesce(s.users, 0) + coalesce(c.users, 0) AS users,
               coalesce(s.tokens, 0) + coalesce(c.tokens, 0) AS tokens,
               coalesce(s.duration, 0) + coalesce(c.duration, 0) AS duration,
               coalesce(s.rounds, 0) + coalesce(c.rounds, 0) AS rounds,
               coalesce(s.thumb_up, 0) + coalesce(c.thumb_up, 0) AS thumb_up,
               coalesce(s.thumb_down, 0) + coalesce(c.thumb_down, 0) AS thumb_down
          FROM stored_buckets AS s
          FULL JOIN changes AS c ON c.dt = s.dt
          FULL JOIN (SELECT DISTINCT e.dt
                       FROM asyncsvc.bucket_labels(:range_from, :range_before, :interval, :tz) AS e (dt)
                      WHERE :fill::bool) AS e ON e.dt = coalesce(s.dt, c.dt)) AS b
 WHERE :fill::bool OR b.conversations > 0                  --? !activity
 ORDER BY b.dt
