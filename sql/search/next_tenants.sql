-- Return the next tenants, in the order of ids, with messages or titles outside the search index.
--
-- Returns: tenant_id. One row, NULL if no such tenant follows :after_tenant_id; with :many at most
--   1,000 rows.
-- Locks: none.
-- Index: message_unindexed_idx and conversation_title_unindexed_idx, one entry of each; with :many all
--   entries after :after_tenant_id.
-- Notes: it reads all tenants. Citus sends it to all shards, so there :many reads the tenants together.
--? !many {
SELECT least((
       SELECT m.tenant_id
         FROM asyncsvc.message AS m
        WHERE NOT m.is_indexed
          AND m.tenant_id > :after_tenant_id    --? after_tenant_id
        ORDER BY m.tenant_id
        LIMIT 1), (
       SELECT t.tenant_id
         FROM asyncsvc.conversation_title AS t
        WHERE NOT t.is_indexed
          AND t.tenant_id > :after_tenant_id    --? after_tenant_id
        ORDER BY t.tenant_id
        LIMIT 1)) AS tenant_id
--? }
--? many {
SELECT u.tenant_id
  FROM (
    SELECT m.tenant_id
      FROM asyncsvc.message AS m
     WHERE NOT m.is_indexed
       AND m.tenant_id > :after_tenant_id    --? after_tenant_id
     UNION
    SELECT t.tenant_id
      FROM asyncsvc.conversation_title AS t
     WHERE NOT t.is_indexed
       AND t.tenant_id > :after_tenant_id    --? after_tenant_id
  ) AS u
 ORDER BY u.tenant_id
 LIMIT 1000
--? }
