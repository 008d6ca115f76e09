-- Return one row for each broken invariant of the tables.
--
-- It runs at the end of each test with a database and must return no row. Each rule holds after any
-- calls in any order, also after failures. There is no rule that seq has no gaps, that counters equal
-- the sums of the messages, or that activity equals that of the conversations, because deletions
-- remove messages and conversations but change no counter and no activity.
-- It takes no locks and reads all tables completely.
WITH counted AS (
    SELECT m.tenant_id,
           m.conversation_id,
           min(m.seq) AS first_seq,
           max(m.seq) AS last_seq,
           count(*) FILTER (WHERE m.thumb = 1) AS thumb_up,
           count(*) FILTER (WHERE m.thumb = -1) AS thumb_down
      FROM asyncsvc.message AS m
     GROUP BY m.tenant_id, m.conversation_id
), keyed AS (
    SELECT k.tenant_id,
           k.conversation_id,
           k.key,
           k.first_seq,
           k.last_seq,
           k.round,
           k.created_at,
           lag(k.last_seq) OVER seqs AS last_seq_before,
           lag(k.round) OVER seqs AS round_before
      FROM asyncsvc.append_key AS k
    WINDOW seqs AS (PARTITION BY k.tenant_id, k.conversation_id ORDER BY k.first_seq)
), audited AS (
    SELECT a.tenant_id,
           a.token_id,
           count(*) FILTER (WHERE a.action IN ('create', 'import')) AS created,
           count(*) FILTER (WHERE a.action = 'rotate') AS rotated,
           count(*) FILTER (WHERE a.action = 'revoke') AS revoked,
           count(*) FILTER (WHERE a.action = 'delete') AS deleted
      FROM asyncsvc.token_audit AS a
     GROUP BY a.tenant_id, a.token_id
), hashed AS MATERIALIZED (
    SELECT h.tenant_id, h.token_id, array_agg(h.token_hash) AS hashes
      FROM asyncsvc.api_token_hash AS h
     GROUP BY h.tenant_id, h.token_id
), token AS MATERIALIZED (
    SELECT t.tenant_id, t.id
      FROM asyncsvc.api_token AS t
)
SELECT c.tenant_id,
       'conversation ' || c.id AS what,
       rule.broken
  FROM asyncsvc.conversation AS c
  LEFT JOIN counted AS m
         ON m.tenant_id = c.tenant_id
        AND m.conversation_id = c.id
 CROSS JOIN LATERAL (
           VALUES (c.last_seq >= coalesce(m.last_seq, 0),
                   format('last_seq is %s, but there is a message %s', c.last_seq, m.last_seq)),
                  (coalesce(m.first_seq, 1) >= 1,
                   format('there is a message %s, and the first should be 1', m.first_seq)),
                  (c.thumb_up = coalesce(m.thumb_up, 0),
                   format('thumb_up is %s, but %s messages have it',
                          c.thumb_up, coalesce(m.thumb_up, 0))),
                  (c.thumb_down = coalesce(m.thumb_down, 0),
                   format('thumb_down is %s, but %s messages have it',
                          c.thumb_down, coalesce(m.thumb_down, 0))),
                  (least(c.round, c.tokens, c.duration, c.last_seq) >= 0,
                   format('round %s, tokens %s, duration %s or last_seq %s is negative',
                          c.round, c.tokens, c.duration, c.last_seq))
       ) AS rule (holds, broken)
 WHERE NOT rule.holds
 UNION ALL
SELECT k.tenant_id,
       'key ' || k.key || ' of conversation ' || k.conversation_id,
       rule.broken
  FROM keyed AS k
  JOIN asyncsvc.conversation AS c
    ON c.tenant_id = k.tenant_id
   AND c.id = k.conversation_id
 CROSS JOIN LATERAL (
           VALUES (k.first_seq BETWEEN 1 AND k.last_seq,
                   format('its messages are %s to %s', k.first_seq, k.last_seq)),
                  (k.last_seq <= c.last_seq,
                   format('its messages are %s to %s, but last_seq is %s',
                          k.first_seq, k.last_seq, c.last_seq)),
                  (k.first_seq > coalesce(k.last_seq_before, 0),
                   format('its messages start at %s, but those of another key end at %s',
                          k.first_seq, k.last_seq_before)),
                  (k.round BETWEEN coalesce(k.round_before, 0) AND c.round,
                   format('its round is %s, the round before is %s, the present round is %s', k.round, k.round_before, c.round)),
                  (k.created_at <= c.updated_at,
                   format('its created_at is %s, but updated_at is %s', k.created_at, c.updated_at))
       ) AS rule (holds, broken)
 WHERE NOT rule.holds
 UNION ALL
