-- Insert generated conversations into RAGFlow's tables: dialogs, which its statistics join, and
-- conversations with one JSON text of all messages each.
INSERT INTO ragflow.dialog (id, tenant_id)
SELECT $1 || '-d' || n, $1
  FROM generate_series(0, 9) AS g (n);

INSERT INTO ragflow.api_4_conversation (
       id, name, dialog_id, user_id, message, reference, tokens, source, dsl, duration, round,
       thumb_up, create_time, create_date, update_time, update_date)
SELECT c.id, c.name, c.dialog_id, c.user_id,
       (SELECT json_agg(json_build_object('role', m.role, 'content', m.content) ORDER BY m.seq)
          FROM bench.message(c.id, $4) AS m)::text,
       '[]', c.tokens, c.source, '{}', c.duration / 1e6, c.round, c.thumb_up,
       extract(epoch FROM c.created_at) * 1000, c.created_at AT TIME ZONE 'UTC',
       extract(epoch FROM c.updated_at) * 1000, c.updated_at AT TIME ZONE 'UTC'
  FROM bench.conversation($1, $2, $3, $4) AS c
