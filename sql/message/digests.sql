-- For each of these conversations the SHA-256 of its messages up to a seq: of the SHA-256 of seq,
-- role and content, message by message. By it a load tells whether a conversation that is there
-- already begins with the messages that it was given, without reading them.
--
-- Locks: none. Index: the primary key, once a conversation.
SELECT given.id,
       (SELECT sha256(coalesce(string_agg(sha256(convert_to(
                   m.seq || ' ' || m.role || ' ' || m.content, 'UTF8')), '' ORDER BY m.seq), ''))
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = given.id
           AND m.seq <= given.last_seq) AS digest
  FROM unnest(:ids::text[], :last_seqs::int[]) AS given (id, last_seq)
