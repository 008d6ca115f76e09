-- Return whether the current role can run maintenance on this server.
--
-- Returns: is_migrated, whether the table of claims exists; is_writable, false on a read replica;
--   is_owner, whether the role has the rights of the owner of all tables and no policy restricts it.
-- Locks: none.
-- Index: the catalog.
SELECT coalesce(bool_or(c.relname = 'maintenance'), false) AS is_migrated,
       NOT current_setting('transaction_read_only')::boolean AS is_writable,
       coalesce(bool_and(pg_has_role(c.relowner, 'USAGE') AND NOT row_security_active(c.oid)), false)
           AS is_owner
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname = 'asyncsvc'
   AND c.relkind IN ('r', 'p')
