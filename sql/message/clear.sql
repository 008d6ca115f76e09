-- Deletes all messages of a conversation and returns how many there were. Their thumbs are
-- withdrawn from the conversation's counters; rounds, tokens, duration and last_seq stay, so no
-- seq is ever used again. A message whose append commits while this waits for the lock stays: the
-- outcome is that of clearing first.
--
-- Locks: the conversation's row first, then the messages'. Index: the primary keys.
WITH locked AS MATERIALIZED (
    SELECT c.id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       FOR NO KEY UPDATE
), deleted AS (
    DELETE FROM asyncsvc.message AS m
     USING locked AS l
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
    RETURNING m.thumb
), withdrawn AS (
    UPDATE asyncsvc.conversation AS c
       SET thumb_up = c.thumb_up - d.up,
           thumb_down = c.thumb_down - d.down,
           updated_at = greatest(c.updated_at, statement_timestamp())
      FROM (SELECT count(*) AS messages,
                   count(*) FILTER (WHERE g.thumb = 1) AS up,
                   count(*) FILTER (WHERE g.thumb = -1) AS down
              FROM deleted AS g) AS d
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND d.messages > 0
    RETURNING c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.updated_at, d.up, d.down
), noted AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET updated_at = w.updated_at
      FROM withdrawn AS w
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
), booked AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, thumb_up, thumb_down)
    SELECT w.tenant_id, w.dialog_id, w.source, w.user_id, w.created_at, -w.up, -w.down
      FROM withdrawn AS w
     WHERE w.up > 0 OR w.down > 0
)
SELECT count(*) AS deleted
  FROM deleted
