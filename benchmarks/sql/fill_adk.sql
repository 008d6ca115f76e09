-- Copy a tenant's conversations into the tables of ADK's DatabaseSessionService. The tenant is the app.
INSERT INTO app_states (app_name, state, update_time)
VALUES ($1::text, '{}', now() AT TIME ZONE 'UTC');

INSERT INTO user_states (app_name, user_id, state, update_time)
SELECT DISTINCT $1::text, c.user_id, '{}'::jsonb, now() AT TIME ZONE 'UTC'
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1::text;

INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
SELECT $1::text, c.user_id, c.id, '{}', c.created_at AT TIME ZONE 'UTC', c.updated_at AT TIME ZONE 'UTC'
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1::text;

INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
SELECT m.conversation_id || '-' || m.seq, $1::text, c.user_id, c.id, 'i' || m.seq, t.at AT TIME ZONE 'UTC',
       jsonb_build_object(
           'id', m.conversation_id || '-' || m.seq, 'invocation_id', 'i' || m.seq, 'author', m.role,
           'timestamp', extract(epoch FROM t.at), 'actions', '{}'::jsonb,
           'content', jsonb_build_object(
               'role', CASE m.role WHEN 'user' THEN 'user' ELSE 'model' END,
               'parts', jsonb_build_array(jsonb_build_object('text', m.content))))
  FROM asyncsvc.message AS m
  JOIN asyncsvc.conversation AS c ON c.tenant_id = m.tenant_id AND c.id = m.conversation_id
 CROSS JOIN LATERAL (SELECT m.created_at + m.seq * interval '1 microsecond') AS t (at)
 WHERE m.tenant_id = $1::text
 ORDER BY m.conversation_id, m.seq
