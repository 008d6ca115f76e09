-- Return whether notifications reach this session.
--
-- Returns: backend_pid, which differs from the one that the driver knows if a pooler shares the session;
--   is_distributed, whether Citus is installed, whose appends run on other nodes.
-- Locks: none.
-- Index: the catalog.
SELECT pg_backend_pid() AS backend_pid,
       EXISTS (SELECT FROM pg_catalog.pg_extension AS e WHERE e.extname = 'citus') AS is_distributed
