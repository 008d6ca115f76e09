-- Why an append changed nothing. No row: the conversation is not there. A row with body_hash: the
-- key is known, and the other columns are what its append answered. A row without: only the
-- conversation's present last_seq is, and `expected_seq` was another.
--
-- It runs after the append, as a statement of its own, since the append's snapshot is older than
-- what made it return nothing.
--
-- No key is empty, so that NULL, of an append that has none, finds none; compared as it is, it would
-- leave Citus a join that it cannot route.
--
-- Locks: none. Index: the primary keys.
SELECT c.last_seq AS present_seq, k.body_hash, k.first_seq, k.last_seq, k.round
  FROM asyncsvc.conversation AS c
  LEFT JOIN asyncsvc.append_key AS k
    ON k.tenant_id = c.tenant_id AND k.conversation_id = c.id
   AND k.key = coalesce(:key::text, '')
 WHERE c.tenant_id = :tenant_id
   AND c.id = :id
