-- Deletes those of these idempotency keys of a tenant that are still older than :lifetime, and
-- returns how many they were. A key that went and was claimed anew meanwhile is young, and stays.
--
-- Locks: the rows that it deletes. It waits for none: a key that another session holds goes with its
-- conversation, or is found the next time. Index: the primary key, once a key: LIMIT 1, and the
-- tenant that comes with the locked row, make sure of it, whatever the server's statistics say.
WITH locked AS MATERIALIZED (
    SELECT k.tenant_id, k.conversation_id, k.key
      FROM unnest(:conversation_ids::text[], :keys::text[]) AS old (conversation_id, key)
     CROSS JOIN LATERAL (
            SELECT k.tenant_id, k.conversation_id, k.key
              FROM asyncsvc.append_key AS k
             WHERE k.tenant_id = :tenant_id
               AND k.conversation_id = old.conversation_id
               AND k.key = old.key
               AND k.created_at <= statement_timestamp() - :lifetime::interval
             LIMIT 1
               FOR UPDATE SKIP LOCKED
           ) AS k
), deleted AS (
    DELETE FROM asyncsvc.append_key AS k
     USING locked AS l
     WHERE k.tenant_id = l.tenant_id
       AND k.conversation_id = l.conversation_id
       AND k.key = l.key
    RETURNING k.key
)
SELECT count(*) AS deleted
  FROM deleted
