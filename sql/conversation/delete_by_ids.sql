-- Deletes the tenant's conversations of these ids, with their messages and append keys (by the
-- foreign keys), and returns how many there were.
--
-- Locks: the rows, in the order of their ids, so that two bulk deletes cannot wait for each other
-- in a circle. Index: the primary key; the tenant comes with the locked row, so that no server
-- without statistics looks rows up by the tenant alone.
WITH doomed AS MATERIALIZED (
    SELECT c.tenant_id, c.id
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = ANY (:ids::text[])
     ORDER BY c.id
       FOR UPDATE
), deleted AS (
    DELETE FROM asyncsvc.conversation AS c
     USING doomed AS d
     WHERE c.tenant_id = d.tenant_id
       AND c.id = d.id
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
SELECT count(*) AS deleted
  FROM deleted
