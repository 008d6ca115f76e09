-- Deletes one message and returns how many that were, 1 or 0. Its thumb is withdrawn from the
-- conversation's counters; rounds, tokens, duration and last_seq stay, so its seq is never used
-- again.
--
-- Locks: the conversation's row first, then the message's. Index: the primary keys.
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
       AND m.seq = :seq
    RETURNING m.thumb
), withdrawn AS (
    UPDATE asyncsvc.conversation AS c
       SET thumb_up = c.thumb_up - (m.thumb IS NOT DISTINCT FROM 1)::int,
           thumb_down = c.thumb_down - (m.thumb IS NOT DISTINCT FROM -1)::int,
           updated_at = greatest(c.updated_at, statement_timestamp())
      FROM deleted AS m
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
SELECT count(*) AS deleted
  FROM deleted
