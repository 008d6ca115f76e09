-- Return the conversations of a tenant to which messages were appended since an instant.
--
-- Returns: id, dialog_id, user_id, last_seq, appended_at, updated_at; the least recently updated first.
-- Locks: none.
-- Index: conversation_recency_tenant_idx from :since, then the primary key of conversation. LIMIT 1: see
--   docs/project/sql-files.md, Lookups by key.
-- Notes: updated_at is never earlier than appended_at. A change that appends nothing sets updated_at alone.
SELECT r.id, r.dialog_id, c.user_id, c.last_seq, r.appended_at, r.updated_at
  FROM asyncsvc.conversation_recency AS r
 CROSS JOIN LATERAL (
        SELECT c.user_id, c.last_seq
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.id BETWEEN r.id AND r.id
         ORDER BY c.id
         LIMIT 1
       ) AS c
 WHERE r.tenant_id = :tenant_id
   AND r.updated_at >= :since
   AND r.appended_at >= :since
   AND (r.updated_at, r.id) > (:after_at, :after_id)    --? after_at, after_id
 ORDER BY r.updated_at, r.id
 LIMIT :limit
