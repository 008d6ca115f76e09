-- Read conversations of a tenant by id.
--
-- Returns: the columns of a conversation, in the order of :ids. An id that does not exist, or belongs to
--   another user than :user_id, has no row. A repeated id is returned again.
-- Locks: none.
-- Index: the primary keys.
-- Notes: LIMIT 1 of the lookup: see docs/project/sql-files.md, Lookups by key. one: see Plans there.
--   The JSON of the messages ends with the first one that reaches :max_message_bytes, because PostgreSQL
--   makes no text of 1 GB; the repository reads the others.
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
       c.version_title, c.metadata::text AS metadata,
       CASE WHEN :include_dsl::bool THEN c.dsl::text END AS dsl, c.errors, c.round,
       c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at,
       NULL::text AS messages                                     --? !max_message_bytes
--? max_message_bytes {
       (SELECT coalesce(json_agg(m ORDER BY m.seq), '[]')
          FROM (
            SELECT b.seq, b.id, b.role, b.content, b.payload, b.reference, b.thumb, b.created_at
              FROM (
                SELECT m.seq, m.id, m.role, m.content, m.payload::text AS payload,
                       m.reference::text AS reference, m.thumb, m.created_at,
                       sum(octet_length(m.content) + octet_length(m.payload::text)
                           + coalesce(octet_length(m.reference::text), 0))
                           OVER (ORDER BY m.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                           AS bytes_before
                  FROM asyncsvc.message AS m
                 WHERE m.tenant_id = :tenant_id
                   AND m.conversation_id = c.id
              ) AS b
             WHERE coalesce(b.bytes_before, 0) < :max_message_bytes
          ) AS m)::text AS messages
--? }
  FROM (
        SELECT r.id, r.position
          FROM unnest(:ids::text[]) WITH ORDINALITY AS r (id, position)
         LIMIT 1                                                  --? one
       ) AS requested
 CROSS JOIN LATERAL (
        SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
               c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration, c.thumb_up, c.thumb_down,
               c.last_seq, c.created_at, c.updated_at
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.id BETWEEN requested.id AND requested.id
           AND (c.user_id = :user_id) IS TRUE                     --? user_id
         ORDER BY c.id
         LIMIT 1
       ) AS c
 ORDER BY requested.position
