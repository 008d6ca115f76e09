-- Insert usage without a message into the ledger: that of a conversation, a dialog or the tenant.
--
-- :usages is a JSON array with an object for each usage.
--
-- Returns: is_recorded, whether rows were inserted. false if :conversation_id does not exist or
--   :idempotency_key was used before.
-- Locks: the new key. It waits for a transaction that inserts the same key.
-- Index: the primary keys of conversation, usage_key and api_token.
-- Idempotent: if idempotency_key, body_hash: a retry finds the key and inserts no row.
-- Notes: the key and the usage are inserted by one statement, so the usage is counted once. The rows have no
--   created_at: they are activity, and the counters of the conversation do not change.
WITH target AS MATERIALIZED (
    --? !conversation_id {
    SELECT '' AS user_id
         , :dialog_id AS dialog_id              --? dialog_id
         , '' AS dialog_id                      --? !dialog_id
         , :source AS source                    --? source
         , NULL AS source                       --? !source
    --? }
    --? conversation_id {
    SELECT c.dialog_id, c.source, c.user_id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :conversation_id
    --? }
--? idempotency_key, body_hash {
), key_rows AS (
    INSERT INTO asyncsvc.usage_key AS k (tenant_id, key, body_hash, created_at)
    SELECT :tenant_id, :idempotency_key, :body_hash, statement_timestamp()
      FROM target AS t
    ON CONFLICT (tenant_id, key) DO NOTHING
    RETURNING k.key
--? }
), ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, at, tokens, unpriced, model, requests, input_tokens,
           cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost
         , token_id                             --? token_id
         , acting_user_id                       --? acting_user_id
           )
    SELECT :tenant_id, t.dialog_id, t.source, t.user_id, statement_timestamp(),
           u.input_tokens + u.output_tokens, CASE WHEN u.cost IS NULL THEN 1 END, u.model, u.requests,
           u.input_tokens, u.cached_input_tokens, u.cache_write_tokens, u.output_tokens,
           u.reasoning_tokens, u.cost
         --? token_id {
         , coalesce((SELECT a.family_id
                       FROM asyncsvc.api_token AS a
                      WHERE a.tenant_id = :tenant_id
                        AND a.id = :token_id), :token_id)
         --? }
         , nullif(:acting_user_id, t.user_id)   --? acting_user_id
      FROM target AS t
     CROSS JOIN key_rows AS k                   --? idempotency_key, body_hash
     CROSS JOIN jsonb_to_recordset(:usages::text::jsonb) AS u (
           model text, requests bigint, input_tokens bigint, cached_input_tokens bigint,
           cache_write_tokens bigint, output_tokens bigint, reasoning_tokens bigint, cost bigint)
    RETURNING 1 AS one
)
SELECT EXISTS (SELECT FROM ledger_rows) AS is_recorded
