-- Copy a tenant's conversations into another tenant, as asyncsvc.integrations.chainlit stores them.
INSERT INTO asyncsvc.conversation (
       tenant_id, id, dialog_id, user_id, name, metadata, round, last_seq, created_at, updated_at)
SELECT $1 || '-chainlit', c.id, 'chainlit', c.user_id, c.name, '{}', c.round, c.last_seq, c.created_at,
       c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1;

INSERT INTO asyncsvc.message (
       tenant_id, conversation_id, seq, id, role, content, payload, created_at, dialog_id,
       conversation_created_at)
SELECT $1 || '-chainlit', m.conversation_id, m.seq, s.id, m.role, m.content,
       jsonb_build_object(
           'id', s.id, 'threadId', s."threadId", 'parentId', s."parentId", 'name', s.name, 'type', s.type,
           'input', s.input, 'output', s.output, 'metadata', jsonb_build_array(s.metadata),
           'createdAt', to_char(s."startTime", 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
       m.created_at, 'chainlit', m.conversation_created_at
  FROM asyncsvc.message AS m
  JOIN chainlit."Step" AS s
    ON s.id = m.conversation_id || '-' || m.seq
 WHERE m.tenant_id = $1
 ORDER BY m.conversation_id, m.seq;

INSERT INTO asyncsvc.conversation_title (tenant_id, conversation_id, name, dialog_id, conversation_created_at)
SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1 || '-chainlit';

INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1 || '-chainlit'
