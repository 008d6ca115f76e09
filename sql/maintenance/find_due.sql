-- Return which jobs of maintenance have rows to process.
--
-- Returns: append_keys, usage, search: whether there are keys older than :lifetime, rows in the usage
--   ledger or persons in sums older than :retention, messages or titles outside the search index.
-- Locks: none.
-- Index: append_key_created_idx, usage_key_created_idx, usage_ledger_tenant_idx,
--   usage_zone_users_since_idx, message_unindexed_idx and conversation_title_unindexed_idx, one entry of
--   each.
-- Notes: it reads all tenants. EXISTS without an order could read a whole table, if the statistics say
--   that many of its rows match.
SELECT coalesce(least((
       SELECT k.created_at
         FROM asyncsvc.append_key AS k
        ORDER BY k.created_at
        LIMIT 1), (
       SELECT k.created_at
         FROM asyncsvc.usage_key AS k
        ORDER BY k.created_at
        LIMIT 1)) <= statement_timestamp() - :lifetime::interval, false) AS append_keys,
       (
       SELECT u.tenant_id
         FROM asyncsvc.usage_ledger AS u
        ORDER BY u.tenant_id
        LIMIT 1) IS NOT NULL
       OR coalesce((
       SELECT z.users_since
         FROM asyncsvc.usage_zone AS z
        WHERE z.zone = 'UTC'
        ORDER BY z.users_since
        LIMIT 1) < date_trunc('month', (statement_timestamp() - :retention::interval) AT TIME ZONE 'UTC'),
           false) AS usage,
       coalesce((
       SELECT m.tenant_id
         FROM asyncsvc.message AS m
        WHERE NOT m.is_indexed
        ORDER BY m.tenant_id
        LIMIT 1), (
       SELECT t.tenant_id
         FROM asyncsvc.conversation_title AS t
        WHERE NOT t.is_indexed
        ORDER BY t.tenant_id
        LIMIT 1)) IS NOT NULL AS search
