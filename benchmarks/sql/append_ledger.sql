-- The plain append with a row in the usage ledger.
WITH appended AS (
    UPDATE conversation AS c
       SET last_seq = c.last_seq + cardinality($3::text[]),
           round = c.round + 1,
           tokens = c.tokens + $5,
           updated_at = greatest(c.updated_at, statement_timestamp())
     WHERE c.tenant_id = $1
       AND c.id = $2
    RETURNING c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, c.last_seq,
              c.round, c.updated_at
), message_rows AS (
    INSERT INTO message (tenant_id, conversation_id, seq, role, content, payload, created_at)
    SELECT a.tenant_id, a.id, a.last_seq - cardinality($3::text[]) + m.position, m.role, m.content,
           '{}', a.updated_at
      FROM appended AS a
     CROSS JOIN unnest($3::text[], $4::text[]) WITH ORDINALITY AS m (role, content, position)
), ledger_rows AS (
    INSERT INTO ledger (tenant_id, dialog_id, source, user_id, created_at, quarter_hour, tokens, rounds)
    SELECT a.tenant_id, a.dialog_id, a.source, a.user_id, a.created_at,
           date_bin('15 minutes', statement_timestamp(), '0001-01-01 00:00+00'), $5, 1
      FROM appended AS a
)
SELECT a.last_seq, a.round
  FROM appended AS a
