-- Deletes conversations of one user, :batch at most, with their messages and append keys. It
-- returns how many it found and how many of them it deleted (another session may have been
-- faster); the caller goes on until it finds fewer than a batch, so that no lock is held long.
--
-- Locks: the rows of the batch, in the order of their ids; a row that was given to another user
-- while the lock was waited for stays. Index: conversation_user_idx, then the primary key.
WITH found AS MATERIALIZED (
    SELECT c.id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.user_id = :user_id
     LIMIT :batch
), doomed AS MATERIALIZED (
    SELECT c.id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.user_id = :user_id
       AND c.id IN (SELECT f.id FROM found AS f)
     ORDER BY c.id
       FOR UPDATE
), deleted AS (
    DELETE FROM asyncsvc.conversation AS c
     USING doomed AS d
     WHERE c.tenant_id = :tenant_id
       AND c.id = d.id
    RETURNING c.id
)
SELECT (SELECT count(*) FROM found) AS found, (SELECT count(*) FROM deleted) AS deleted
