-- Return the version of the server and the settings that durability and the search depend on.
--
-- Returns: version, version_number, encoding, is_replica, fsync, full_page_writes, synchronous_commit,
--   backend_pid, search_locale. A pooler reports another process id to the driver than backend_pid.
--   search_locale is NULL if the search has Unicode's rules of lower case or there is no schema.
-- Locks: none.
-- Index: none.
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() AS is_replica,
       current_setting('fsync')::bool AS fsync,
       current_setting('full_page_writes')::bool AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       pg_backend_pid() AS backend_pid,
       (SELECT l.collctype
          FROM pg_catalog.pg_collation AS l
          JOIN pg_catalog.pg_namespace AS n ON n.oid = l.collnamespace
         WHERE n.nspname = 'asyncsvc'
           AND l.collname = 'search'
           AND l.collprovider = 'c') AS search_locale
