-- Read one page of the records of a kind, or of those of one user, in the order of their ids.
--
-- Returns: the columns of at most :limit records after :after_id.
-- Locks: none.
-- Index: the primary key, or with :user_id record_user_idx, from the position.
-- Read replica: a list may be slightly stale.
-- Notes: of the two indexes only record_user_idx has the order with user_id, and row values begin and end
--   its scan. With user_id = :user_id both would have the order, and without statistics the plan may read
--   the records of all users; see docs/project/sql-files.md, Lookups by key.
SELECT r.tenant_id, r.kind, r.id, r.user_id, r.data::text AS data, r.created_at, r.updated_at
  FROM asyncsvc.record AS r
 WHERE r.tenant_id = :tenant_id
   AND r.kind = :kind
   --? !user_id {
   AND r.id > :after_id                                           --? after_id
 ORDER BY r.id
   --? }
   --? user_id {
   AND (r.user_id, r.kind) >= (:user_id, :kind)                   --? !after_id
   AND (r.user_id, r.kind, r.id) > (:user_id, :kind, :after_id)   --? after_id
   AND (r.user_id, r.kind) <= (:user_id, :kind)
 ORDER BY r.user_id, r.id
   --? }
 LIMIT :limit
