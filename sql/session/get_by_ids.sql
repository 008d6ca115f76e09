-- Read whole conversations of a tenant by id.
--
-- Returns: the columns of a conversation, in the order of :ids, and at most 64 messages, as arrays of their
--   columns in the order of seq. A longer conversation has more rows, of which only the first, is_first, has
--   errors, dsl and metadata. roles is NULL without messages; an array of values that are all NULL is empty.
--   payloads and message_references are texts of JSON values with commas between them, empty if all are NULL;
--   with message_models they are arrays too, and there are arrays of seq, id and created_at.
--   An id that does not exist, or belongs to another user than :user_id, has no row. A repeated id is
--   returned again.
-- Locks: none.
-- Index: the primary keys.
-- Notes: LIMIT 1 of the lookup: see docs/project/sql-files.md, Lookups by key. one: see Plans there.
--   Arrays cost less than a third of JSON of whole messages, and no row reaches PostgreSQL's limit of 1 GB.
--   Each array costs a tenth of the statement, so RAGFlow's rows omit the columns without a counterpart.
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
       CASE WHEN p.is_first IS NOT false THEN c.metadata::text END AS metadata,
       CASE WHEN p.is_first IS NOT false AND :include_dsl::bool THEN c.dsl::text END AS dsl,
       CASE WHEN p.is_first IS NOT false THEN c.errors END AS errors,
       c.round, c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at, NULL::text AS messages, p.is_first IS NOT false AS is_first,
       p.roles, p.contents, p.payloads, p.message_references, p.thumbs
       , p.seqs, p.ids, p.created_ats                               --? message_models
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
  LEFT JOIN LATERAL (
        SELECT row_number() OVER (ORDER BY min(m.seq)) = 1 AS is_first,
               min(m.seq) AS first_seq,
               --? message_models {
               array_agg(m.seq ORDER BY m.seq) AS seqs,
               CASE WHEN count(m.id) > 0 THEN array_agg(m.id ORDER BY m.seq) ELSE '{}' END AS ids,
               array_agg(m.created_at ORDER BY m.seq) AS created_ats,
               array_agg(m.payload::text ORDER BY m.seq) AS payloads,
               CASE WHEN count(m.reference) > 0 THEN array_agg(m.reference::text ORDER BY m.seq)
                    ELSE '{}' END AS message_references,
               --? }
               --? !message_models {
               string_agg(m.payload::text, ',' ORDER BY m.seq) AS payloads,
               CASE WHEN count(m.reference) = 0 THEN ''
                    ELSE string_agg(coalesce(m.reference::text, 'null'), ',' ORDER BY m.seq)
                    END AS message_references,
               --? }
               array_agg(m.role ORDER BY m.seq) AS roles,
               array_agg(m.content ORDER BY m.seq) AS contents,
               CASE WHEN count(m.thumb) > 0 THEN array_agg(m.thumb ORDER BY m.seq) ELSE '{}' END AS thumbs
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = c.id
         GROUP BY m.seq / 64
       ) AS p ON true
 ORDER BY requested.position, p.first_seq
