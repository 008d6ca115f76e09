-- The tables with tenants, by name, on which row-level security does not hold for the present role:
-- it is off there, or the role owns the table or bypasses it.
--
-- Locks: none. Index: none.
SELECT c.relname::text AS name
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
 WHERE n.nspname = 'asyncsvc'
   AND c.relkind IN ('r', 'p')
   AND NOT row_security_active(c.oid)
 ORDER BY c.relname
