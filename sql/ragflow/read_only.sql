-- Make MySQL reject writes for the rest of the session.
--
-- Returns: no row.
-- Locks: none.
-- Index: none.
-- Notes: runs on the source. On PostgreSQL each transaction is opened as read-only instead.
SET SESSION TRANSACTION READ ONLY
