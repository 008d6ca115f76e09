-- The first messages of a conversation, with all columns of the library's messages.
SELECT m.seq, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference, m.thumb,
       m.created_at
  FROM asyncsvc.message AS m
 WHERE m.tenant_id = $1
   AND m.conversation_id = $2
 ORDER BY m.seq
 LIMIT $3
