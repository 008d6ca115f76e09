-- Read whole conversations of a tenant by id.
--
-- Returns: the columns of a conversation, in the order of :ids, and at most 64 messages, as arrays of their
--   columns in the order of seq. A longer conversation has more rows, of which only the first, is_first, has
--   errors, dsl and metadata. seqs is NULL without messages; an array of values that are all NULL is empty.
--   An id that does not exist, or belongs to another user than :user_id, has no row. A repeated id is
--   returned again.
-- Locks: none.
-- Index: the primary keys.
-- Notes: LIMIT 1 of the lookup: see docs/project/sql-files.md, Lookups by key. one: see Plans there.
--   Arrays cost less than a third of JSON of whole messages, and no row reaches PostgreSQL's limit of 1 GB.
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
       CASE WHEN p.is_first IS NOT false THEN c.metadata::text END AS metadata,
       CASE WHEN p.is_first IS NOT false AND :include_dsl::bool THEN c.dsl::text END AS dsl,
       CASE WHEN p.is_first IS NOT false THEN c.errors END AS errors,
       c.round, c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at, NULL::text AS messages, p.is_first IS NOT false AS is_first,
       p.seqs, p.ids, p.roles, p.contents, p.payloads, p.message_references, p.thumbs, p.created_ats
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
               array_agg(m.seq ORDER BY m.seq) AS seqs,
               CASE WHEN count(m.id) > 0 THEN array_agg(m.id ORDER BY m.seq) ELSE '{}' END AS ids,
               array_agg(m.role ORDER BY m.seq) AS roles,
               array_agg(m.content ORDER BY m.seq) AS contents,
               array_agg(m.payload::text ORDER BY m.seq) AS payloads,
               CASE WHEN count(m.reference) > 0 THEN array_agg(m.reference::text ORDER BY m.seq)
                    ELSE '{}' END AS message_references,
               CASE WHEN count(m.thumb) > 0 THEN array_agg(m.thumb ORDER BY m.seq) ELSE '{}' END AS thumbs,
               array_agg(m.created_at ORDER BY m.seq) AS created_ats
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = c.id
         GROUP BY m.seq / 64
       ) AS p ON true
 ORDER BY requested.position, p.seqs[1]
