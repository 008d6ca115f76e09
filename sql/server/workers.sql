-- Ask each worker of a Citus cluster for its state.
--
-- Returns: node (host:port), is_active (false: disabled, so Citus does not ask it), is_reached; of a worker
--   that answered: extension and library, the versions of Citus, and lock_timeout in milliseconds, which a
--   session of this role has there; set_lock_timeout, the command that sets it to :lock_timeout for this
--   role. In the order of the nodes.
-- Locks: none.
-- Index: the catalog.
-- Notes: it can be prepared only if the database has the extension. The coordinator waits for a worker that
--   does not answer for citus.node_connection_timeout, 30 s by default.
SELECT n.nodename || ':' || n.nodeport AS node,
       n.isactive AS is_active,
       coalesce(w.success, false) AS is_reached,
       w.answer ->> 'extension' AS extension,
       w.answer ->> 'library' AS library,
       (w.answer ->> 'lock_timeout')::int AS lock_timeout,
       format('ALTER ROLE %I SET lock_timeout = %s', current_user, :lock_timeout::int) AS set_lock_timeout
  FROM pg_catalog.pg_dist_node AS n
  LEFT JOIN (
    SELECT r.nodename, r.nodeport, r.success, CASE WHEN r.success THEN r.result::jsonb END AS answer
      FROM run_command_on_workers($command$
               SELECT jsonb_build_object(
                          'extension', split_part(e.extversion, '-', 1),
                          'library', substring(citus_version() FROM '\d+\.\d+'),
                          'lock_timeout', s.setting)
                 FROM pg_catalog.pg_extension AS e, pg_catalog.pg_settings AS s
                WHERE e.extname = 'citus' AND s.name = 'lock_timeout'
           $command$) AS r
  ) AS w ON w.nodename = n.nodename AND w.nodeport = n.nodeport
 WHERE n.groupid <> 0
   AND n.noderole = 'primary'
 ORDER BY n.nodename, n.nodeport
