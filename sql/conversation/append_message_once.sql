-- As conversation/append_message, and remembers the answer under an idempotency key. It returns
-- nothing also when the key is known, having changed nothing: conversation/explain_append then
-- reads what the first append answered.
--
-- The order is what makes it exact. The row lock is taken before anything else, so that a replay
-- that runs at the same time waits until the first append is committed or gone. Only then the key
-- is inserted; ON CONFLICT looks at the index itself, not at this statement's snapshot, so it sees
-- a key that was committed during the wait. The counters move only if the key was new. They are
-- read from the row that was locked, which is its newest version.
--
-- The row is named by :id again where it is updated, although `claimed` has its id: joined by that,
-- a server without statistics may read the whole tenant.
--
-- Idempotent: a second run finds the key, and changes nothing.
--
-- Locks: the conversation's row, to the end of the transaction. Index: the primary keys.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.last_seq, c.round
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND c.last_seq = :expected_seq           --? expected_seq
       FOR NO KEY UPDATE
), claimed AS (
    INSERT INTO asyncsvc.append_key AS k (
           tenant_id, conversation_id, key, body_hash, first_seq, last_seq, round, created_at)
    SELECT l.tenant_id, l.id, :key, :body_hash, l.last_seq + 1,
           l.last_seq + cardinality(:roles::text[]), l.round + :round, statement_timestamp()
      FROM locked AS l
    ON CONFLICT (tenant_id, conversation_id, key) DO NOTHING
    RETURNING k.tenant_id, k.conversation_id, k.first_seq, k.last_seq, k.round
), appended AS (
    UPDATE asyncsvc.conversation AS c
       SET last_seq = k.last_seq,
           round = k.round,
           tokens = c.tokens + :tokens,
           duration = c.duration + :duration,
           updated_at = greatest(c.updated_at, statement_timestamp())
         , errors = :errors                     --? errors
         , dsl = :dsl::text::jsonb              --? dsl
      FROM claimed AS k
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
    RETURNING c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, k.first_seq,
              c.last_seq, c.round, c.updated_at
), stored AS (
    INSERT INTO asyncsvc.message (
           tenant_id, conversation_id, seq, role, content, payload, reference, created_at,
           dialog_id, conversation_created_at)
    SELECT a.tenant_id, a.id, a.first_seq - 1 + m.position,
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
SELECT a.first_seq, a.last_seq, a.round, false AS replayed
  FROM appended AS a
