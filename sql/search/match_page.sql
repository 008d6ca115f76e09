-- Return one page of the conversations that contain the keywords, in any order, and the total of all
-- pages, from one snapshot.
--
-- Returns: total, id, at (updated_at if ordered by it, otherwise created_at). If the page is empty,
--   one row with the total and no id.
-- Locks: none.
-- Index: message_search_idx and conversation_title_search_idx for indexed rows,
--   message_unindexed_idx and conversation_title_unindexed_idx for the others.
--   conversation_tenant_created_idx or conversation_created_idx for the weeks. The primary key for
--   each match.
-- Read replica: a search may be slightly stale.
-- Notes: a conversation matches if a message contains :keywords or, with :id_keywords, if its id or
--   name contains it. :id_keywords is the same text before normalization to NFC, because ids are not
--   normalized.
--   The search index is read in chunks of weeks, with the conditions that search/newest_matches
--   explains. A page must be sorted, so it reads all matches. Counting stops at :count_limit, and if
--   :limit is 0 the search stops too. NULL counts every match, 0 counts none.
--   LIMIT 1, with the filters outside of it: see docs/project/sql-files.md, Lookups by key.
WITH RECURSIVE requested AS MATERIALIZED (
    SELECT asyncsvc.lower_v1(:keywords::text) AS keywords,
--? id_keywords {
           asyncsvc.lower_v1(:id_keywords::text) AS id_keywords,
           ARRAY[asyncsvc.search_dialog_v1(:tenant_id, :dialog_id)] ||  --? dialog_id
           ARRAY(
               SELECT unnest(asyncsvc.search_needed_v1(:keywords))
            INTERSECT
               SELECT unnest(asyncsvc.search_needed_v1(:id_keywords))
           ) AS title_terms,
--? }
           asyncsvc.search_needed_v1(:keywords)
               || asyncsvc.search_dialog_v1(:tenant_id, :dialog_id)  --? dialog_id
               AS terms
), chunks AS (
    SELECT 8 AS weeks, (
           SELECT asyncsvc.search_week_v1(c.created_at)
             FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND c.dialog_id = :dialog_id                        --? dialog_id
            ORDER BY c.created_at DESC
            LIMIT 1) AS week
     UNION ALL
    SELECT 64, (
           SELECT asyncsvc.search_week_v1(c.created_at)
             FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND c.dialog_id = :dialog_id                        --? dialog_id
              AND c.created_at < asyncsvc.search_week_begin_v1(k.week - k.weeks + 1)
            ORDER BY c.created_at DESC
            LIMIT 1)
      FROM chunks AS k
     WHERE k.week IS NOT NULL
), matches AS MATERIALIZED (
    SELECT h.id
      FROM chunks AS k
     CROSS JOIN LATERAL (
            SELECT m.conversation_id AS id
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id COLLATE "POSIX"
               AND m.is_indexed
               AND asyncsvc.search_terms_v1(
                       m.tenant_id, m.dialog_id, m.conversation_created_at, m.content
                   ) COLLATE "C" @> (SELECT q.terms FROM requested AS q)
               AND asyncsvc.search_terms_v1(
                       m.tenant_id, m.dialog_id, m.conversation_created_at, m.content
                   ) COLLATE "C" && asyncsvc.search_weeks_v1(:tenant_id, k.week, k.weeks)
               AND strpos(asyncsvc.lower_v1(m.content), (SELECT q.keywords FROM requested AS q)) > 0
               AND m.dialog_id = :dialog_id                       --? dialog_id
             UNION
            SELECT m.conversation_id
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id
               AND NOT m.is_indexed
               AND m.conversation_created_at >= asyncsvc.search_week_begin_v1(k.week - k.weeks + 1)
               AND m.conversation_created_at < asyncsvc.search_week_begin_v1(k.week + 1)
               AND strpos(asyncsvc.lower_v1(m.content), (SELECT q.keywords FROM requested AS q)) > 0
               AND m.dialog_id = :dialog_id                       --? dialog_id
--? id_keywords {
             UNION
            SELECT t.conversation_id
              FROM asyncsvc.conversation_title AS t
             WHERE t.tenant_id = :tenant_id COLLATE "POSIX"
               AND t.is_indexed
               AND asyncsvc.search_terms_v1(
                       t.tenant_id, t.dialog_id, t.conversation_created_at,
                       t.conversation_id || E'\x01' || coalesce(t.name, '')
                   ) COLLATE "C" @> (SELECT q.title_terms FROM requested AS q)
               AND asyncsvc.search_terms_v1(
                       t.tenant_id, t.dialog_id, t.conversation_created_at,
                       t.conversation_id || E'\x01' || coalesce(t.name, '')
                   ) COLLATE "C" && asyncsvc.search_weeks_v1(:tenant_id, k.week, k.weeks)
               AND (
                    strpos(asyncsvc.lower_v1(t.conversation_id COLLATE "default"),
                           (SELECT q.id_keywords FROM requested AS q)) > 0
                    OR strpos(asyncsvc.lower_v1(t.name), (SELECT q.keywords FROM requested AS q)) > 0
                   )
               AND t.dialog_id = :dialog_id                       --? dialog_id
             UNION
            SELECT t.conversation_id
              FROM asyncsvc.conversation_title AS t
             WHERE t.tenant_id = :tenant_id
               AND NOT t.is_indexed
               AND t.conversation_created_at >= asyncsvc.search_week_begin_v1(k.week - k.weeks + 1)
               AND t.conversation_created_at < asyncsvc.search_week_begin_v1(k.week + 1)
               AND (
                    strpos(asyncsvc.lower_v1(t.conversation_id COLLATE "default"),
                           (SELECT q.id_keywords FROM requested AS q)) > 0
                    OR strpos(asyncsvc.lower_v1(t.name), (SELECT q.keywords FROM requested AS q)) > 0
                   )
               AND t.dialog_id = :dialog_id                       --? dialog_id
--? }
           ) AS h
), filtered AS NOT MATERIALIZED (
    SELECT c.id, c.name, c.round, c.tokens, c.duration, c.thumb_up, c.created_at, c.updated_at
      FROM matches AS h
     CROSS JOIN LATERAL (
            SELECT c.id, c.user_id, c.exp_user_id, c.name, c.round, c.tokens, c.duration, c.thumb_up,
                   c.thumb_down, c.metadata, c.created_at, c.updated_at
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id BETWEEN h.id AND h.id
             ORDER BY c.id
             LIMIT 1
           ) AS c
     WHERE true
       AND h.id = :id                                             --? id
       AND c.user_id = :user_id                                   --? user_id
       AND c.exp_user_id = :exp_user_id                           --? exp_user_id
       AND CASE :thumb::int WHEN 1 THEN c.thumb_up ELSE c.thumb_down END > 0  --? thumb
       AND c.metadata @> :metadata::text::jsonb                   --? metadata
       AND c.created_at >= :created_from                          --? created_from
       AND c.created_at < :created_before                         --? created_before
       AND c.updated_at >= :updated_from                          --? updated_from
       AND c.updated_at < :updated_before                         --? updated_before
), counted AS (
    SELECT count(*) AS total
      FROM (SELECT FROM filtered AS f LIMIT :count_limit) AS f
), page AS (
    SELECT p.id, p.at, row_number() OVER () AS position
      FROM (
        SELECT f.id
             , f.created_at AS at                                 --? !by_updated_at
             , f.updated_at AS at                                 --? by_updated_at
          FROM filtered AS f
         WHERE true
           AND (f.created_at, f.id) < (:after_at, :after_id)      --? after_at, after_id, by_created_at, !asc
           AND (f.created_at, f.id) > (:after_at, :after_id)      --? after_at, after_id, by_created_at, asc
           AND (f.updated_at, f.id) < (:after_at, :after_id)      --? after_at, after_id, by_updated_at, !asc
           AND (f.updated_at, f.id) > (:after_at, :after_id)      --? after_at, after_id, by_updated_at, asc
         ORDER BY f.created_at DESC, f.id DESC                    --? by_created_at, !asc
         ORDER BY f.created_at, f.id                              --? by_created_at, asc
         ORDER BY f.updated_at DESC, f.id DESC                    --? by_updated_at, !asc
         ORDER BY f.updated_at, f.id                              --? by_updated_at, asc
         ORDER BY f.name DESC NULLS LAST, f.id DESC               --? by_name, !asc
         ORDER BY f.name NULLS LAST, f.id                         --? by_name, asc
         ORDER BY f.round DESC, f.id DESC                         --? by_round, !asc
         ORDER BY f.round, f.id                                   --? by_round, asc
         ORDER BY f.tokens DESC, f.id DESC                        --? by_tokens, !asc
         ORDER BY f.tokens, f.id                                  --? by_tokens, asc
         ORDER BY f.duration DESC, f.id DESC                      --? by_duration, !asc
         ORDER BY f.duration, f.id                                --? by_duration, asc
         ORDER BY f.thumb_up DESC, f.id DESC                      --? by_thumb_up, !asc
         ORDER BY f.thumb_up, f.id                                --? by_thumb_up, asc
         LIMIT :limit OFFSET :offset
      ) AS p
)
SELECT t.total, p.id, p.at
  FROM counted AS t
  LEFT JOIN page AS p ON true
 ORDER BY p.position
