-- Delete conversations with their messages and append keys, and withdraw their usage.
--
-- The candidates are :ids, or the tenant's conversations of :dialog_ids: at most :batch_size, up to the
-- first one that reaches :max_messages.
--
-- Returns: matched (the candidates before the limit by :max_messages), deleted, messages and append_keys
--   of the deleted conversations (0 without count_messages and count_append_keys).
-- Locks: the conversation rows, in the order of their ids, so that two bulk deletions cannot deadlock.
--   With :before it waits for no lock and skips rows that another session has locked.
-- Index: conversation_pkey for each lock; conversation_created_idx for :dialog_ids. LIMIT 1: see
--   docs/project/sql-files.md, Lookups by key.
-- Notes: the conditions are checked again under the lock, so a conversation is not deleted if it moved to
--   another dialog or user, or was updated after :before, while the statement waited for the lock. The
--   counts do not include messages that were appended during that wait, since the snapshot does not
--   contain them. For exact counts run conversation/lock first, in the same transaction.
WITH candidates AS (
    --? ids {
    SELECT r.id COLLATE "C" AS id, NULL::int AS last_seq
      FROM unnest(:ids::text[]) AS r (id)
    --? }
    --? !ids {
    SELECT c.id, c.last_seq
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.dialog_id = ANY (:dialog_ids::text[])                      --? dialog_ids
     LIMIT :batch_size                                                  --? batch_size
    --? }
), locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.created_at, c.updated_at
           --? count_messages {
         , (SELECT count(*)
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id
               AND m.conversation_id = c.id) AS messages
           --? }
           --? count_append_keys {
         , (SELECT count(*)
              FROM asyncsvc.append_key AS k
             WHERE k.tenant_id = :tenant_id
               AND k.conversation_id = c.id) AS append_keys
           --? }
         , 0 AS messages                                                --? !count_messages
         , 0 AS append_keys                                             --? !count_append_keys
      FROM (
        SELECT n.id
          FROM candidates AS n                                          --? !max_messages
          --? max_messages {
          FROM (
            SELECT n.id, sum(n.last_seq) OVER (ORDER BY n.id) - n.last_seq AS messages_before
              FROM candidates AS n
          ) AS n
         WHERE n.messages_before < :max_messages
          --? }
         ORDER BY n.id
      ) AS n
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.created_at, c.updated_at
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id BETWEEN n.id AND n.id
             ORDER BY c.id
             LIMIT 1
               FOR UPDATE
               SKIP LOCKED                                              --? before
           ) AS c
), deleted AS (
    DELETE FROM asyncsvc.conversation AS c
     USING locked AS l
     WHERE c.tenant_id = l.tenant_id
       AND c.id = l.id
       AND l.dialog_id = ANY (:dialog_ids::text[])                      --? dialog_ids
       AND l.dialog_id = :dialog_id                                     --? dialog_id
       AND l.user_id = :user_id                                         --? user_id
       AND l.created_at < :before                                       --? before, by_created_at
       AND l.updated_at < :before                                       --? before, by_updated_at
    RETURNING c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.round, c.tokens,
              c.duration, c.thumb_up, c.thumb_down, l.messages, l.append_keys
), ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, conversations, tokens, duration, rounds,
           thumb_up, thumb_down)
    SELECT d.tenant_id, d.dialog_id, d.source, d.user_id, d.created_at, -1, -d.tokens, -d.duration,
           -d.round, -d.thumb_up, -d.thumb_down
      FROM deleted AS d
)
SELECT (SELECT count(*) FROM candidates) AS matched,
       count(*) AS deleted,
       coalesce(sum(d.messages), 0)::bigint AS messages,
       coalesce(sum(d.append_keys), 0)::bigint AS append_keys
  FROM deleted AS d
