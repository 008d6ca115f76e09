-- Insert a correction of usage into the ledger, and record it in the audit.
--
-- :adjustment is a JSON object with a member for each counter, :detail that of the audit.
--
-- Returns: is_recorded, whether a row was inserted. false if :idempotency_key was used before.
-- Locks: the new key. It waits for a transaction that inserts the same key.
-- Index: the primary keys of usage_key and api_token.
-- Idempotent: if idempotency_key, body_hash: a retry finds the key and inserts no row.
-- Notes: key, correction and audit are inserted by one statement. The row of the ledger has no created_at: it
--   is activity, and the counters of conversations do not change.
WITH
--? idempotency_key, body_hash {
key_rows AS (
    INSERT INTO asyncsvc.usage_key AS k (tenant_id, key, body_hash, created_at)
    VALUES (:tenant_id, :idempotency_key, :body_hash, statement_timestamp())
    ON CONFLICT (tenant_id, key) DO NOTHING
    RETURNING k.key
),
--? }
ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, at, rounds, tokens, unpriced, model, requests,
           input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost
         , token_id                             --? token_id
           )
    SELECT :tenant_id, coalesce(a.dialog_id, ''), a.source, coalesce(a.user_id, ''),
           statement_timestamp(), a.rounds, a.tokens, a.unpriced, a.model, a.requests, a.input_tokens,
           a.cached_input_tokens, a.cache_write_tokens, a.output_tokens, a.reasoning_tokens, a.cost
         --? token_id {
         , coalesce((SELECT t.family_id
                       FROM asyncsvc.api_token AS t
                      WHERE t.tenant_id = :tenant_id
                        AND t.id = :token_id), :token_id)
         --? }
      FROM jsonb_to_record(:adjustment::text::jsonb) AS a (
           dialog_id text, source text, user_id text, rounds bigint, tokens bigint, unpriced bigint,
           model text, requests bigint, input_tokens bigint, cached_input_tokens bigint,
           cache_write_tokens bigint, output_tokens bigint, reasoning_tokens bigint, cost bigint)
     CROSS JOIN key_rows AS k                   --? idempotency_key, body_hash
    RETURNING user_id
), audit_rows AS (
    INSERT INTO asyncsvc.usage_audit (tenant_id, at, action, actor, subject, detail)
    SELECT :tenant_id, statement_timestamp(), 'adjust', :actor, nullif(l.user_id, ''),
           :detail::text::jsonb
      FROM ledger_rows AS l
)
SELECT EXISTS (SELECT FROM ledger_rows) AS is_recorded
