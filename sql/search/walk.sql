-- The conversations that hold the keywords, among the next ones in the order of a page, :limit at most:
-- when each was created or updated, and the seq of its first message that does, or 0 where its id or
-- its name does, which is asked where :id_keywords is given. It looks at :most_conversations, with
-- :most_messages messages in all (last_seq is no less than their number), and no further.
--
-- Beside each, and alone where there is none: whether it saw the end of the list, and how many
-- conversations it looked at, with the time and the id of the last, behind which a next walk begins.
-- LIMIT takes them as the walk delivers them, so that it ends with the page.
--
-- By update time (recent) it goes over asyncsvc.conversation_recency, and gets each conversation by its key.
--
-- Read replica: as conversation/get_list.
--
-- Locks: none. Index: conversation_tenant_created_idx for a tenant, conversation_created_idx or
-- conversation_recency_updated_idx for a dialog, conversation_user_idx for a user; messages by primary key.
WITH next AS MATERIALIZED (
    SELECT c.id, c.name, c.at, row_number() OVER () AS position,
           sum(c.last_seq) OVER (ROWS UNBOUNDED PRECEDING) AS messages
      FROM (
        SELECT c.id, c.name, c.last_seq, c.at
          FROM (
            SELECT c.name, c.last_seq
                 , c.id, c.created_at AS at                           --? !recent
                 , r.id, r.updated_at AS at                           --? recent
              FROM asyncsvc.conversation AS c                         --? !recent
              FROM asyncsvc.conversation_recency AS r CROSS JOIN LATERAL (SELECT c.tenant_id, c.dialog_id, c.id, c.user_id, c.exp_user_id, c.name, c.last_seq, c.created_at, c.updated_at FROM asyncsvc.conversation AS c WHERE c.tenant_id = :tenant_id AND c.id = r.id LIMIT 1) AS c --? recent
             WHERE c.tenant_id = :tenant_id
               AND r.tenant_id = :tenant_id                           --? recent
               AND c.dialog_id = :dialog_id                           --? dialog_id, !recent
               AND r.dialog_id = :dialog_id                           --? dialog_id, recent
               AND c.id = :id                                         --? id
               AND c.user_id = :user_id                               --? user_id
               AND c.exp_user_id = :exp_user_id                       --? exp_user_id
               AND c.created_at >= :created_from                      --? created_from
               AND c.created_at < :created_before                     --? created_before
               AND c.updated_at >= :updated_from                      --? updated_from, !recent
               AND r.updated_at >= :updated_from                      --? updated_from, recent
               AND c.updated_at < :updated_before                     --? updated_before, !recent
               AND r.updated_at < :updated_before                     --? updated_before, recent
          ) AS c
         WHERE true
           AND (c.at, c.id) < (:after_at, :after_id)                  --? after_at, after_id, newest_first
           AND (c.at, c.id) > (:after_at, :after_id)                  --? after_at, after_id, oldest_first
         ORDER BY c.at DESC, c.id DESC                                --? newest_first
         ORDER BY c.at, c.id                                          --? oldest_first
         LIMIT :most_conversations
      ) AS c
), walked AS MATERIALIZED (
    SELECT n.id, n.name, n.at, n.position
      FROM next AS n
     WHERE n.messages <= :most_messages
), hit AS (
    SELECT w.id, w.at, w.position, f.seq
      FROM walked AS w
     CROSS JOIN LATERAL (
            SELECT f.seq
              FROM (
                SELECT 0                                              --? id_keywords
                 WHERE strpos(lower(w.id COLLATE "default"), (SELECT lower(:id_keywords::text))) > 0 OR strpos(lower(w.name), (SELECT lower(:keywords::text))) > 0 --? id_keywords
                 UNION ALL                                            --? id_keywords
               (SELECT m.seq
                  FROM asyncsvc.message AS m
                 WHERE m.tenant_id = :tenant_id
                   AND m.conversation_id = w.id
                   AND strpos(lower(m.content), (SELECT lower(:keywords::text))) > 0
                 ORDER BY m.seq
                 LIMIT 1)
              ) AS f (seq)
             LIMIT 1
           ) AS f
     LIMIT :limit
)
SELECT (SELECT count(*) FROM next) < :most_conversations
           AND (SELECT count(*) FROM next) = (SELECT count(*) FROM walked) AS is_end,
       (SELECT count(*) FROM walked) AS walked, l.at AS walked_at, l.id AS walked_id,
       h.id, h.at, h.seq
  FROM (VALUES (true)) AS one
  LEFT JOIN (
        SELECT w.at, w.id FROM walked AS w ORDER BY w.position DESC LIMIT 1
       ) AS l ON true
  LEFT JOIN hit AS h ON true
 ORDER BY h.position
