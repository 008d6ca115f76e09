-- Insert generated conversations into the plain tables of the search path.
INSERT INTO conversation (
       tenant_id, id, dialog_id, user_id, name, source, round, tokens, duration, thumb_up, last_seq,
       created_at, updated_at)
SELECT $1, c.id, c.dialog_id, c.user_id, c.name, c.source, c.round, c.tokens, c.duration, c.thumb_up,
       $4, c.created_at, c.updated_at
  FROM bench.conversation($1, $2, $3, $4) AS c;

INSERT INTO message (tenant_id, conversation_id, seq, role, content, payload, created_at)
SELECT $1, c.id, m.seq, m.role, m.content, '{}', c.created_at
  FROM bench.conversation($1, $2, $3, $4) AS c
 CROSS JOIN bench.message(c.id, $4) AS m
