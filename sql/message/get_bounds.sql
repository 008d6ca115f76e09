-- Read the bounds of an iteration over the messages of a conversation.
--
-- Returns: last_seq of the conversation; with :after_id and :before_id the seq of these messages as
--   after_seq and before_seq, NULL without such a message. No row if the conversation does not exist.
-- Locks: none.
-- Index: primary key; message_id_idx with ids, see docs/project/sql-files.md, Lookups by key.
SELECT c.last_seq
     --? after_id {
     , (SELECT k.seq
          FROM asyncsvc.message AS k
         WHERE k.tenant_id = :tenant_id
           AND k.id IS NOT NULL
           AND (k.id, k.conversation_id) BETWEEN (:after_id, :id) AND (:after_id, :id)
         ORDER BY k.id, k.conversation_id
         LIMIT 1) AS after_seq
     --? }
     --? before_id {
     , (SELECT k.seq
          FROM asyncsvc.message AS k
         WHERE k.tenant_id = :tenant_id
           AND k.id IS NOT NULL
           AND (k.id, k.conversation_id) BETWEEN (:before_id, :id) AND (:before_id, :id)
         ORDER BY k.id, k.conversation_id
         LIMIT 1) AS before_seq
     --? }
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = :tenant_id
   AND c.id = :id
   AND (c.user_id = :user_id) IS TRUE           --? user_id