-- Foreign keys enforce these 2 rules, unless they are disabled (session_replication_role).
SELECT m.tenant_id,
       'messages of conversation ' || m.conversation_id,
       'there is no such conversation'
  FROM counted AS m
 WHERE NOT EXISTS (
       SELECT FROM asyncsvc.conversation AS c
        WHERE c.tenant_id = m.tenant_id AND c.id = m.conversation_id)
 UNION ALL
SELECT k.tenant_id,
       'key ' || k.key || ' of conversation ' || k.conversation_id,
       'there is no such conversation'
  FROM keyed AS k
 WHERE NOT EXISTS (
       SELECT FROM asyncsvc.conversation AS c
        WHERE c.tenant_id = k.tenant_id AND c.id = k.conversation_id)
 UNION ALL
SELECT t.tenant_id,
       'token ' || t.id,
       rule.broken
  FROM asyncsvc.api_token AS t
  LEFT JOIN audited AS n
         ON n.tenant_id = t.tenant_id
        AND n.token_id = t.id
  LEFT JOIN hashed AS h
         ON h.tenant_id = t.tenant_id
        AND h.token_id = t.id
 CROSS JOIN LATERAL (
           VALUES ((h.hashes = ARRAY[t.token_hash]) IS TRUE,
                   format('its hash is %s, but %s lead to it', t.token_hash, h.hashes)),
                  (coalesce(n.created, 0) = 1,
                   format('the audit has %s creations and imports of it', coalesce(n.created, 0))),
                  ((t.revoked_at IS NULL) = (coalesce(n.revoked + n.rotated, 0) = 0),
                   format('revoked_at is %s, but the audit has %s revocations and %s rotations',
                          t.revoked_at, n.revoked, n.rotated)),
                  (coalesce(n.deleted, 0) = 0, 'the audit has a deletion of it'),
                  (coalesce(n.rotated, 0) <= 1 AND coalesce(n.revoked, 0) <= 1,
                   format('the audit has %s rotations and %s revocations of it',
                          n.rotated, n.revoked)),
                  (coalesce(n.rotated, 0) = (SELECT count(*)
                                               FROM asyncsvc.api_token AS s
                                              WHERE s.tenant_id = t.tenant_id
                                                AND s.rotated_from = t.id)
                       OR coalesce(n.rotated, 0) = 1 AND EXISTS (
                           SELECT FROM audited AS d
                            WHERE d.tenant_id = t.tenant_id AND d.deleted > 0),
                   format('the audit has %s rotations of it, which differs from its successors',
                          n.rotated)),
                  (t.rotated_from IS NULL OR EXISTS (
                       SELECT FROM asyncsvc.api_token AS o
                        WHERE o.id = t.rotated_from AND o.tenant_id = t.tenant_id
                          AND o.revoked_at IS NOT NULL) OR EXISTS (
                       SELECT FROM audited AS d
                        WHERE d.tenant_id = t.tenant_id AND d.token_id = t.rotated_from
                          AND d.deleted > 0),
                   'its predecessor is neither revoked nor deleted')
       ) AS rule (holds, broken)
 WHERE NOT rule.holds
 UNION ALL
SELECT h.tenant_id, 'hash of token ' || h.token_id, 'there is no such token'
  FROM hashed AS h
 WHERE NOT EXISTS (
       SELECT FROM token AS t
        WHERE t.tenant_id = h.tenant_id AND t.id = h.token_id)
 UNION ALL
-- The copies for the search index equal the conversation.
SELECT c.tenant_id,
       'search of conversation ' || c.id,
       rule.broken
  FROM asyncsvc.conversation AS c
  LEFT JOIN asyncsvc.conversation_title AS t
         ON t.tenant_id = c.tenant_id
        AND t.conversation_id = c.id
 CROSS JOIN LATERAL (
           VALUES ((t.name, t.dialog_id, t.conversation_created_at)
                       IS NOT DISTINCT FROM (c.name, c.dialog_id, c.created_at),
                   'its title differs or does not exist'),
                  (NOT EXISTS (
                       SELECT FROM asyncsvc.message AS m
                        WHERE m.tenant_id = c.tenant_id AND m.conversation_id = c.id
                          AND (m.dialog_id, m.conversation_created_at)
                              <> (c.dialog_id, c.created_at)),
                   'some of its messages have another dialog or creation')
       ) AS rule (holds, broken)
 WHERE NOT rule.holds
 UNION ALL
