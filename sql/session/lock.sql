-- Lock a conversation, so that its messages can be read and changed by several statements.
--
-- Returns: the columns of the conversation, without dsl and messages. No row if it does not exist.
-- Locks: the conversation row, until the end of the transaction. Concurrent writers queue on it.
-- Index: the primary key.
-- Notes: the next statement of the transaction sees all messages that were appended before the lock.
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
       c.metadata::text AS metadata, NULL::text AS dsl, c.errors, c.round, c.tokens,
       (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq, c.created_at,
       c.updated_at, NULL::text AS messages
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = :tenant_id
   AND c.id = :id
   FOR NO KEY UPDATE
