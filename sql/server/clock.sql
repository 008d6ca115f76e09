-- Return the server's time at the start of this statement. Ages are counted back from it.
--
-- Returns: now.
-- Locks: none.
-- Index: none.
SELECT statement_timestamp() AS now
