-- One page of the conversations of a tenant, or of a dialog, that hold the keywords, in any order,
-- each with the total of all pages beside it; a page without conversations is one row that has the
-- total and no id. They hold them in a message, or in their id or name, which is asked where
-- :id_keywords is given: this is the same, not normalised, since ids are kept as given.
--
-- All that match are found through the index, chunk by chunk of weeks as in search/newest, whose
-- header says why it is asked in this way. A page has to be sorted, so it takes all of them; counting
-- stops at :count_limit, and with it the search where :limit is 0. NULL counts all, 0 counts nothing.
-- LIMIT 1 makes sure that each conversation is looked up by its key, whatever the statistics say.
--
-- Read replica: as conversation/get_list.
--
-- Locks: none. Index: message_search_idx and conversation_title_search_idx for what is indexed,
-- message_unindexed_idx and conversation_title_unindexed_idx for the rest, conversation_tenant_created_idx or
-- conversation_created_idx for the weeks, and the primary key for each that matches.
WITH RECURSIVE asked AS MATERIALIZED (
    SELECT lower(:keywords::text) AS keywords,
           lower(:id_keywords::text) AS id_keywords,                    --? id_keywords
           ARRAY[asyncsvc.search_dialog_v1(:tenant_id, :dialog_id)] ||  --? id_keywords, dialog_id
           ARRAY(SELECT unnest(asyncsvc.search_needed_v1(:keywords)) INTERSECT SELECT unnest(asyncsvc.search_needed_v1(:id_keywords))) AS title_terms, --? id_keywords
           asyncsvc.search_needed_v1(:keywords)
               || asyncsvc.search_dialog_v1(:tenant_id, :dialog_id)     --? dialog_id
               AS terms
), chunk AS (
    SELECT 8 AS weeks, (
           SELECT asyncsvc.search_week_v1(c.created_at)
             FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND c.dialog_id = :dialog_id                              --? dialog_id
            ORDER BY c.created_at DESC
            LIMIT 1) AS week
     UNION ALL
    SELECT 64, (
           SELECT asyncsvc.search_week_v1(c.created_at)
             FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND c.dialog_id = :dialog_id                              --? dialog_id
              AND c.created_at < asyncsvc.search_week_begin_v1(k.week - k.weeks + 1)
            ORDER BY c.created_at DESC
            LIMIT 1)
      FROM chunk AS k
     WHERE k.week IS NOT NULL
), matching AS MATERIALIZED (
    SELECT h.id
      FROM chunk AS k
     CROSS JOIN LATERAL (
            SELECT m.conversation_id AS id
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id COLLATE "POSIX"
               AND m.is_indexed
               AND asyncsvc.search_terms_v1(m.tenant_id, m.dialog_id, m.conversation_created_at, m.content) COLLATE "C" @> (SELECT a.terms FROM asked AS a)
               AND asyncsvc.search_terms_v1(m.tenant_id, m.dialog_id, m.conversation_created_at, m.content) COLLATE "C" && asyncsvc.search_weeks_v1(:tenant_id, k.week, k.weeks)
               AND strpos(lower(m.content), (SELECT a.keywords FROM asked AS a)) > 0
               AND m.dialog_id = :dialog_id                             --? dialog_id
             UNION
            SELECT m.conversation_id
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id
               AND NOT m.is_indexed
               AND m.conversation_created_at >= asyncsvc.search_week_begin_v1(k.week - k.weeks + 1)
               AND m.conversation_created_at < asyncsvc.search_week_begin_v1(k.week + 1)
               AND strpos(lower(m.content), (SELECT a.keywords FROM asked AS a)) > 0
               AND m.dialog_id = :dialog_id                             --? dialog_id
             UNION SELECT t.conversation_id                             --? id_keywords
              FROM asyncsvc.conversation_title AS t                                  --? id_keywords
             WHERE t.tenant_id = :tenant_id COLLATE "POSIX"             --? id_keywords
               AND t.is_indexed                                         --? id_keywords
               AND asyncsvc.search_terms_v1(t.tenant_id, t.dialog_id, t.conversation_created_at, t.conversation_id || E'\x01' || coalesce(t.name, '')) COLLATE "C" @> (SELECT a.title_terms FROM asked AS a) --? id_keywords
               AND asyncsvc.search_terms_v1(t.tenant_id, t.dialog_id, t.conversation_created_at, t.conversation_id || E'\x01' || coalesce(t.name, '')) COLLATE "C" && asyncsvc.search_weeks_v1(:tenant_id, k.week, k.weeks) --? id_keywords
               AND (strpos(lower(t.conversation_id COLLATE "default"), (SELECT a.id_keywords FROM asked AS a)) > 0 OR strpos(lower(t.name), (SELECT a.keywords FROM asked AS a)) > 0) --? id_keywords
               AND t.dialog_id = :dialog_id                             --? id_keywords, dialog_id
             UNION SELECT t.conversation_id                             --? id_keywords
              FROM asyncsvc.conversation_title AS t                                  --? id_keywords
             WHERE t.tenant_id = :tenant_id                             --? id_keywords
               AND NOT t.is_indexed                                     --? id_keywords
               AND t.conversation_created_at >= asyncsvc.search_week_begin_v1(k.week - k.weeks + 1) --? id_keywords
               AND t.conversation_created_at < asyncsvc.search_week_begin_v1(k.week + 1) --? id_keywords
               AND (strpos(lower(t.conversation_id COLLATE "default"), (SELECT a.id_keywords FROM asked AS a)) > 0 OR strpos(lower(t.name), (SELECT a.keywords FROM asked AS a)) > 0) --? id_keywords
               AND t.dialog_id = :dialog_id                             --? id_keywords, dialog_id
           ) AS h
), filtered AS NOT MATERIALIZED (
    SELECT c.id, c.name, c.round, c.tokens, c.duration, c.thumb_up, c.created_at, c.updated_at
      FROM matching AS k
     CROSS JOIN LATERAL (
            SELECT c.id, c.name, c.round, c.tokens, c.duration, c.thumb_up, c.created_at, c.updated_at
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id = k.id
               AND c.id = :id                                           --? id
               AND c.user_id = :user_id                                 --? user_id
               AND c.exp_user_id = :exp_user_id                         --? exp_user_id
               AND c.created_at >= :created_from                        --? created_from
               AND c.created_at < :created_before                       --? created_before
               AND c.updated_at >= :updated_from                        --? updated_from
               AND c.updated_at < :updated_before                       --? updated_before
             LIMIT 1
           ) AS c
), counted AS (
    SELECT count(*) AS total
      FROM (SELECT FROM filtered AS f LIMIT :count_limit) AS f
), page AS (
    SELECT p.id, p.at, row_number() OVER () AS position
      FROM (
        SELECT f.id, CASE WHEN :by_updated_at::bool THEN f.updated_at ELSE f.created_at END AS at
          FROM filtered AS f
         WHERE true
           AND (f.created_at, f.id) < (:after_at, :after_id)            --? after_at, after_id, by_created_at_desc
           AND (f.created_at, f.id) > (:after_at, :after_id)            --? after_at, after_id, by_created_at_asc
           AND (f.updated_at, f.id) < (:after_at, :after_id)            --? after_at, after_id, by_updated_at_desc
           AND (f.updated_at, f.id) > (:after_at, :after_id)            --? after_at, after_id, by_updated_at_asc
         ORDER BY f.created_at DESC, f.id DESC                          --? by_created_at_desc
         ORDER BY f.created_at, f.id                                    --? by_created_at_asc
         ORDER BY f.updated_at DESC, f.id DESC                          --? by_updated_at_desc
         ORDER BY f.updated_at, f.id                                    --? by_updated_at_asc
         ORDER BY f.name DESC NULLS LAST, f.id DESC                     --? by_name_desc
         ORDER BY f.name NULLS LAST, f.id                               --? by_name_asc
         ORDER BY f.round DESC, f.id DESC                               --? by_round_desc
         ORDER BY f.round, f.id                                         --? by_round_asc
         ORDER BY f.tokens DESC, f.id DESC                              --? by_tokens_desc
         ORDER BY f.tokens, f.id                                        --? by_tokens_asc
         ORDER BY f.duration DESC, f.id DESC                            --? by_duration_desc
         ORDER BY f.duration, f.id                                      --? by_duration_asc
         ORDER BY f.thumb_up DESC, f.id DESC                            --? by_thumb_up_desc
         ORDER BY f.thumb_up, f.id                                      --? by_thumb_up_asc
         LIMIT :limit OFFSET :offset
      ) AS p
)
SELECT t.total, p.id, p.at
  FROM counted AS t
  LEFT JOIN page AS p ON true
 ORDER BY p.position
