-- Read the conversation and the idempotency key of an append that changed no row.
--
-- Returns: current_seq (last_seq), current_round, current_tokens and current_duration of the
--   conversation; if :idempotency_key is known, its body_hash and the first_seq, last_seq and round that
--   its append returned, otherwise NULLs; is_of_user, whether it belongs to :user_id; metadata_bytes and
--   dsl_bytes, the sizes of the merged columns, or NULLs; has_ids, whether one of :message_ids exists. No
--   row if the conversation does not exist.
-- Locks: none.
-- Index: primary keys; message_id_idx with :message_ids, see docs/project/sql-files.md, Lookups by key.
-- Notes: it is a separate statement after the append, because the snapshot of the append can be older
--   than the commit for which it waited.
--   Keys are not empty, so coalesce matches no row for an append without a key. Citus cannot route a
--   join on k.key = NULL.
SELECT c.last_seq AS current_seq, c.round AS current_round, c.tokens AS current_tokens,
       c.duration AS current_duration, k.body_hash, k.first_seq, k.last_seq, k.round
     , true AS is_of_user                       --? !user_id
     , c.user_id = :user_id AS is_of_user       --? user_id
--? merge_metadata {
     , octet_length(asyncsvc.json_merge_v1(c.metadata, :merge_metadata::text::jsonb)::text)
           AS metadata_bytes
--? }
     , NULL::integer AS metadata_bytes          --? !merge_metadata
--? merge_dsl {
     , octet_length(asyncsvc.json_merge_v1(c.dsl, :merge_dsl::text::jsonb)::text) AS dsl_bytes
--? }
     , NULL::integer AS dsl_bytes               --? !merge_dsl
     , false AS has_ids                         --? !message_ids
--? message_ids {
     , EXISTS (
           SELECT
             FROM unnest(:message_ids::text[]) AS r (id)
            CROSS JOIN LATERAL (
                   SELECT m.seq
                     FROM asyncsvc.message AS m
                    WHERE m.tenant_id = :tenant_id
                      AND m.id IS NOT NULL
                      AND (m.id, m.conversation_id) BETWEEN (r.id, :id) AND (r.id, :id)
                    ORDER BY m.id, m.conversation_id
                    LIMIT 1
                  ) AS m) AS has_ids
--? }
  FROM asyncsvc.conversation AS c
  LEFT JOIN asyncsvc.append_key AS k
    ON k.tenant_id = c.tenant_id AND k.conversation_id = c.id
   AND k.key = coalesce(:idempotency_key::text, '')
 WHERE c.tenant_id = :tenant_id
   AND c.id = :id
