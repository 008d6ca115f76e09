-- Return the ids of the next conversations of an export of a tenant, a dialog or a user.
--
-- A page has at most :batch_size conversations. It ends with the first one that reaches :max_messages
-- messages or :max_bytes bytes. The next page starts after :after_id (and :after_at).
--
-- Returns: id, created_at and is_long, whether it alone reaches :max_bytes, by id for a tenant, by creation
--   and id otherwise. conversation/get_by_ids returns the conversations.
-- Locks: none.
-- Index: conversation_pkey for a tenant, conversation_created_idx for a dialog, conversation_user_idx for
--   a user; message_pkey once per conversation.
-- Notes: last_seq is at least the number of messages, so few sizes of messages are read. JSON is measured
--   as text, since its compressed size can be a hundredth; a payload of up to 64 bytes counts as 64.
WITH matched AS (
    SELECT c.id, c.created_at, c.last_seq,
           coalesce(octet_length(c.dsl::text), 0) + coalesce(octet_length(c.metadata::text), 0)
           + coalesce(octet_length(c.errors), 0) AS bytes
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.dialog_id = :dialog_id                                     --? dialog_id
       AND c.user_id = :user_id                                         --? user_id
       AND c.id > :after_id                                             --? after_id, by_id
       AND (c.created_at, c.id) > (:after_at, :after_id)                --? after_id, after_at, by_created_at
     ORDER BY c.id                                                      --? by_id
     ORDER BY c.created_at, c.id                                        --? by_created_at
     LIMIT :batch_size
), counted AS (
    SELECT m.id, m.created_at, m.bytes, row_number() OVER () AS position,
           sum(m.last_seq) OVER (ROWS UNBOUNDED PRECEDING) - m.last_seq AS messages_before
      FROM matched AS m
), measured AS MATERIALIZED (
    SELECT n.id, n.created_at, n.position, n.bytes + (
           SELECT coalesce(sum(octet_length(m.content) + coalesce(octet_length(m.reference::text), 0)
                               + CASE WHEN pg_column_size(m.payload) < 64 THEN 64
                                      ELSE octet_length(m.payload::text) END), 0)
             FROM asyncsvc.message AS m
            WHERE m.tenant_id = :tenant_id
              AND m.conversation_id = n.id) AS bytes
      FROM counted AS n
     WHERE n.messages_before < :max_messages
), candidates AS MATERIALIZED (
    SELECT m.id, m.created_at, m.position, m.bytes,
           sum(m.bytes) OVER (ORDER BY m.position) - m.bytes AS bytes_before
      FROM measured AS m
)
SELECT n.id, n.created_at, n.bytes >= :max_bytes AS is_long
  FROM candidates AS n
 WHERE n.bytes_before < :max_bytes
 ORDER BY n.position
