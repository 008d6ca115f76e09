-- Read records of a kind by id.
--
-- Returns: the columns of a record, in the order of :ids. An id that does not exist, or whose record
--   belongs to another user than :user_id, has no row. A repeated id is returned again.
-- Locks: none.
-- Index: the primary key.
-- Notes: LIMIT 1 of the lookup: see docs/project/sql-files.md, Lookups by key. one: see Plans there.
SELECT r.tenant_id, r.kind, r.id, r.user_id, r.data::text AS data, r.created_at, r.updated_at
  FROM (
        SELECT q.id, q.position
          FROM unnest(:ids::text[]) WITH ORDINALITY AS q (id, position)
         LIMIT 1                                                  --? one
       ) AS requested
 CROSS JOIN LATERAL (
        SELECT r.tenant_id, r.kind, r.id, r.user_id, r.data, r.created_at, r.updated_at
          FROM asyncsvc.record AS r
         WHERE r.tenant_id = :tenant_id
           AND r.kind = :kind
           AND r.id BETWEEN requested.id AND requested.id
         ORDER BY r.id
         LIMIT 1
       ) AS r
 WHERE r.user_id = :user_id                                       --? user_id
 ORDER BY requested.position
