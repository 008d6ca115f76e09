-- What in the tables contradicts itself, one row for each rule that is broken.
--
-- Runs after every test that has a database, in that database, before it is dropped; it must
-- return nothing. Each rule holds whatever was called, in whatever order, and whatever failed. So
-- none says that seq has no gaps, that the counters are those of the messages, or that usage is that
-- of the conversations: deleting takes messages and conversations, and no counter and no booking.
-- It takes no locks but those of a read, and reads all tables in full.
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
), noted AS (
    SELECT a.tenant_id,
           a.token_id,
           count(*) FILTER (WHERE a.action IN ('create', 'import')) AS made,
           count(*) FILTER (WHERE a.action = 'rotate') AS rotated,
           count(*) FILTER (WHERE a.action = 'revoke') AS revoked,
           count(*) FILTER (WHERE a.action = 'delete') AS deleted
      FROM asyncsvc.token_audit AS a
     GROUP BY a.tenant_id, a.token_id
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
                   format('it is for %s to %s', k.first_seq, k.last_seq)),
                  (k.last_seq <= c.last_seq,
                   format('it is for %s to %s, but last_seq is %s',
                          k.first_seq, k.last_seq, c.last_seq)),
                  (k.first_seq > coalesce(k.last_seq_before, 0),
                   format('it is for %s on, but another key for what is up to %s',
                          k.first_seq, k.last_seq_before)),
                  (k.round BETWEEN coalesce(k.round_before, 0) AND c.round,
                   format('round was %s, after %s, and is %s', k.round, k.round_before, c.round)),
                  (k.created_at <= c.updated_at,
                   format('it is of %s, but updated_at is %s', k.created_at, c.updated_at))
       ) AS rule (holds, broken)
 WHERE NOT rule.holds
 UNION ALL
-- The foreign keys hold these two; a server may have been told not to look.
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
  LEFT JOIN noted AS n
         ON n.tenant_id = t.tenant_id
        AND n.token_id = t.id
 CROSS JOIN LATERAL (
           VALUES (coalesce(n.made, 0) = 1,
                   format('the audit has %s creations and imports of it', coalesce(n.made, 0))),
                  ((t.revoked_at IS NULL) = (coalesce(n.revoked + n.rotated, 0) = 0),
                   format('its end is %s, but the audit has %s revocations and %s rotations',
                          t.revoked_at, n.revoked, n.rotated)),
                  (coalesce(n.deleted, 0) = 0, 'the audit has it deleted'),
                  (coalesce(n.rotated, 0) <= 1 AND coalesce(n.revoked, 0) <= 1,
                   format('the audit has %s rotations and %s revocations of it',
                          n.rotated, n.revoked)),
                  (coalesce(n.rotated, 0) = (SELECT count(*)
                                               FROM asyncsvc.api_token AS s
                                              WHERE s.rotated_from = t.id),
                   format('the audit has %s rotations of it, which is not what it led to',
                          n.rotated)),
                  (t.rotated_from IS NULL OR EXISTS (
                       SELECT FROM asyncsvc.api_token AS o
                        WHERE o.id = t.rotated_from AND o.tenant_id = t.tenant_id
                          AND o.revoked_at IS NOT NULL),
                   'what it was rotated from has no end, or is not there')
       ) AS rule (holds, broken)
 WHERE NOT rule.holds
 UNION ALL
SELECT n.tenant_id,
       'audit of token ' || n.token_id,
       format('it was made %s times and deleted %s times', n.made, n.deleted)
  FROM noted AS n
 WHERE n.made <> 1
    OR n.deleted > 1
 UNION ALL
-- Bookings add up to no less than what is there now: a thing is booked when it comes to be.
SELECT u.tenant_id,
       'usage',
       rule.broken
  FROM (SELECT coalesce(u.tenant_id, c.tenant_id) AS tenant_id,
               coalesce(u.pv, 0) AS pv, coalesce(c.pv, 0) AS there,
               coalesce(u.tokens, 0) AS tokens, coalesce(c.tokens, 0) AS tokens_there,
               coalesce(u.duration, 0) AS duration, coalesce(c.duration, 0) AS duration_there,
               coalesce(u.rounds, 0) AS rounds, coalesce(c.rounds, 0) AS rounds_there
          FROM (SELECT u.tenant_id, sum(u.pv) AS pv, sum(u.tokens) AS tokens,
                       sum(u.duration) AS duration, sum(u.rounds) AS rounds
                  FROM asyncsvc.usage_ledger AS u
                 GROUP BY u.tenant_id) AS u
          FULL JOIN (SELECT c.tenant_id, count(*) AS pv, sum(c.tokens) AS tokens,
                            sum(c.duration) AS duration, sum(c.round) AS rounds
                       FROM asyncsvc.conversation AS c
                      GROUP BY c.tenant_id) AS c
                 ON c.tenant_id = u.tenant_id) AS u
 CROSS JOIN LATERAL (
           VALUES (u.pv >= u.there,
                   format('%s creations are booked, and %s are there', u.pv, u.there)),
                  (u.tokens >= u.tokens_there,
                   format('%s tokens are booked, and %s are there', u.tokens, u.tokens_there)),
                  (u.duration >= u.duration_there,
                   format('%s us are booked, and %s are there', u.duration, u.duration_there)),
                  (u.rounds >= u.rounds_there,
                   format('%s rounds are booked, and %s are there', u.rounds, u.rounds_there))
       ) AS rule (holds, broken)
 WHERE NOT rule.holds
 ORDER BY 1, 2, 3;
