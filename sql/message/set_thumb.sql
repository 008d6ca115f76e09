-- Sets or withdraws the thumb of a message, moves the conversation's counters by the difference,
-- books that, and returns the message as it is now. Saying the same thing twice changes nothing.
-- updated_at stays: it is that of the messages. Since the message is written anew, it leaves the search
-- index until maintenance comes by, which is cheaper by far than to index it here.
--
-- Locks: the conversation's row first, as everything that changes its messages does, then the
-- message's; the old thumb is read under both, so two that judge at once are counted right.
-- Index: the primary keys.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       FOR NO KEY UPDATE
), before AS MATERIALIZED (
    SELECT m.thumb,
           (:thumb::smallint IS NOT DISTINCT FROM 1)::int
           - (m.thumb IS NOT DISTINCT FROM 1)::int AS thumb_up,
           (:thumb::smallint IS NOT DISTINCT FROM -1)::int
           - (m.thumb IS NOT DISTINCT FROM -1)::int AS thumb_down
      FROM asyncsvc.message AS m
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = :seq
       AND EXISTS (SELECT FROM locked)
       FOR NO KEY UPDATE
), counted AS (
    UPDATE asyncsvc.conversation AS c
       SET thumb_up = c.thumb_up + b.thumb_up,
           thumb_down = c.thumb_down + b.thumb_down
      FROM before AS b
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND b.thumb IS DISTINCT FROM :thumb::smallint
), booked AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, quarter_hour, thumb_up, thumb_down)
    SELECT l.tenant_id, l.dialog_id, l.source, l.user_id, l.created_at,
           date_bin('15 minutes', statement_timestamp(), '0001-01-01 00:00+00'),
           b.thumb_up, b.thumb_down
      FROM locked AS l
     CROSS JOIN before AS b
     WHERE b.thumb IS DISTINCT FROM :thumb::smallint
), judged AS (
    UPDATE asyncsvc.message AS m
       SET thumb = :thumb::smallint,
           is_indexed = false
      FROM before AS b
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = :seq
    RETURNING m.seq, m.role, m.content, m.payload, m.reference, m.thumb, m.created_at
)
SELECT m.seq, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
       m.thumb, m.created_at
  FROM judged AS m