SELECT n.tenant_id,
       'audit of token ' || n.token_id,
       format('it was created %s times and deleted %s times', n.created, n.deleted)
  FROM audited AS n
 WHERE n.created <> 1
    OR n.deleted > 1
 UNION ALL
-- The activity is at least the sum of the existing conversations: deletions do not reduce it.
SELECT u.tenant_id,
       'activity',
       rule.broken
  FROM (SELECT coalesce(u.tenant_id, c.tenant_id) AS tenant_id,
               coalesce(u.conversations, 0) AS conversations, coalesce(c.conversations, 0) AS there,
               coalesce(u.tokens, 0) AS tokens, coalesce(c.tokens, 0) AS tokens_there,
               coalesce(u.duration, 0) AS duration, coalesce(c.duration, 0) AS duration_there,
               coalesce(u.rounds, 0) AS rounds, coalesce(c.rounds, 0) AS rounds_there
          FROM (SELECT a.tenant_id, sum(a.conversations) AS conversations, sum(a.tokens) AS tokens,
                       sum(a.duration) AS duration, sum(a.rounds) AS rounds
                  FROM (SELECT u.tenant_id, u.conversations, u.tokens, u.duration, u.rounds
                          FROM asyncsvc.usage_ledger AS u
                         WHERE u.at IS NOT NULL
                         UNION ALL
                        SELECT q.tenant_id, q.conversations, q.tokens, q.duration, q.rounds
                          FROM asyncsvc.usage_quarter_hour AS q) AS a
                 GROUP BY a.tenant_id) AS u
          FULL JOIN (SELECT c.tenant_id, count(*) AS conversations, sum(c.tokens) AS tokens,
                            sum(c.duration) AS duration, sum(c.round) AS rounds
                       FROM asyncsvc.conversation AS c
                      GROUP BY c.tenant_id) AS c
                 ON c.tenant_id = u.tenant_id) AS u
 CROSS JOIN LATERAL (
           VALUES (u.conversations >= u.there,
                   format('activity has %s creations, and %s conversations exist', u.conversations, u.there)),
                  (u.tokens >= u.tokens_there,
                   format('activity has %s tokens, conversations have %s', u.tokens, u.tokens_there)),
                  (u.duration >= u.duration_there,
                   format('activity has %s us, conversations have %s', u.duration, u.duration_there)),
                  (u.rounds >= u.rounds_there,
                   format('activity has %s rounds, conversations have %s', u.rounds, u.rounds_there))
       ) AS rule (holds, broken)
 WHERE NOT rule.holds
 UNION ALL
