-- Insert the title rows of generated conversations.
INSERT INTO asyncsvc.conversation_title (tenant_id, conversation_id, name, dialog_id, conversation_created_at)
SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1
