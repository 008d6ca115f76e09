-- Add the next batch of a tenant's titles (conversation id and name) to the search index.
--
-- Returns: indexed, the number of titles added; at and id, the position of the last title of the
--   batch (creation and id of its conversation), NULL if no title is left; seq, always 0.
-- Locks: the titles of the batch; like search/index_messages it skips titles that others have locked.
-- Index: conversation_title_unindexed_idx from :after_at, :after_id; then the primary key, once per
--   title. LIMIT 1: see docs/project/sql-files.md, Lookups by key.
-- Idempotent: a second run skips the titles that the first one added.
WITH candidates AS MATERIALIZED (
    SELECT t.conversation_created_at AS at, t.conversation_id AS id
      FROM asyncsvc.conversation_title AS t
     WHERE t.tenant_id = :tenant_id
       AND NOT t.is_indexed
       AND (t.conversation_created_at, t.conversation_id) > (:after_at, :after_id) --? after_at, after_id
     ORDER BY t.conversation_created_at, t.conversation_id
     LIMIT :limit
), locked AS MATERIALIZED (
    SELECT t.tenant_id, t.conversation_id
      FROM candidates AS c
     CROSS JOIN LATERAL (
            SELECT t.tenant_id, t.conversation_id
              FROM asyncsvc.conversation_title AS t
             WHERE t.tenant_id = :tenant_id
               AND t.conversation_id = c.id
               AND NOT t.is_indexed
             LIMIT 1
               FOR NO KEY UPDATE SKIP LOCKED
           ) AS t
), updated AS (
    UPDATE asyncsvc.conversation_title AS t
       SET is_indexed = true
      FROM locked AS l
     WHERE t.tenant_id = l.tenant_id
       AND t.conversation_id = l.conversation_id
    RETURNING t.conversation_id
)
SELECT n.indexed, l.at, l.id, 0 AS seq
  FROM (SELECT count(*) AS indexed FROM updated) AS n
  LEFT JOIN (
        SELECT c.at, c.id FROM candidates AS c ORDER BY c.at DESC, c.id DESC LIMIT 1
       ) AS l ON true
