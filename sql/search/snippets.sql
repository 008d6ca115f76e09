-- Return for each hit its conversation and the part of its message around the keywords.
--
-- Returns: id, dialog_id, name, created_at, seq, snippet, in the order of :ids. A hit whose
--   conversation or message was deleted, or is not on the replica yet, has no row.
-- Locks: none.
-- Index: the primary keys.
-- Read replica: a search may be slightly stale.
-- Notes: the snippet is cut at the position of the keywords in the lower-case message. If lower case
--   changes the length of a message, the snippet is in lower case.
--   LIMIT 1: see docs/project/sql-files.md, Lookups by key.
SELECT c.id, c.dialog_id, c.name, c.created_at, m.seq,
       substr(m.text, greatest(m.start - 40, 1), 40 + least(m.start - 1, 40) + length(:keywords::text))
           AS snippet
  FROM unnest(:ids::text[], :seqs::int[]) WITH ORDINALITY AS requested (id, seq, position)
 CROSS JOIN LATERAL (
        SELECT c.id, c.dialog_id, c.name, c.created_at
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.id BETWEEN requested.id AND requested.id
         ORDER BY c.id
         LIMIT 1
       ) AS c
 CROSS JOIN LATERAL (
        SELECT m.seq, strpos(asyncsvc.lower_v1(m.content), asyncsvc.lower_v1(:keywords::text)) AS start,
               CASE WHEN length(asyncsvc.lower_v1(m.content)) = length(m.content)
                    THEN m.content
                    ELSE asyncsvc.lower_v1(m.content)
               END AS text
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = requested.id
           AND m.seq = requested.seq
         LIMIT 1
       ) AS m
 ORDER BY requested.position
