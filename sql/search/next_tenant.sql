-- The next tenant, in the order of their ids, that has messages or titles outside of the search
-- index, behind the one that is named; NULL when there is none.
--
-- Locks: none. Index: message_unindexed_idx and conversation_title_unindexed_idx, one entry of each.
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
