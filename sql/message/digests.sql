-- Compute a digest of the first messages of each conversation.
--
-- An import compares it with the digest of its record instead of reading the stored messages.
--
-- Returns: id and digest, one row for each of :ids: the SHA-256 of the concatenated SHA-256 of
--   "<seq> <role> <content>" of each message up to its :last_seqs. Without messages: the SHA-256 of no
--   bytes.
-- Locks: none.
-- Index: message_pkey, once per conversation.
SELECT r.id,
       (SELECT sha256(coalesce(string_agg(
                   sha256(convert_to(m.seq || ' ' || m.role || ' ' || m.content, 'UTF8')), ''
                   ORDER BY m.seq), ''))
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = r.id
           AND m.seq <= r.last_seq) AS digest
  FROM unnest(:ids::text[], :last_seqs::int[]) AS r (id, last_seq)
