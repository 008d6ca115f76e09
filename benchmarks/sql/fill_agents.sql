-- Copy a tenant's conversations into the tables of SQLAlchemySession of the OpenAI Agents SDK.
INSERT INTO agent_sessions (session_id)
SELECT c.id
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1;

INSERT INTO agent_messages (session_id, message_data, created_at)
SELECT m.conversation_id, json_build_object('role', m.role, 'content', m.content)::text,
       m.created_at AT TIME ZONE 'UTC' + m.seq * interval '1 microsecond'
  FROM asyncsvc.message AS m
 WHERE m.tenant_id = $1
 ORDER BY m.conversation_id, m.seq
