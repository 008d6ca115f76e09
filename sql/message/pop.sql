-- Takes the last message off a conversation and returns it. A conversation without messages is
-- one row of NULL; no row at all means that there is no conversation. Its thumb is withdrawn from
-- the counters; rounds, tokens, duration and last_seq stay, so its seq is never used again.
--
-- The last message is found by a locking read, which goes on to the one before when another
-- session took it first: two that pop at once get two messages.
--
-- Locks: the conversation's row first, then the message's. Index: the primary keys.
WITH locked AS MATERIALIZED (
    SELECT c.id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       FOR NO KEY UPDATE
), newest AS MATERIALIZED (
    SELECT m.seq
      FROM asyncsvc.message AS m
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND EXISTS (SELECT FROM locked)
     ORDER BY m.seq DESC
     LIMIT 1
       FOR UPDATE
), popped AS (
    DELETE FROM asyncsvc.message AS m
     USING newest AS n
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = n.seq
    RETURNING m.seq, m.role, m.content, m.payload, m.reference, m.thumb, m.created_at
), withdrawn AS (
    UPDATE asyncsvc.conversation AS c
       SET thumb_up = c.thumb_up - (m.thumb IS NOT DISTINCT FROM 1)::int,
           thumb_down = c.thumb_down - (m.thumb IS NOT DISTINCT FROM -1)::int,
           updated_at = greatest(c.updated_at, statement_timestamp())
      FROM popped AS m
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
    RETURNING c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.updated_at, m.thumb
), noted AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET updated_at = w.updated_at
      FROM withdrawn AS w
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
), booked AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, thumb_up, thumb_down)
    SELECT w.tenant_id, w.dialog_id, w.source, w.user_id, w.created_at, -(w.thumb = 1)::int, -(w.thumb = -1)::int
      FROM withdrawn AS w
     WHERE w.thumb IS NOT NULL
)
SELECT m.seq, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
       m.thumb, m.created_at
  FROM locked AS l
  LEFT JOIN popped AS m ON true
