-- Stores conversations that come from elsewhere, with their counters and titles, books each whole on its
-- creation, and returns the id and the creation of those whose ids were free; their messages follow
-- by COPY in the same transaction.
-- An id that the tenant has already is left as it is and is missing from the answer.
--
-- :records is a JSON array, one object a conversation. Instants that are null are those of the
-- server's clock; updated_at is created_at then.
-- Locks: the new rows, in the order of their ids, so that two that load the same ids cannot wait
-- for each other in a circle; one that another session is about to store is waited for. Index: the
-- primary key finds what is there already.
WITH loaded AS (
    INSERT INTO asyncsvc.conversation AS c (
           tenant_id, id, dialog_id, user_id, exp_user_id, name, source, version_title, metadata, dsl,
           errors, round, tokens, duration, thumb_up, thumb_down, last_seq, created_at, updated_at)
    SELECT :tenant_id, r.id, r.dialog_id, r.user_id, r.exp_user_id, r.name, r.source, r.version_title,
           nullif(r.metadata, 'null'), nullif(r.dsl, 'null'), r.errors, r.round, r.tokens, r.duration,
           r.thumb_up, r.thumb_down, r.last_seq,
           coalesce(r.created_at, statement_timestamp()),
           coalesce(r.updated_at, r.created_at, statement_timestamp())
      FROM jsonb_to_recordset(:records::text::jsonb) AS r (
           id text, dialog_id text, user_id text, exp_user_id text, name text, source text,
           version_title text, metadata jsonb, dsl jsonb, errors text, round integer, tokens bigint,
           duration bigint, thumb_up integer, thumb_down integer, last_seq integer,
           created_at timestamptz, updated_at timestamptz)
     ORDER BY r.id COLLATE "C"
    ON CONFLICT (tenant_id, id) DO NOTHING
    RETURNING c.tenant_id, c.id, c.dialog_id, c.name, c.source, c.user_id, c.round, c.tokens,
              c.duration, c.thumb_up, c.thumb_down, c.created_at, c.updated_at
), titled AS (
    INSERT INTO asyncsvc.conversation_title (
           tenant_id, conversation_id, name, dialog_id, conversation_created_at)
    SELECT l.tenant_id, l.id, l.name, l.dialog_id, l.created_at
      FROM loaded AS l
), booked AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, quarter_hour, pv, tokens, duration, rounds,
           thumb_up, thumb_down)
    SELECT l.tenant_id, l.dialog_id, l.source, l.user_id, l.created_at,
           date_bin('15 minutes', l.created_at, '0001-01-01 00:00+00'),
           1, l.tokens, l.duration, l.round, l.thumb_up, l.thumb_down
      FROM loaded AS l
), noted AS (
    INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
    SELECT l.tenant_id, l.id, l.dialog_id, l.updated_at
      FROM loaded AS l
)
SELECT l.id, l.created_at
  FROM loaded AS l
