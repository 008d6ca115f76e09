-- Return whether a pooler passes the names of prepared statements to the server.
--
-- Returns: passes_names. A pooler that keeps prepared statements gives them names of its own. False without a
--   pooler, where the driver knows the process id of the session.
-- Locks: none.
-- Index: none.
-- Notes: the statement itself is prepared as :name, in the same transaction.
SELECT pg_backend_pid() <> :reported_pid
       AND EXISTS (SELECT FROM pg_catalog.pg_prepared_statements AS p WHERE p.name = :name) AS passes_names
