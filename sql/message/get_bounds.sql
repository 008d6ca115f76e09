-- Read the bounds of an iteration over the messages of a conversation.
--
-- Returns: last_seq of the conversation; after_seq and before_seq, the seq of the messages with :after_id
--   and :before_id, NULL without such a message. No row if the conversation does not exist.
-- Locks: none.
-- Index: primary key; message_id_idx with ids. Row comparisons: see docs/project/sql-files.md, Lookups by
--   key.
SELECT c.last_seq
     , NULL::int AS after_seq                   --? !after_id
     , after_message.seq AS after_seq           --? after_id
     , NULL::int AS before_seq                  --? !before_id
     , before_message.seq AS before_seq         --? before_id
  FROM asyncsvc.conversation AS c
  --? after_id {
  LEFT JOIN LATERAL (
        SELECT k.seq
          FROM asyncsvc.message AS k
         WHERE k.tenant_id = :tenant_id
           AND k.id IS NOT NULL
           AND (k.id, k.conversation_id) >= (:after_id, :id)
           AND (k.id, k.conversation_id) <= (:after_id, :id)
         ORDER BY k.id, k.conversation_id
         LIMIT 1
       ) AS after_message ON true
  --? }
  --? before_id {
  LEFT JOIN LATERAL (
        SELECT k.seq
          FROM asyncsvc.message AS k
         WHERE k.tenant_id = :tenant_id
           AND k.id IS NOT NULL
           AND (k.id, k.conversation_id) >= (:before_id, :id)
           AND (k.id, k.conversation_id) <= (:before_id, :id)
         ORDER BY k.id, k.conversation_id
         LIMIT 1
       ) AS before_message ON true
  --? }
 WHERE c.tenant_id = :tenant_id
   AND c.id = :id
   AND (c.user_id = :user_id) IS TRUE           --? user_id
