-- Delete a record, or a batch of the records of a tenant or of a user.
--
-- Returns: deleted, at most :batch_size.
-- Locks: the deleted rows, of a batch in the order of the index, so that two deletions cannot deadlock.
-- Index: the primary key; for a batch record_user_idx. Then one of both for each row.
-- Notes: BETWEEN and the order, see docs/project/sql-files.md, Lookups by key. All columns of both keys come
--   from the locked row, so the lookup of each row is one index condition in either index.
WITH locked AS MATERIALIZED (
    SELECT r.tenant_id, r.user_id, r.kind, r.id
      FROM asyncsvc.record AS r
     WHERE r.tenant_id = :tenant_id
       AND r.user_id BETWEEN :user_id AND :user_id                --? user_id
       --? kind, id {
       AND r.kind = :kind
       AND r.id BETWEEN :id AND :id
     ORDER BY r.id
       --? }
       --? !id {
     ORDER BY r.user_id, r.kind, r.id
       --? }
     LIMIT :batch_size
       FOR UPDATE
), deleted AS (
    DELETE FROM asyncsvc.record AS r
     USING locked AS l
     WHERE r.tenant_id = l.tenant_id
       AND r.user_id = l.user_id
       AND r.kind = l.kind
       AND r.id = l.id
    RETURNING r.id
)
SELECT count(*) AS deleted
  FROM deleted AS d
