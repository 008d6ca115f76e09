-- Copy a tenant's conversations into another tenant, as sessions of asyncsvc.integrations.openai_agents.
INSERT INTO asyncsvc.conversation (
       tenant_id, id, dialog_id, user_id, name, source, round, tokens, duration, thumb_up, last_seq,
       created_at, updated_at)
SELECT $1 || '-agents', c.id, c.dialog_id, c.user_id, c.name, c.source, c.round, c.tokens, c.duration,
       c.thumb_up, c.last_seq, c.created_at, c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1;

INSERT INTO asyncsvc.message (
       tenant_id, conversation_id, seq, role, content, payload, created_at, dialog_id,
       conversation_created_at)
SELECT $1 || '-agents', m.conversation_id, m.seq, m.role, m.content,
       jsonb_build_object('role', m.role, 'content', m.content), m.created_at, m.dialog_id,
       m.conversation_created_at
  FROM asyncsvc.message AS m
 WHERE m.tenant_id = $1
 ORDER BY m.conversation_id, m.seq;

INSERT INTO asyncsvc.conversation_title (tenant_id, conversation_id, name, dialog_id, conversation_created_at)
SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1 || '-agents';

INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1 || '-agents'
