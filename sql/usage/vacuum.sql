-- Remove the dead rows of the usage ledger, which statistics would otherwise read.
--
-- Returns: no row.
-- Locks: the table against other maintenance commands, for the duration. If another session holds
--   this lock, the statement does nothing.
-- Index: usage_ledger_tenant_idx, which is vacuumed too.
-- Timeout: none. The duration grows with the size of the table.
-- Notes: without the right to vacuum the table PostgreSQL warns and does nothing.
VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON) asyncsvc.usage_ledger
