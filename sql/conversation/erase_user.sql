-- Deletes conversations of one person, some :limit of them, with their messages and append keys (by the
-- foreign keys): those that name the person as user_id, and those that do as exp_user_id. It
-- returns how many it found, and how many conversations, messages and append keys went; the caller
-- goes on until it finds none, so that no lock is held long.
--
-- A batch ends sooner where its conversations have more than :most_messages messages, though it
-- always has the first.
--
-- Locks: the rows of the batch, in the order of their ids; a row that was given to somebody else
-- while the lock was waited for stays. Index: conversation_user_idx and conversation_exp_user_idx
-- find them, the primary key gets each: LIMIT 1, and the tenant that comes with the locked row,
-- make sure of it, whatever the server's statistics say.
WITH named AS (
    (SELECT c.id, c.last_seq
       FROM asyncsvc.conversation AS c
      WHERE c.tenant_id = :tenant_id
        AND c.user_id = :user_id
      LIMIT :limit)
     UNION
    (SELECT c.id, c.last_seq
       FROM asyncsvc.conversation AS c
      WHERE c.tenant_id = :tenant_id
        AND c.exp_user_id = :user_id
      LIMIT :limit)
), found AS MATERIALIZED (
    SELECT n.id
      FROM (
        SELECT n.id, sum(n.last_seq) OVER (ORDER BY n.id) - n.last_seq AS messages_before
          FROM named AS n
      ) AS n
     WHERE n.messages_before < :most_messages
     ORDER BY n.id
), locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.user_id, c.exp_user_id
      FROM found AS f
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.user_id, c.exp_user_id
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id = f.id
             LIMIT 1
               FOR UPDATE
           ) AS c
), doomed AS MATERIALIZED (
    SELECT l.tenant_id, l.id, (
           SELECT count(*)
             FROM asyncsvc.message AS m
            WHERE m.tenant_id = :tenant_id
              AND m.conversation_id = l.id) AS messages, (
           SELECT count(*)
             FROM asyncsvc.append_key AS k
            WHERE k.tenant_id = :tenant_id
              AND k.conversation_id = l.id) AS append_keys
      FROM locked AS l
     WHERE :user_id IN (l.user_id, l.exp_user_id)
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
SELECT (SELECT count(*) FROM found) AS found,
       (SELECT count(*) FROM deleted) AS conversations,
       (SELECT coalesce(sum(d.messages), 0)::bigint FROM doomed AS d) AS messages,
       (SELECT coalesce(sum(d.append_keys), 0)::bigint FROM doomed AS d) AS append_keys,
       statement_timestamp() AS at
