-- Return the server's time at the start of this statement, from which ages are subtracted.
--
-- Returns: now.
-- Locks: none.
-- Index: none.
SELECT statement_timestamp() AS now
