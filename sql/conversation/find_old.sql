-- The next conversations of a tenant, or of a dialog, that were created (by_created_at) or last
-- updated (by_updated_at) before an instant: :limit at most, behind the one that is named by its
-- dialog, time and id. It reads only; conversation/delete_old deletes what it found. messages is
-- the number of their messages where :count_messages asks for it, and 0 elsewhere.
--
-- A batch ends sooner where its conversations have more than :most_messages messages, though it
-- always has the first, so that deleting one does not take long.
--
-- Locks: none. Index: conversation_created_idx, or conversation_recency_updated_idx and the primary key, walked in
-- its own order from the last one on; what is not old is passed by within the index.
WITH old AS (
    SELECT f.id, f.dialog_id, f.at, row_number() OVER () AS position,
           sum(f.last_seq) OVER (ROWS UNBOUNDED PRECEDING) - f.last_seq AS messages_before
      FROM (
        SELECT c.last_seq
             , c.id, c.dialog_id, c.created_at AS at                                  --? by_created_at
             , r.id, r.dialog_id, r.updated_at AS at                                  --? by_updated_at
          FROM asyncsvc.conversation AS c                                             --? by_created_at
          FROM asyncsvc.conversation_recency AS r CROSS JOIN LATERAL (SELECT c.tenant_id, c.last_seq FROM asyncsvc.conversation AS c WHERE c.tenant_id = :tenant_id AND c.id = r.id LIMIT 1) AS c --? by_updated_at
         WHERE c.tenant_id = :tenant_id
           AND r.tenant_id = :tenant_id                                               --? by_updated_at
           AND c.dialog_id = :dialog_id                                               --? dialog_id, by_created_at
           AND r.dialog_id = :dialog_id                                               --? dialog_id, by_updated_at
           AND c.created_at < :before                                                 --? before, by_created_at
           AND r.updated_at < :before                                                 --? before, by_updated_at
           AND (c.dialog_id, c.created_at, c.id) > (:after_dialog_id, :after_at, :after_id) --? after_dialog_id, after_at, after_id, by_created_at
           AND (r.dialog_id, r.updated_at, r.id) > (:after_dialog_id, :after_at, :after_id) --? after_dialog_id, after_at, after_id, by_updated_at
         ORDER BY c.dialog_id, c.created_at, c.id                                     --? by_created_at
         ORDER BY r.dialog_id, r.updated_at, r.id                                     --? by_updated_at
         LIMIT :limit
      ) AS f
)
SELECT o.id, o.dialog_id, o.at,
       CASE WHEN :count_messages::bool THEN (
           SELECT count(*)
             FROM asyncsvc.message AS m
            WHERE m.tenant_id = :tenant_id
              AND m.conversation_id = o.id)
       ELSE 0 END AS messages
  FROM old AS o
 WHERE o.messages_before < :most_messages
 ORDER BY o.position
