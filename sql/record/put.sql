-- Create a record, or replace the data of the existing one.
--
-- Returns: the columns of the record. No row if the record belongs to another user than :user_id.
-- Locks: the row, until the end of the transaction.
-- Index: the primary key.
-- Notes: without :user_id a new record has no owner, and an existing one keeps its owner. updated_at never
--   decreases, even if this transaction began before the one that it waited for.
INSERT INTO asyncsvc.record AS r (tenant_id, kind, id, user_id, data, created_at, updated_at)
VALUES (:tenant_id, :kind, :id,
        :user_id,                                                 --? user_id
        '',                                                       --? !user_id
        :data::text::jsonb, statement_timestamp(), statement_timestamp())
    ON CONFLICT (tenant_id, kind, id) DO UPDATE
   SET data = EXCLUDED.data,
       updated_at = greatest(r.updated_at, EXCLUDED.updated_at)
 WHERE r.user_id = EXCLUDED.user_id                               --? user_id
RETURNING r.tenant_id, r.kind, r.id, r.user_id, r.data::text AS data, r.created_at, r.updated_at
