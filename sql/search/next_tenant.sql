-- Return the next tenant, in the order of ids, with messages or titles outside the search index.
--
-- Returns: one row with tenant_id, NULL if no such tenant follows :after_tenant_id.
-- Locks: none.
-- Index: message_unindexed_idx and conversation_title_unindexed_idx, one entry of each.
-- Notes: it reads all tenants.
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
