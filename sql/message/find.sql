-- Find the newest message of a tenant with an own id, and its conversation.
--
-- Returns: the columns of the conversation and those of the message; id and created_at of the message as
--   message_id and message_created_at. No row if there is no such message.
-- Locks: none.
-- Index: message_id_idx, all entries of the id; primary keys. The order of same_id: see
--   docs/project/sql-files.md, Lookups by key.
WITH same_id AS MATERIALIZED (
    SELECT m.conversation_id, m.seq, m.created_at
      FROM asyncsvc.message AS m
     WHERE m.tenant_id = :tenant_id
       AND m.id BETWEEN :message_id AND :message_id
       AND m.dialog_id = :dialog_id             --? dialog_id
     ORDER BY m.id
), newest AS MATERIALIZED (
    SELECT s.conversation_id, s.seq
      FROM same_id AS s
     --? user_id {
     CROSS JOIN LATERAL (
            SELECT c.user_id
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id BETWEEN s.conversation_id AND s.conversation_id
             ORDER BY c.id
             LIMIT 1
           ) AS c
     WHERE c.user_id = :user_id
     --? }
     ORDER BY s.created_at DESC, s.conversation_id DESC
     LIMIT 1
)
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
       c.metadata::text AS metadata, c.dsl::text AS dsl, c.errors, c.round, c.tokens,
       (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq, c.created_at,
       c.updated_at, NULL::text AS messages,
       m.seq, m.id AS message_id, m.role, m.content, m.payload::text AS payload,
       m.reference::text AS reference, m.thumb, m.created_at AS message_created_at
  FROM newest AS n
  JOIN asyncsvc.conversation AS c
    ON c.tenant_id = :tenant_id AND c.id = n.conversation_id
  JOIN asyncsvc.message AS m
    ON m.tenant_id = :tenant_id AND m.conversation_id = n.conversation_id AND m.seq = n.seq
