-- Read conversations of a tenant by id, without messages.
--
-- Returns: the columns of a conversation, in the order of :ids. An id that does not exist, or belongs to
--   another user than :user_id, has no row. A repeated id is returned again.
-- Locks: none.
-- Index: the primary keys.
-- Notes: LIMIT 1 of the lookup: see docs/project/sql-files.md, Lookups by key. one: see Plans there.
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source,
       c.version_title, c.metadata::text AS metadata,
       CASE WHEN :include_dsl::bool THEN c.dsl::text END AS dsl, c.errors, c.round,
       c.tokens, (c.duration / 1e6)::float8 AS duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at,
       NULL::text AS messages
  FROM (
        SELECT r.id, r.position
          FROM unnest(:ids::text[]) WITH ORDINALITY AS r (id, position)
         LIMIT 1                                                  --? one
       ) AS requested
 CROSS JOIN LATERAL (
        SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
               c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration, c.thumb_up, c.thumb_down,
               c.last_seq, c.created_at, c.updated_at
          FROM asyncsvc.conversation AS c
         WHERE c.tenant_id = :tenant_id
           AND c.id BETWEEN requested.id AND requested.id
           AND (c.user_id = :user_id) IS TRUE                     --? user_id
         ORDER BY c.id
         LIMIT 1
       ) AS c
 ORDER BY requested.position
