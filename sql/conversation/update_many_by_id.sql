-- Set columns of conversations, each by its own patch.
--
-- Returns: the updated conversations, in no order. An id that does not exist has no row.
-- Locks: the conversation rows in the order of their ids, until the end of the transaction. The order
--   prevents deadlocks between 2 such calls.
-- Index: primary key, once per id. LIMIT 1: see docs/project/sql-files.md, Lookups by key.
-- Notes: :patches is a JSON object from id to the columns to set. JSON null sets a column to NULL; a
--   column without a key keeps its value.
--   A new dialog, source or user moves the counters of a conversation in the statistics by creation: 2
--   ledger rows, one negative and one positive. Activity does not move.
--   A title with a new name or dialog leaves the search index until the next maintenance run. Each such
--   patch updates the title, even if the value is equal, because the snapshot of the statement may be
--   older than the title that it replaces. If the dialog changes, message/change_dialog updates the
--   messages.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, requested.patch
      FROM (SELECT p.id, p.patch
              FROM jsonb_each(:patches::text::jsonb) AS p (id, patch)
             ORDER BY p.id COLLATE "C") AS requested
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.dialog_id, c.source, c.user_id
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id BETWEEN requested.id AND requested.id
             ORDER BY c.id
             LIMIT 1
               FOR NO KEY UPDATE
           ) AS c
), updated AS (
    UPDATE asyncsvc.conversation AS c
       SET dialog_id = CASE WHEN l.patch ? 'dialog_id' THEN l.patch ->> 'dialog_id' ELSE c.dialog_id END,
           user_id = CASE WHEN l.patch ? 'user_id' THEN l.patch ->> 'user_id' ELSE c.user_id END,
           exp_user_id = CASE WHEN l.patch ? 'exp_user_id' THEN l.patch ->> 'exp_user_id'
                              ELSE c.exp_user_id END,
           name = CASE WHEN l.patch ? 'name' THEN l.patch ->> 'name' ELSE c.name END,
           source = CASE WHEN l.patch ? 'source' THEN l.patch ->> 'source' ELSE c.source END,
           version_title = CASE WHEN l.patch ? 'version_title' THEN l.patch ->> 'version_title'
                                ELSE c.version_title END,
           metadata = CASE WHEN l.patch ? 'metadata' THEN nullif(l.patch -> 'metadata', 'null')
                           ELSE c.metadata END,
           dsl = CASE WHEN l.patch ? 'dsl' THEN nullif(l.patch -> 'dsl', 'null') ELSE c.dsl END,
           errors = CASE WHEN l.patch ? 'errors' THEN l.patch ->> 'errors' ELSE c.errors END,
           updated_at = greatest(c.updated_at, statement_timestamp())
      FROM locked AS l
     WHERE c.tenant_id = l.tenant_id
       AND c.id = l.id
    RETURNING c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
              c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration,
              c.thumb_up, c.thumb_down, c.last_seq, c.created_at, c.updated_at
), recency_updated AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET dialog_id = u.dialog_id,
           updated_at = u.updated_at
      FROM updated AS u
     WHERE r.tenant_id = u.tenant_id
       AND r.id = u.id
), titles_updated AS (
    UPDATE asyncsvc.conversation_title AS t
       SET name = u.name,
           dialog_id = u.dialog_id,
           is_indexed = false
      FROM updated AS u
      JOIN locked AS l ON l.tenant_id = u.tenant_id AND l.id = u.id
     WHERE t.tenant_id = u.tenant_id
       AND t.conversation_id = u.id
       AND l.patch ?| ARRAY['name', 'dialog_id']
), ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, pv, tokens, duration, rounds,
           thumb_up, thumb_down)
    SELECT u.tenant_id, v.dialog_id, v.source, v.user_id, u.created_at, v.sign, v.sign * u.tokens,
           v.sign * u.duration, v.sign * u.round, v.sign * u.thumb_up, v.sign * u.thumb_down
      FROM updated AS u
      JOIN locked AS l ON l.tenant_id = u.tenant_id AND l.id = u.id
     CROSS JOIN LATERAL (
            VALUES (-1, l.dialog_id, l.source, l.user_id),
                   (1, u.dialog_id, u.source, u.user_id)
           ) AS v (sign, dialog_id, source, user_id)
     WHERE (l.dialog_id, l.source, l.user_id) IS DISTINCT FROM (u.dialog_id, u.source, u.user_id)
)
SELECT u.tenant_id, u.id, u.dialog_id, u.user_id, u.exp_user_id, u.name, u.source,
       u.version_title, u.metadata::text AS metadata, u.dsl::text AS dsl, u.errors, u.round,
       u.tokens, (u.duration / 1e6)::float8 AS duration, u.thumb_up, u.thumb_down, u.last_seq,
       u.created_at, u.updated_at, NULL::text AS messages
  FROM updated AS u
