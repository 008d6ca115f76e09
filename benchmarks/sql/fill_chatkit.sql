-- Copy a tenant's conversations into the tables of the plain store for ChatKit.
INSERT INTO threads (id, user_id, created_at, data)
SELECT c.id, c.user_id, c.created_at,
       json_build_object('id', c.id, 'title', c.name, 'created_at', c.created_at, 'metadata', json_build_object())
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1;

INSERT INTO items (id, thread_id, user_id, created_at, data)
SELECT m.conversation_id || '-' || m.seq, m.conversation_id, c.user_id,
       m.created_at + m.seq * interval '1 microsecond',
       CASE m.role
       WHEN 'user' THEN json_build_object(
           'id', m.conversation_id || '-' || m.seq, 'thread_id', m.conversation_id,
           'created_at', m.created_at, 'type', 'user_message',
           'content', json_build_array(json_build_object('type', 'input_text', 'text', m.content)),
           'attachments', json_build_array(), 'quoted_text', NULL,
           'inference_options', json_build_object('tool_choice', NULL, 'model', NULL))
       ELSE json_build_object(
           'id', m.conversation_id || '-' || m.seq, 'thread_id', m.conversation_id,
           'created_at', m.created_at, 'type', 'assistant_message',
           'content', json_build_array(json_build_object(
               'type', 'output_text', 'text', m.content, 'annotations', json_build_array())))
       END
  FROM asyncsvc.message AS m
  JOIN asyncsvc.conversation AS c
    ON c.tenant_id = m.tenant_id AND c.id = m.conversation_id
 WHERE m.tenant_id = $1
 ORDER BY m.conversation_id, m.seq
