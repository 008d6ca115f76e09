-- Copy a tenant's threads into another tenant, as asyncsvc.integrations.chatkit stores them.
INSERT INTO asyncsvc.conversation (
       tenant_id, id, dialog_id, user_id, name, round, last_seq, created_at, updated_at, metadata, dsl)
SELECT $1 || '-chatkit', c.id, 'chatkit', c.user_id, c.name, c.round, c.last_seq, c.created_at,
       c.updated_at, '{}', t.data::jsonb - 'metadata'
  FROM asyncsvc.conversation AS c
  JOIN chatkit.threads AS t
    ON t.id = c.id
 WHERE c.tenant_id = $1;

INSERT INTO asyncsvc.message (
       tenant_id, conversation_id, seq, id, role, content, payload, created_at, dialog_id,
       conversation_created_at)
SELECT $1 || '-chatkit', m.conversation_id, m.seq, i.id, m.role, m.content, i.data::jsonb, m.created_at,
       'chatkit', m.conversation_created_at
  FROM asyncsvc.message AS m
  JOIN chatkit.items AS i
    ON i.id = m.conversation_id || '-' || m.seq
 WHERE m.tenant_id = $1
 ORDER BY m.conversation_id, m.seq;

INSERT INTO asyncsvc.conversation_title (tenant_id, conversation_id, name, dialog_id, conversation_created_at)
SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1 || '-chatkit';

INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1 || '-chatkit'
