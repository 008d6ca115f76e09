-- Takes what was folded off the ledger's file and its index, where a reader would step over it one by
-- one. It needs the right to, and does nothing but warn without it.
--
-- Timeout: none. the file may have grown large.
--
-- Locks: the table against other maintenance, for as long as it takes; where another session has that
-- lock it does nothing. Index: usage_ledger_tenant_idx.
VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON) asyncsvc.usage_ledger
