-- The plain append with the message columns that the search index needs.
WITH appended AS (
    UPDATE conversation AS c
       SET last_seq = c.last_seq + cardinality($3::text[]),
           round = c.round + 1,
           tokens = c.tokens + $5,
           updated_at = greatest(c.updated_at, statement_timestamp())
     WHERE c.tenant_id = $1
       AND c.id = $2
    RETURNING c.tenant_id, c.id, c.dialog_id, c.created_at, c.last_seq, c.round, c.updated_at
), message_rows AS (
    INSERT INTO message (
           tenant_id, conversation_id, seq, role, content, payload, created_at, dialog_id,
           conversation_created_at)
    SELECT a.tenant_id, a.id, a.last_seq - cardinality($3::text[]) + m.position, m.role, m.content,
           '{}', a.updated_at, a.dialog_id, a.created_at
      FROM appended AS a
     CROSS JOIN unnest($3::text[], $4::text[]) WITH ORDINALITY AS m (role, content, position)
)
SELECT a.last_seq, a.round
  FROM appended AS a
