-- Search the next conversations in page order for the keywords, without the search index.
--
-- Returns: one row for each match, at most :limit: id, at (the time of the order), seq (the first
--   message that contains :keywords; 0 if the id or the name contains it, which counts only with
--   :id_keywords). Each row also has the state of the scan: is_end (the list has no further
--   conversations), scanned (their number), last_at and last_id (the last scanned conversation, where
--   the next scan starts). Without a match, one row with the state of the scan and no id.
-- Locks: none.
-- Index: conversation_tenant_created_idx for a tenant; conversation_created_idx or
--   conversation_recency_updated_idx for a dialog; conversation_user_idx for a user. Messages by
--   primary key.
-- Read replica: a search may be slightly stale.
-- Notes: a scan reads at most :max_conversations conversations with :max_messages messages in total;
--   last_seq is an upper bound of a conversation's messages. It stops when the page is full, because
--   LIMIT consumes the matches in the order of the scan.
WITH candidates AS MATERIALIZED (
    SELECT f.id, f.name, f.at, row_number() OVER () AS position,
           sum(f.last_seq) OVER (ROWS UNBOUNDED PRECEDING) AS messages
      FROM (
        SELECT f.id, f.name, f.last_seq, f.at
          FROM (
--? !by_updated_at {
            SELECT c.id, c.name, c.last_seq, c.created_at AS at
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.dialog_id = :dialog_id                           --? dialog_id
               AND c.updated_at >= :updated_from                      --? updated_from
               AND c.updated_at < :updated_before                     --? updated_before
--? }
--? by_updated_at {
            SELECT r.id, c.name, c.last_seq, r.updated_at AS at
              FROM asyncsvc.conversation_recency AS r
             CROSS JOIN LATERAL (
                    SELECT c.id, c.user_id, c.exp_user_id, c.name, c.last_seq, c.created_at,
                           c.metadata, c.thumb_up, c.thumb_down
                      FROM asyncsvc.conversation AS c
                     WHERE c.tenant_id = :tenant_id
                       AND c.id BETWEEN r.id AND r.id
                     ORDER BY c.id
                     LIMIT 1
                   ) AS c
             WHERE r.tenant_id = :tenant_id
               AND r.dialog_id = :dialog_id                           --? dialog_id
               AND r.updated_at >= :updated_from                      --? updated_from
               AND r.updated_at < :updated_before                     --? updated_before
--? }
               AND c.id = :id                                         --? id
               AND c.user_id = :user_id                               --? user_id
               AND c.exp_user_id = :exp_user_id                       --? exp_user_id
               AND CASE :thumb::int WHEN 1 THEN c.thumb_up ELSE c.thumb_down END > 0  --? thumb
               AND c.metadata @> :metadata::text::jsonb           --? metadata
               AND c.created_at >= :created_from                      --? created_from
               AND c.created_at < :created_before                     --? created_before
          ) AS f
         WHERE true
           AND (f.at, f.id) < (:after_at, :after_id)                  --? after_at, after_id, descending
           AND (f.at, f.id) > (:after_at, :after_id)                  --? after_at, after_id, ascending
         ORDER BY f.at DESC, f.id DESC                                --? descending
         ORDER BY f.at, f.id                                          --? ascending
         LIMIT :max_conversations
      ) AS f
), scanned AS MATERIALIZED (
    SELECT k.id, k.name, k.at, k.position
      FROM candidates AS k
     WHERE k.messages <= :max_messages
), matches AS (
    SELECT s.id, s.at, s.position, h.seq
      FROM scanned AS s
     CROSS JOIN LATERAL (
            SELECT h.seq
              FROM (
--? id_keywords {
                SELECT 0
                 WHERE strpos(asyncsvc.lower_v1(s.id COLLATE "default"),
                              (SELECT asyncsvc.lower_v1(:id_keywords::text))) > 0
                    OR strpos(asyncsvc.lower_v1(s.name), (SELECT asyncsvc.lower_v1(:keywords::text))) > 0
                 UNION ALL
--? }
               (SELECT m.seq
                  FROM asyncsvc.message AS m
                 WHERE m.tenant_id = :tenant_id
                   AND m.conversation_id = s.id
                   AND strpos(asyncsvc.lower_v1(m.content), (SELECT asyncsvc.lower_v1(:keywords::text))) > 0
                 ORDER BY m.seq
                 LIMIT 1)
              ) AS h (seq)
             LIMIT 1
           ) AS h
     LIMIT :limit
)
SELECT (SELECT count(*) FROM candidates) < :max_conversations
           AND (SELECT count(*) FROM candidates) = (SELECT count(*) FROM scanned) AS is_end,
       (SELECT count(*) FROM scanned) AS scanned, l.at AS last_at, l.id AS last_id,
       h.id, h.at, h.seq
  FROM (VALUES (true)) AS one
  LEFT JOIN (
        SELECT s.at, s.id FROM scanned AS s ORDER BY s.position DESC LIMIT 1
       ) AS l ON true
  LEFT JOIN matches AS h ON true
 ORDER BY h.position
