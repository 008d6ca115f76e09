-- Make Citus commit the open transaction in two phases.
--
-- Returns: no row.
-- Locks: none.
-- Index: none.
-- Notes: for Citus. A transaction that writes on the coordinator and on one node commits on the node first,
--   and a crash of the coordinator between both would leave one half. Citus prepares each transaction that
--   copies rows to shards, and an INSERT from a SELECT copies its rows, here none.
INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, at, detail)
SELECT :tenant_id, '', '', statement_timestamp(), '{}'
 WHERE false
