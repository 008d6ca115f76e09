-- The newest conversations with a message that contains a text, without a search index.
SELECT c.id
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1
   AND EXISTS (
       SELECT
         FROM asyncsvc.message AS m
        WHERE m.tenant_id = c.tenant_id
          AND m.conversation_id = c.id
          AND m.content ILIKE '%' || $2 || '%')
 ORDER BY c.created_at DESC, c.id DESC
 LIMIT $3
