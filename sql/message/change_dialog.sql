-- Set the dialog of the messages of conversations that moved to another dialog.
--
-- Returns: updated (the number of messages).
-- Locks: the updated messages, until the end of the transaction. The caller has locked the rows of their
--   conversations by conversation/update_many_by_id, in the same transaction.
-- Index: primary keys, once per conversation. LIMIT 1: see docs/project/sql-files.md, Lookups by key.
-- Notes: it is a separate statement, so that it sees messages that were appended while the update waited
--   for the rows. No append can follow before the commit. The search index filters by the dialog of
--   messages, so moved messages leave it until the next maintenance run.
WITH moved AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.dialog_id
      FROM unnest(:ids::text[]) AS requested (id)
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.dialog_id
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id BETWEEN requested.id AND requested.id
             ORDER BY c.id
             LIMIT 1
           ) AS c
), updated AS (
    UPDATE asyncsvc.message AS m
       SET dialog_id = c.dialog_id,
           is_indexed = false
      FROM moved AS c
     WHERE m.tenant_id = c.tenant_id
       AND m.conversation_id = c.id
       AND m.dialog_id <> c.dialog_id
    RETURNING m.seq
)
SELECT count(*) AS updated
  FROM updated
