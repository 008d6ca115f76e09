-- Append the messages of one turn, update the conversation's counters and record the usage.
--
-- With :conversation, a JSON object with a member for each column, a missing conversation is created.
-- With :usages, a JSON array with an object for each usage of the turn, :tokens is their sum.
--
-- Returns: first_seq, last_seq, round, replayed, is_watched. No row if the conversation does not exist, its
--   last_seq differs from :expected_seq, its user_id from :user_id or its created_at from :created_at,
--   :idempotency_key was used before, one of :message_ids exists, a counter would exceed its maximum, or a
--   merged column :max_json_bytes. Without :created_at, conversation/explain_append reads the reason. With
--   :conversation also no row if another session has created the conversation meanwhile.
-- Locks: the conversation row, until the end of the transaction. Concurrent appends to one conversation
--   queue on it, so seq has no gaps and follows the order of commits. With :conversation it waits for a
--   transaction that creates the conversation.
-- Index: primary keys, with :token_id also that of api_token; message_id_idx with :message_ids. The cost
--   does not depend on the length of the conversation.
-- Idempotent: if idempotency_key, body_hash: a retry finds the key and changes no row.
-- Notes: updated_at never decreases, even if this transaction began before the one for which it waited.
--   With a key, the row lock comes first, so a concurrent call with the same key waits for the first
--   append. ON CONFLICT reads the index itself and not the snapshot of the statement, so it finds a key
--   that was committed during the wait. The counters change only if the key is new.
--   The UPDATE repeats :tenant_id and :id although key_rows contains them: see
--   docs/project/sql-files.md, Lookups by key. It does not repeat :expected_seq, because it first reads
--   the snapshot of the statement, which may be older than the locked row.
--   is_watched: sessions watch the tenant. With notify the commit wakes them, otherwise the caller does.
--   present_ids are read in the snapshot of the statement. If another transaction stores one of the ids
--   while this one waits for the lock, message_id_idx rejects it. Row comparisons: see
--   docs/project/sql-files.md, Lookups by key.
--   merged is a locking read, so it merges into the values that the transaction for which it waited has
--   stored. With :conversation and no conversation the values of :conversation are merged.
--   The ledger has a row for each usage of the turn; rounds and duration are in the first. It names
--   the first token of the rotation family of :token_id.
--   :created_at distinguishes the conversation from another one that was stored under its id later. No
--   index serves IS TRUE, so the plan reads the primary key, also with :user_id.
WITH
--? message_ids {
present_ids AS MATERIALIZED (
    SELECT m.seq
      FROM unnest(:message_ids::text[]) AS r (id)
     CROSS JOIN LATERAL (
            SELECT m.seq
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id
               AND m.id IS NOT NULL
               AND (m.id, m.conversation_id) >= (r.id, :id)
               AND (m.id, m.conversation_id) <= (r.id, :id)
             ORDER BY m.id, m.conversation_id
             LIMIT 1
           ) AS m
),
--? }
--? merges {
merged AS MATERIALIZED (
    SELECT c.id
         , asyncsvc.json_merge_v1(c.metadata, :merge_metadata::text::jsonb) AS metadata --? merge_metadata
         , asyncsvc.json_merge_v1(c.dsl, :merge_dsl::text::jsonb) AS dsl                --? merge_dsl
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       FOR NO KEY UPDATE
), accepted AS MATERIALIZED (
    SELECT m.id
         , m.metadata                           --? merge_metadata
         , m.dsl                                --? merge_dsl
      FROM merged AS m
     WHERE m.id = :id
       AND octet_length(m.metadata::text) <= :max_json_bytes  --? merge_metadata, max_json_bytes
       AND octet_length(m.dsl::text) <= :max_json_bytes       --? merge_dsl, max_json_bytes
),
--? }
--? idempotency_key, body_hash {
locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.last_seq, c.round
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND c.last_seq = :expected_seq           --? expected_seq
       AND (c.created_at = :created_at) IS TRUE --? created_at
       AND (c.user_id = :user_id) IS TRUE       --? user_id
       AND EXISTS (SELECT FROM accepted)        --? merges
       AND NOT EXISTS (SELECT FROM present_ids) --? message_ids
       AND c.last_seq <= 2147483647 - cardinality(:roles::text[])
       AND c.round <= 2147483647 - :round::int
       AND c.tokens <= 9223372036854775807 - :tokens::bigint
       AND c.duration <= 9000000000000000000 - :duration::bigint
       FOR NO KEY UPDATE
), key_rows AS (
    INSERT INTO asyncsvc.append_key AS k (
           tenant_id, conversation_id, key, body_hash, first_seq, last_seq, round, created_at)
    SELECT l.tenant_id, l.id, :idempotency_key, :body_hash, l.last_seq + 1,
           l.last_seq + cardinality(:roles::text[]), l.round + :round, statement_timestamp()
      FROM locked AS l
    ON CONFLICT (tenant_id, conversation_id, key) DO NOTHING
    RETURNING k.conversation_id
),
--? }
appended AS (                                   --? !conversation
updated AS (                                    --? conversation
    UPDATE asyncsvc.conversation AS c
       SET last_seq = c.last_seq + cardinality(:roles::text[]),
           round = c.round + :round,
           tokens = c.tokens + :tokens,
           duration = c.duration + :duration,
           updated_at = greatest(c.updated_at, statement_timestamp())
         , errors = :errors                     --? errors
         , dsl = :dsl::text::jsonb              --? dsl
         , dsl = m.dsl                          --? merge_dsl, merges, !dsl
         , metadata = m.metadata                --? merge_metadata, merges
      FROM key_rows AS k                        --? idempotency_key, body_hash, !merges
      FROM accepted AS m                        --? merges
     CROSS JOIN key_rows AS k                   --? merges, idempotency_key, body_hash
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND c.last_seq = :expected_seq           --? expected_seq, !idempotency_key
       AND (c.created_at = :created_at) IS TRUE --? created_at, !idempotency_key
       AND (c.user_id = :user_id) IS TRUE       --? user_id, !idempotency_key
       AND NOT EXISTS (SELECT FROM present_ids) --? message_ids, !idempotency_key
--? !idempotency_key {
       AND c.last_seq <= 2147483647 - cardinality(:roles::text[])
       AND c.round <= 2147483647 - :round::int
       AND c.tokens <= 9223372036854775807 - :tokens::bigint
       AND c.duration <= 9000000000000000000 - :duration::bigint
--? }
    RETURNING c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, c.last_seq,
              c.round, c.updated_at
--? conversation {
), created AS (
    INSERT INTO asyncsvc.conversation AS c (
           tenant_id, id, dialog_id, user_id, exp_user_id, name, source, version_title, metadata,
           dsl, errors, round, tokens, duration, last_seq, created_at, updated_at)
    SELECT :tenant_id, :id, r.dialog_id, r.user_id, r.exp_user_id, r.name, r.source,
           r.version_title,
           nullif(r.metadata, 'null'),          --? !merge_metadata
           asyncsvc.json_merge_v1(r.metadata, :merge_metadata::text::jsonb),  --? merge_metadata
           nullif(r.dsl, 'null'),               --? !dsl, !merge_dsl
           asyncsvc.json_merge_v1(r.dsl, :merge_dsl::text::jsonb),            --? !dsl, merge_dsl
           :dsl::text::jsonb,                   --? dsl
           NULL,                                --? !errors
           :errors,                             --? errors
           :round, :tokens, :duration, cardinality(:roles::text[]),
           coalesce(r.created_at, statement_timestamp()),
           greatest(r.created_at, statement_timestamp())
      FROM jsonb_to_record(:conversation::text::jsonb) AS r (
           dialog_id text, user_id text, exp_user_id text, name text, source text,
           version_title text, metadata jsonb, dsl jsonb, created_at timestamptz)
     WHERE NOT EXISTS (SELECT FROM updated)
       --? merge_metadata, max_json_bytes {
       AND octet_length(asyncsvc.json_merge_v1(r.metadata, :merge_metadata::text::jsonb)::text)
           <= :max_json_bytes
       --? }
       --? merge_dsl, max_json_bytes {
       AND octet_length(asyncsvc.json_merge_v1(r.dsl, :merge_dsl::text::jsonb)::text) <= :max_json_bytes
       --? }
    ON CONFLICT (tenant_id, id) DO NOTHING
    RETURNING c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, c.last_seq,
              c.round, c.updated_at, c.name
), title_rows AS (
    INSERT INTO asyncsvc.conversation_title (
           tenant_id, conversation_id, name, dialog_id, conversation_created_at)
    SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
      FROM created AS c
), recency_rows AS (
    INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at, appended_at)
    SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at, statement_timestamp()
      FROM created AS c
--? }
--? conversation, idempotency_key, body_hash {
), first_key_rows AS (
    INSERT INTO asyncsvc.append_key (
           tenant_id, conversation_id, key, body_hash, first_seq, last_seq, round, created_at)
    SELECT c.tenant_id, c.id, :idempotency_key, :body_hash, 1, c.last_seq, c.round,
           statement_timestamp()
      FROM created AS c
--? }
--? conversation {
), appended AS (
    SELECT u.tenant_id, u.id, u.dialog_id, u.source, u.user_id, u.created_at, u.last_seq, u.round,
           u.updated_at
      FROM updated AS u
     UNION ALL
    SELECT c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, c.last_seq, c.round,
           c.updated_at
      FROM created AS c
--? }
), message_rows AS (
    INSERT INTO asyncsvc.message (
           tenant_id, conversation_id, seq, role, content, payload, reference, dialog_id,
           conversation_created_at
         , id                                   --? message_ids
         , created_at)
    SELECT a.tenant_id, a.id, a.last_seq - cardinality(:roles::text[]) + m.position,
           m.role, m.content, m.payload::jsonb, m.reference::jsonb, a.dialog_id, a.created_at
         , m.id                                 --? message_ids
         , a.updated_at                         --? !message_times
         , coalesce(m.created_at, a.updated_at) --? message_times
      FROM appended AS a
     CROSS JOIN unnest(
           :roles::text[], :contents::text[], :payloads::text[], :references::text[]
         , :message_times::timestamptz[]        --? message_times
         , :message_ids::text[]                 --? message_ids
           ) WITH ORDINALITY AS m (
           role, content, payload, reference
         , created_at                           --? message_times
         , id                                   --? message_ids
         , position)
), recency_updated AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET updated_at = a.updated_at,
           appended_at = statement_timestamp()
      FROM appended AS a
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
), ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, at, tokens, duration, rounds, unpriced
         , unmetered                            --? !usages
         , token_id                             --? token_id
         , acting_user_id                       --? acting_user_id
         --? usages {
         , model, requests, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
           reasoning_tokens, cost
         --? }
         , conversations                        --? conversation
           )
    SELECT a.tenant_id, a.dialog_id, a.source, a.user_id, a.created_at, statement_timestamp()
         --? !usages {
         , :tokens, :duration, :round, CASE WHEN :tokens > 0 THEN 1 END,
           CASE WHEN :tokens = 0 THEN :round END
         --? }
         --? usages {
         , u.input_tokens + u.output_tokens, CASE WHEN u.position = 1 THEN :duration ELSE 0 END,
           CASE WHEN u.position = 1 THEN :round ELSE 0 END, CASE WHEN u.cost IS NULL THEN 1 END
         --? }
         --? token_id {
         , coalesce((SELECT t.family_id
                       FROM asyncsvc.api_token AS t
                      WHERE t.tenant_id = :tenant_id
                        AND t.id = :token_id), :token_id)
         --? }
         , nullif(:acting_user_id, a.user_id)   --? acting_user_id
         --? usages {
         , u.model, u.requests, u.input_tokens, u.cached_input_tokens, u.cache_write_tokens,
           u.output_tokens, u.reasoning_tokens, u.cost
         --? }
         , 0                                    --? conversation
      FROM appended AS a
     WHERE :tokens > 0 OR :duration > 0 OR :round > 0  --? !usages
     --? usages {
     CROSS JOIN ROWS FROM (
           jsonb_to_recordset(:usages::text::jsonb) AS (
               model text, requests bigint, input_tokens bigint, cached_input_tokens bigint,
               cache_write_tokens bigint, output_tokens bigint, reasoning_tokens bigint, cost bigint)
           ) WITH ORDINALITY AS u (
           model, requests, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
           reasoning_tokens, cost, position)
     --? }
    --? conversation {
     UNION ALL
    SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.created_at, 0, 0, 0, NULL
         , NULL                                 --? !usages
         , NULL                                 --? token_id
         , NULL                                 --? acting_user_id
         , NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL  --? usages
         , 1
      FROM created AS c
    --? }
), watched AS (
    SELECT true AS is_watched                   --? !notify
    --? notify {
    SELECT pg_notify('asyncsvc_new_messages', encode(sha256(convert_to(w.tenant_id, 'UTF8')), 'hex'))
           IS NULL AS is_watched
    --? }
      FROM asyncsvc.watched_tenant AS w
     WHERE w.tenant_id = :tenant_id
       AND w.expires_at > statement_timestamp()
)
SELECT a.last_seq - cardinality(:roles::text[]) + 1 AS first_seq, a.last_seq, a.round,
       false AS replayed, coalesce(w.is_watched, false) AS is_watched
  FROM appended AS a
  LEFT JOIN watched AS w ON true
