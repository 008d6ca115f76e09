-- Stores new conversations with their titles, books each, and returns them as stored, in no order. An
-- id that the tenant has already is left as it is and is missing from the answer: the caller tells the
-- two apart by what came back, and no error has aborted the transaction around it.
--
-- :records is a JSON array, one object a conversation. updated_at starts as created_at.
-- Locks: the new rows, in the order of their ids, so that two that create the same ids cannot wait
-- for each other in a circle. Index: the primary key finds what is there already.
WITH created AS (
    INSERT INTO asyncsvc.conversation AS c (
           tenant_id, id, dialog_id, user_id, exp_user_id, name, source, version_title,
           metadata, dsl, created_at, updated_at)
    SELECT :tenant_id, r.id, r.dialog_id, r.user_id, r.exp_user_id, r.name, r.source,
           r.version_title, nullif(r.metadata, 'null'), nullif(r.dsl, 'null'),
           coalesce(r.created_at, statement_timestamp()),
           coalesce(r.created_at, statement_timestamp())
      FROM jsonb_to_recordset(:records::text::jsonb) AS r (
           id text, dialog_id text, user_id text, exp_user_id text, name text, source text,
           version_title text, metadata jsonb, dsl jsonb, created_at timestamptz)
     ORDER BY r.id COLLATE "C"
    ON CONFLICT (tenant_id, id) DO NOTHING
    RETURNING c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
              c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration,
              c.thumb_up, c.thumb_down, c.last_seq, c.created_at, c.updated_at
), titled AS (
    INSERT INTO asyncsvc.conversation_title (
           tenant_id, conversation_id, name, dialog_id, conversation_created_at)
    SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
      FROM created AS c
), booked AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, quarter_hour, pv)
    SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at,
           date_bin('15 minutes', c.created_at, '0001-01-01 00:00+00'), 1
      FROM created AS c
), noted AS (
    INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
    SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
      FROM created AS c
)
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
       c.version_title, c.metadata::text AS metadata, c.dsl::text AS dsl, c.errors, c.round,
       c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at, NULL::text AS messages
  FROM created AS c
