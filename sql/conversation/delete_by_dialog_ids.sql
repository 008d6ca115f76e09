-- Deletes conversations of these dialogs, :batch at most, with their messages and append keys.
-- It returns how many it found and how many of them it deleted (another session may have been
-- faster); the caller goes on until it finds fewer than a batch, so that no lock is held long.
--
-- Locks: the rows of the batch, in the order of their ids; a row that left these dialogs while
-- the lock was waited for stays. Index: conversation_created_idx finds them, the primary key gets
-- each: LIMIT 1, and the tenant that comes with the locked row, make sure of it, whatever the
-- server's statistics say.
WITH found AS MATERIALIZED (
    SELECT c.id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.dialog_id = ANY (:dialog_ids::text[])
     LIMIT :batch
), locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.dialog_id
      FROM (SELECT f.id FROM found AS f ORDER BY f.id) AS f
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.dialog_id
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
       AND l.dialog_id = ANY (:dialog_ids::text[])
    RETURNING c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.round, c.tokens,
              c.duration, c.thumb_up, c.thumb_down
), booked AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, pv, tokens, duration, rounds,
           thumb_up, thumb_down)
    SELECT d.tenant_id, d.dialog_id, d.source, d.user_id, d.created_at, -1, -d.tokens, -d.duration,
           -d.round, -d.thumb_up, -d.thumb_down
      FROM deleted AS d
)
SELECT (SELECT count(*) FROM found) AS found, (SELECT count(*) FROM deleted) AS deleted
