-- Set columns of a message, by :seq or :message_id.
--
-- Returns: the message. No row if the message does not exist, or if the merged payload would exceed
--   :max_json_bytes.
-- Locks: the conversation row, then the message, until the end of the transaction.
-- Index: primary keys; message_id_idx with :message_id. Row comparisons: see docs/project/sql-files.md,
--   Lookups by key.
-- Notes: :patch is a JSON object of the columns to set. JSON null sets a column to NULL; a column without
--   a key keeps its value. With :max_json_bytes merge_payload is a merge patch of the stored payload. No
--   other statement changes the message meanwhile, since all lock the conversation row first.
--   updated_at of the conversation is set too. The message leaves the search index until the next
--   maintenance run.
WITH locked AS MATERIALIZED (
    SELECT requested.patch
      FROM asyncsvc.conversation AS c, (SELECT :patch::text::jsonb AS patch) AS requested
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND (c.user_id = :user_id) IS TRUE       --? user_id
       FOR NO KEY UPDATE OF c
), updated AS (
    UPDATE asyncsvc.message AS m
       SET content = CASE WHEN l.patch ? 'content' THEN l.patch ->> 'content' ELSE m.content END,
           payload = CASE WHEN l.patch ? 'payload' THEN l.patch -> 'payload'
           --? max_json_bytes {
                          WHEN l.patch ? 'merge_payload'
                          THEN asyncsvc.json_merge_v1(m.payload, l.patch -> 'merge_payload')
           --? }
                          ELSE m.payload END,
           reference = CASE WHEN l.patch ? 'reference' THEN nullif(l.patch -> 'reference', 'null')
                            ELSE m.reference END,
           is_indexed = false
      FROM locked AS l
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
       --? max_json_bytes {
       AND octet_length(asyncsvc.json_merge_v1(m.payload, l.patch -> 'merge_payload')::text)
           <= :max_json_bytes
       --? }
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
TABLE updated
