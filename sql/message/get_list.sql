-- Read the first or the last :limit messages of a conversation, within bounds on seq.
--
-- Returns: messages in the order of seq. One row of NULLs if the conversation has no such message; no
--   row if the conversation does not exist.
-- Locks: none.
-- Index: primary keys. The scan starts at the bound and stops after :limit rows.
SELECT m.seq, m.id, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
       m.thumb, m.created_at
  FROM asyncsvc.conversation AS c
  LEFT JOIN LATERAL (
        SELECT m.seq, m.id, m.role, m.content, m.payload, m.reference, m.thumb, m.created_at
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = :id
           AND m.seq > :after_seq               --? after_seq
           AND m.seq < :before_seq              --? before_seq
         ORDER BY m.seq                         --? first
         ORDER BY m.seq DESC                    --? last
         LIMIT :limit
       ) AS m ON true
 WHERE c.tenant_id = :tenant_id
   AND c.id = :id
 ORDER BY m.seq
