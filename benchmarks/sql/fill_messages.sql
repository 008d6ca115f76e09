-- Insert the messages of generated conversations into the library's table.
INSERT INTO asyncsvc.message (
       tenant_id, conversation_id, seq, role, content, payload, created_at, dialog_id,
       conversation_created_at)
SELECT $1, c.id, m.seq, m.role, m.content, '{}', c.created_at, c.dialog_id, c.created_at
  FROM bench.conversation($1, $2, $3, $4) AS c
 CROSS JOIN bench.message(c.id, $4) AS m
