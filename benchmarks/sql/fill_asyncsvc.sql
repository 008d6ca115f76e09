-- Insert generated conversations into the library's tables. Only this file names their columns.
INSERT INTO asyncsvc.conversation (
       tenant_id, id, dialog_id, user_id, name, source, round, tokens, duration, thumb_up, last_seq,
       created_at, updated_at)
SELECT $1, c.id, c.dialog_id, c.user_id, c.name, c.source, c.round, c.tokens, c.duration, c.thumb_up,
       $4, c.created_at, c.updated_at
  FROM bench.conversation($1, $2, $3, $4) AS c;

INSERT INTO asyncsvc.message (
       tenant_id, conversation_id, seq, role, content, payload, created_at, dialog_id,
       conversation_created_at)
SELECT $1, c.id, m.seq, m.role, m.content, '{}', c.created_at, c.dialog_id, c.created_at
  FROM bench.conversation($1, $2, $3, $4) AS c
 CROSS JOIN bench.message(c.id, $4) AS m;

INSERT INTO asyncsvc.conversation_title (tenant_id, conversation_id, name, dialog_id, conversation_created_at)
SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1;

INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1;

INSERT INTO asyncsvc.usage_ledger (
       tenant_id, dialog_id, source, user_id, created_at, at, conversations, tokens, duration, rounds, thumb_up)
SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.created_at, 1, c.tokens, c.duration, c.round,
       c.thumb_up
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1
