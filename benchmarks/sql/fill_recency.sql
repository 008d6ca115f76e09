-- Insert the recency rows of generated conversations.
INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1
