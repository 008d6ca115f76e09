-- Puts titles of a tenant into the search index, as search/fold_messages does messages: those behind
-- the one that is named by its conversation's creation and id, :limit at most. It returns how many it
-- looked at, the place of the last, and how many it put in.
--
-- Idempotent: what a first run put in, a second one passes over.
--
-- Locks: the rows that it puts in; it waits for none. Index: conversation_title_unindexed_idx, from the last one
-- on, then the primary key, once a title: LIMIT 1, and the tenant that comes with the locked row,
-- make sure of it, whatever the server's statistics say.
WITH batch AS MATERIALIZED (
    SELECT t.conversation_created_at AS at, t.conversation_id AS id
      FROM asyncsvc.conversation_title AS t
     WHERE t.tenant_id = :tenant_id
       AND NOT t.is_indexed
       AND (t.conversation_created_at, t.conversation_id) > (:after_at, :after_id) --? after_at, after_id
     ORDER BY t.conversation_created_at, t.conversation_id
     LIMIT :limit
), locked AS MATERIALIZED (
    SELECT t.tenant_id, t.conversation_id
      FROM batch AS b
     CROSS JOIN LATERAL (
            SELECT t.tenant_id, t.conversation_id
              FROM asyncsvc.conversation_title AS t
             WHERE t.tenant_id = :tenant_id
               AND t.conversation_id = b.id
               AND NOT t.is_indexed
             LIMIT 1
               FOR NO KEY UPDATE SKIP LOCKED
           ) AS t
), folded AS (
    UPDATE asyncsvc.conversation_title AS t
       SET is_indexed = true
      FROM locked AS l
     WHERE t.tenant_id = l.tenant_id
       AND t.conversation_id = l.conversation_id
    RETURNING t.conversation_id
)
SELECT (SELECT count(*) FROM batch) AS found, (SELECT count(*) FROM folded) AS folded,
       l.at, l.id, 0 AS seq
  FROM (VALUES (true)) AS one
  LEFT JOIN (
        SELECT b.at, b.id FROM batch AS b ORDER BY b.at DESC, b.id DESC LIMIT 1
       ) AS l ON true
