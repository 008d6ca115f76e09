-- Takes the messages of these conversations along to the dialog that each is in now, for the search
-- index, and returns how many moved. It runs after the update that moved the conversations, in its
-- transaction: as a statement of its own it sees also what was appended while that one waited for
-- their locks, and nothing can be appended meanwhile.
--
-- Locks: the messages that move, whose conversations' rows the caller holds. Index: the primary keys,
-- once a conversation: LIMIT 1 makes sure of it, whatever the server's statistics say.
WITH moved AS (
    UPDATE asyncsvc.message AS m
       SET dialog_id = c.dialog_id,
           is_indexed = false
      FROM unnest(:ids::text[]) AS given (id)
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.dialog_id
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id = given.id
             LIMIT 1
           ) AS c
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = c.id
       AND m.dialog_id <> c.dialog_id
    RETURNING m.seq
)
SELECT count(*) AS moved
  FROM moved
