-- Return the next conversations that were created or last updated before an instant.
--
-- A batch has at most :batch_size conversations and ends with the first one that reaches :max_messages.
-- The next batch starts after the last row of this one: :after_dialog_id, :after_at, :after_id.
--
-- Returns: id, dialog_id, at (the creation or the update) and messages (0 without count_messages), in the
--   order of dialog_id, at, id.
-- Locks: none. conversation/delete checks the age again under the lock.
-- Index: conversation_created_idx or conversation_recency_updated_idx, read once in index order; entries
--   of younger conversations are skipped within the index. With :user_id, conversation_user_idx, and each
--   batch sorts the conversations of the user. Primary keys for last_seq and messages.
WITH expired AS (
    --? by_created_at {
    SELECT c.id, c.dialog_id, c.created_at AS at
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.dialog_id = :dialog_id                                     --? dialog_id
       AND c.user_id = :user_id                                         --? user_id
       AND c.created_at < :before                                       --? before
       --? after_dialog_id, after_at, after_id {
       AND (c.dialog_id, c.created_at, c.id) > (:after_dialog_id, :after_at, :after_id)
       --? }
     ORDER BY c.dialog_id, c.created_at, c.id                           --? by_created_at
    --? }
    --? by_updated_at, user_id {
    SELECT c.id, c.dialog_id, c.updated_at AS at
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.dialog_id = :dialog_id                                     --? dialog_id
       AND c.user_id = :user_id
       AND c.updated_at < :before                                       --? before
       --? after_dialog_id, after_at, after_id {
       AND (c.dialog_id, c.updated_at, c.id) > (:after_dialog_id, :after_at, :after_id)
       --? }
     ORDER BY c.dialog_id, c.updated_at, c.id                           --? by_updated_at
    --? }
    --? by_updated_at, !user_id {
    SELECT r.id, r.dialog_id, r.updated_at AS at
      FROM asyncsvc.conversation_recency AS r
     WHERE r.tenant_id = :tenant_id
       AND r.dialog_id = :dialog_id                                     --? dialog_id
       AND r.updated_at < :before                                       --? before
       --? after_dialog_id, after_at, after_id {
       AND (r.dialog_id, r.updated_at, r.id) > (:after_dialog_id, :after_at, :after_id)
       --? }
     ORDER BY r.dialog_id, r.updated_at, r.id                           --? by_updated_at
    --? }
     LIMIT :batch_size
), candidates AS (
    SELECT e.id, e.dialog_id, e.at,
           sum(c.last_seq) OVER (ORDER BY e.dialog_id, e.at, e.id) - c.last_seq AS messages_before
      FROM expired AS e
     CROSS JOIN LATERAL (
            SELECT c.last_seq
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id BETWEEN e.id AND e.id
             ORDER BY c.id
             LIMIT 1
           ) AS c
)
SELECT n.id, n.dialog_id, n.at
       --? count_messages {
     , (SELECT count(*)
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = n.id) AS messages
       --? }
     , 0 AS messages                                                    --? !count_messages
  FROM candidates AS n
 WHERE n.messages_before < :max_messages
 ORDER BY n.dialog_id, n.at, n.id
