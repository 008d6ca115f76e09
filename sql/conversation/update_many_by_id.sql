-- Changes columns of conversations, and their titles with them, and returns the changed rows, in no
-- order; an id that is not there is missing from the answer. Where the dialog is changed, message/move
-- takes the messages along. One that got another dialog, source or user is booked out and in, as it
-- was and as it is; what happened in it stays booked where it did. The title follows whatever it
-- was before: this statement may not see what the one wrote that it waited for.
--
-- :patches is a JSON object from id to the columns to set. A column that is not named keeps its
-- value; JSON null sets NULL. The rows are locked in the order of their ids first, so that two
-- such calls cannot wait for each other in a circle.
--
-- Locks: the rows, to the end of the transaction. Index: the primary key, once an id: LIMIT 1, and
-- the tenant that comes with the locked row, make sure of it, whatever the server's statistics say.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, p.patch
      FROM (SELECT p.id, p.patch
              FROM jsonb_each(:patches::text::jsonb) AS p (id, patch)
             ORDER BY p.id COLLATE "C") AS p
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.dialog_id, c.source, c.user_id
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id = p.id
             LIMIT 1
               FOR NO KEY UPDATE
           ) AS c
), updated AS (
    UPDATE asyncsvc.conversation AS c
       SET dialog_id = CASE WHEN l.patch ? 'dialog_id' THEN l.patch ->> 'dialog_id' ELSE c.dialog_id END,
           user_id = CASE WHEN l.patch ? 'user_id' THEN l.patch ->> 'user_id' ELSE c.user_id END,
           exp_user_id = CASE WHEN l.patch ? 'exp_user_id' THEN l.patch ->> 'exp_user_id' ELSE c.exp_user_id END,
           name = CASE WHEN l.patch ? 'name' THEN l.patch ->> 'name' ELSE c.name END,
           source = CASE WHEN l.patch ? 'source' THEN l.patch ->> 'source' ELSE c.source END,
           version_title = CASE WHEN l.patch ? 'version_title' THEN l.patch ->> 'version_title' ELSE c.version_title END,
           metadata = CASE WHEN l.patch ? 'metadata' THEN nullif(l.patch -> 'metadata', 'null') ELSE c.metadata END,
           dsl = CASE WHEN l.patch ? 'dsl' THEN nullif(l.patch -> 'dsl', 'null') ELSE c.dsl END,
           errors = CASE WHEN l.patch ? 'errors' THEN l.patch ->> 'errors' ELSE c.errors END,
           updated_at = greatest(c.updated_at, statement_timestamp())
      FROM locked AS l
     WHERE c.tenant_id = l.tenant_id
       AND c.id = l.id
    RETURNING c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
              c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration,
              c.thumb_up, c.thumb_down, c.last_seq, c.created_at, c.updated_at
), noted AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET dialog_id = c.dialog_id,
           updated_at = c.updated_at
      FROM updated AS c
     WHERE r.tenant_id = c.tenant_id
       AND r.id = c.id
), booked AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, pv, tokens, duration, rounds,
           thumb_up, thumb_down)
    SELECT c.tenant_id, b.dialog_id, b.source, b.user_id, c.created_at, b.sign, b.sign * c.tokens,
           b.sign * c.duration, b.sign * c.round, b.sign * c.thumb_up, b.sign * c.thumb_down
      FROM updated AS c
      JOIN locked AS l ON l.tenant_id = c.tenant_id AND l.id = c.id
     CROSS JOIN LATERAL (
            VALUES (-1, l.dialog_id, l.source, l.user_id),
                   (1, c.dialog_id, c.source, c.user_id)
           ) AS b (sign, dialog_id, source, user_id)
     WHERE (l.dialog_id, l.source, l.user_id) IS DISTINCT FROM (c.dialog_id, c.source, c.user_id)
), retitled AS (
    UPDATE asyncsvc.conversation_title AS t
       SET name = c.name,
           dialog_id = c.dialog_id,
           is_indexed = false
      FROM updated AS c
      JOIN locked AS l ON l.tenant_id = c.tenant_id AND l.id = c.id
     WHERE t.tenant_id = c.tenant_id
       AND t.conversation_id = c.id
       AND l.patch ?| ARRAY['name', 'dialog_id']
)
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
       c.version_title, c.metadata::text AS metadata, c.dsl::text AS dsl, c.errors, c.round,
       c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at, NULL::text AS messages
  FROM updated AS c
