-- Return one page of a tenant's or a dialog's conversations and the total of all pages, from one
-- snapshot.
--
-- Returns: total, and the columns of a conversation. If the page is empty, one row with the total
--   and no id. With :anchor_id the page begins after this conversation; no row if it does not exist
--   or belongs to another user than :user_id.
-- Locks: none.
-- Index: conversation_created_idx or, with by_updated_at, conversation_recency_updated_idx, from the
--   cursor; without :dialog_id conversation_tenant_created_idx and
--   conversation_recency_tenant_idx. With :user_id perhaps conversation_user_idx. Other orders sort
--   the list. owned: conversation_user_idx, conversation_exp_user_idx or the primary key, all entries
--   of :user_id, :exp_user_id or :id, or conversation_metadata_idx, all entries of the rarest member of
--   :metadata. :metadata by another order: the same, or the index of the order if many have the members.
--   :thumb: the index of the order. The total by_usage: the primary key of usage_bucket, one row per month,
--   and usage_ledger_tenant_idx.
-- Read replica: a list may be slightly stale.
-- Notes: `filtered` is planned twice, to count and to read the page. The page reads ids first,
--   mostly from the index, and then the rows of these ids by key, so a deep offset or a sort by
--   counters reads no wide rows. unfiltered: the index of the order has all conditions. owned: the
--   conversations of an owner are sorted. They are usually few, and a scan in the order of updates
--   would read those of all owners. LIMIT 1: see docs/project/sql-files.md, Lookups by key.
--   row_number() numbers the ids in the order of the scan. short: the page is among the first 100
--   rows; see docs/project/sql-files.md, Plans.
--   Counting stops at :count_limit; NULL counts every match. The total by_usage is the sum of creations
--   in buckets and ledger. The cursor applies to the page only.
--   :keywords scans all messages, since the search index is not available under row-level security.
--   Without row-level security search/match_page runs instead. :id_keywords is the same text before
--   normalization to NFC, because ids are not normalized. conversation/get_by_ids returns messages.
WITH filtered AS NOT MATERIALIZED (
--? !by_updated_at {
    SELECT c.id, c.name, c.round, c.tokens, c.duration, c.thumb_up, c.created_at
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.dialog_id = :dialog_id                               --? dialog_id
       AND c.created_at >= :created_from                          --? created_from
       AND c.created_at < :created_before                         --? created_before
--? }
--? by_updated_at, owned {
    SELECT c.id, c.name, c.updated_at
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.dialog_id = :dialog_id                               --? dialog_id
       AND c.updated_at >= :updated_from                          --? updated_from
       AND c.updated_at < :updated_before                         --? updated_before
--? }
--? by_updated_at, !owned {
    SELECT r.id, r.updated_at
      FROM asyncsvc.conversation_recency AS r
--? !unfiltered {
     CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.id, c.user_id, c.exp_user_id, c.name, c.metadata, c.thumb_up, c.thumb_down
              FROM asyncsvc.conversation AS c
             WHERE c.tenant_id = :tenant_id
               AND c.id BETWEEN r.id AND r.id
             ORDER BY c.id
             LIMIT 1
           ) AS c
--? }
     WHERE r.tenant_id = :tenant_id
       AND r.dialog_id = :dialog_id                               --? dialog_id
       AND r.updated_at >= :updated_from                          --? updated_from
       AND r.updated_at < :updated_before                         --? updated_before
--? }
--? !unfiltered {
       AND c.id = :id                                             --? id
       AND c.user_id = :user_id                                   --? user_id
       AND c.exp_user_id = :exp_user_id                           --? exp_user_id
       AND CASE :thumb::int WHEN 1 THEN c.thumb_up ELSE c.thumb_down END > 0  --? thumb
--? metadata {
       AND c.metadata <> '{}'
       AND asyncsvc.tenant_metadata_v1(c.tenant_id, c.metadata)
           @> asyncsvc.tenant_metadata_v1(:tenant_id, :metadata::text::jsonb)
--? }
--? keywords, id_keywords {
       AND (
            strpos(asyncsvc.lower_v1(c.id COLLATE "default"),
                   (SELECT asyncsvc.lower_v1(:id_keywords::text))) > 0
            OR strpos(asyncsvc.lower_v1(c.name), (SELECT asyncsvc.lower_v1(:keywords::text))) > 0
            OR EXISTS (
                SELECT
                  FROM asyncsvc.message AS m
                 WHERE m.tenant_id = :tenant_id
                   AND m.conversation_id = c.id
                   AND strpos(asyncsvc.lower_v1(m.content), (SELECT asyncsvc.lower_v1(:keywords::text))) > 0
               )
           )
--? }
--? }
)
--? anchor_id {
, anchor AS MATERIALIZED (
    SELECT c.id, c.created_at, c.updated_at
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id BETWEEN :anchor_id AND :anchor_id
       AND (c.user_id = :user_id) IS TRUE                         --? user_id
     ORDER BY c.id
     LIMIT 1
)
--? }
--? count_limit {
, counted AS (
    SELECT least(t.total, :count_limit::bigint) AS total
      FROM (
--? !by_usage {
        SELECT count(*) AS total
          FROM (SELECT FROM filtered AS f LIMIT :count_limit) AS f
--? }
--? by_usage {
        SELECT coalesce(sum(s.conversations), 0)::bigint AS total
          FROM (
            SELECT b.conversations
              FROM asyncsvc.usage_bucket AS b
             WHERE b.tenant_id = :tenant_id
               AND b.zone = 'UTC'
               AND b.basis = 'creation'
               AND b.grain = 'month'
               AND b.dimension = 'dialog_id'                      --? dialog_id
               AND b.value = :dialog_id                           --? dialog_id
               AND b.dimension = 'all'                            --? !dialog_id
             UNION ALL
            SELECT u.conversations
              FROM asyncsvc.usage_ledger AS u
             WHERE u.tenant_id = :tenant_id
               AND u.dialog_id = :dialog_id                       --? dialog_id
          ) AS s
--? }
      ) AS t
)
--? }
, page AS (
    SELECT p.id, row_number() OVER () AS position
      FROM (
        SELECT f.id
          FROM (
            SELECT f.id
              FROM filtered AS f
             WHERE true
               AND (f.created_at, f.id) < (:after_at, :after_id)  --? after_at, after_id, by_created_at, !asc
               AND (f.created_at, f.id) > (:after_at, :after_id)  --? after_at, after_id, by_created_at, asc
               AND (f.updated_at, f.id) < (:after_at, :after_id)  --? after_at, after_id, by_updated_at, !asc
               AND (f.updated_at, f.id) > (:after_at, :after_id)  --? after_at, after_id, by_updated_at, asc
--? anchor_id, by_created_at {
               AND (f.created_at, f.id) < (SELECT a.created_at, a.id FROM anchor AS a)  --? !asc
               AND (f.created_at, f.id) > (SELECT a.created_at, a.id FROM anchor AS a)  --? asc
--? }
--? anchor_id, by_updated_at {
               AND (f.updated_at, f.id) < (SELECT a.updated_at, a.id FROM anchor AS a)  --? !asc
               AND (f.updated_at, f.id) > (SELECT a.updated_at, a.id FROM anchor AS a)  --? asc
--? }
             ORDER BY f.created_at DESC, f.id DESC                --? by_created_at, !asc
             ORDER BY f.created_at, f.id                          --? by_created_at, asc
             ORDER BY f.updated_at DESC, f.id DESC                --? by_updated_at, !asc
             ORDER BY f.updated_at, f.id                          --? by_updated_at, asc
             ORDER BY f.name DESC NULLS LAST, f.id DESC           --? by_name, !asc
             ORDER BY f.name NULLS LAST, f.id                     --? by_name, asc
             ORDER BY f.round DESC, f.id DESC                     --? by_round, !asc
             ORDER BY f.round, f.id                               --? by_round, asc
             ORDER BY f.tokens DESC, f.id DESC                    --? by_tokens, !asc
             ORDER BY f.tokens, f.id                              --? by_tokens, asc
             ORDER BY f.duration DESC, f.id DESC                  --? by_duration, !asc
             ORDER BY f.duration, f.id                            --? by_duration, asc
             ORDER BY f.thumb_up DESC, f.id DESC                  --? by_thumb_up, !asc
             ORDER BY f.thumb_up, f.id                            --? by_thumb_up, asc
             LIMIT 100                                            --? short
          ) AS f
         LIMIT :limit
        OFFSET :offset                                            --? offset
      ) AS p
)
SELECT t.total,                                                   --? count_limit
SELECT 0::bigint AS total,                                        --? !count_limit
       c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
       c.version_title, c.metadata::text AS metadata,
       CASE WHEN :include_dsl::bool THEN c.dsl::text END AS dsl, c.errors, c.round,
       c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at,
       NULL::text AS messages
  FROM counted AS t                                               --? count_limit
 CROSS JOIN anchor AS a                                           --? count_limit, anchor_id
  FROM anchor AS a                                                --? !count_limit, anchor_id
  LEFT JOIN page AS p ON true                                     --? count_limit
  LEFT JOIN page AS p ON true                                     --? !count_limit, anchor_id
  FROM page AS p                                                  --? !count_limit, !anchor_id
  LEFT JOIN LATERAL (
        SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
               c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration, c.thumb_up, c.thumb_down,
               c.last_seq, c.created_at, c.updated_at
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.id BETWEEN p.id AND p.id
         ORDER BY c.id
         LIMIT 1
       ) AS c ON true
 ORDER BY p.position
