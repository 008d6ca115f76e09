-- One page of a dialog's conversations, each with the total of all pages beside it: one round
-- trip and one snapshot, so that page and total belong together. A page without conversations
-- is one row that has the total and no id.
--
-- `filtered` is written once and planned twice: to count it, and to walk it. The walk collects
-- ids alone, mostly from the index, and the page's full rows are fetched by id afterwards: a
-- deep offset or a sort by counters then moves no bulk. LIMIT 1 there makes sure that each is
-- looked up by its key, whatever the server's statistics say. row_number() over no order numbers
-- the rows as the walk delivers them.
--
-- :count_limit is where counting stops: NULL counts all, 0 counts nothing. A dialog as a whole
-- (unfiltered) is not counted at all: its sums of creations tell, with what the ledger has beside
-- them, in this snapshot as in any. The cursor narrows the page and not the total. :keywords are
-- looked for in every message, as row-level security, behind which no index is of use for them, leaves
-- no other way; elsewhere search/matching finds them. :id_keywords are the same, not normalised, since
-- ids are kept as given.
--
-- By update time (recent) the walk goes over asyncsvc.conversation_recency, and gets each conversation by its key.
--
-- Read replica: a list is right of the moment at which it is read, and that may be a little ago.
--
-- Locks: none. Index: conversation_created_idx or conversation_recency_updated_idx walks a page by time from the
-- cursor on; with user_id conversation_user_idx may; other orders sort the dialog. The total of an
-- unfiltered dialog reads a row a month by the key of usage_bucket, and usage_ledger_tenant_idx.
WITH filtered AS NOT MATERIALIZED (
    SELECT c.name, c.round, c.tokens, c.duration, c.thumb_up, c.created_at
         , c.id, c.updated_at                                           --? !recent
         , r.id, r.updated_at                                           --? recent
      FROM asyncsvc.conversation AS c                                   --? !recent
      FROM asyncsvc.conversation_recency AS r CROSS JOIN LATERAL (SELECT c.tenant_id, c.dialog_id, c.id, c.user_id, c.exp_user_id, c.name, c.round, c.tokens, c.duration, c.thumb_up, c.created_at, c.updated_at FROM asyncsvc.conversation AS c WHERE c.tenant_id = :tenant_id AND c.id = r.id LIMIT 1) AS c --? recent
     WHERE c.tenant_id = :tenant_id
       AND c.dialog_id = :dialog_id
       AND r.tenant_id = :tenant_id AND r.dialog_id = :dialog_id        --? recent
       AND c.id = :id                                                   --? id
       AND c.user_id = :user_id                                         --? user_id
       AND c.exp_user_id = :exp_user_id                                 --? exp_user_id
       AND c.created_at >= :created_from                                --? created_from
       AND c.created_at < :created_before                               --? created_before
       AND c.updated_at >= :updated_from                                --? updated_from, !recent
       AND r.updated_at >= :updated_from                                --? updated_from, recent
       AND c.updated_at < :updated_before                               --? updated_before, !recent
       AND r.updated_at < :updated_before                               --? updated_before, recent
       AND (strpos(lower(c.id COLLATE "default"), (SELECT lower(:id_keywords::text))) > 0 OR strpos(lower(c.name), (SELECT lower(:keywords::text))) > 0 OR EXISTS (SELECT FROM asyncsvc.message AS m WHERE m.tenant_id = :tenant_id AND m.conversation_id = c.id AND strpos(lower(m.content), (SELECT lower(:keywords::text))) > 0)) --? keywords, id_keywords
), counted AS (
    SELECT least(n.total, :count_limit::bigint) AS total
      FROM (SELECT count(*) AS total FROM (SELECT FROM filtered AS f LIMIT :count_limit) AS f) AS n --? !unfiltered
      FROM (SELECT coalesce(sum(k.pv), 0)::bigint AS total              --? unfiltered
              FROM (                                                    --? unfiltered
                SELECT b.pv                                             --? unfiltered
                  FROM asyncsvc.usage_bucket AS b                       --? unfiltered
                 WHERE b.tenant_id = :tenant_id                         --? unfiltered
                   AND b.zone = 'UTC'                                   --? unfiltered
                   AND b.basis = 'creation'                               --? unfiltered
                   AND b.grain = 'month'                                --? unfiltered
                   AND b.dialog_key = '=' || :dialog_id                 --? unfiltered
                   AND b.source_key = '*'                               --? unfiltered
                 UNION ALL                                              --? unfiltered
                SELECT u.pv                                             --? unfiltered
                  FROM asyncsvc.usage_ledger AS u                       --? unfiltered
                 WHERE u.tenant_id = :tenant_id                         --? unfiltered
                   AND u.dialog_id = :dialog_id                         --? unfiltered
              ) AS k) AS n                                              --? unfiltered
), page AS (
    SELECT p.id, row_number() OVER () AS position
      FROM (
        SELECT f.id
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
SELECT t.total, c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
       c.version_title, c.metadata::text AS metadata,
       CASE WHEN :include_dsl::bool THEN c.dsl::text END AS dsl, c.errors, c.round,
       c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at,
       CASE WHEN :include_messages::bool THEN (
           SELECT coalesce(json_agg(json_build_object(
                      'seq', m.seq, 'role', m.role, 'content', m.content,
                      'payload', m.payload::text, 'reference', m.reference::text,
                      'thumb', m.thumb, 'created_at', m.created_at) ORDER BY m.seq), '[]')
             FROM asyncsvc.message AS m
            WHERE m.tenant_id = :tenant_id AND m.conversation_id = c.id)::text
       END AS messages
  FROM counted AS t
  LEFT JOIN page AS p ON true
  LEFT JOIN LATERAL (
        SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
               c.version_title, c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration,
               c.thumb_up, c.thumb_down, c.last_seq, c.created_at, c.updated_at
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.id = p.id
         LIMIT 1
       ) AS c ON true
 ORDER BY p.position
