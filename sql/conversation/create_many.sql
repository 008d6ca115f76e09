-- Create conversations with their counters and titles, and record each in the usage ledger.
--
-- :conversations is a JSON array with one object for each conversation and a member for each column.
-- :is_imported marks their usage, which no budget counts. :usages is a JSON array with an object for each
-- usage, and the id of its conversation; the others are recorded by their numbers of tokens alone.
--
-- Returns: the created conversations in any order: id and created_at, with full_row all columns. An id
--   that the tenant already has causes no error and has no row; that conversation does not change.
-- Locks: the new rows, in the order of their ids, so that two statements that create the same ids cannot
--   deadlock. It waits for a transaction that creates one of the ids.
-- Index: conversation_pkey.
-- Notes: created_at defaults to the clock of the server, updated_at to created_at.
WITH created AS (
    INSERT INTO asyncsvc.conversation AS c (
           tenant_id, id, dialog_id, user_id, exp_user_id, name, source, version_title, metadata, dsl,
           errors, round, tokens, duration, thumb_up, thumb_down, last_seq, created_at, updated_at)
    SELECT :tenant_id, r.id, r.dialog_id, r.user_id, r.exp_user_id, r.name, r.source, r.version_title,
           nullif(r.metadata, 'null'), nullif(r.dsl, 'null'), r.errors, r.round, r.tokens, r.duration,
           r.thumb_up, r.thumb_down, r.last_seq,
           coalesce(r.created_at, statement_timestamp()),
           coalesce(r.updated_at, r.created_at, statement_timestamp())
      FROM jsonb_to_recordset(:conversations::text::jsonb) AS r (
           id text, dialog_id text, user_id text, exp_user_id text, name text, source text,
           version_title text, metadata jsonb, dsl jsonb, errors text, round integer, tokens bigint,
           duration bigint, thumb_up integer, thumb_down integer, last_seq integer,
           created_at timestamptz, updated_at timestamptz)
     ORDER BY r.id COLLATE "C"
    ON CONFLICT (tenant_id, id) DO NOTHING
    RETURNING c.tenant_id, c.id, c.dialog_id, c.user_id, c.name, c.source, c.round, c.tokens, c.duration,
              c.thumb_up, c.thumb_down, c.created_at, c.updated_at
            , c.exp_user_id, c.version_title, c.metadata, c.dsl, c.errors, c.last_seq    --? full_row
), title_rows AS (
    INSERT INTO asyncsvc.conversation_title (
           tenant_id, conversation_id, name, dialog_id, conversation_created_at)
    SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
      FROM created AS c
), recency_rows AS (
    INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
    SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
      FROM created AS c
--? usages {
), usage_rows AS MATERIALIZED (
    SELECT u.id, u.model, u.requests, u.input_tokens, u.cached_input_tokens, u.cache_write_tokens,
           u.output_tokens, u.reasoning_tokens, u.cost
      FROM jsonb_to_recordset(:usages::text::jsonb) AS u (
           id text, model text, requests bigint, input_tokens bigint, cached_input_tokens bigint,
           cache_write_tokens bigint, output_tokens bigint, reasoning_tokens bigint, cost bigint)
--? }
), ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, at, is_imported, conversations,
           duration, rounds, thumb_up, thumb_down, tokens, unpriced, unmetered
         --? usages {
         , model, requests, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
           reasoning_tokens, cost
         --? }
           )
    SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.created_at,
           :is_imported::boolean, 1, c.duration, c.round, c.thumb_up, c.thumb_down
         --? !usages {
         , c.tokens, CASE WHEN c.tokens > 0 THEN 1 END, CASE WHEN c.tokens = 0 THEN c.round END
      FROM created AS c
         --? }
         --? usages {
         , CASE WHEN u.id IS NULL THEN c.tokens ELSE 0 END,
           CASE WHEN u.id IS NULL AND c.tokens > 0 THEN 1 END,
           CASE WHEN u.id IS NULL AND c.tokens = 0 THEN c.round END,
           NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
      FROM created AS c
      LEFT JOIN (SELECT DISTINCT u.id FROM usage_rows AS u) AS u ON u.id = c.id
     UNION ALL
    SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.created_at,
           :is_imported::boolean, 0, 0, 0, 0, 0, u.input_tokens + u.output_tokens,
           CASE WHEN u.cost IS NULL THEN 1 END, NULL, u.model, u.requests, u.input_tokens,
           u.cached_input_tokens, u.cache_write_tokens, u.output_tokens, u.reasoning_tokens, u.cost
      FROM created AS c
      JOIN usage_rows AS u ON u.id = c.id
         --? }
)
SELECT c.id, c.created_at
     --? full_row {
     , c.tenant_id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
       c.metadata::text AS metadata, c.dsl::text AS dsl, c.errors, c.round, c.tokens,
       (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq, c.updated_at,
       NULL::text AS messages
     --? }
  FROM created AS c
