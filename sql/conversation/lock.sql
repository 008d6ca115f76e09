-- Lock a batch of the conversations of a tenant, or of its conversations whose user_id or exp_user_id is
-- :user_id.
--
-- A batch has at most :batch_size conversations (with :user_id twice as many) and ends with the first one
-- that reaches :max_messages.
--
-- Returns: matched (the candidates before the limit by :max_messages), ids of the locked conversations,
--   locked_at. One row.
-- Locks: the conversation rows, in the order of their ids, until the end of the transaction, so that two
--   bulk deletions cannot deadlock.
-- Index: conversation_pkey for each lock and for a tenant; conversation_user_idx and
--   conversation_exp_user_idx for :user_id. LIMIT 1: see docs/project/sql-files.md, Lookups by key.
-- Notes: :user_id is checked again under the lock, so a conversation that moved to another user during
--   the wait for the lock is not returned. The next statement of the transaction sees all messages of the
--   locked conversations, also messages that were appended during the wait.
WITH candidates AS (
   (SELECT c.id, c.last_seq
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.user_id = :user_id                   --? user_id
     ORDER BY c.id                                --? !user_id
     LIMIT :batch_size
   )
    --? user_id {
    UNION
   (SELECT c.id, c.last_seq
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.exp_user_id = :user_id
     LIMIT :batch_size
   )
    --? }
), locked AS MATERIALIZED (
    SELECT c.id, c.user_id, c.exp_user_id
      FROM (
        SELECT n.id
          FROM (
            SELECT n.id, sum(n.last_seq) OVER (ORDER BY n.id) - n.last_seq AS messages_before
              FROM candidates AS n
          ) AS n
         WHERE n.messages_before < :max_messages
         ORDER BY n.id
      ) AS n
     CROSS JOIN LATERAL (
            SELECT c.id, c.user_id, c.exp_user_id
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id BETWEEN n.id AND n.id
             ORDER BY c.id
             LIMIT 1
               FOR UPDATE
           ) AS c
)
SELECT (SELECT count(*) FROM candidates) AS matched,
       ARRAY(
           SELECT l.id
             FROM locked AS l
            WHERE :user_id IN (l.user_id, l.exp_user_id)    --? user_id
            ORDER BY l.id
       ) AS ids,
       statement_timestamp() AS locked_at
