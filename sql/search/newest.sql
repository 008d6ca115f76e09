-- The newest conversations in which a message holds the keywords, :limit of them behind the cursor,
-- each with the seq of its first message that does: what search/walk says, found through the index.
--
-- It asks the index for :weeks, up to that of the newest conversation behind the cursor; then for eight
-- times as many, and for 64 at a time, each time going on at the next conversation that there is; and
-- it ends with the page, since LIMIT takes the chunks as the recursion delivers them. So a word that
-- is everywhere is not collected from everywhere, and one that is nowhere costs few questions.
--
-- The index has what is_indexed; the rest is read. A row is one or the other in this snapshot, so
-- none is missed, and none found twice. (SELECT ...) around what is searched for keeps the plan from
-- depending on it. The collation of :tenant_id is none that an index has: a server which believes that
-- the tenant has few messages would otherwise read them by the primary key, when it has millions.
--
-- Read replica: as conversation/get_list.
--
-- Locks: none. Index: message_search_idx for what is indexed, message_unindexed_idx for the rest,
-- conversation_tenant_created_idx or conversation_created_idx for the weeks.
WITH RECURSIVE asked AS MATERIALIZED (
    SELECT lower(:keywords::text) AS keywords,
           asyncsvc.search_needed_v1(:keywords)
               || asyncsvc.search_dialog_v1(:tenant_id, :dialog_id)   --? dialog_id
               AS terms
), chunk AS (
    SELECT :weeks::int AS weeks, (
           SELECT asyncsvc.search_week_v1(c.created_at)
             FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND c.dialog_id = :dialog_id                            --? dialog_id
              AND c.created_at <= :after_at                           --? after_at, after_id
            ORDER BY c.created_at DESC
            LIMIT 1) AS week
     UNION ALL
    SELECT least(k.weeks * 8, 64), (
           SELECT asyncsvc.search_week_v1(c.created_at)
             FROM asyncsvc.conversation AS c
            WHERE c.tenant_id = :tenant_id
              AND c.dialog_id = :dialog_id                            --? dialog_id
              AND c.created_at < asyncsvc.search_week_begin_v1(k.week - k.weeks + 1)
            ORDER BY c.created_at DESC
            LIMIT 1)
      FROM chunk AS k
     WHERE k.week IS NOT NULL
)
SELECT h.id, h.at, h.seq
  FROM chunk AS k
 CROSS JOIN LATERAL (
        SELECT DISTINCT ON (h.at, h.id) h.id, h.at, h.seq
          FROM (
            SELECT m.conversation_id AS id, m.conversation_created_at AS at, m.seq
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id COLLATE "POSIX"
               AND m.is_indexed
               AND asyncsvc.search_terms_v1(m.tenant_id, m.dialog_id, m.conversation_created_at, m.content) COLLATE "C" @> (SELECT a.terms FROM asked AS a)
               AND asyncsvc.search_terms_v1(m.tenant_id, m.dialog_id, m.conversation_created_at, m.content) COLLATE "C" && asyncsvc.search_weeks_v1(:tenant_id, k.week, k.weeks)
               AND strpos(lower(m.content), (SELECT a.keywords FROM asked AS a)) > 0
               AND m.dialog_id = :dialog_id                           --? dialog_id
             UNION ALL
            SELECT m.conversation_id, m.conversation_created_at, m.seq
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id
               AND NOT m.is_indexed
               AND m.conversation_created_at >= asyncsvc.search_week_begin_v1(k.week - k.weeks + 1)
               AND m.conversation_created_at < asyncsvc.search_week_begin_v1(k.week + 1)
               AND strpos(lower(m.content), (SELECT a.keywords FROM asked AS a)) > 0
               AND m.dialog_id = :dialog_id                           --? dialog_id
          ) AS h
         WHERE true
           AND (h.at, h.id) < (:after_at, :after_id)                  --? after_at, after_id
           AND EXISTS (SELECT FROM asyncsvc.conversation AS c WHERE c.tenant_id = :tenant_id AND c.id = h.id AND c.user_id = :user_id) --? user_id
         ORDER BY h.at DESC, h.id DESC, h.seq
         LIMIT :limit
       ) AS h
 LIMIT :limit
