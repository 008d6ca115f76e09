-- The plain append with an idempotency key. The benchmark uses a new random key each time.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.last_seq
      FROM conversation AS c
     WHERE c.tenant_id = $1
       AND c.id = $2
       FOR NO KEY UPDATE
), key_rows AS (
    INSERT INTO append_key AS k (tenant_id, conversation_id, key, last_seq, created_at)
    SELECT l.tenant_id, l.id, gen_random_uuid()::text, l.last_seq + cardinality($3::text[]),
           statement_timestamp()
      FROM locked AS l
    ON CONFLICT (tenant_id, conversation_id, key) DO NOTHING
    RETURNING k.last_seq
), appended AS (
    UPDATE conversation AS c
       SET last_seq = k.last_seq,
           round = c.round + 1,
           tokens = c.tokens + $5,
           updated_at = greatest(c.updated_at, statement_timestamp())
      FROM key_rows AS k
     WHERE c.tenant_id = $1
       AND c.id = $2
    RETURNING c.tenant_id, c.id, c.last_seq, c.round, c.updated_at
), message_rows AS (
    INSERT INTO message (tenant_id, conversation_id, seq, role, content, payload, created_at)
    SELECT a.tenant_id, a.id, a.last_seq - cardinality($3::text[]) + m.position, m.role, m.content,
           '{}', a.updated_at
      FROM appended AS a
     CROSS JOIN unnest($3::text[], $4::text[]) WITH ORDINALITY AS m (role, content, position)
)
SELECT a.last_seq, a.round
  FROM appended AS a
