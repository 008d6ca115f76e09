-- Count the words of the messages that have no count.
--
-- Backfill: message. The rows of a batch are locked in the order of the primary key.
-- Returns: position, the key of the last row as JSON, NULL after the last row; rows, the changed rows.
-- Locks: message ROW EXCLUSIVE. An edit of a message waits for the batch that contains it.
-- Index: the primary key.
WITH batch AS (
    SELECT m.tenant_id, m.conversation_id, m.seq
      FROM asyncsvc.message AS m
     WHERE (m.tenant_id, m.conversation_id, m.seq)
           > (coalesce(:position::text::jsonb ->> 0, ''), coalesce(:position::text::jsonb ->> 1, ''),
              coalesce((:position::text::jsonb ->> 2)::integer, 0))
     ORDER BY m.tenant_id, m.conversation_id, m.seq
     LIMIT :limit
       FOR NO KEY UPDATE
), updated AS (
    UPDATE asyncsvc.message AS m
       SET words = cardinality(string_to_array(m.content, ' '))
      FROM batch AS b
     WHERE m.tenant_id = b.tenant_id
       AND m.conversation_id = b.conversation_id
       AND m.seq = b.seq
       AND m.words IS NULL
    RETURNING 1
), last AS (
    SELECT b.tenant_id, b.conversation_id, b.seq
      FROM batch AS b
     ORDER BY b.tenant_id DESC, b.conversation_id DESC, b.seq DESC
     LIMIT 1
)
SELECT (SELECT jsonb_build_array(l.tenant_id, l.conversation_id, l.seq)::text FROM last AS l) AS position,
       (SELECT count(*) FROM updated) AS rows
