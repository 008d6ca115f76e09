-- What a hit looks like, for each of these conversations and a message in it: the conversation's
-- dialog, name and creation, and of the message a part with the keywords in it, as it was written.
-- One that is gone by now is left out. They come in the order asked for.
--
-- The part is cut where the keywords are in the message's lower case; a language in which that has
-- another length is shown in it.
--
-- Read replica: as conversation/get_list; of what was found elsewhere it leaves out what it does not have.
--
-- Locks: none. Index: the primary keys, once a hit: LIMIT 1 makes sure of it, whatever the server's
-- statistics say.
SELECT c.id, c.dialog_id, c.name, c.created_at, m.seq,
       substr(m.written, greatest(m.place - 40, 1),
              40 + least(m.place - 1, 40) + length(:keywords::text)) AS snippet
  FROM unnest(:ids::text[], :seqs::int[]) WITH ORDINALITY AS hit (id, seq, position)
 CROSS JOIN LATERAL (
        SELECT c.id, c.dialog_id, c.name, c.created_at
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.id = hit.id
         LIMIT 1
       ) AS c
 CROSS JOIN LATERAL (
        SELECT m.seq, strpos(lower(m.content), lower(:keywords::text)) AS place,
               CASE WHEN length(lower(m.content)) = length(m.content) THEN m.content ELSE lower(m.content) END AS written
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = hit.id
           AND m.seq = hit.seq
         LIMIT 1
       ) AS m
 ORDER BY hit.position
