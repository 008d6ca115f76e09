-- Make MySQL reject writes for the rest of the session.
--
-- Returns: nothing.
-- Locks: none.
-- Index: none.
-- Notes: Runs on the source. On PostgreSQL each transaction is opened as read-only instead.
SET SESSION TRANSACTION READ ONLY
