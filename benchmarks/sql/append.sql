-- The plain append: update the conversation and insert its messages. A flag adds one extra: the `key`
-- of the call, which is random here, a `ledger` row, the `recency` of the conversation, or the columns
-- of the message that a `search` needs.
--? key {
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.last_seq
      FROM conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       FOR NO KEY UPDATE
), key_rows AS (
    INSERT INTO append_key AS k (tenant_id, conversation_id, key, last_seq, created_at)
    SELECT l.tenant_id, l.id, gen_random_uuid()::text, l.last_seq + cardinality(:roles::text[]),
           statement_timestamp()
      FROM locked AS l
    ON CONFLICT (tenant_id, conversation_id, key) DO NOTHING
    RETURNING k.last_seq
), appended AS (
--? }
WITH appended AS ( --? !key
    UPDATE conversation AS c
       SET last_seq = k.last_seq, --? key
       SET last_seq = c.last_seq + cardinality(:roles::text[]), --? !key
           round = c.round + 1,
           tokens = c.tokens + :tokens,
           updated_at = greatest(c.updated_at, statement_timestamp())
      FROM key_rows AS k --? key
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
    RETURNING c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, c.last_seq,
              c.round, c.updated_at
), message_rows AS (
    INSERT INTO message (
           dialog_id, conversation_created_at, --? search
           tenant_id, conversation_id, seq, role, content, payload, created_at)
    SELECT a.dialog_id, a.created_at, --? search
    SELECT --? !search
           a.tenant_id, a.id, a.last_seq - cardinality(:roles::text[]) + m.position, m.role,
           m.content, '{}', a.updated_at
      FROM appended AS a
     CROSS JOIN unnest(:roles::text[], :contents::text[])
           WITH ORDINALITY AS m (role, content, position)
--? ledger {
), ledger_rows AS (
    INSERT INTO ledger (
           tenant_id, dialog_id, source, user_id, created_at, at, tokens, rounds)
    SELECT a.tenant_id, a.dialog_id, a.source, a.user_id, a.created_at,
           statement_timestamp(), :tokens, 1
      FROM appended AS a
--? }
--? recency {
), recency_updated AS (
    UPDATE recency AS r
       SET updated_at = a.updated_at
      FROM appended AS a
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
--? }
)
SELECT a.last_seq, a.round
  FROM appended AS a
