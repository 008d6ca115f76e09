-- Deletes conversations of one user, :batch at most, with their messages and append keys. It
-- returns how many it found and how many of them it deleted (another session may have been
-- faster); the caller goes on until it finds fewer than a batch, so that no lock is held long.
--
-- Locks: the rows of the batch, in the order of their ids; a row that was given to another user
-- while the lock was waited for stays. Index: conversation_user_idx finds them, the primary key
-- gets each: LIMIT 1, and the tenant that comes with the locked row, make sure of it, whatever the
-- server's statistics say.
WITH found AS MATERIALIZED (
    SELECT c.id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.user_id = :user_id
     LIMIT :batch
), locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.user_id
      FROM (SELECT f.id FROM found AS f ORDER BY f.id) AS f
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.user_id
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id = f.id
             LIMIT 1
               FOR UPDATE
           ) AS c
), deleted AS (
    DELETE FROM asyncsvc.conversation AS c
     USING locked AS l
     WHERE c.tenant_id = l.tenant_id
       AND c.id = l.id
       AND l.user_id = :user_id
    RETURNING c.id
)
SELECT (SELECT count(*) FROM found) AS found, (SELECT count(*) FROM deleted) AS deleted
