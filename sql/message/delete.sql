-- Delete one message (:seq or :message_id), the newest (newest), or all of a conversation within bounds.
--
-- A bound is a seq, the own id of a message, or a time. All bounds are exclusive.
--
-- Returns: deleted (the number of messages) and, with newest, the deleted message, or NULLs if the
--   conversation has no messages. With :after_id or :before_id also the seq of that message, NULL if it does
--   not exist; then nothing is deleted. No row if the conversation does not exist.
-- Locks: the conversation row, then the deleted messages, until the end of the transaction.
-- Index: primary keys; message_id_idx with ids, see docs/project/sql-files.md, Lookups by key. A time is
--   no bound of the scan.
-- Notes: the feedback of the deleted messages is subtracted from the counters. round, tokens, duration
--   and last_seq do not change, so no seq is used twice.
--   newest_message is a locking read. If a concurrent call has deleted the newest message, it continues
--   with the previous message, so 2 concurrent calls delete 2 messages.
--   A message that is appended while this statement waits for the lock is not deleted.
WITH locked AS MATERIALIZED (
    SELECT c.id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND (c.user_id = :user_id) IS TRUE       --? user_id
       FOR NO KEY UPDATE
--? newest {
), newest_message AS MATERIALIZED (
    SELECT m.seq
      FROM asyncsvc.message AS m
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND EXISTS (SELECT FROM locked)
     ORDER BY m.seq DESC
     LIMIT 1
       FOR UPDATE
--? }
--? after_id {
), after_message AS MATERIALIZED (
    SELECT k.seq
      FROM asyncsvc.message AS k
     WHERE k.tenant_id = :tenant_id
       AND k.id IS NOT NULL
       AND (k.id, k.conversation_id) BETWEEN (:after_id, :id) AND (:after_id, :id)
     ORDER BY k.id, k.conversation_id
     LIMIT 1
--? }
--? before_id {
), before_message AS MATERIALIZED (
    SELECT k.seq
      FROM asyncsvc.message AS k
     WHERE k.tenant_id = :tenant_id
       AND k.id IS NOT NULL
       AND (k.id, k.conversation_id) BETWEEN (:before_id, :id) AND (:before_id, :id)
     ORDER BY k.id, k.conversation_id
     LIMIT 1
--? }
), deleted AS (
    DELETE FROM asyncsvc.message AS m
     USING locked AS l                          --? !newest
     USING newest_message AS n                  --? newest
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = :seq                         --? seq
       AND m.seq > :after_seq                   --? after_seq
       AND m.seq > (SELECT k.seq FROM after_message AS k)   --? after_id
       AND m.created_at > :after_time           --? after_time
       AND m.seq < :before_seq                  --? before_seq
       AND m.seq < (SELECT k.seq FROM before_message AS k)  --? before_id
       AND m.created_at < :before_time          --? before_time
       --? message_id {
       AND m.seq = (
           SELECT k.seq
             FROM asyncsvc.message AS k
            WHERE k.tenant_id = :tenant_id
              AND k.id IS NOT NULL
              AND (k.id, k.conversation_id) BETWEEN (:message_id, :id) AND (:message_id, :id)
            ORDER BY k.id, k.conversation_id
            LIMIT 1
           )
       --? }
       AND m.seq = n.seq                        --? newest
    RETURNING m.thumb                           --? !newest
    RETURNING m.seq, m.id, m.role, m.content, m.payload, m.reference, m.thumb, m.created_at  --? newest
), counters_updated AS (
    UPDATE asyncsvc.conversation AS c
       SET thumb_up = c.thumb_up - total.thumb_up,
           thumb_down = c.thumb_down - total.thumb_down,
           updated_at = greatest(c.updated_at, statement_timestamp())
      FROM (SELECT count(*) AS messages,
                   count(*) FILTER (WHERE old.thumb = 1) AS thumb_up,
                   count(*) FILTER (WHERE old.thumb = -1) AS thumb_down
              FROM deleted AS old) AS total
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND total.messages > 0
    RETURNING c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.updated_at,
              total.thumb_up, total.thumb_down
), recency_updated AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET updated_at = u.updated_at
      FROM counters_updated AS u
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
), ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, thumb_up, thumb_down)
    SELECT u.tenant_id, u.dialog_id, u.source, u.user_id, u.created_at, -u.thumb_up, -u.thumb_down
      FROM counters_updated AS u
     WHERE u.thumb_up > 0 OR u.thumb_down > 0
)
SELECT (SELECT count(*) FROM deleted) AS deleted
     , (SELECT k.seq FROM after_message AS k) AS after_seq    --? after_id
     , (SELECT k.seq FROM before_message AS k) AS before_seq  --? before_id
--? newest {
     , m.seq, m.id, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
       m.thumb, m.created_at
--? }
  FROM locked AS l
  LEFT JOIN deleted AS m ON true                --? newest
