-- The plain append with an update of the conversation's recency row.
WITH appended AS (
    UPDATE conversation AS c
       SET last_seq = c.last_seq + cardinality($3::text[]),
           round = c.round + 1,
           tokens = c.tokens + $5,
           updated_at = greatest(c.updated_at, statement_timestamp())
     WHERE c.tenant_id = $1
       AND c.id = $2
    RETURNING c.tenant_id, c.id, c.last_seq, c.round, c.updated_at
), message_rows AS (
    INSERT INTO message (tenant_id, conversation_id, seq, role, content, payload, created_at)
    SELECT a.tenant_id, a.id, a.last_seq - cardinality($3::text[]) + m.position, m.role, m.content,
           '{}', a.updated_at
      FROM appended AS a
     CROSS JOIN unnest($3::text[], $4::text[]) WITH ORDINALITY AS m (role, content, position)
), recency_updated AS (
    UPDATE recency AS r
       SET updated_at = a.updated_at
      FROM appended AS a
     WHERE r.tenant_id = $1
       AND r.id = $2
)
SELECT a.last_seq, a.round
  FROM appended AS a
