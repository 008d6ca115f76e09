-- Return the newest conversations with a message that contains the keywords, by the search index.
--
-- Returns: id, at (the creation), seq (the first message that contains :keywords). At most :limit
--   rows after the cursor, newest first.
-- Locks: none.
-- Index: message_search_idx for indexed messages, message_unindexed_idx for the others.
--   conversation_tenant_created_idx or conversation_created_idx for the weeks.
-- Read replica: a search may be slightly stale.
-- Notes: the index is read in chunks of weeks, newest first: first :weeks, then 8 times as many, then
--   64 at a time. The first chunk ends with the week of the newest conversation after the cursor;
--   each further chunk with the week of the next conversation. LIMIT consumes the chunks while the
--   recursion produces them, and ends it when the page is full. A frequent keyword needs few weeks, a
--   rare keyword needs few chunks.
--   In one snapshot a message is either indexed or not, so each match is returned once.
--   (SELECT ...) around the keywords keeps the plan independent of their value. No index has the
--   collation of :tenant_id. Otherwise a server that underestimates the tenant's messages would read
--   all of them by primary key.
--   LIMIT 1 for the user: see docs/project/sql-files.md, Lookups by key.
WITH RECURSIVE requested AS MATERIALIZED (
    SELECT asyncsvc.lower_v1(:keywords::text) AS keywords,
           asyncsvc.search_needed_v1(:keywords)
               || asyncsvc.search_dialog_v1(:tenant_id, :dialog_id)   --? dialog_id
               AS terms
), chunks AS (
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
      FROM chunks AS k
     WHERE k.week IS NOT NULL
)
SELECT h.id, h.at, h.seq
  FROM chunks AS k
 CROSS JOIN LATERAL (
        SELECT DISTINCT ON (h.at, h.id) h.id, h.at, h.seq
          FROM (
            SELECT m.conversation_id AS id, m.conversation_created_at AS at, m.seq
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
               AND m.dialog_id = :dialog_id                           --? dialog_id
             UNION ALL
            SELECT m.conversation_id, m.conversation_created_at, m.seq
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = :tenant_id
               AND NOT m.is_indexed
               AND m.conversation_created_at >= asyncsvc.search_week_begin_v1(k.week - k.weeks + 1)
               AND m.conversation_created_at < asyncsvc.search_week_begin_v1(k.week + 1)
               AND strpos(asyncsvc.lower_v1(m.content), (SELECT q.keywords FROM requested AS q)) > 0
               AND m.dialog_id = :dialog_id                           --? dialog_id
          ) AS h
         WHERE true
           AND (h.at, h.id) < (:after_at, :after_id)                  --? after_at, after_id
--? user_id {
           AND :user_id = (
                SELECT c.user_id
                  FROM asyncsvc.conversation AS c
                 WHERE c.tenant_id = :tenant_id
                   AND c.id BETWEEN h.id AND h.id
                 ORDER BY c.id
                 LIMIT 1
               )
--? }
         ORDER BY h.at DESC, h.id DESC, h.seq
         LIMIT :limit
       ) AS h
 LIMIT :limit
