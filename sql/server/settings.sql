-- Return the version of the server and the settings that a durable commit depends on.
--
-- Returns: version, version_number, encoding, is_replica, fsync, full_page_writes, synchronous_commit,
--   backend_pid. A pooler reports another process id to the driver than backend_pid.
-- Locks: none.
-- Index: none.
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() AS is_replica,
       current_setting('fsync')::bool AS fsync,
       current_setting('full_page_writes')::bool AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       pg_backend_pid() AS backend_pid
