-- Read one page of the dialogs of a tenant that have conversations, in the order of their ids.
--
-- Returns: dialog_id, conversations, updated_at (that of the conversation updated last), of at most :limit
--   dialogs after :after_id.
-- Locks: none.
-- Index: conversation_recency_updated_idx, 2 entries for each dialog; the primary key of usage_bucket, one
--   row per dialog and month, and usage_ledger_tenant_idx.
-- Read replica: a list may be slightly stale.
-- Notes: the recursion jumps from one dialog to the next, so the cost does not depend on the number of
--   conversations. Their number is the sum of creations in buckets and ledger, from the same snapshot.
WITH RECURSIVE dialogs AS (
   (SELECT r.dialog_id, 1 AS position
      FROM asyncsvc.conversation_recency AS r
     WHERE r.tenant_id = :tenant_id
       AND r.dialog_id > :after_id                                --? after_id
     ORDER BY r.dialog_id
     LIMIT 1)
     UNION ALL
    SELECT n.dialog_id, d.position + 1
      FROM dialogs AS d
     CROSS JOIN LATERAL (
            SELECT r.dialog_id
              FROM asyncsvc.conversation_recency AS r
             WHERE r.tenant_id = :tenant_id
               AND r.dialog_id > d.dialog_id
             ORDER BY r.dialog_id
             LIMIT 1
           ) AS n
     WHERE d.position < :limit
), ledger AS MATERIALIZED (
    SELECT u.dialog_id, sum(u.conversations) AS conversations
      FROM asyncsvc.usage_ledger AS u
     WHERE u.tenant_id = :tenant_id
     GROUP BY u.dialog_id
)
SELECT d.dialog_id,
       (coalesce(b.conversations, 0) + coalesce(u.conversations, 0))::bigint AS conversations,
       l.updated_at
  FROM dialogs AS d
 CROSS JOIN LATERAL (
        SELECT r.updated_at
          FROM asyncsvc.conversation_recency AS r
         WHERE r.tenant_id = :tenant_id
           AND r.dialog_id BETWEEN d.dialog_id AND d.dialog_id
         ORDER BY r.dialog_id DESC, r.updated_at DESC
         LIMIT 1
       ) AS l
 CROSS JOIN LATERAL (
        SELECT sum(b.conversations) AS conversations
          FROM asyncsvc.usage_bucket AS b
         WHERE b.tenant_id = :tenant_id
           AND b.zone = 'UTC'
           AND b.basis = 'creation'
           AND b.grain = 'month'
           AND b.dimension = 'dialog_id'
           AND b.value = d.dialog_id
       ) AS b
  LEFT JOIN ledger AS u ON u.dialog_id = d.dialog_id
 ORDER BY d.dialog_id
