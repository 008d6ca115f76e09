-- Read whole conversations of a tenant by id, with their messages in parts of at most 64.
--
-- Returns: conversation, the JSON of its columns, in the row of its first part alone; roles, contents,
--   payloads, message_references and thumbs, arrays of the columns of the messages. If no message of a part
--   has a reference or a thumb, its array is empty. Conversations in the order of :ids, messages in the
--   order of seq. A conversation without messages has one row, without arrays.
-- Locks: none.
-- Index: the primary keys.
-- Notes: for RAGFlow's rows, which contain all messages as dicts. Arrays cost less than a third of JSON of
--   whole messages, and no part reaches the limit of 1 GB. LIMIT 1 of the lookup: see
--   docs/project/sql-files.md, Lookups by key. one: see Plans there.
SELECT CASE WHEN row_number() OVER (PARTITION BY c.position ORDER BY p.part) = 1 THEN
           json_build_object(
               'tenant_id', c.tenant_id, 'id', c.id, 'dialog_id', c.dialog_id, 'user_id', c.user_id,
               'exp_user_id', c.exp_user_id, 'name', c.name, 'source', c.source,
               'version_title', c.version_title, 'metadata', c.metadata::text, 'dsl', c.dsl::text,
               'errors', c.errors, 'round', c.round, 'tokens', c.tokens,
               'duration', (c.duration / 1e6)::float8, 'thumb_up', c.thumb_up, 'thumb_down', c.thumb_down,
               'last_seq', c.last_seq, 'created_at', c.created_at, 'updated_at', c.updated_at,
               'messages', NULL)::text
       END AS conversation,
       p.roles, p.contents, p.payloads, p.message_references, p.thumbs
  FROM (
        SELECT requested.position, c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
               c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration, c.thumb_up,
               c.thumb_down, c.last_seq, c.created_at, c.updated_at
          FROM (
                SELECT r.id, r.position
                  FROM unnest(:ids::text[]) WITH ORDINALITY AS r (id, position)
                 LIMIT 1                                          --? one
               ) AS requested
         CROSS JOIN LATERAL (
                SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
                       c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration,
                       c.thumb_up, c.thumb_down, c.last_seq, c.created_at, c.updated_at
                  FROM asyncsvc.conversation AS c
                 WHERE c.tenant_id = :tenant_id
                   AND c.id BETWEEN requested.id AND requested.id
                 ORDER BY c.id
                 LIMIT 1
               ) AS c
       ) AS c
  LEFT JOIN LATERAL (
        SELECT m.seq / 64 AS part,
               array_agg(m.role ORDER BY m.seq) AS roles,
               array_agg(m.content ORDER BY m.seq) AS contents,
               array_agg(m.payload::text ORDER BY m.seq) AS payloads,
               CASE WHEN count(m.reference) > 0
                    THEN array_agg(coalesce(m.reference::text, 'null') ORDER BY m.seq)
                    ELSE '{}' END AS message_references,
               CASE WHEN count(m.thumb) > 0 THEN array_agg(m.thumb ORDER BY m.seq) ELSE '{}' END AS thumbs
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = c.id
         GROUP BY m.seq / 64
       ) AS p ON true
 ORDER BY c.position, p.part