-- The buckets by creation plus the ledger equal a recount of the conversations, in each zone. If the
-- ledger is empty, the distinct users are equal too.
SELECT b.tenant_id,
       format('bucket %s of a %s by creation in %s, %s %s', b.bucket, b.grain, b.zone, b.dimension, b.value),
       format('buckets and ledger have %s, conversations have %s', b.stored, b.existing)
  FROM (SELECT s.tenant_id, s.zone, s.grain, s.dimension, s.value, s.bucket,
               array[coalesce(sum(s.conversations) FILTER (WHERE s.is_stored), 0),
                     coalesce(sum(s.tokens) FILTER (WHERE s.is_stored), 0),
                     coalesce(sum(s.duration) FILTER (WHERE s.is_stored), 0),
                     coalesce(sum(s.rounds) FILTER (WHERE s.is_stored), 0),
                     coalesce(sum(s.thumb_up) FILTER (WHERE s.is_stored), 0),
                     coalesce(sum(s.thumb_down) FILTER (WHERE s.is_stored), 0),
                     coalesce(sum(s.users), 0)] AS stored,
               array[coalesce(sum(s.conversations) FILTER (WHERE NOT s.is_stored), 0),
                     coalesce(sum(s.tokens) FILTER (WHERE NOT s.is_stored), 0),
                     coalesce(sum(s.duration) FILTER (WHERE NOT s.is_stored), 0),
                     coalesce(sum(s.rounds) FILTER (WHERE NOT s.is_stored), 0),
                     coalesce(sum(s.thumb_up) FILTER (WHERE NOT s.is_stored), 0),
                     coalesce(sum(s.thumb_down) FILTER (WHERE NOT s.is_stored), 0),
                     CASE WHEN EXISTS (SELECT FROM asyncsvc.usage_ledger AS u
                                        WHERE u.tenant_id = s.tenant_id)
                          THEN coalesce(sum(s.users), 0)
                          ELSE count(DISTINCT nullif(s.user_id, '')) END] AS existing
          FROM (SELECT b.tenant_id, b.zone, b.grain, b.dimension, b.value, b.bucket, b.conversations,
                       b.users, b.tokens, b.duration, b.rounds, b.thumb_up, b.thumb_down,
                       NULL AS user_id, true AS is_stored
                  FROM asyncsvc.usage_bucket AS b
                 WHERE b.basis = 'creation'
                 UNION ALL
                SELECT z.tenant_id, z.zone, g.grain, k.dimension, k.value,
                       date_trunc(g.grain, c.created_at AT TIME ZONE z.zone)::date, c.conversations, 0,
                       c.tokens, c.duration, c.rounds, c.thumb_up, c.thumb_down, c.user_id, c.is_stored
                  FROM asyncsvc.usage_zone AS z
                  JOIN (SELECT u.tenant_id, u.dialog_id, u.source, u.user_id, u.created_at,
                               u.conversations, u.tokens, u.duration, u.rounds, u.thumb_up,
                               u.thumb_down, true
                          FROM asyncsvc.usage_ledger AS u
                         WHERE u.created_at IS NOT NULL
                         UNION ALL
                        SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, 1,
                               c.tokens, c.duration, c.round, c.thumb_up, c.thumb_down, false
                          FROM asyncsvc.conversation AS c
                       ) AS c (tenant_id, dialog_id, source, user_id, created_at, conversations, tokens,
                               duration, rounds, thumb_up, thumb_down, is_stored)
                    ON c.tenant_id = z.tenant_id
                 CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
                 CROSS JOIN LATERAL (
                        VALUES ('all', NULL), ('dialog_id', c.dialog_id), ('source', c.source)
                       ) AS k (dimension, value)
               ) AS s
         GROUP BY s.tenant_id, s.zone, s.grain, s.dimension, s.value, s.bucket) AS b
 WHERE b.stored <> b.existing
 UNION ALL
