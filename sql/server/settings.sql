-- Return the version of the server and the settings that the doctor checks.
--
-- Returns: version, version_number, encoding, is_replica, fsync, full_page_writes, synchronous_commit,
--   backend_pid, search_locale, autovacuum, vacuum_rate (cost units a second, 0 without a limit) and
--   vacuum_memory (bytes). A pooler reports another process id to the driver than backend_pid.
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
           AND l.collprovider = 'c') AS search_locale,
       current_setting('autovacuum')::bool AND current_setting('track_counts')::bool AS autovacuum,
       (SELECT coalesce(v.cost_limit * 1000 / nullif(v.delay_ms, 0), 0)
          FROM (
            SELECT coalesce(nullif(current_setting('autovacuum_vacuum_cost_limit')::int, -1),
                            current_setting('vacuum_cost_limit')::int) AS cost_limit,
                   extract(epoch FROM coalesce(
                       nullif(current_setting('autovacuum_vacuum_cost_delay'), '-1'),
                       current_setting('vacuum_cost_delay'))::interval) * 1000 AS delay_ms
          ) AS v)::bigint AS vacuum_rate,
       pg_size_bytes(coalesce(nullif(current_setting('autovacuum_work_mem'), '-1'),
                              current_setting('maintenance_work_mem'))) AS vacuum_memory
