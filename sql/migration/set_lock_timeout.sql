-- Limit the wait for each lock in the open transaction.
--
-- Returns: lock_timeout.
-- Locks: none.
-- Index: none.
SELECT set_config('lock_timeout', :milliseconds::integer::text, true) AS lock_timeout
