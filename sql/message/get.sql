-- Read one message of a conversation, by :seq or :message_id.
--
-- Returns: the message. No row if the message does not exist.
-- Locks: none.
-- Index: primary keys; message_id_idx with :message_id, see docs/project/sql-files.md, Lookups by key.
SELECT m.seq, m.id, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
       m.thumb, m.created_at
  FROM asyncsvc.message AS m
 WHERE m.tenant_id = :tenant_id
   AND m.conversation_id = :id
   AND m.seq = :seq                             --? seq
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
   --? user_id {
   AND EXISTS (
       SELECT
         FROM asyncsvc.conversation AS c
        WHERE c.tenant_id = :tenant_id
          AND c.id = :id
          AND (c.user_id = :user_id) IS TRUE)
   --? }
