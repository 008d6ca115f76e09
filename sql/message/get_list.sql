-- Read the first or the last :limit messages of a conversation, within bounds.
--
-- A bound is a seq, the own id of a message, or a time. All bounds are exclusive.
--
-- Returns: the payloads, with full_row the messages, in the order of seq; without :limit all of them. One
--   row of NULLs if the conversation has no such message; no row if the conversation does not exist. With
--   :after_id or :before_id also the seq of that message, NULL if it does not exist.
-- Locks: none.
-- Index: primary keys; message_id_idx with ids, see docs/project/sql-files.md, Lookups by key.
--   The scan starts at the bound and stops after :limit rows. A time is no bound of the scan.
SELECT m.payload::text AS payload
     , after_message.seq AS after_seq           --? after_id
     , before_message.seq AS before_seq         --? before_id
     --? full_row {
     , m.seq, m.id, m.role, m.content, m.reference::text AS reference, m.thumb, m.created_at
     --? }
  FROM asyncsvc.conversation AS c
  --? after_id {
  LEFT JOIN LATERAL (
        SELECT k.seq
          FROM asyncsvc.message AS k
         WHERE k.tenant_id = :tenant_id
           AND k.id IS NOT NULL
           AND (k.id, k.conversation_id) BETWEEN (:after_id, :id) AND (:after_id, :id)
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
           AND (k.id, k.conversation_id) BETWEEN (:before_id, :id) AND (:before_id, :id)
         ORDER BY k.id, k.conversation_id
         LIMIT 1
       ) AS before_message ON true
  --? }
  LEFT JOIN LATERAL (
        SELECT m.seq, m.payload
             , m.id, m.role, m.content, m.reference, m.thumb, m.created_at  --? full_row
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = :id
           AND m.seq > :after_seq               --? after_seq
           AND m.seq > after_message.seq        --? after_id
           AND m.created_at > :after_time       --? after_time
           AND m.seq < :before_seq              --? before_seq
           AND m.seq < before_message.seq       --? before_id
           AND m.created_at < :before_time      --? before_time
         --? limit {
         ORDER BY m.seq                         --? first
         ORDER BY m.seq DESC                    --? last
         LIMIT :limit
         --? }
       ) AS m ON true
 WHERE c.tenant_id = :tenant_id
   AND c.id = :id
   AND (c.user_id = :user_id) IS TRUE           --? user_id
 ORDER BY m.seq
