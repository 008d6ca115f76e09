-- List the tables on which row-level security does not restrict the current role.
--
-- Returns: name, in order: tables with a tenant_id whose policy is off or whose owner is the role; all
--   tables with a tenant_id if the role bypasses row-level security.
-- Locks: none.
-- Index: the catalog.
SELECT c.relname::text AS name
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
 WHERE n.nspname = 'asyncsvc'
   AND c.relkind IN ('r', 'p')
   AND NOT row_security_active(c.oid)
 ORDER BY c.relname
