-- What the server is and how it keeps what it promised: its version, the database's encoding,
-- whether it is a replica, and the settings that a durable commit depends on. backend_pid is the
-- process that answers, which a pooler in between would choose anew.
--
-- Locks: none. Index: none.
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() AS is_replica,
       current_setting('fsync')::bool AS fsync,
       current_setting('full_page_writes')::bool AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       pg_backend_pid() AS backend_pid
