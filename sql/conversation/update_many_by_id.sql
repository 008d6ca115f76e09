-- Set columns of conversations, each by its own patch.
--
-- With :conversation, a JSON object with a member for each column, the conversation of the only patch is
-- created if it is missing.
--
-- Returns: the updated and created conversations, in no order. An id that does not exist, or belongs to
--   another user than :user_id, has no row. With merges, oversized_id and oversized_column of each merged
--   column that exceeds :max_json_bytes; if there is one, no row changes. No row also if another session
--   has created the conversation meanwhile.
-- Locks: the conversation rows in the order of their ids, until the end of the transaction. The order
--   prevents deadlocks between 2 such calls.
-- Index: primary key, once per id. LIMIT 1: see docs/project/sql-files.md, Lookups by key.
-- Notes: :patches is a JSON object from id to the columns to set. JSON null sets a column to NULL; a
--   column without a key keeps its value.
--   merge_metadata and merge_dsl of a patch are merge patches of the stored columns.
--   A new dialog, source or user moves the counters of a conversation in the statistics by creation: 2
--   ledger rows, one negative and one positive. Activity does not move.
--   A title with a new name or dialog leaves the search index until the next maintenance run. Each such
--   patch updates the title, even if the value is equal, because the snapshot of the statement may be
--   older than the title that it replaces. If the dialog changes, message/change_dialog updates the
--   messages.
WITH
locked AS MATERIALIZED (                                                          --? !merges
stored AS MATERIALIZED (                                                          --? merges
    SELECT c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, requested.patch
         , c.metadata, c.dsl                                                      --? merges
      FROM (SELECT p.id, p.patch
              FROM jsonb_each(:patches::text::jsonb) AS p (id, patch)
             ORDER BY p.id COLLATE "C") AS requested
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.dialog_id, c.source, c.user_id
                 , c.metadata, c.dsl                                              --? merges
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id BETWEEN requested.id AND requested.id
               AND (c.user_id = :user_id) IS TRUE                                 --? user_id
             ORDER BY c.id
             LIMIT 1
               FOR NO KEY UPDATE
           ) AS c
--? merges {
), locked AS MATERIALIZED (
    SELECT s.tenant_id, s.id, s.dialog_id, s.source, s.user_id,
           s.patch || coalesce((
               SELECT jsonb_object_agg(v.name, asyncsvc.json_merge_v1(v.value, s.patch -> v.member))
                 FROM (VALUES ('metadata', 'merge_metadata', s.metadata),
                              ('dsl', 'merge_dsl', s.dsl)) AS v (name, member, value)
                WHERE s.patch ? v.member), '{}') AS patch
      FROM stored AS s
), oversized AS MATERIALIZED (
    SELECT l.id, v.name
      FROM locked AS l
     CROSS JOIN (VALUES ('metadata'), ('dsl')) AS v (name)
     WHERE l.patch ? ('merge_' || v.name)
       AND octet_length(l.patch ->> v.name) > :max_json_bytes                     --? max_json_bytes
--? }
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
       AND NOT EXISTS (SELECT FROM oversized)                                     --? merges
    RETURNING c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
              c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration,
              c.thumb_up, c.thumb_down, c.last_seq, c.created_at, c.updated_at
--? conversation {
), created AS (
    INSERT INTO asyncsvc.conversation AS c (
           tenant_id, id, dialog_id, user_id, exp_user_id, name, source, version_title, metadata,
           dsl, created_at, updated_at)
    SELECT :tenant_id, r.id, r.dialog_id, r.user_id, r.exp_user_id, r.name, r.source,
           r.version_title, nullif(r.metadata, 'null'), nullif(r.dsl, 'null'),
           coalesce(r.created_at, statement_timestamp()),
           coalesce(r.created_at, statement_timestamp())
      FROM jsonb_to_record(:conversation::text::jsonb) AS r (
           id text, dialog_id text, user_id text, exp_user_id text, name text, source text,
           version_title text, metadata jsonb, dsl jsonb, created_at timestamptz)
     WHERE NOT EXISTS (SELECT FROM locked)
    ON CONFLICT (tenant_id, id) DO NOTHING
    RETURNING c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
              c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration,
              c.thumb_up, c.thumb_down, c.last_seq, c.created_at, c.updated_at
), title_rows AS (
    INSERT INTO asyncsvc.conversation_title (
           tenant_id, conversation_id, name, dialog_id, conversation_created_at)
    SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
      FROM created AS c
), recency_rows AS (
    INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
    SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
      FROM created AS c
--? }
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
           tenant_id, dialog_id, source, user_id, created_at, conversations, tokens, duration, rounds,
           thumb_up, thumb_down)                                                  --? !conversation
           thumb_up, thumb_down, at)                                              --? conversation
    SELECT u.tenant_id, v.dialog_id, v.source, v.user_id, u.created_at, v.sign, v.sign * u.tokens,
           v.sign * u.duration, v.sign * u.round, v.sign * u.thumb_up, v.sign * u.thumb_down
         , NULL::timestamptz                                                      --? conversation
      FROM updated AS u
      JOIN locked AS l ON l.tenant_id = u.tenant_id AND l.id = u.id
     CROSS JOIN LATERAL (
            VALUES (-1, l.dialog_id, l.source, l.user_id),
                   (1, u.dialog_id, u.source, u.user_id)
           ) AS v (sign, dialog_id, source, user_id)
     WHERE (l.dialog_id, l.source, l.user_id) IS DISTINCT FROM (u.dialog_id, u.source, u.user_id)
    --? conversation {
     UNION ALL
    SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, 1, 0, 0, 0, 0, 0,
           c.created_at
      FROM created AS c
    --? }
)
SELECT u.tenant_id, u.id, u.dialog_id, u.user_id, u.exp_user_id, u.name, u.source,
       u.version_title, u.metadata::text AS metadata, u.dsl::text AS dsl, u.errors, u.round,
       u.tokens, (u.duration / 1e6)::float8 AS duration, u.thumb_up, u.thumb_down, u.last_seq,
       u.created_at, u.updated_at, NULL::text AS messages
     , o.id AS oversized_id, o.name AS oversized_column                           --? merges
  FROM updated AS u                                                               --? !conversation
  --? conversation {
  FROM (
    SELECT u.tenant_id, u.id, u.dialog_id, u.user_id, u.exp_user_id, u.name, u.source, u.version_title,
           u.metadata, u.dsl, u.errors, u.round, u.tokens, u.duration, u.thumb_up, u.thumb_down,
           u.last_seq, u.created_at, u.updated_at
      FROM updated AS u
     UNION ALL
    SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
           c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration, c.thumb_up, c.thumb_down,
           c.last_seq, c.created_at, c.updated_at
      FROM created AS c
  ) AS u
  --? }
  FULL JOIN oversized AS o ON o.id = u.id                                         --? merges