-- The buckets by activity equal the sums by quarter hour, in each zone, with their distinct users. Buckets
-- of which the persons were summed out may have more users. The deletion of a tenant deletes the quarter
-- hours first, when it has no conversation left.
SELECT b.tenant_id,
       format('bucket %s of a %s by activity in %s, %s %s', b.bucket, b.grain, b.zone, b.dimension, b.value),
       format('it has %s, quarter hours have %s', b.stored, b.summed)
  FROM (SELECT s.tenant_id, s.zone, s.grain, s.dimension, s.value, s.bucket,
               array[sum(s.conversations) FILTER (WHERE s.is_stored),
                     sum(s.rounds) FILTER (WHERE s.is_stored),
                     sum(s.requests) FILTER (WHERE s.is_stored),
                     sum(s.input_tokens) FILTER (WHERE s.is_stored),
                     sum(s.cached_input_tokens) FILTER (WHERE s.is_stored),
                     sum(s.cache_write_tokens) FILTER (WHERE s.is_stored),
                     sum(s.output_tokens) FILTER (WHERE s.is_stored),
                     sum(s.reasoning_tokens) FILTER (WHERE s.is_stored),
                     sum(s.tokens) FILTER (WHERE s.is_stored),
                     sum(s.cost) FILTER (WHERE s.is_stored),
                     sum(s.unpriced) FILTER (WHERE s.is_stored),
                     sum(s.unmetered) FILTER (WHERE s.is_stored),
                     sum(s.duration) FILTER (WHERE s.is_stored),
                     sum(s.thumb_up) FILTER (WHERE s.is_stored),
                     sum(s.thumb_down) FILTER (WHERE s.is_stored)] AS stored,
               array[sum(s.conversations) FILTER (WHERE NOT s.is_stored),
                     sum(s.rounds) FILTER (WHERE NOT s.is_stored),
                     sum(s.requests) FILTER (WHERE NOT s.is_stored),
                     sum(s.input_tokens) FILTER (WHERE NOT s.is_stored),
                     sum(s.cached_input_tokens) FILTER (WHERE NOT s.is_stored),
                     sum(s.cache_write_tokens) FILTER (WHERE NOT s.is_stored),
                     sum(s.output_tokens) FILTER (WHERE NOT s.is_stored),
                     sum(s.reasoning_tokens) FILTER (WHERE NOT s.is_stored),
                     sum(s.tokens) FILTER (WHERE NOT s.is_stored),
                     sum(s.cost) FILTER (WHERE NOT s.is_stored),
                     sum(s.unpriced) FILTER (WHERE NOT s.is_stored),
                     sum(s.unmetered) FILTER (WHERE NOT s.is_stored),
                     sum(s.duration) FILTER (WHERE NOT s.is_stored),
                     sum(s.thumb_up) FILTER (WHERE NOT s.is_stored),
                     sum(s.thumb_down) FILTER (WHERE NOT s.is_stored)] AS summed,
               sum(s.users) FILTER (WHERE s.is_stored) AS users,
               count(DISTINCT nullif(s.user_id, '')) AS active,
               max(z.users_since) AS users_since
          FROM (SELECT b.tenant_id, b.zone, b.grain, b.dimension, b.value, b.bucket, b.conversations,
                       b.rounds, b.requests, b.input_tokens, b.cached_input_tokens, b.cache_write_tokens,
                       b.output_tokens, b.reasoning_tokens, b.tokens, b.cost, b.unpriced, b.unmetered,
                       b.duration, b.thumb_up, b.thumb_down, b.users, NULL AS user_id, true AS is_stored
                  FROM asyncsvc.usage_bucket AS b
                 WHERE b.basis = 'activity'
                 UNION ALL
                SELECT z.tenant_id, z.zone, g.grain, k.dimension, k.value,
                       date_trunc(g.grain, q.quarter_hour AT TIME ZONE z.zone)::date, q.conversations,
                       q.rounds, q.requests, q.input_tokens, q.cached_input_tokens, q.cache_write_tokens,
                       q.output_tokens, q.reasoning_tokens, q.tokens, q.cost, q.unpriced, q.unmetered,
                       q.duration, q.thumb_up, q.thumb_down, NULL, q.user_id, false
                  FROM asyncsvc.usage_zone AS z
                  JOIN asyncsvc.usage_quarter_hour AS q ON q.tenant_id = z.tenant_id
                 CROSS JOIN (VALUES ('day'), ('week'), ('month')) AS g (grain)
                 CROSS JOIN LATERAL (
                        VALUES ('all', NULL), ('dialog_id', q.dialog_id), ('source', q.source),
                               ('token_id', q.token_id), ('model', q.model)
                       ) AS k (dimension, value)
               ) AS s
          JOIN asyncsvc.usage_zone AS z ON z.tenant_id = s.tenant_id AND z.zone = 'UTC'
         GROUP BY s.tenant_id, s.zone, s.grain, s.dimension, s.value, s.bucket) AS b
 WHERE (b.stored IS DISTINCT FROM b.summed
        OR b.users < b.active
        OR b.users > b.active AND b.bucket > coalesce(b.users_since, '-infinity'))
   AND EXISTS (SELECT FROM asyncsvc.conversation AS c WHERE c.tenant_id = b.tenant_id)
 UNION ALL
-- The sums by person and month equal the sums by quarter hour.
SELECT coalesce(m.tenant_id, q.tenant_id),
       format('month %s of %s', coalesce(m.month, q.month), coalesce(m.user_id, q.user_id)),
       format('it has %s, quarter hours have %s', m.sums, q.sums)
  FROM (SELECT m.tenant_id, m.user_id, m.month,
               array[m.conversations, m.rounds, m.requests, m.input_tokens, m.cached_input_tokens,
                     m.cache_write_tokens, m.output_tokens, m.reasoning_tokens, m.tokens, m.cost,
                     m.unpriced, m.unmetered, m.duration, m.thumb_up, m.thumb_down] AS sums
          FROM asyncsvc.usage_user_month AS m) AS m
  FULL JOIN (SELECT q.tenant_id, q.user_id, date_trunc('month', q.quarter_hour AT TIME ZONE 'UTC')::date AS month,
                    array[sum(q.conversations), sum(q.rounds), sum(q.requests), sum(q.input_tokens),
                          sum(q.cached_input_tokens), sum(q.cache_write_tokens), sum(q.output_tokens),
                          sum(q.reasoning_tokens), sum(q.tokens), sum(q.cost), sum(q.unpriced),
                          sum(q.unmetered), sum(q.duration), sum(q.thumb_up), sum(q.thumb_down)] AS sums
               FROM asyncsvc.usage_quarter_hour AS q
              GROUP BY q.tenant_id, q.user_id, 3) AS q
         ON q.tenant_id = m.tenant_id AND q.user_id = m.user_id AND q.month = m.month
 WHERE m.sums IS DISTINCT FROM q.sums
   AND EXISTS (SELECT FROM asyncsvc.conversation AS c WHERE c.tenant_id = coalesce(m.tenant_id, q.tenant_id))
 UNION ALL
