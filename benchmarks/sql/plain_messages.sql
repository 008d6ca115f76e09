-- The messages of a conversation in the tables of the search path.
SELECT m.role, m.content
  FROM message AS m
 WHERE m.tenant_id = $1 AND m.conversation_id = $2
 ORDER BY m.seq
