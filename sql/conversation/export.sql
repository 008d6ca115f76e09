-- Return the next conversations of a tenant, a dialog or a user with dsl and all messages.
--
-- A page has at most :batch_size conversations. It ends with the first one that reaches :max_messages
-- messages or :max_bytes bytes. The next page starts after :after_id (and :after_at).
--
-- Returns: conversations with their messages as JSON, by id for a tenant, by creation and id otherwise.
-- Locks: none.
-- Index: conversation_pkey for a tenant, conversation_created_idx for a dialog, conversation_user_idx for
--   a user; message_pkey once per conversation.
-- Notes: last_seq is at least the number of messages, so few sizes of messages are read. JSON is measured
--   as text, since its compressed size can be a hundredth; a payload of up to 64 bytes counts as 64.
--   Each conversation is consistent with its messages, because the page has one snapshot.
--   The JSON of the messages ends with the first message that reaches :max_message_bytes, because
--   PostgreSQL makes no text of 1 GB; the repository reads the others.
WITH matched AS (
    SELECT c.id, c.last_seq,
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
    SELECT m.id, m.bytes, row_number() OVER () AS position,
           sum(m.last_seq) OVER (ROWS UNBOUNDED PRECEDING) - m.last_seq AS messages_before
      FROM matched AS m
), measured AS MATERIALIZED (
    SELECT n.id, n.position, n.bytes + (
           SELECT coalesce(sum(octet_length(m.content) + coalesce(octet_length(m.reference::text), 0)
                               + CASE WHEN pg_column_size(m.payload) < 64 THEN 64
                                      ELSE octet_length(m.payload::text) END), 0)
             FROM asyncsvc.message AS m
            WHERE m.tenant_id = :tenant_id
              AND m.conversation_id = n.id) AS bytes
      FROM counted AS n
     WHERE n.messages_before < :max_messages
), candidates AS MATERIALIZED (
    SELECT m.id, m.position, sum(m.bytes) OVER (ORDER BY m.position) - m.bytes AS bytes_before
      FROM measured AS m
)
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
       c.version_title, c.metadata::text AS metadata, c.dsl::text AS dsl, c.errors, c.round,
       c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at,
       (SELECT coalesce(json_agg(m ORDER BY m.seq), '[]')
          FROM (
            SELECT b.seq, b.role, b.content, b.payload, b.reference, b.thumb, b.created_at
              FROM (
                SELECT m.seq, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
                       m.thumb, m.created_at,
                       sum(octet_length(m.content) + octet_length(m.payload::text)
                           + coalesce(octet_length(m.reference::text), 0))
                           OVER (ORDER BY m.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                           AS bytes_before
                  FROM asyncsvc.message AS m
                 WHERE m.tenant_id = :tenant_id
                   AND m.conversation_id = c.id
              ) AS b
             WHERE coalesce(b.bytes_before, 0) < :max_message_bytes
          ) AS m)::text AS messages
  FROM candidates AS n
 CROSS JOIN LATERAL (
        SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
               c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration,
               c.thumb_up, c.thumb_down, c.last_seq, c.created_at, c.updated_at
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.id BETWEEN n.id AND n.id
         ORDER BY c.id
         LIMIT 1
       ) AS c
 WHERE n.bytes_before < :max_bytes
 ORDER BY n.position
