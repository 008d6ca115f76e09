-- Set or remove the feedback (thumb) of a message, by :seq or :message_id, and update the counters of its
-- conversation.
--
-- Returns: the message. One row of NULLs if the merged payload would exceed :max_json_bytes; no row if the
--   message does not exist.
-- Locks: the conversation row, then the message, until the end of the transaction.
-- Index: primary keys; message_id_idx with :message_id, see docs/project/sql-files.md, Lookups by key.
-- Notes: the old thumb is read under both locks, so concurrent calls are counted correctly. A repeated
--   call with the same thumb changes no counter. updated_at of the conversation does not change.
--   The message leaves the search index until the next maintenance run, since it costs less to index
--   many messages at once.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND (c.user_id = :user_id) IS TRUE       --? user_id
       FOR NO KEY UPDATE
), locked_message AS MATERIALIZED (             --? !merge_payload
), stored_message AS MATERIALIZED (             --? merge_payload
    SELECT m.seq, m.thumb,
           (:thumb::smallint IS NOT DISTINCT FROM 1)::int
           - (m.thumb IS NOT DISTINCT FROM 1)::int AS up_delta,
           (:thumb::smallint IS NOT DISTINCT FROM -1)::int
           - (m.thumb IS NOT DISTINCT FROM -1)::int AS down_delta
         , asyncsvc.json_merge_v1(m.payload, :merge_payload::text::jsonb) AS payload --? merge_payload
      FROM asyncsvc.message AS m
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = :seq                         --? seq
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
       AND EXISTS (SELECT FROM locked)
       FOR NO KEY UPDATE
--? merge_payload {
), locked_message AS MATERIALIZED (
    SELECT s.seq, s.thumb, s.up_delta, s.down_delta, s.payload
      FROM stored_message AS s
     WHERE octet_length(s.payload::text) <= :max_json_bytes  --? max_json_bytes
--? }
), counters_updated AS (
    UPDATE asyncsvc.conversation AS c
       SET thumb_up = c.thumb_up + old.up_delta,
           thumb_down = c.thumb_down + old.down_delta
      FROM locked_message AS old
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND old.thumb IS DISTINCT FROM :thumb::smallint
), ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, at, thumb_up, thumb_down)
    SELECT l.tenant_id, l.dialog_id, l.source, l.user_id, l.created_at,
           statement_timestamp(), old.up_delta, old.down_delta
      FROM locked AS l
     CROSS JOIN locked_message AS old
     WHERE old.thumb IS DISTINCT FROM :thumb::smallint
), updated AS (
    UPDATE asyncsvc.message AS m
       SET thumb = :thumb::smallint,
           is_indexed = false
         , payload = old.payload                --? merge_payload
      FROM locked_message AS old
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = old.seq
    RETURNING m.seq, m.id, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
              m.thumb, m.created_at
)
SELECT u.seq, u.id, u.role, u.content, u.payload, u.reference, u.thumb, u.created_at
  FROM updated AS u                             --? !merge_payload
  FROM stored_message AS s                      --? merge_payload
  LEFT JOIN updated AS u ON true                --? merge_payload