-- A person with months has a bound, which is not below the usage of any of them together.
SELECT coalesce(m.tenant_id, u.tenant_id), format('bound of %s', coalesce(m.user_id, u.user_id)),
       format('it is %s, %s, %s, %s, months have %s, %s, %s, %s', u.last_month, u.cost, u.tokens, u.rounds,
              m.last_month, m.cost, m.tokens, m.rounds)
  FROM (SELECT m.tenant_id, m.user_id, max(m.month) AS last_month, sum(greatest(m.cost, 0)) AS cost,
               sum(greatest(m.tokens, 0)) AS tokens, sum(greatest(m.rounds, 0)) AS rounds
          FROM asyncsvc.usage_user_month AS m
         WHERE m.user_id <> ''
         GROUP BY m.tenant_id, m.user_id) AS m
  FULL JOIN asyncsvc.usage_user AS u
         ON u.tenant_id = m.tenant_id AND u.user_id = m.user_id
 WHERE (u.last_month = m.last_month AND u.cost >= m.cost AND u.tokens >= m.tokens AND u.rounds >= m.rounds)
       IS NOT TRUE
 UNION ALL
-- Without stored buckets the ledger alone equals the conversations.
SELECT coalesce(u.tenant_id, c.tenant_id),
       'ledger',
       format('it has %s creations, %s tokens and %s thumbs, conversations have %s, %s and %s',
              u.conversations, u.tokens, u.thumbs, c.conversations, c.tokens, c.thumbs)
  FROM (SELECT u.tenant_id, sum(u.conversations) AS conversations, sum(u.tokens) AS tokens,
               sum(u.thumb_up + u.thumb_down) AS thumbs
          FROM asyncsvc.usage_ledger AS u
         WHERE u.created_at IS NOT NULL
         GROUP BY u.tenant_id) AS u
  FULL JOIN (SELECT c.tenant_id, count(*) AS conversations, sum(c.tokens) AS tokens,
                    sum(c.thumb_up + c.thumb_down) AS thumbs
               FROM asyncsvc.conversation AS c
              GROUP BY c.tenant_id) AS c
         ON c.tenant_id = u.tenant_id
 WHERE NOT EXISTS (SELECT FROM asyncsvc.usage_zone AS z
                    WHERE z.tenant_id = coalesce(u.tenant_id, c.tenant_id))
   AND (coalesce(u.conversations, 0), coalesce(u.tokens, 0), coalesce(u.thumbs, 0))
       <> (coalesce(c.conversations, 0), coalesce(c.tokens, 0), coalesce(c.thumbs, 0))
 UNION ALL
-- Recency equals the update times of the conversations.
SELECT coalesce(r.tenant_id, c.tenant_id),
       'conversation ' || coalesce(r.id, c.id),
       format('updated_at is %s in dialog %s, but recency has %s in dialog %s',
              c.updated_at, c.dialog_id, r.updated_at, r.dialog_id)
  FROM asyncsvc.conversation AS c
  FULL JOIN asyncsvc.conversation_recency AS r
         ON r.tenant_id = c.tenant_id AND r.id = c.id
 WHERE (c.updated_at, c.dialog_id) IS DISTINCT FROM (r.updated_at, r.dialog_id)
 UNION ALL
SELECT r.tenant_id, format('record %s %s', r.kind, r.id), 'it was updated before it was created'
  FROM asyncsvc.record AS r
 WHERE r.updated_at < r.created_at
 ORDER BY 1, 2, 3;
