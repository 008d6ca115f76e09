-- All messages of a tenant in lower case, in the order of search results.
SELECT m.conversation_id, m.seq, lower(m.content) AS content
  FROM asyncsvc.message AS m
 WHERE m.tenant_id = $1
 ORDER BY m.conversation_created_at DESC, m.conversation_id DESC, m.seq
