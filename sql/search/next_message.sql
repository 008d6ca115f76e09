-- Return the next message of a tenant that is outside the search index.
--
-- Returns: at, id and seq, its position (creation and id of its conversation, and its own seq); no row if
--   no message is left.
-- Locks: none.
-- Index: message_unindexed_idx from :after_at, :after_id, :after_seq on.
SELECT m.conversation_created_at AS at, m.conversation_id AS id, m.seq
  FROM asyncsvc.message AS m
 WHERE m.tenant_id = :tenant_id
   AND NOT m.is_indexed
   --? after_at, after_id, after_seq {
   AND (m.conversation_created_at, m.conversation_id, m.seq)
       > (:after_at, :after_id, :after_seq)
   --? }
 ORDER BY m.conversation_created_at, m.conversation_id, m.seq
 LIMIT 1
