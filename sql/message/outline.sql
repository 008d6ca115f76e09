-- Return the identifying values of each message of a conversation, page by page.
--
-- A later import of the conversation compares it with the messages of its record.
--
-- Returns: seq, id, source_id (the id in the payload), role, digest (the SHA-256 of the content) and
--   is_imported, in the order of seq, after :after_seq.
-- Locks: none.
-- Index: message_pkey.
SELECT m.seq, m.id, m.payload ->> 'id' AS source_id, m.role, sha256(convert_to(m.content, 'UTF8')) AS digest,
       m.is_imported
  FROM asyncsvc.message AS m
 WHERE m.tenant_id = :tenant_id
   AND m.conversation_id = :id
   AND m.seq > :after_seq
 ORDER BY m.seq
 LIMIT :limit
