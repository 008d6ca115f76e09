-- Deletes those of these conversations that are still older than an instant and that nobody else
-- holds, with their messages and append keys (by the foreign keys). It returns how many
-- conversations and messages went.
--
-- Locks: the rows that it deletes. It waits for none: a row that another session holds is left
-- alone, for whoever holds it is about to make it young, or to delete it. Index: the primary key,
-- once an id: LIMIT 1, and the tenant that comes with the locked row, make sure of it, whatever the
-- server's statistics say.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, (
           SELECT count(*)
             FROM asyncsvc.message AS m
            WHERE m.tenant_id = :tenant_id
              AND m.conversation_id = c.id) AS messages
      FROM unnest(:ids::text[]) AS old (id)
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id = old.id
               AND CASE WHEN :by_updated_at::bool THEN c.updated_at ELSE c.created_at END < :before
             LIMIT 1
               FOR UPDATE SKIP LOCKED
           ) AS c
), deleted AS (
    DELETE FROM asyncsvc.conversation AS c
     USING locked AS l
     WHERE c.tenant_id = l.tenant_id
       AND c.id = l.id
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
SELECT (SELECT count(*) FROM deleted) AS conversations,
       (SELECT coalesce(sum(l.messages), 0)::bigint FROM locked AS l) AS messages
