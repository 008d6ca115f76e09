-- Delete idempotency keys of a tenant's recorded usage that are still older than :lifetime.
--
-- Returns: deleted, the number of deleted keys.
-- Locks: the deleted keys; it skips a key that another session has locked; the next run deletes it.
-- Index: the primary key, once per key. LIMIT 1: see docs/project/sql-files.md, Lookups by key.
-- Notes: a key that was deleted and used again since usage_key/find_expired is young, and remains.
WITH locked AS MATERIALIZED (
    SELECT k.tenant_id, k.key
      FROM unnest(:keys::text[]) AS c (key)
     CROSS JOIN LATERAL (
            SELECT k.tenant_id, k.key
              FROM asyncsvc.usage_key AS k
             WHERE k.tenant_id = :tenant_id
               AND k.key = c.key
               AND k.created_at <= statement_timestamp() - :lifetime::interval
             LIMIT 1
               FOR UPDATE SKIP LOCKED
           ) AS k
), deleted AS (
    DELETE FROM asyncsvc.usage_key AS k
     USING locked AS l
     WHERE k.tenant_id = l.tenant_id
       AND k.key = l.key
    RETURNING k.key
)
SELECT count(*) AS deleted
  FROM deleted
