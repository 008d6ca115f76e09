-- Return the next messages of a conversation, up to the first one that reaches :max_bytes.
--
-- A long conversation is read in chunks, because PostgreSQL makes no text of 1 GB and the caller's memory
-- is limited.
--
-- Returns: messages after :after_seq and up to :last_seq, in the order of seq.
-- Locks: none.
-- Index: message_pkey. The scan stops after :limit rows, which are measured before some are returned.
SELECT b.seq, b.id, b.role, b.content, b.payload, b.reference, b.thumb, b.created_at
  FROM (
    SELECT m.seq, m.id, m.role, m.content, m.payload, m.reference, m.thumb, m.created_at,
           sum(m.bytes) OVER (ORDER BY m.seq ROWS UNBOUNDED PRECEDING) - m.bytes AS bytes_before
      FROM (
        SELECT m.seq, m.id, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
               m.thumb, m.created_at,
               octet_length(m.content) + octet_length(m.payload::text)
               + coalesce(octet_length(m.reference::text), 0) AS bytes
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = :id
           AND m.seq > :after_seq
           AND m.seq <= :last_seq
           AND m.created_at > :after_time       --? after_time
           AND m.created_at < :before_time      --? before_time
         ORDER BY m.seq
         LIMIT :limit
      ) AS m
  ) AS b
 WHERE b.bytes_before < :max_bytes
 ORDER BY b.seq
