-- Copy a tenant's conversations into another tenant, as sessions of asyncsvc.integrations.google_adk.
INSERT INTO asyncsvc.conversation (
       tenant_id, id, dialog_id, user_id, name, source, dsl, round, tokens, duration, thumb_up, last_seq,
       created_at, updated_at)
SELECT $1::text || '-adk', format('["%s","%s","%s"]', $1::text, c.user_id, c.id), $1::text, c.user_id, c.name,
       c.source,
       jsonb_build_object(
           'session_id', c.id, 'state', '{}'::jsonb, 'updated_at', extract(epoch FROM c.updated_at)),
       c.round, c.tokens, c.duration, c.thumb_up, c.last_seq, c.created_at, c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1::text;

INSERT INTO asyncsvc.message (
       tenant_id, conversation_id, seq, id, role, content, payload, created_at, dialog_id,
       conversation_created_at)
SELECT $1::text || '-adk', format('["%s","%s","%s"]', $1::text, c.user_id, c.id), m.seq,
       m.conversation_id || '-' || m.seq, m.role, m.content,
       jsonb_build_object(
           'id', m.conversation_id || '-' || m.seq, 'invocation_id', 'i' || m.seq, 'author', m.role,
           'timestamp', extract(epoch FROM t.at), 'actions', '{}'::jsonb,
           'content', jsonb_build_object(
               'role', CASE m.role WHEN 'user' THEN 'user' ELSE 'model' END,
               'parts', jsonb_build_array(jsonb_build_object('text', m.content)))),
       t.at, $1::text, m.conversation_created_at
  FROM asyncsvc.message AS m
  JOIN asyncsvc.conversation AS c ON c.tenant_id = m.tenant_id AND c.id = m.conversation_id
 CROSS JOIN LATERAL (SELECT m.created_at + m.seq * interval '1 microsecond') AS t (at)
 WHERE m.tenant_id = $1::text
 ORDER BY m.conversation_id, m.seq;

INSERT INTO asyncsvc.conversation_title (tenant_id, conversation_id, name, dialog_id, conversation_created_at)
SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1::text || '-adk';

INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1::text || '-adk'
