-- Set columns of a message, by :seq or :message_id.
--
-- Returns: the message. One row of NULLs if the merged payload would exceed :max_json_bytes; no row if the
--   message does not exist.
-- Locks: the conversation row, then the message, until the end of the transaction.
-- Index: primary keys; message_id_idx with :message_id, see docs/project/sql-files.md, Lookups by key.
-- Notes: :merge_payload is a merge patch of the stored payload, which is read under both locks.
--   updated_at of the conversation is set too. The message leaves the search index until the next
--   maintenance run.
WITH locked AS MATERIALIZED (
    SELECT c.id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND (c.user_id = :user_id) IS TRUE       --? user_id
       FOR NO KEY UPDATE
), locked_message AS MATERIALIZED (
    SELECT m.seq
         , asyncsvc.json_merge_v1(m.payload, :merge_payload::text::jsonb) AS payload  --? merge_payload
      FROM asyncsvc.message AS m
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = :seq                         --? seq
       --? message_id {
       AND m.seq = (
           SELECT k.seq
             FROM asyncsvc.message AS k
            WHERE k.tenant_id = :tenant_id
              AND k.id IS NOT NULL
              AND (k.id, k.conversation_id) BETWEEN (:message_id, :id) AND (:message_id, :id)
            ORDER BY k.id, k.conversation_id
            LIMIT 1
           )
       --? }
       AND EXISTS (SELECT FROM locked)
       FOR NO KEY UPDATE
), updated AS (
    UPDATE asyncsvc.message AS m
       SET is_indexed = false
         , content = :content                   --? content
         , payload = :payload::text::jsonb      --? payload, !merge_payload
         , payload = l.payload                  --? merge_payload
         , reference = :reference::text::jsonb  --? reference
      FROM locked_message AS l
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = l.seq
       AND octet_length(l.payload::text) <= :max_json_bytes  --? merge_payload, max_json_bytes
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
