-- Limit the wait for each lock in the open transaction to 0.1 s, also on the nodes of Citus.
--
-- Returns: no row.
-- Locks: none.
-- Index: none.
-- Notes: Citus passes SET LOCAL to each node of the transaction if this setting of it says so. A server
--   without Citus ignores the setting.
DO $body$
BEGIN
    SET LOCAL citus.propagate_set_commands = 'local';
    SET LOCAL lock_timeout = '100ms';
END
$body$
