-- Create a record, or replace or merge the data of the existing one.
--
-- Returns: the columns of the record. No row if the record belongs to another user than :user_id, or its
--   merged data would have more than :max_json_bytes.
-- Locks: the row, until the end of the transaction. Concurrent merges queue on it, and each merges into the
--   data of the one before.
-- Index: the primary key.
-- Notes: without :user_id a new record has no owner, and an existing one keeps its owner. updated_at never
--   decreases, even if this transaction began before the one that it waited for. merge: :data is a merge
--   patch. EXCLUDED.data lacks its nulls.
INSERT INTO asyncsvc.record AS r (tenant_id, kind, id, user_id, data, created_at, updated_at)
VALUES (:tenant_id, :kind, :id,
        :user_id,                                                 --? user_id
        '',                                                       --? !user_id
        asyncsvc.json_merge_v1(NULL,                              --? merge
        :data::text::jsonb
        )                                                         --? merge
        , statement_timestamp(), statement_timestamp())
    ON CONFLICT (tenant_id, kind, id) DO UPDATE
   SET updated_at = greatest(r.updated_at, EXCLUDED.updated_at),
       data = EXCLUDED.data                                       --? !merge
       data = asyncsvc.json_merge_v1(r.data, :data::text::jsonb)  --? merge
 WHERE true
   AND r.user_id = EXCLUDED.user_id                               --? user_id
   --? merge, max_json_bytes {
   AND octet_length(asyncsvc.json_merge_v1(r.data, :data::text::jsonb)::text) <= :max_json_bytes
   --? }
RETURNING r.tenant_id, r.kind, r.id, r.user_id, r.data::text AS data, r.created_at, r.updated_at
