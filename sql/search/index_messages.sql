-- Add the next batch of a tenant's messages to the search index.
--
-- Returns: indexed, the number of messages added; at, id and seq, the position of the last message of
--   the batch (creation and id of its conversation, and its own seq), NULL if no message is left.
-- Locks: the messages of the batch; it skips messages that others have locked. An append locks no
--   message.
-- Index: message_unindexed_idx from :after_at, :after_id, :after_seq; then the primary key, once per
--   message. LIMIT 1: see docs/project/sql-files.md, Lookups by key.
-- Idempotent: a second run skips the messages that the first one added.
-- Notes: a batch has at most :limit messages and ends with the message that reaches :max_bytes of
--   content, so it has at least one. The session that has locked a skipped message changes or deletes
--   it; if the message stays outside the index, the next maintenance run adds it.
WITH pending AS MATERIALIZED (
    SELECT p.at, p.id, p.seq, sum(p.bytes) OVER (ORDER BY p.at, p.id, p.seq) - p.bytes AS bytes_before
      FROM (
        SELECT m.conversation_created_at AS at, m.conversation_id AS id, m.seq,
               octet_length(m.content) AS bytes
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND NOT m.is_indexed
           --? after_at, after_id, after_seq {
           AND (m.conversation_created_at, m.conversation_id, m.seq)
               > (:after_at, :after_id, :after_seq)
           --? }
         ORDER BY m.conversation_created_at, m.conversation_id, m.seq
         LIMIT :limit
      ) AS p
), candidates AS MATERIALIZED (
    SELECT p.at, p.id, p.seq
      FROM pending AS p
     WHERE p.bytes_before < :max_bytes
), locked AS MATERIALIZED (
    SELECT m.tenant_id, m.conversation_id, m.seq
      FROM candidates AS c
     CROSS JOIN LATERAL (
            SELECT m.tenant_id, m.conversation_id, m.seq
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id
               AND m.conversation_id = c.id
               AND m.seq = c.seq
               AND NOT m.is_indexed
             LIMIT 1
               FOR NO KEY UPDATE SKIP LOCKED
           ) AS m
), updated AS (
    UPDATE asyncsvc.message AS m
       SET is_indexed = true
      FROM locked AS l
     WHERE m.tenant_id = l.tenant_id
       AND m.conversation_id = l.conversation_id
       AND m.seq = l.seq
    RETURNING m.seq
)
SELECT n.indexed, l.at, l.id, l.seq
  FROM (SELECT count(*) AS indexed FROM updated) AS n
  LEFT JOIN (
        SELECT c.at, c.id, c.seq FROM candidates AS c ORDER BY c.at DESC, c.id DESC, c.seq DESC LIMIT 1
       ) AS l ON true
