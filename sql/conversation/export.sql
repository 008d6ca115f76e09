-- The next conversations of a tenant, a dialog or a user, whole: with their dsl and all messages,
-- behind the one named by :after_id (and :after_at, its creation). A page holds :limit
-- conversations at most; it ends sooner where these have more than :most_messages messages or
-- :most_bytes bytes, as they lie on disk, though it always has the first. So whoever walks pages
-- holds one of them, and a conversation is as it was at one moment.
--
-- It looks at last_seq first, which is there and no less than the number of messages, so that the
-- sizes of few messages are asked for; sizes are known without reading what was moved out of line.
--
-- Locks: none. Index: the primary key for a tenant, conversation_created_idx for a dialog,
-- conversation_user_idx for a user; each conversation and its messages by their primary keys.
WITH following AS (
    SELECT f.id, f.bytes, row_number() OVER () AS position,
           sum(f.last_seq) OVER (ROWS UNBOUNDED PRECEDING) - f.last_seq AS messages_before
      FROM (
        SELECT c.id, c.last_seq,
               coalesce(pg_column_size(c.dsl), 0) + coalesce(octet_length(c.errors), 0) AS bytes
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.dialog_id = :dialog_id                                 --? dialog_id
           AND c.user_id = :user_id                                     --? user_id
           AND c.id > :after_id                                         --? after_id, by_id
           AND (c.created_at, c.id) > (:after_at, :after_id)            --? after_id, after_at, by_created
         ORDER BY c.id                                                  --? by_id
         ORDER BY c.created_at, c.id                                    --? by_created
         LIMIT :limit
      ) AS f
), few AS MATERIALIZED (
    SELECT f.id, f.position, f.bytes + (
           SELECT coalesce(sum(octet_length(m.content) + pg_column_size(m.payload)
                               + coalesce(pg_column_size(m.reference), 0)), 0)
             FROM asyncsvc.message AS m
            WHERE m.tenant_id = :tenant_id
              AND m.conversation_id = f.id) AS bytes
      FROM following AS f
     WHERE f.messages_before < :most_messages
), page AS MATERIALIZED (
    SELECT f.id, f.position,
           sum(f.bytes) OVER (ORDER BY f.position) - f.bytes AS bytes_before
      FROM few AS f
)
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
       c.version_title, c.metadata::text AS metadata, c.dsl::text AS dsl, c.errors, c.round,
       c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at, (
           SELECT coalesce(json_agg(json_build_object(
                      'seq', m.seq, 'role', m.role, 'content', m.content,
                      'payload', m.payload::text, 'reference', m.reference::text,
                      'thumb', m.thumb, 'created_at', m.created_at) ORDER BY m.seq), '[]')
             FROM asyncsvc.message AS m
            WHERE m.tenant_id = :tenant_id AND m.conversation_id = c.id)::text AS messages
  FROM page AS p
 CROSS JOIN LATERAL (
        SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
               c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration,
               c.thumb_up, c.thumb_down, c.last_seq, c.created_at, c.updated_at
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.id = p.id
         LIMIT 1
       ) AS c
 WHERE p.bytes_before < :most_bytes
 ORDER BY p.position
