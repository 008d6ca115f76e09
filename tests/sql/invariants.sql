-- The conversations whose own row contradicts their messages, one row for each rule that is broken.
--
-- Runs after every test that has a database, in that database, before it is dropped; it must
-- return nothing. It takes no locks but those of a read, and reads both tables in full.
WITH counted AS (
    SELECT m.tenant_id,
           m.conversation_id,
           min(m.seq) AS first_seq,
           max(m.seq) AS last_seq,
           count(*) FILTER (WHERE m.thumb = 1) AS thumb_up,
           count(*) FILTER (WHERE m.thumb = -1) AS thumb_down
      FROM asyncsvc.message AS m
     GROUP BY m.tenant_id, m.conversation_id
)
SELECT c.tenant_id,
       c.id,
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
                          c.thumb_down, coalesce(m.thumb_down, 0)))
       ) AS rule (holds, broken)
 WHERE NOT rule.holds
 ORDER BY c.tenant_id, c.id, rule.broken;
