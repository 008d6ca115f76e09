-- Set columns of a message, by :seq or :message_id.
--
-- Returns: the message. One row of NULLs if the merged payload would exceed :max_json_bytes; no row if the
--   message does not exist.
-- Locks: the conversation row, then the message, until the end of the transaction.
-- Index: primary keys; message_id_idx with :message_id. Row comparisons: see docs/project/sql-files.md,
--   Lookups by key.
-- Notes: :patch is a JSON object of the columns to set. JSON null sets a column to NULL; a column without
--   a key keeps its value. With :max_json_bytes merge_payload is a merge patch of the stored payload, which
--   is read under both locks.
--   updated_at of the conversation is set too. The message leaves the search index until the next
--   maintenance run.
WITH locked AS MATERIALIZED (
    SELECT requested.patch
      FROM asyncsvc.conversation AS c, (SELECT :patch::text::jsonb AS patch) AS requested
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND (c.user_id = :user_id) IS TRUE       --? user_id
       FOR NO KEY UPDATE OF c
), locked_message AS MATERIALIZED (
    SELECT m.seq, l.patch
         , asyncsvc.json_merge_v1(m.payload, l.patch -> 'merge_payload') AS payload  --? max_json_bytes
      FROM locked AS l
     CROSS JOIN asyncsvc.message AS m
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = :seq                         --? seq
       --? message_id {
       AND m.seq = (
           SELECT k.seq
             FROM asyncsvc.message AS k
            WHERE k.tenant_id = :tenant_id
              AND k.id IS NOT NULL
              AND (k.id, k.conversation_id) >= (:message_id, :id)
              AND (k.id, k.conversation_id) <= (:message_id, :id)
            ORDER BY k.id, k.conversation_id
            LIMIT 1
           )
       --? }
       FOR NO KEY UPDATE OF m
), updated AS (
    UPDATE asyncsvc.message AS m
       SET content = CASE WHEN l.patch ? 'content' THEN l.patch ->> 'content' ELSE m.content END,
           payload = coalesce(l.patch -> 'payload', m.payload),  --? !max_json_bytes
           payload = l.payload,                 --? max_json_bytes
           reference = CASE WHEN l.patch ? 'reference' THEN nullif(l.patch -> 'reference', 'null')
                            ELSE m.reference END,
           is_indexed = false
      FROM locked_message AS l
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = l.seq
       AND octet_length(l.payload::text) <= :max_json_bytes  --? max_json_bytes
    RETURNING m.seq, m.id, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
              m.thumb, m.created_at
), conversation_updated AS (
    UPDATE asyncsvc.conversation AS c
       SET updated_at = greatest(c.updated_at, statement_timestamp())
      FROM updated AS m
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
    RETURNING c.updated_at
), recency_updated AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET updated_at = u.updated_at
      FROM conversation_updated AS u
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
)
SELECT u.seq, u.id, u.role, u.content, u.payload, u.reference, u.thumb, u.created_at
  FROM locked_message AS l
  LEFT JOIN updated AS u ON true
