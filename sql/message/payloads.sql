-- Read the payloads of all messages of a conversation, or of the last :newest ones.
--
-- Returns: payload, in the order of seq. One row of NULL if there is no such message; no row if the
--   conversation does not exist.
-- Locks: none.
-- Index: primary keys. With :newest the scan stops after :newest rows.
SELECT m.payload::text AS payload
  FROM asyncsvc.conversation AS c
  LEFT JOIN LATERAL (
        SELECT m.seq, m.payload
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = :tenant_id
           AND m.conversation_id = :id
--? newest {
         ORDER BY m.seq DESC
         LIMIT :newest
--? }
       ) AS m ON true
 WHERE c.tenant_id = :tenant_id
   AND c.id = :id
   AND (c.user_id = :user_id) IS TRUE           --? user_id
 ORDER BY m.seq
