-- Adds the messages of one turn, bumps the counters, notes that the conversation is the most recent
-- one, and books the usage. It returns where the messages went, or nothing when the conversation is
-- not there, or not where :expected_seq says; what of the two, conversation/explain_append tells.
--
-- Locks: the conversation's row, from the UPDATE to the end of the transaction. All appends to it
-- queue there, and the one that gets it reads the counters as the one before left them: seq is
-- handed out without gaps and in the order of commits, and no update is lost. updated_at never runs backwards,
-- although a transaction may have begun before the one that it waited for.
-- Index: the primary key. What it costs does not depend on the length of the conversation.
WITH appended AS (
    UPDATE asyncsvc.conversation AS c
       SET last_seq = c.last_seq + cardinality(:roles::text[]),
           round = c.round + :round,
           tokens = c.tokens + :tokens,
           duration = c.duration + :duration,
           updated_at = greatest(c.updated_at, statement_timestamp())
         , errors = :errors                     --? errors
         , dsl = :dsl::text::jsonb              --? dsl
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND c.last_seq = :expected_seq           --? expected_seq
    RETURNING c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, c.last_seq,
              c.round, c.updated_at
), stored AS (
    INSERT INTO asyncsvc.message (
           tenant_id, conversation_id, seq, role, content, payload, reference, created_at,
           dialog_id, conversation_created_at)
    SELECT a.tenant_id, a.id, a.last_seq - cardinality(:roles::text[]) + m.position,
           m.role, m.content, m.payload::jsonb, m.reference::jsonb, a.updated_at,
           a.dialog_id, a.created_at
      FROM appended AS a
     CROSS JOIN unnest(:roles::text[], :contents::text[], :payloads::text[], :references::text[])
           WITH ORDINALITY AS m (role, content, payload, reference, position)
), noted AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET updated_at = a.updated_at
      FROM appended AS a
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
), booked AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, quarter_hour, token_id, tokens, duration,
           rounds)
    SELECT a.tenant_id, a.dialog_id, a.source, a.user_id, a.created_at,
           date_bin('15 minutes', statement_timestamp(), '0001-01-01 00:00+00'),
           :token_id, :tokens, :duration, :round
      FROM appended AS a
     WHERE :tokens > 0 OR :duration > 0 OR :round > 0
)
SELECT a.last_seq - cardinality(:roles::text[]) + 1 AS first_seq, a.last_seq, a.round,
       false AS replayed
  FROM appended AS a
